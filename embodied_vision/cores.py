"""How the work of a process shares cores and memory."""

from __future__ import annotations

import torch

from embodied_vision.allocation import keep_large_blocks

MOST_KEPT_BYTES = 1 << 30
"""Freed memory that stays with a process that computes with networks."""


def use_cores(threads: int) -> None:
    """Torch takes `threads` threads an operation, from this thread on; freed memory is kept and used again.

    Networks allocate and free the same large arrays every step. Given back to the system each time, they return as
    pages that are yet to be mapped, thousands a decision: a tenth of the time and more, of decisions and of training.
    """
    torch.set_num_threads(threads)
    keep_large_blocks(MOST_KEPT_BYTES)

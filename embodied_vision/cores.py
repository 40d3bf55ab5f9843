"""How the work of a process shares cores and memory."""

from __future__ import annotations

import ctypes

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3) in glibc."""
LARGEST_KEPT_BYTES, MOST_KEPT_BYTES = 32 << 20, 1 << 30
"""Freed memory that stays with the process: blocks up to this size, so much in all."""


def use_cores(threads: int) -> None:
    """Torch takes `threads` threads an operation, from this thread on; freed memory is kept and used again.

    Networks allocate and free the same large arrays every step. Given back to the system each time, they return as
    pages that are yet to be mapped, thousands a decision: a tenth of the time and more, of decisions and of training.
    Where the C library is not glibc memory is left as it is.
    """
    torch.set_num_threads(threads)
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        adjust(_TRIM_THRESHOLD, MOST_KEPT_BYTES)

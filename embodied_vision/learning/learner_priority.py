"""Computing where nobody else wants to."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def give_way() -> None:
    """This process computes only on idle cores from now on, and is the first to be ended where memory runs out.

    Niceness alone still gets a share of a busy core, and holds it for milliseconds when somebody else wakes. Where a
    container forbids the class for idle work, the one for long computations is taken; elsewhere niceness has to do.
    """
    with suppress(OSError):
        os.nice(19)
    for policy in ("SCHED_IDLE", "SCHED_BATCH"):
        with suppress(OSError, AttributeError):
            os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))
            break
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")

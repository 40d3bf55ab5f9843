"""Libraries that take real-time priority for themselves do not get it: it would starve whoever moves the arm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_Priority = tuple[int, int]


@contextmanager
def same_priority() -> Iterator[None]:
    """After the block every thread has the scheduling policy that it had before; new ones have the caller's.

    SVT-AV1, run by root, gives SCHED_FIFO at 99 to the thread that opens it and to its own, and every process that is
    forked later inherits it. Linux only; elsewhere nothing is done.
    """
    if not os.path.isdir("/proc/self/task"):
        yield
        return
    own, before = _priority(0), _threads()
    try:
        yield
    finally:
        for thread, now in _threads().items():
            wanted = before.get(thread, own)
            if now != wanted:
                try:
                    os.sched_setscheduler(thread, wanted[0], os.sched_param(wanted[1]))
                except ProcessLookupError:
                    continue  # it has ended


def _threads() -> dict[int, _Priority]:
    found = {}
    for name in os.listdir("/proc/self/task"):
        try:
            found[int(name)] = _priority(int(name))
        except ProcessLookupError:
            continue
    return found


def _priority(thread: int) -> _Priority:
    return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority

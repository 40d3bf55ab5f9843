"""Libraries that take real-time priority for themselves do not get it: it would starve whoever moves the arm."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Priority = tuple[int, int]
_T = TypeVar("_T")


def at_same_priority(call: Callable[[], _T]) -> _T:
    """What `call` returns or raises; afterwards every thread has the scheduling policy that it had before.

    SVT-AV1, run by root, gives SCHED_FIFO at 99 to the thread that opens it and to its own, and whatever these start
    inherits it. So `call` runs on a thread that ends with it: the caller is never touched, neither in the kernel nor
    in what the C library remembers of it, which other libraries (Fast DDS) give to threads they start later. Threads
    that `call` leaves behind get the caller's policy. Linux only; elsewhere `call` is just called.
    """
    if not os.path.isdir("/proc/self/task"):
        return call()
    own, before = _priority(0), _threads()
    try:
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(call).result()
    finally:
        # A listing ends early when a thread in it ends meanwhile; two equal ones were whole.
        listed: set[int] = set()
        while True:
            now = _threads()
            for thread, priority in now.items():
                _set(thread, priority, before.get(thread, own))
            if listed == set(now):
                break
            listed = set(now)


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


def _set(thread: int, now: _Priority, wanted: _Priority) -> None:
    if now == wanted:
        return
    try:
        os.sched_setscheduler(thread, wanted[0], os.sched_param(wanted[1]))
    except ProcessLookupError:
        return  # it has ended

"""Garbage collection of a process that runs for months beside others that wait for it."""

from __future__ import annotations

import gc
import sys

from embodied_vision.allocation import RESERVE_BYTES, give_back_unused, touch_heap

YOUNG, MIDDLE, OLD = 700, 10, 2
"""Thresholds of the three generations: the oldest is looked through after YOUNG * MIDDLE * OLD new objects at most."""


_ARENA_BITS = 20
"""Python takes memory for small objects in pieces of so many bits, and gives back those in which none is left."""

_kept: list[object] = []


def settle() -> None:
    """Look for garbage now; leave what is there out of all later looks, and look through what comes later often.

    What a node has loaded by now are hundreds of thousands of objects that stay. Going through them takes tenths of a
    second in which no other thread runs, wherefore Python does so rarely: objects that refer to each other are left
    lying for the better part of an hour meanwhile. Without them a whole collection takes less than a millisecond. May
    be called again when much has been loaded anew.

    The heap is touched as well, and room for small objects, so that the work that follows finds its pages there instead
    of faulting them in one by one for an hour.
    """
    touch_heap()
    _touch_small()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.collect()  # counts what lasts anew: a quarter of it must have come before Python looks again
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def _touch_small() -> None:
    """Touch room for small objects, of which one a piece stays, so that Python keeps the pieces."""
    _kept.clear()
    objects = [object() for _ in range(RESERVE_BYTES // sys.getsizeof(object()))]
    _kept.extend({id(one) >> _ARENA_BITS: one for one in objects}.values())


TIDY_S = 30.0
"""How often a process that runs on and on calls `tidy`."""


def tidy(*, give_back: bool) -> None:
    """Look for garbage and drop what Python keeps of freed objects, for a process that runs on and on.

    Args:
        give_back: give freed memory back to the kernel as well, so that what is left is in use. For processes through
            which images go: else their memory creeps up for hours, ever slower, to the most that ever came together.
            It takes one or two milliseconds, and some more until pages are taken up again. Processes whose turn must
            come in time, and which hold little, keep the pages that they have once touched and touch all of their heap.
    """
    gc.collect()
    if give_back:
        give_back_unused()
    else:
        touch_heap()

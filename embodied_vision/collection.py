"""Garbage collection of a process that runs for months beside others that wait for it."""

from __future__ import annotations

import gc

from embodied_vision.allocation import RESERVE_BYTES, give_back_unused

YOUNG, MIDDLE, OLD = 700, 10, 2
"""Thresholds of the three generations: the oldest is looked through after YOUNG * MIDDLE * OLD new objects at most."""


_SMALL_OBJECTS = RESERVE_BYTES // 16
"""Python's smallest objects that fill the reserve."""
_BLOCK_BYTES = 1 << 16
"""Of what malloc takes from its heap by default too."""


def settle() -> None:
    """Look for garbage now; leave what is there out of all later looks, and look through what comes later often.

    What a node has loaded by now are hundreds of thousands of objects that stay. Going through them takes tenths of a
    second in which no other thread runs, wherefore Python does so rarely: objects that refer to each other are left
    lying for the better part of an hour meanwhile. Without them a whole collection takes less than a millisecond. May
    be called again when much has been loaded anew.

    A reserve of memory is touched as well, `RESERVE_BYTES` of the heap and as much for small objects, so that the work
    that follows finds its pages there instead of faulting them in one by one for an hour.
    """
    _touch_reserve()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.collect()  # counts what lasts anew: a quarter of it must have come before Python looks again
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def _touch_reserve() -> None:
    small = [object() for _ in range(_SMALL_OBJECTS)]
    blocks = [bytearray(_BLOCK_BYTES) for _ in range(RESERVE_BYTES // _BLOCK_BYTES)]
    del small, blocks


TIDY_S = 30.0
"""How often a process that runs on and on calls `tidy`."""


def tidy() -> None:
    """Look for garbage, drop what Python keeps of freed objects, and give freed memory back: what is left is in use.

    Takes one or two milliseconds after `settle`, and some more until pages are taken up again. Without it the memory of
    a process creeps up for hours, ever slower: its free lists fill, and ever other pages of its heap come to be used.
    """
    gc.collect()
    give_back_unused()

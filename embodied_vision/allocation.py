"""Memory of images is kept for the next image instead of being given back to the kernel."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 32 << 20
"""Bytes; glibc takes no more on 64 bit."""
_MOST_FREE = 256 << 20
"""Bytes that may lie unused at the end of the heap."""


def keep_large_blocks() -> bool:
    """Have malloc take blocks of up to 32 MB from its heap; False where the C library has no such setting.

    By default glibc maps blocks of this size one by one and unmaps them when they are freed. An image goes through
    several of them on its way through DDS and rclpy, and the page faults of the new ones cost about as much time as
    the whole rest of the way.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_M_TRIM_THRESHOLD, _MOST_FREE))

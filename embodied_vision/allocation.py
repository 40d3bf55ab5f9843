"""Memory of large arrays is kept for the next ones instead of being given back to the kernel."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3) in glibc."""
_LARGEST_KEPT_BYTES = 32 << 20
"""glibc takes no more on 64 bit."""
IMAGES_KEPT_BYTES = 256 << 20
"""What a process that handles images keeps at most."""


def keep_large_blocks(most_kept_bytes: int = IMAGES_KEPT_BYTES) -> None:
    """Have malloc take blocks of up to 32 MB from its heap, of which `most_kept_bytes` may lie unused at its end.

    By default glibc maps blocks of this size one by one and unmaps them when they are freed. An image goes through
    several of them on its way through DDS and rclpy, and the page faults of the new ones cost about as much time as
    the whole rest of the way. Where the C library is not glibc memory is left as it is.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        adjust(_TRIM_THRESHOLD, most_kept_bytes)


def give_back_unused() -> None:
    """Give whole pages between blocks in use back to the kernel; what lies unused at the heap's end is kept."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(IMAGES_KEPT_BYTES))

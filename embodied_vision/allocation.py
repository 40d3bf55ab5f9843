"""Memory of large arrays is kept for the next ones for a while, instead of being given back to the kernel each time."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3) in glibc."""
_LARGEST_KEPT_BYTES = 32 << 20
"""glibc takes no more on 64 bit."""
IMAGES_KEPT_BYTES = 256 << 20
"""What a process that handles images keeps at most."""
RESERVE_BYTES = 1 << 20
"""What stays unused at the heap's end when memory is given back, and is free in it when it is touched."""
_MADV_POPULATE_WRITE = 23
"""Of madvise(2): take pages as if each had been written to, and leave what they hold alone."""


def keep_large_blocks(most_kept_bytes: int = IMAGES_KEPT_BYTES) -> None:
    """Have malloc take blocks of up to 32 MB from its heap, of which `most_kept_bytes` may lie unused at its end.

    By default glibc maps blocks of this size one by one and unmaps them when they are freed. An image goes through
    several of them on its way through DDS and rclpy, and the page faults of the new ones cost about as much time as
    the whole rest of the way. Where the C library is not glibc memory is left as it is.
    """
    _adjust(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    _adjust(_TRIM_THRESHOLD, most_kept_bytes)


def share_one_heap() -> None:
    """Have all threads allocate from one heap; call it before there are others.

    Of the heaps that glibc makes for further threads it never gives the end back, so that each would keep the most that
    it ever held. Where the C library is not glibc it is left as it is.
    """
    _adjust(_ARENA_MAX, 1)


def _adjust(parameter: int, value: int) -> None:
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(parameter, value)


def give_back_unused() -> None:
    """Give whole pages that are not in use back to the kernel, but for `RESERVE_BYTES` at the heap's end."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(RESERVE_BYTES))


def touch_heap() -> None:
    """Touch all of the heap, in which `RESERVE_BYTES` at least are free, so that what comes next finds its pages there.

    Where the C library is not glibc, or the kernel older than 5.14, pages are taken as they are needed.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.sbrk.restype, library.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.free(library.malloc(RESERVE_BYTES))
    if begin := _heap_begin():
        library.madvise(begin, library.sbrk(0) - begin, _MADV_POPULATE_WRITE)


@cache
def _heap_begin() -> int:
    """Address of the heap, which grows at its end alone, 0 for none; found once, there are thousands of mappings."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return next((int(line.split("-")[0], 16) for line in lines if line.endswith("[heap]")), 0)

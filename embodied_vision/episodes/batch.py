"""Many chunks of an array at once: each file opened once, neighbours read together, decoded by several threads.

The decoders let go of the interpreter while they work, so threads share the cores. Reading stays in the calling
thread, and no file is held open between calls: both take little beside decoding (`make bench-reading`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embodied_vision.episodes.arrays import ArrayReader
from embodied_vision.errors import BadInput


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def read_chunks(array: ArrayReader, numbers: Sequence[int] | NDArray[np.int64], threads: int | None) -> NDArray[Any]:
    """Decoded chunks (N, chunk, *item), in the order that was asked for.

    Args:
        array: where they lie.
        numbers: which; one that is named several times is decoded once.
        threads: that decode; None takes the cores that this process may use.

    Raises:
        BadInput: fewer than one thread.
        EpisodeError: a chunk is missing or damaged.
    """
    threads = available_cores() if threads is None else threads
    if threads < 1:
        raise BadInput(f"{threads} threads cannot read; give at least 1")
    wanted = np.asarray(numbers, np.int64)
    out = np.empty((len(wanted), array.spec.chunk, *array.spec.item), array.spec.dtype)
    order = np.argsort(wanted, kind="stable")
    chosen, first = np.unique(wanted[order], return_index=True)
    row_of = {int(number): int(row) for number, row in zip(chosen, order[first], strict=True)}
    if threads == 1 or len(chosen) < 2:
        for number, sealed in array.sealed(chosen.tolist()):
            array.decode(number, sealed, out[row_of[number]])
    else:
        _decode_together(array, chosen.tolist(), row_of, out, min(threads, len(chosen)))
    for one, next_one in pairwise(order):
        if wanted[one] == wanted[next_one]:
            out[next_one] = out[one]
    return out


def _decode_together(
    array: ArrayReader, numbers: list[int], row_of: dict[int, int], out: NDArray[Any], threads: int
) -> None:
    """Chunks that are read and not yet decoded stay few, so that a long batch does not hold its files in memory."""
    pool = _pool(threads)
    running: deque[Future[NDArray[Any]]] = deque()
    try:
        for number, sealed in array.sealed(numbers):
            running.append(pool.submit(array.decode, number, sealed, out[row_of[number]]))
            if len(running) > 4 * threads:
                running.popleft().result()
        while running:
            running.popleft().result()
    finally:
        for future in running:  # after an error: nobody writes into `out` any more when the caller sees it
            if not future.cancel():
                future.exception()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


# A forked child has none of its parent's threads: it makes its own when it first needs them.
os.register_at_fork(after_in_child=_pool.cache_clear)


def whole_numbers(indices: ArrayLike, length: int, what: str) -> NDArray[np.int64]:
    """Indices as numbers from 0 on; negative ones count from the end.

    Raises:
        IndexError: one is out of range.
        BadInput: they are no whole numbers in one row.
    """
    given = np.asarray(indices)
    if given.size == 0:
        return np.zeros(0, np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise BadInput(f"indices of shape {given.shape} and type {given.dtype} given; give whole numbers in one row")
    outside = (given < -length) | (given >= length)
    if outside.any():
        raise IndexError(f"{what} {given[outside][0]} of {length}")
    return given.astype(np.int64) % length

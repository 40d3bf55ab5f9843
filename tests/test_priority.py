"""Nothing that is exported leaves the process at real-time priority."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes.exchange.lerobot.video import VideoWriter
from embodied_vision.priority import at_same_priority

root_only = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may take real-time priority, so there is nothing to undo"
)


def real_time() -> set[int]:
    """Threads of this process at real-time priority. Some libraries have threads at SCHED_BATCH, below all others."""
    found = set()
    for name in os.listdir("/proc/self/task"):
        try:
            policy = os.sched_getscheduler(int(name))
        except ProcessLookupError:
            continue  # it has ended meanwhile
        if policy in (os.SCHED_FIFO, os.SCHED_RR):
            found.add(int(name))
    return found


def remembered_policy() -> int:
    """Scheduling policy of this thread as the C library remembers it, which Fast DDS gives to the threads it starts."""
    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_ulong
    policy, parameters = ctypes.c_int(-1), (ctypes.c_int * 16)()
    assert libc.pthread_getschedparam(ctypes.c_ulong(libc.pthread_self()), ctypes.byref(policy), parameters) == 0
    return policy.value


def test_a_video_is_written_at_the_priority_of_the_process(tmp_path: Path) -> None:
    """SVT-AV1 takes SCHED_FIFO where it is run by root."""
    assert not real_time()
    writer = VideoWriter(tmp_path / "film.mp4", 64, 64, 30)
    for level in range(5):
        writer.add(np.full((64, 64, 3), 40 * level, np.uint8))
        assert not real_time()
    writer.close()
    assert not real_time()
    assert remembered_policy() == os.SCHED_OTHER
    assert writer.frames == 5


@root_only
def test_priority_that_was_taken_within_is_given_back() -> None:
    end = threading.Event()
    left = threading.Thread(target=end.wait)

    def taken() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        left.start()  # inherits it
        assert left.native_id in real_time()
        raise ValueError("inside")

    try:
        with pytest.raises(ValueError, match="inside"):
            at_same_priority(taken)
        assert not real_time()
    finally:
        end.set()
        left.join()


@root_only
def test_none_is_missed_while_other_threads_end() -> None:
    """The kernel's list of threads ends early when one of them ends while it is read."""
    for _ in range(30):
        go, end = threading.Event(), threading.Event()
        ending = [threading.Thread(target=go.wait) for _ in range(15)]
        staying = [threading.Thread(target=end.wait) for _ in range(15)]
        for thread in ending:
            thread.start()

        def taken(go: threading.Event = go, staying: list[threading.Thread] = staying) -> None:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            for thread in staying:
                thread.start()
            go.set()

        try:
            at_same_priority(taken)
            assert not real_time()
        finally:
            end.set()
            for thread in [*ending, *staying]:
                thread.join()

"""Nothing that is exported leaves the process at real-time priority."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes.exchange.lerobot.video import VideoWriter
from embodied_vision.priority import same_priority


def real_time() -> set[int]:
    """Threads of this process at real-time priority. Some libraries have threads at SCHED_BATCH, below all others."""
    threads = {int(name) for name in os.listdir("/proc/self/task")}
    return {thread for thread in threads if os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR)}


def test_a_video_is_written_at_the_priority_of_the_process(tmp_path: Path) -> None:
    """SVT-AV1 takes SCHED_FIFO where it is run by root."""
    assert not real_time()
    writer = VideoWriter(tmp_path / "film.mp4", 64, 64, 30)
    for level in range(5):
        writer.add(np.full((64, 64, 3), 40 * level, np.uint8))
        assert not real_time()
    writer.close()
    assert not real_time()
    assert writer.frames == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take real-time priority, so there is nothing to undo")
def test_priority_that_was_taken_within_is_given_back() -> None:
    def taken() -> None:
        with same_priority():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        taken()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER

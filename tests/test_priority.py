"""Nothing that is exported leaves the process at real-time priority."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes.exchange.lerobot.video import VideoWriter
from embodied_vision.priority import same_priority


def policies() -> set[int]:
    return {os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")}


def test_a_video_is_written_at_the_priority_of_the_process(tmp_path: Path) -> None:
    """SVT-AV1 takes SCHED_FIFO where it is run by root."""
    assert policies() == {os.SCHED_OTHER}
    writer = VideoWriter(tmp_path / "film.mp4", 64, 64, 30)
    for level in range(5):
        writer.add(np.full((64, 64, 3), 40 * level, np.uint8))
        assert policies() == {os.SCHED_OTHER}
    writer.close()
    assert policies() == {os.SCHED_OTHER}
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

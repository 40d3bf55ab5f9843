"""What the writer refuses, and what it does when the disk does."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput, EpisodeError

from .samples import assert_holds, fill, make_action, make_camera, make_frame


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "store")


@pytest.fixture
def writer(store: EpisodeStore) -> Iterator[EpisodeWriter]:
    with EpisodeWriter(store, task="t", robot="r", cameras=[make_camera()], color_codec="lossless") as writer:
        yield writer


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_frames_of_other_cameras_are_refused(writer: EpisodeWriter) -> None:
    with pytest.raises(BadInput, match="'left'"):
        writer.append_frame(make_frame(make_camera("left"), 0))
    moved = replace(make_camera(), T_base_camera=np.eye(4))
    with pytest.raises(BadInput, match="calibration changed"):
        writer.append_frame(make_frame(moved, 0))
    with pytest.raises(BadInput, match="calibration changed"):
        writer.append_decision(make_action(), [make_frame(make_camera(width=17), 0)])


def test_decision_on_depth_that_cannot_come_back_exactly_is_refused(writer: EpisodeWriter) -> None:
    frame = make_frame(make_camera(), 0)
    with pytest.raises(BadInput, match="quantise_depth"):
        writer.append_decision(make_action(), [replace(frame, depth=frame.depth + np.float32(0.0004))])


def test_stream_keeps_its_length(writer: EpisodeWriter) -> None:
    writer.append("arm/joint_states", 0, np.zeros(7))
    with pytest.raises(BadInput, match=r"\(6,\)"):
        writer.append("arm/joint_states", 1, np.zeros(6))
    with pytest.raises(BadInput, match=r"\(2, 7\)"):
        writer.append("arm/joint_states", 1, np.zeros((2, 7)))


@pytest.mark.parametrize("name", ["", "a b", "/a", "a/", "a//b", "..", "a.b"])
def test_unsafe_names_are_refused(store: EpisodeStore, writer: EpisodeWriter, name: str) -> None:
    with pytest.raises(BadInput, match="name"):
        writer.append(name, 0, [1.0])
    with pytest.raises(BadInput, match="name"):
        EpisodeWriter(store, task="t", robot="r", cameras=[make_camera(name)])


def test_bad_settings_leave_nothing_behind(tmp_path) -> None:
    store = EpisodeStore(tmp_path / "store")
    for settings in (
        {"cameras": [make_camera(), make_camera()]},
        {"color_codec": "png"},
        {"quality": 0},
        {"attributes": {"when": object()}},
    ):
        with pytest.raises(BadInput):
            EpisodeWriter(store, **{"task": "t", "robot": "r", "cameras": [], **settings})
    assert not store.exists()


def test_nothing_is_taken_after_close(store: EpisodeStore, writer: EpisodeWriter) -> None:
    fill(writer, make_camera(), frames=2)
    writer.close({})
    with pytest.raises(EpisodeError, match="closed"):
        writer.append_frame(make_frame(make_camera(), 2))
    with pytest.raises(EpisodeError, match="closed"):
        writer.close({})
    assert_holds(store.open(writer.id), 2)
    assert store.staging_ids() == []


def test_outcome_that_json_cannot_hold_does_not_end_the_episode(store: EpisodeStore, writer: EpisodeWriter) -> None:
    with pytest.raises(BadInput, match="outcome"):
        writer.close({"when": object()})
    writer.append_frame(make_frame(make_camera(), 0))
    writer.close({"reward": 0.0})
    assert_holds(store.open(writer.id), 1)


def test_discarded_episode_leaves_no_trace(store: EpisodeStore, writer: EpisodeWriter) -> None:
    fill(writer, make_camera(), frames=1)
    writer.discard()
    assert (store.ids(), store.staging_ids()) == ([], [])


def test_unfinished_episode_is_not_in_the_store(store: EpisodeStore, writer: EpisodeWriter) -> None:
    fill(writer, make_camera(), frames=1)
    assert store.ids() == []
    assert store.staging_ids() == [writer.id]
    with pytest.raises(EpisodeError, match="staging"):
        store.open(writer.id)


def test_full_disk_names_the_file_and_keeps_what_was_taken(store: EpisodeStore, writer: EpisodeWriter) -> None:
    camera, taken = make_camera(), 0
    with file_size_limit(100_000):
        try:
            while taken < 1000:
                writer.append_frame(make_frame(camera, taken))
                taken += 1
        except EpisodeError as error:
            assert str(store.staging_path / writer.id) in str(error)  # noqa: PT017 the count until the error matters
    assert taken < 1000
    assert taken > 10
    writer.append_frame(make_frame(camera, taken))  # there is space again
    writer.close({"reward": 1.0})
    assert_holds(store.open(writer.id), taken + 1)
    assert verify(store)[0].ok


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_disk_that_fails_while_closing_keeps_the_episode_in_staging(
    store: EpisodeStore, writer: EpisodeWriter, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fill(writer, make_camera(), frames=4)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.path / "somewhere"))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(EpisodeError, match=r"somewhere.*No space left.*repair"):
            writer.close({"reward": 1.0, "solved": True})
    assert store.ids() == []
    assert store.staging_ids() == [writer.id]
    assert [result.state for result in repair(store)] == ["recovered"]
    episode = store.open(writer.id)
    assert_holds(episode, 4)
    assert episode.outcome == {"reward": 1.0, "solved": True}


def test_store_that_cannot_be_made_is_a_clear_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EpisodeError, match="cannot be made"):
        EpisodeWriter(EpisodeStore(tmp_path / "file"), task="t", robot="r", cameras=[])


def test_store_needs_neither_ros_nor_torch_nor_zarr_python() -> None:
    code = "import sys, embodied_vision.episodes as e; print(sorted({'rclpy', 'torch', 'zarr'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

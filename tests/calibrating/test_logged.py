"""Rests are found in logged joint states, and only rests."""

from __future__ import annotations

import numpy as np
import pytest
from episodes.samples import make_camera, make_frame

from calibrating.synthetic import pose
from embodied_vision.calibrating.logged import logged_shots, rest_numbers
from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.types import FloatArray

MS = 1_000_000


def _joints(until_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """At rest until 1 s, moving until 2 s, at rest again; 50 a second, two joints."""
    stamps = np.arange(0, until_ms, 20) * MS
    way = np.clip(stamps / (1000 * MS) - 1.0, 0.0, 1.0)
    return stamps, np.stack([way, 0.5 * way], axis=1)


def test_one_frame_a_rest() -> None:
    stamps, positions = _joints(3000)
    frames = np.arange(0, 3000, 33) * MS
    found = rest_numbers(frames, stamps, positions)
    assert [round(float(q[0]), 6) for _, q in found] == [0.0, 1.0]
    for number, q in found:
        around = np.abs(stamps - frames[number]) <= 300 * MS
        assert np.abs(positions[around] - q).max() < 0.003


def test_slow_motion_gaps_and_nan_are_no_rest() -> None:
    stamps, positions = _joints(3000)
    slow = np.stack([np.linspace(0, 0.2, len(stamps))] * 2, axis=1)
    frames = np.arange(500, 2500, 33) * MS
    assert rest_numbers(frames, stamps, slow) == []
    assert rest_numbers(frames, stamps, np.full_like(positions, np.nan)) == []
    silent = (stamps < 200 * MS) | (stamps > 2900 * MS)
    assert rest_numbers(frames, stamps[silent], positions[silent]) == []
    burst = (stamps > 500 * MS) & (stamps < 600 * MS)
    assert rest_numbers(frames, stamps[burst], positions[burst]) == [], "standing for 0.1 s is no rest"
    assert rest_numbers(frames, stamps[:0], positions[:0]) == []


class Arm:
    """A toy arm."""

    joint_names = ("b", "a")

    def forward(self, q: FloatArray) -> FloatArray:
        return pose((0.0, 0.0, 0.0), (float(q[0]), float(q[1]), 0.0))


@pytest.fixture
def episode(tmp_path) -> Episode:
    store, camera = EpisodeStore(tmp_path), make_camera()
    attributes = {"joint_names": ["a", "b"]}
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], attributes=attributes) as writer:
        frames = [make_frame(camera, number) for number in range(45)]
        start = frames[0].stamp_ns
        for frame in frames:
            writer.append_frame(frame)
        for stamp, q in zip(*_joints(3000), strict=True):
            writer.append("joint_state", start + int(stamp), np.concatenate([q, np.zeros(2)]))
        return store.open(writer.close({}))


def test_pictures_and_poses_of_an_episode(episode: Episode) -> None:
    shots = list(logged_shots(episode, "camera", Arm()))
    assert len(shots) == 2
    assert shots[0].name.startswith(f"{episode.id}/")
    assert shots[0].color.shape == (12, 16, 3)
    # Logged as a, b and velocities; the robot's order is b, a.
    assert shots[1].T_base_tip[:2, 3] == pytest.approx([0.5, 1.0])


def test_another_robot_or_camera_is_refused(episode: Episode) -> None:
    class Other(Arm):
        joint_names = ("a", "c")

    with pytest.raises(BadInput, match="give the robot that was logged"):
        list(logged_shots(episode, "camera", Other()))
    with pytest.raises(BadInput, match="no camera 'left'"):
        list(logged_shots(episode, "left", Arm()))
    with pytest.raises(BadInput, match="no stream"):
        list(logged_shots(episode, "camera", Arm(), "joints"))

"""Small made-up cameras, frames and episodes."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.geometry import depth_to_metres, look_at, tool_down
from embodied_vision.types import RGBD, Camera, PickPlace

PERIOD_NS = 66_666_667
START_NS = 1_700_000_000_000_000_000


def make_camera(name: str = "camera", height: int = 12, width: int = 16) -> Camera:
    K = np.array([[20.0, 0, width / 2], [0, 20.0, height / 2], [0, 0, 1]])
    return Camera(name, width, height, K, look_at((1.0, 0.0, 0.85), (0.5, 0.0, 0.0)))


def make_frame(camera: Camera, number: int) -> RGBD:
    """The frame `number` of a camera: always the same for the same arguments."""
    rng = np.random.default_rng([number, camera.height, camera.width])
    color = rng.integers(0, 256, (camera.height, camera.width, 3), np.uint8)
    depth = rng.integers(0, 65535, (camera.height, camera.width)).astype(np.uint16)
    return RGBD(color, depth_to_metres(depth), camera, START_NS + number * PERIOD_NS)


def make_action(number: int = 0) -> PickPlace:
    rng = np.random.default_rng(number)
    return PickPlace(
        pick=tool_down(*rng.normal(size=3), yaw=rng.normal()),
        place=tool_down(*rng.normal(size=3), yaw=rng.normal()),
        scores={"pick": float(rng.random()), "place": float(rng.random())},
        stamp_ns=START_NS + number,
    )


def fill(writer: EpisodeWriter, camera: Camera, frames: int = 5) -> None:
    """Log `frames` frames, three joint states a frame, and one decision."""
    for number in range(frames):
        writer.append_frame(make_frame(camera, number))
        for part in range(3):
            writer.append("joint_states", START_NS + 3 * number + part, np.arange(7.0) + number)
    writer.append_decision(make_action(), [make_frame(camera, 0)], {"checkpoint": "abc"})


def write_episode(store: EpisodeStore, frames: int = 5, solved: bool = True, task: str = "block-insertion") -> str:
    camera = make_camera()
    with EpisodeWriter(store, task=task, robot="panda_suction", cameras=[camera], color_codec="lossless") as writer:
        fill(writer, camera, frames)
        return writer.close({"reward": float(solved), "solved": solved})


def read_all(episode: Episode) -> None:
    """Read every byte of an episode through the reader."""
    for camera in episode.cameras:
        for _ in episode.frames(camera):
            pass
    for stream in episode.streams:
        episode.stream(stream)
    for _ in episode.decisions:
        pass


def assert_holds(episode: Episode, frames: int) -> None:
    """The episode holds exactly the first `frames` frames of `make_frame`, lossless."""
    (camera,) = episode.cameras.values()
    logged = episode.frames(camera.name)
    assert len(logged) == frames
    for number, frame in enumerate(logged):
        wanted = make_frame(camera, number)
        np.testing.assert_array_equal(frame.color, wanted.color)
        np.testing.assert_array_equal(frame.depth, wanted.depth)
        assert frame.stamp_ns == wanted.stamp_ns


def contents(episode: Episode) -> dict[str, object]:
    """All that was logged and how it ended, with digests of the images; equal for episodes that read the same."""
    found: dict[str, object] = {
        key: getattr(episode, key) for key in ("task", "robot", "encoder_id", "policy_id", "outcome", "attributes")
    }
    for name in episode.cameras:
        found[f"camera {name}"] = [_digest(frame) for frame in episode.frames(name)]
    for name in episode.streams:
        stamps, values = episode.stream(name)
        found[f"stream {name}"] = stamps.tolist(), values.tolist()
    for number, decision in enumerate(episode.decisions):
        action = {key: value for key, value in decision.action.to_dict().items() if key != "decision_id"}
        found[f"decision {number}"] = action, decision.info, [_digest(frame) for frame in decision.frames]
    return found


def _digest(frame: RGBD) -> tuple[int, str]:
    return frame.stamp_ns, hashlib.sha256(frame.color.tobytes() + frame.depth.tobytes()).hexdigest()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Child:
    """Runs `work` in a child process; leaving the context kills it if it still runs."""

    def __init__(self, work: Callable[[], None]) -> None:
        sys.stdout.flush()
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                work()
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait(self) -> int:
        """Exit code, or minus the signal that ended the child."""
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(self._status)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

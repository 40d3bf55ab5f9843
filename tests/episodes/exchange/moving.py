"""Episodes as the recorder logs them: two cameras at different rates, joints, trajectories, a gripper, decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.geometry import depth_to_metres, look_at, tool_down
from embodied_vision.types import RGBD, Camera, PickPlace

JOINTS = 3
RATE_HZ = 20
START_NS = 1_700_000_000_000_000_123
NAMES = ["base", "shoulder", "elbow"]


def camera(name: str, height: int, width: int) -> Camera:
    K = np.array([[80.0, 0, width / 2], [0, 80.0, height / 2], [0, 0, 1]])
    return Camera(name, width, height, K, look_at((1.0, 0.2, 0.85), (0.5, 0.0, 0.0)))


FRONT = camera("cell/front", 64, 96)
WRIST = camera("wrist", 12, 17)
"""Too small and odd for a video."""


def color(number: int, seen_by: Camera) -> NDArray[np.uint8]:
    """Smooth, so that video hardly changes it, and different for every number."""
    y, x = np.mgrid[0 : seen_by.height, 0 : seen_by.width]
    return np.stack([x + 3 * number, 2 * y, 200 - 7 * number + 0 * x], -1).clip(0, 255).astype(np.uint8)


def frame(number: int, seen_by: Camera, stamp_ns: int) -> RGBD:
    rng = np.random.default_rng([number, seen_by.height])
    depth = rng.integers(0, 5000, (seen_by.height, seen_by.width)).astype(np.uint16)
    return RGBD(color(number, seen_by), depth_to_metres(depth), seen_by, stamp_ns)


def front_stamp(number: int) -> int:
    """20 Hz with some jitter; frame 5 never arrived."""
    number += number >= 5
    return START_NS + number * 50_000_000 + (number * 7919) % 2_000_000


def joints(seconds: float) -> NDArray[np.float64]:
    return np.array([seconds, -2 * seconds, 0.5])


def decision(number: int = 0) -> PickPlace:
    pick, place = tool_down(0.5, 0.1 * number, 0.02, 0.3), tool_down(0.4, -0.2, 0.05)
    return PickPlace(pick, place, scores={"pick": 0.25}, stamp_ns=front_stamp(3))


def write(store: EpisodeStore, frames: int = 12, task: str = "block-insertion", **more: Any) -> str:
    """Log an episode of `frames` frames of the front camera, and fewer of the wrist's."""
    attributes = {"joint_names": NAMES, "seed": 7}
    with EpisodeWriter(
        store,
        task=task,
        robot="panda_suction",
        cameras=[FRONT, WRIST],
        policy_id="policy-1",
        attributes=attributes,
        tags=["shown"],
        color_codec="lossless",
        **more,
    ) as writer:
        for number in range(frames):
            writer.append_frame(frame(number, FRONT, front_stamp(number)))
            if number % 3 == 0:
                writer.append_frame(frame(number, WRIST, front_stamp(number) - 1_000_000))
        for sample in range(frames * 5):
            stamp_ns = START_NS - 5_000_000 + sample * 10_000_000
            seconds = (stamp_ns - START_NS) / 1e9
            writer.append("joint_state", stamp_ns, np.concatenate([joints(seconds), np.full(JOINTS, np.nan)]))
        times = np.array([0.0, 0.4])
        points = np.column_stack([times, np.outer(times, [1.0, 0.0, 2.0]), np.zeros((2, 2 * JOINTS))])
        writer.append("joint_trajectory/2", front_stamp(4), points.ravel())
        writer.append("gripper", front_stamp(6), [0.8])
        seen = [frame(3, FRONT, front_stamp(3)), frame(3, WRIST, front_stamp(3))]
        writer.append_decision(decision(), seen, {"checkpoint": "abc"})
        writer.append_decision(decision(1), [seen[0], frame(4, WRIST, front_stamp(4))])
        writer.append_decision(decision(), seen)
        return writer.close({"reward": 0.75, "solved": True})

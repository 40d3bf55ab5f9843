"""Pictures and poses from logged episodes: what the camera saw whenever the arm rested."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embodied_vision.calibrating.poses import Arm
from embodied_vision.calibrating.views import Shot
from embodied_vision.episodes import Episode
from embodied_vision.errors import BadInput

REST_NS = 300_000_000
"""The arm must have stood so long before and after the picture."""
REST_RAD = 0.003
APART_RAD = 0.05
"""Two pictures are taken only where a joint has moved so far between them."""


def rest_numbers(
    frame_stamps: NDArray[np.int64], joint_stamps: NDArray[np.int64], positions: NDArray[np.float64]
) -> list[tuple[int, NDArray[np.float64]]]:
    """Frames that were taken while the arm rested, one a pose, and the joint positions (J,) then.

    Args:
        frame_stamps: int64 (T,), ns.
        joint_stamps: int64 (M,), ns, increasing.
        positions: (M, J) in rad; what is not finite is no rest.
    """
    found: list[tuple[int, NDArray[np.float64]]] = []
    for number in np.argsort(frame_stamps, kind="stable").tolist():
        stamp = int(frame_stamps[number])
        first, last = np.searchsorted(joint_stamps, [stamp - REST_NS, stamp + REST_NS])
        around = positions[first:last]
        # A gap in the joint states would pass for rest.
        heard = len(around) >= 3 and joint_stamps[last - 1] - joint_stamps[first] > 1.5 * REST_NS
        if not heard or not np.isfinite(around).all() or np.ptp(around, axis=0).max() > REST_RAD:
            continue
        q = np.median(around, axis=0)
        if not found or np.abs(q - found[-1][1]).max() > APART_RAD:
            found.append((number, q))
    return found


def logged_shots(episode: Episode, camera: str, arm: Arm, stream: str = "joint_state") -> Iterator[Shot]:
    """Pictures of an episode, one for each time the arm rested.

    Args:
        episode: with the camera's frames and the arm's joint states.
        camera: whose pictures.
        arm: the robot that was logged.
        stream: name of the joint states, positions before all else.

    Raises:
        BadInput: there is no such camera or stream, or the joints are not the robot's.
    """
    frames = episode.frames(camera)
    stamps, values = episode.stream(stream)
    logged = [str(name) for name in episode.attributes.get("joint_names", [])] or list(arm.joint_names)
    missing = [name for name in arm.joint_names if name not in logged]
    if missing or values.shape[1] < len(logged):
        raise BadInput(
            f"episode {episode.id}: stream {stream!r} has {values.shape[1]} columns for the joints {logged}, the robot "
            f"has {list(arm.joint_names)}; give the robot that was logged (--robot)"
        )
    order = np.argsort(stamps, kind="stable")
    positions = values[order][:, [logged.index(name) for name in arm.joint_names]]
    for number, q in rest_numbers(frames.stamps_ns, stamps[order], positions):
        yield Shot(f"{episode.id}/{number}", frames.color(number), arm.forward(q))

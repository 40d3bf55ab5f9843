"""What a decision would do, to be looked at: the path of the tool's tip, and where the guard would refuse it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import Motion, MotionSettings, Segment, plan
from embodied_vision.control.robot import Matrix, RobotModel
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.errors import BadInput, Refused
from embodied_vision.types import PickPlace, Workspace

SPACING_S = 0.05
"""Time between two points of the path."""
_AT = re.compile(r" at (\d+\.\d+) s$")
"""How the guard says when along a trajectory something happens."""
_PLACE = re.compile(r"x (-?[\d.]+), y (-?[\d.]+), z (-?[\d.]+) m")
"""How planners name a place that cannot be reached."""


@dataclass(frozen=True, eq=False)
class PathPart:
    """The tip's path during one segment.

    Attributes:
        name: of the segment, such as `descend_pick`.
        points: (N, 3) in the base frame, m.
    """

    name: str
    points: Matrix


@dataclass(frozen=True, eq=False)
class Previewed:
    """What was found.

    Attributes:
        path: of the whole motion, or up to the segment that is refused; empty where nothing can be planned.
        refusal: why the guard or the planner would refuse it; None when nothing speaks against it.
        place: (3,) in the base frame where that happens, m; None where it has no place.
    """

    path: tuple[PathPart, ...]
    refusal: Refused | None = None
    place: NDArray[np.float64] | None = None


class Preview:
    """Plans and checks decisions like the arm node, and sends nothing.

    Args:
        model: of the arm.
        workspace: where decisions may lie.
        keep_out: boxes that no part of the arm may enter.
        settings: of the motion, as the arm node's.

    Raises:
        BadInput: the robot's collision shapes cannot be used.
    """

    def __init__(
        self,
        model: RobotModel,
        workspace: Workspace | None = None,
        keep_out: Sequence[KeepOut] = (),
        settings: MotionSettings | None = None,
    ) -> None:
        self._model = model
        self._guard = Guard(model, workspace, keep_out=keep_out)
        self._settings = settings or MotionSettings()

    def of(self, action: PickPlace, q: NDArray[np.float64]) -> Previewed:
        """What a decision would do with the arm at rest at q (J,), rad. Ages are not judged."""
        self._guard.resume()  # stamps seen before say nothing about this decision
        try:
            self._guard.check_action(action, action.stamp_ns)
            motion = plan(self._model, q, action, self._settings)
        except Refused as error:
            return Previewed((), error, _named_place(action, error))
        except BadInput as error:
            return Previewed((), Refused("unknown", "the decision", str(error), "a motion", "check the policy"))
        return self._checked(motion, q)

    def _checked(self, motion: Motion, q: NDArray[np.float64]) -> Previewed:
        path: list[PathPart] = []
        for segment in motion.segments:
            path.append(PathPart(segment.name, self._tip_path(segment)))
            try:
                self._guard.check_trajectory(segment.trajectory, q, 0, 0, brake_s=0.0)
            except Refused as error:
                return Previewed(tuple(path), error, self._tip_at(segment, error))
            q = segment.trajectory.positions[-1]
        return Previewed(tuple(path))

    def _tip_path(self, segment: Segment) -> Matrix:
        trajectory = segment.trajectory
        count = max(2, int(np.ceil(trajectory.duration / SPACING_S)) + 1)
        return self._tips(trajectory.sample_many(np.linspace(0.0, trajectory.duration, count))[0])

    def _tip_at(self, segment: Segment, error: Refused) -> NDArray[np.float64]:
        """Where the tip is when the trajectory breaks the rule; at its start where the refusal names no time."""
        found = _AT.search(error.where)
        return self._tips(segment.trajectory.sample_many(np.array([float(found[1]) if found else 0.0]))[0])[0]

    def _tips(self, q: Matrix) -> Matrix:
        return np.array([self._model.forward(each)[:3, 3] for each in q])


def _named_place(action: PickPlace, error: Refused) -> NDArray[np.float64] | None:
    """The place that a refusal names, or else that of the pose which it names."""
    found = _PLACE.search(str(error.value))
    if found:
        return np.array([float(number) for number in found.groups()])
    for name, pose in (("pick", action.pick), ("place", action.place)):
        if re.search(rf"\b{name}\b", error.where) and np.isfinite(pose[:3, 3]).all():
            return np.asarray(pose[:3, 3], np.float64)
    return None

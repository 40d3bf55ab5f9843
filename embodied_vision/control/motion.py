"""From a decision to a complete motion: approach, take, carry, let go, return home."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from embodied_vision.control.inverse import MARGIN_RAD, pose_error, solve_pose
from embodied_vision.control.limits import Vector
from embodied_vision.control.planning import Pace, plan_joint, plan_line
from embodied_vision.control.robot import Matrix, RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import BadInput, Refused
from embodied_vision.types import FloatArray, PickPlace

CLOSED, OPEN = 0.0, 1.0
"""Gripper commands; a suction cup sucks when closed."""


@dataclass(frozen=True)
class MotionSettings:
    """How a decision is carried out.

    Attributes:
        pace: speed and accelerations.
        clearance_m: tip height at which the arm travels, at least.
        approach_m: length of the straight way down to a pose, at least.
        take_s, release_s: time given to the gripper.
    """

    pace: Pace = field(default_factory=Pace)
    clearance_m: float = 0.2
    approach_m: float = 0.08
    take_s: float = 0.15
    release_s: float = 0.15

    def __post_init__(self) -> None:
        for name in ("clearance_m", "approach_m", "take_s", "release_s"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"{name} is {getattr(self, name)}; give a number of at least 0")


@dataclass(frozen=True, eq=False)
class Segment:
    """One motion from rest to rest, then a gripper command, then a pause.

    Attributes:
        name: such as `descend_pick`.
        trajectory: the motion.
        gripper: what is commanded at its end, None for nothing.
        dwell_s: pause after that.
    """

    name: str
    trajectory: Trajectory
    gripper: float | None = None
    dwell_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Motion:
    """Segments to be run one after the other; each starts where the former ends."""

    segments: tuple[Segment, ...]

    @property
    def duration(self) -> float:
        """Seconds from start to end, pauses included."""
        return sum(s.trajectory.duration + s.dwell_s for s in self.segments)


def plan_pick_place(
    model: RobotModel, q_now: Vector, action: PickPlace, settings: MotionSettings | None = None
) -> Motion:
    """The whole motion for a decision, from rest at q_now (J,) to rest at home.

    With a symmetric tool both poses are turned about the tool's axis by one common angle, which leaves the
    way of the object as it is, so that the last joint has room and turns little.

    Raises:
        Refused: rule `unreachable`.
    """
    settings = settings or MotionSettings()
    pace = settings.pace
    reason: Refused | None = None
    for q_pick, q_place in _joint_goals(model, q_now, action):
        try:
            lift_pick = plan_line(model, q_pick, _above(action.pick, model.forward(q_pick), settings), pace)
            lift_place = plan_line(model, q_place, _above(action.place, model.forward(q_place), settings), pace)
        except Refused as error:
            reason = error
            continue
        start = _retract(model, q_now, settings)
        q_start = start[-1].trajectory.positions[-1] if start else np.asarray(q_now, float)
        q_above_pick, q_above_place = lift_pick.positions[-1], lift_place.positions[-1]
        return Motion(
            (
                *start,
                Segment("approach", plan_joint(model, q_start, q_above_pick, pace)),
                Segment("descend_pick", lift_pick.reversed(), CLOSED, settings.take_s),
                Segment("lift_pick", lift_pick),
                Segment("transfer", plan_joint(model, q_above_pick, q_above_place, pace)),
                Segment("descend_place", lift_place.reversed(), OPEN, settings.release_s),
                Segment("lift_place", lift_place),
                Segment("home", plan_joint(model, q_above_place, model.home, pace)),
            )
        )
    raise reason or Refused(
        "unreachable",
        "tool turn from pick to place",
        "no angle of the tool that serves both poses",
        f"limits of {model.joint_names[-1]}",
        "choose a smaller turn of the object",
    )


def plan_home(model: RobotModel, q_now: Vector, settings: MotionSettings | None = None) -> Motion:
    """Straight up to the clearance height where the tip is lower, then home; the gripper is left as it is.

    Raises:
        Refused: rule `unreachable`, there is no straight way up.
    """
    settings = settings or MotionSettings()
    start = _retract(model, q_now, settings)
    q_start = start[-1].trajectory.positions[-1] if start else np.asarray(q_now, float)
    return Motion((*start, Segment("home", plan_joint(model, q_start, model.home, settings.pace))))


def _retract(model: RobotModel, q_now: Vector, settings: MotionSettings) -> tuple[Segment, ...]:
    """The way up to the clearance height, empty when the tip is there."""
    pose = model.forward(np.asarray(q_now, float))
    if pose[2, 3] >= settings.clearance_m - 0.01:
        return ()
    goal = pose.copy()
    goal[2, 3] = settings.clearance_m
    return (Segment("retract", plan_line(model, q_now, goal, settings.pace)),)


def _above(requested: FloatArray, pose: Matrix, settings: MotionSettings) -> Matrix:
    """The pose raised straight to the height of travel."""
    raised = pose.copy()
    raised[2, 3] = max(settings.clearance_m, float(requested[2, 3]) + settings.approach_m)
    return raised


def _joint_goals(model: RobotModel, q_now: Vector, action: PickPlace) -> Iterator[tuple[Vector, Vector]]:
    """Joint positions at pick and place, the best first."""
    if not model.symmetric_tool:
        q_pick = solve_pose(model, action.pick, model.home)
        yield q_pick, solve_pose(model, action.place, q_pick)
        return
    q_pick = solve_pose(model, action.pick, model.home, free_spin=True)
    q_place = solve_pose(model, action.place, model.home, free_spin=True)
    # Where the last joint would stand for exactly the requested poses, regardless of its limits.
    exact_pick = q_pick[-1] + pose_error(model.forward(q_pick), action.pick, False)[5]
    exact_place = q_place[-1] + pose_error(model.forward(q_place), action.place, False)[5]
    turn = (exact_place - exact_pick + np.pi) % (2 * np.pi) - np.pi
    low, high = model.limits.lower[-1] + 2 * MARGIN_RAD, model.limits.upper[-1] - 2 * MARGIN_RAD
    for travel in sorted((turn, turn - 2 * np.pi, turn + 2 * np.pi), key=abs):
        first, last = max(low, low - travel), min(high, high - travel)
        if first > last:
            continue
        pick, place = q_pick.copy(), q_place.copy()
        pick[-1] = np.clip((q_now[-1] + model.home[-1] - travel) / 2, first, last)
        place[-1] = pick[-1] + travel
        yield pick, place

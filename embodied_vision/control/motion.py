"""From a decision to a complete motion: approach, take, carry, let go, return home."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from embodied_vision.control.inverse import MARGIN_RAD, pose_error, solve_pose
from embodied_vision.control.limits import Vector
from embodied_vision.control.planning import Pace, plan_joint, plan_line
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import BadInput, Refused
from embodied_vision.types import FloatArray, PickPlace

CLOSED, OPEN = 0.0, 1.0
"""Gripper commands; a suction cup sucks when closed."""
HOLD_S = 0.25
"""Pause after a lift: what is held badly falls meanwhile."""


@dataclass(frozen=True)
class MotionSettings:
    """How a decision is carried out.

    Attributes:
        pace: speed and accelerations.
        clearance_m: tip height at which the arm travels, at least.
        approach_m: length of the straight way down to a pose, at least.
        drag_m: how far what is dragged is raised.
        take_s, release_s: time given to the gripper, at least what its model asks for.
    """

    pace: Pace = field(default_factory=Pace)
    clearance_m: float = 0.19
    approach_m: float = 0.08
    drag_m: float = 0.02
    take_s: float = 0.12
    release_s: float = 0.12

    def __post_init__(self) -> None:
        for name in ("clearance_m", "approach_m", "drag_m", "take_s", "release_s"):
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


def plan(model: RobotModel, q_now: Vector, action: PickPlace, settings: MotionSettings | None = None) -> Motion:
    """The whole motion for a decision by its primitive, from rest at q_now (J,) to rest at home.

    Raises:
        BadInput: no motion is known for the primitive.
        Refused: rule `unreachable`.
    """
    if action.primitive == "pick_place":
        return plan_pick_place(model, q_now, action, settings)
    if action.primitive == "drag":
        return plan_drag(model, q_now, action, settings)
    if action.primitive == "push":
        return plan_push(model, q_now, action, settings)
    if action.primitive == "grasp":
        return plan_grasp(model, q_now, action, settings)
    raise BadInput(f"no motion is known for the primitive {action.primitive!r}; send pick_place, drag, push or grasp")


def plan_pick_place(
    model: RobotModel, q_now: Vector, action: PickPlace, settings: MotionSettings | None = None
) -> Motion:
    """Approach the pick pose from above, take, carry to the place pose, let go, and return home.

    With a tool that may spin both poses are turned about the tool's axis by one common angle, which leaves the
    way of the object as it is, so that the last joint has room and turns little.

    Raises:
        Refused: rule `unreachable`.
    """
    settings = settings or MotionSettings()
    pace = settings.pace
    poses = (action.pick, action.place)
    # Both ends of the way between lie as high as the higher pose asks: what is carried passes over a stack at either.
    travel = max(float(pose[2, 3]) for pose in poses) + settings.approach_m
    lift_pick, lift_place = (_lift(model, pose, settings, travel) for pose in poses)
    if model.spin != "none":
        lift_pick, lift_place = _share_turn(model, q_now, action, lift_pick, lift_place)
    start, q_start = _retract(model, q_now, settings)
    q_above_pick, q_above_place = lift_pick.positions[-1], lift_place.positions[-1]
    return Motion(
        (
            *start,
            Segment("approach", plan_joint(model, q_start, q_above_pick, pace)),
            Segment("descend_pick", lift_pick.reversed(), CLOSED, max(settings.take_s, model.gripper_s)),
            Segment("lift_pick", lift_pick),
            Segment("transfer", plan_joint(model, q_above_pick, q_above_place, pace)),
            Segment("descend_place", lift_place.reversed(), OPEN, max(settings.release_s, model.gripper_s)),
            Segment("lift_place", lift_place),
            Segment("home", plan_joint(model, q_above_place, model.home, pace)),
        )
    )


def plan_drag(model: RobotModel, q_now: Vector, action: PickPlace, settings: MotionSettings | None = None) -> Motion:
    """Take at the pick pose, raise it a little, go straight over the place pose, let go there, and return home.

    What hangs together, such as a rope, follows on the table. A tool that may spin takes any angle at the pick pose
    and turns from there as the decision does.

    Raises:
        Refused: rule `unreachable`.
    """
    settings = settings or MotionSettings()
    pace = settings.pace
    lift_pick = _lift(model, action.pick, settings)
    if model.spin == "half":
        lift_pick, _ = _face(model, action.pick, lift_pick)
    taken = model.forward(lift_pick.positions[0])
    let_go = action.place.copy()
    let_go[:3, :3] = action.place[:3, :3] @ action.pick[:3, :3].T @ taken[:3, :3]
    height = max(float(taken[2, 3]), float(let_go[2, 3])) + settings.drag_m
    raised, over, away = taken.copy(), let_go.copy(), let_go.copy()
    raised[2, 3] = over[2, 3] = height
    away[2, 3] = max(settings.clearance_m, float(let_go[2, 3]) + settings.approach_m)
    raise_ = plan_line(model, lift_pick.positions[0], raised, pace)
    drag = plan_line(model, raise_.positions[-1], over, pace)
    lower = plan_line(model, drag.positions[-1], let_go, pace)
    lift_place = plan_line(model, lower.positions[-1], away, pace)
    start, q_start = _retract(model, q_now, settings)
    return Motion(
        (
            *start,
            Segment("approach", plan_joint(model, q_start, lift_pick.positions[-1], pace)),
            Segment("descend_pick", lift_pick.reversed(), CLOSED, max(settings.take_s, model.gripper_s)),
            Segment("raise", raise_),
            Segment("drag", drag),
            Segment("descend_place", lower, OPEN, settings.release_s),
            Segment("lift_place", lift_place),
            Segment("home", plan_joint(model, lift_place.positions[-1], model.home, pace)),
        )
    )


def plan_push(model: RobotModel, q_now: Vector, action: PickPlace, settings: MotionSettings | None = None) -> Motion:
    """Come down at the pick pose, go straight to the place pose, and return home; the gripper is left as it is.

    Raises:
        Refused: rule `unreachable`.
    """
    settings = settings or MotionSettings()
    pace = settings.pace
    lift_start = _lift(model, action.pick, settings)
    end_pose = action.place
    if model.spin != "none":
        lift_start, turned = _face(model, action.pick, lift_start)
        end_pose = action.place @ turned
    push = plan_line(model, lift_start.positions[0], end_pose, pace)
    raised = action.place.copy()
    raised[:3, :3] = end_pose[:3, :3]
    raised[2, 3] = max(settings.clearance_m, float(action.place[2, 3]) + settings.approach_m)
    lift_end = plan_line(model, push.positions[-1], raised, pace)
    start, q_start = _retract(model, q_now, settings)
    return Motion(
        (
            *start,
            Segment("approach", plan_joint(model, q_start, lift_start.positions[-1], pace)),
            Segment("descend_push", lift_start.reversed()),
            Segment("push", push),
            Segment("lift_push", lift_end),
            Segment("home", plan_joint(model, lift_end.positions[-1], model.home, pace)),
        )
    )


def plan_grasp(model: RobotModel, q_now: Vector, action: PickPlace, settings: MotionSettings | None = None) -> Motion:
    """Open, come down at the pick pose, close, and lift straight to the place pose, where the arm stays.

    Raises:
        Refused: rule `unreachable`.
    """
    settings = settings or MotionSettings()
    pace, gripper_s = settings.pace, max(settings.take_s, settings.release_s, model.gripper_s)
    lift = _lift(model, action.pick, settings)
    raised = action.place
    if model.spin != "none":
        lift, turned = _face(model, action.pick, lift)
        raised = action.place @ turned
    start, q_start = _retract(model, q_now, settings)
    return Motion(
        (
            *start,
            Segment("approach", plan_joint(model, q_start, lift.positions[-1], pace), OPEN, gripper_s),
            Segment("descend_grasp", lift.reversed(), CLOSED, gripper_s),
            Segment("lift_grasp", plan_line(model, lift.positions[0], raised, pace), dwell_s=HOLD_S),
        )
    )


def plan_home(model: RobotModel, q_now: Vector, settings: MotionSettings | None = None) -> Motion:
    """Straight up to the clearance height where the tip is lower, then home; the gripper is left as it is.

    Raises:
        Refused: rule `unreachable`, there is no straight way up.
    """
    settings = settings or MotionSettings()
    start, q_start = _retract(model, q_now, settings)
    return Motion((*start, Segment("home", plan_joint(model, q_start, model.home, settings.pace))))


def _retract(model: RobotModel, q_now: Vector, settings: MotionSettings) -> tuple[tuple[Segment, ...], Vector]:
    """The way up to the clearance height, empty when the tip is there, and the joint position (J,) at its end."""
    q = np.asarray(q_now, float)
    pose = model.forward(q)
    if pose[2, 3] >= settings.clearance_m - 0.01:
        return (), q
    goal = pose.copy()
    goal[2, 3] = settings.clearance_m
    way = plan_line(model, q_now, goal, settings.pace)
    return (Segment("retract", way),), way.positions[-1]


def _lift(model: RobotModel, pose: FloatArray, settings: MotionSettings, height: float = 0.0) -> Trajectory:
    """The straight way up from a pose to the height of travel, at least `height`.

    A tool that may spin takes any angle about its axis. The arm's posture is found at the upper end, near home, and
    followed down: found at the lower end, a folded arm may twist so that no way leads up from there.
    """
    raised = pose.copy()
    raised[2, 3] = max(settings.clearance_m, float(pose[2, 3]) + settings.approach_m, height)
    q = solve_pose(model, raised, model.home, free_spin=model.spin != "none")
    lowered = model.forward(q)
    lowered[2, 3] = pose[2, 3]
    return plan_line(model, q, lowered, settings.pace).reversed()


def _share_turn(
    model: RobotModel, q_now: Vector, action: PickPlace, lift_pick: Trajectory, lift_place: Trajectory
) -> tuple[Trajectory, Trajectory]:
    """Turn the last joint of both ways so that the turn from pick to place is exactly the decision's.

    The last joint turns about the tool's axis, so an offset of it leaves the tip's path as it is. A tool of spin
    half is turned to the decision's angles or to both opposite ones.
    """
    offset_pick, offset_place = _offset(model, lift_pick, action.pick), _offset(model, lift_place, action.place)
    last_pick, last_place = lift_pick.positions[:, -1], lift_place.positions[:, -1]
    low, high = model.limits.lower[-1] + MARGIN_RAD, model.limits.upper[-1] - MARGIN_RAD
    between = last_place[-1] - last_pick[-1]
    turn = (offset_place - offset_pick + between + np.pi) % (2 * np.pi) - np.pi
    for travel in sorted((turn, turn - 2 * np.pi, turn + 2 * np.pi), key=abs):
        extra = travel - between  # of the place's offset over the pick's
        first = max(low - last_pick.min(), low - last_place.min() - extra)
        last = min(high - last_pick.max(), high - last_place.max() - extra)
        if first > last:
            continue
        middle = float((q_now[-1] + model.home[-1] - travel) / 2 - last_pick[-1])
        offset = float(np.clip(middle, first, last))
        if model.spin == "half":
            angles = [angle for angle in _half_turns(offset_pick) if first <= angle <= last]
            if not angles:
                continue
            offset = min(angles, key=lambda angle: abs(angle - middle))
        return lift_pick.turned(-1, offset), lift_place.turned(-1, offset + extra)
    raise Refused(
        "unreachable",
        "turn of the tool from pick to place",
        f"{np.degrees(turn):.1f}°",
        f"limits of {model.joint_names[-1]}",
        "choose a smaller turn of the object",
    )


def _offset(model: RobotModel, lift: Trajectory, pose: FloatArray) -> float:
    """What the last joint lacks at the start of a way up to the angle of a pose about the tool's axis, rad."""
    return float(pose_error(model.forward(lift.positions[0]), pose, free_spin=False)[5])


def _half_turns(angle: float) -> list[float]:
    """An angle and those that differ from it by half turns, within two turns."""
    return [angle + k * np.pi for k in range(-3, 4)]


def _face(model: RobotModel, pose: FloatArray, lift: Trajectory) -> tuple[Trajectory, FloatArray]:
    """Turn the last joint of a way up to the angle of its pose, or the opposite one where a tool of spin half needs it.

    Returns:
        The way, and the turn (4, 4) about the tool's axis that was added to the pose.
    """
    offset, last = _offset(model, lift, pose), lift.positions[:, -1]
    low, high = model.limits.lower[-1] + MARGIN_RAD, model.limits.upper[-1] - MARGIN_RAD
    step = np.pi if model.spin == "half" else 2 * np.pi
    turned = {k: last + offset + k * step for k in range(-3, 4)}
    possible = [k for k, angles in turned.items() if low <= angles.min() and angles.max() <= high]
    if not possible:
        raise Refused(
            "unreachable",
            "turn of the tool",
            f"{np.degrees(last[0] + offset):.1f}°",
            f"limits of {model.joint_names[-1]}",
            "choose another angle of the tool",
        )
    k = min(possible, key=lambda k: abs(last[-1] + offset + k * step - model.home[-1]))
    turn = np.eye(4)
    c, s = np.cos(k * step), np.sin(k * step)
    turn[:2, :2] = [[c, -s], [s, c]]
    return lift.turned(-1, offset + k * step), turn

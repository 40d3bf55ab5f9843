"""A robot's driver as the arm node meets it: follows trajectories, keeps limits of its own, reports on goals. No ROS.

It stands for ros2_control's joint_trajectory_controller with a robot's own limits behind it, which know nothing of
those that the planner and the guard use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from embodied_vision.errors import BadInput, Refused
from embodied_vision.paths import PACKAGE
from embodied_vision_sim.joint_trajectory_controller import Desired, JointPath, JointTrajectoryController, Plan
from embodied_vision_sim.setpoints import Setpoint

LIMITS = PACKAGE / "config" / "driver_limits.yaml"
"""Limits of the drivers of shipped arms."""

CHECK_S = 0.001
"""A trajectory is checked at this step before it is followed."""

ROUNDING = 1e-9
"""Relative tolerance of the limits: what follows from adding floating-point numbers, and no more."""

NOISE = 1e-6
"""Relative tolerance of limits that are judged by differences of setpoints, of rounded numbers over small times."""

BRAKE_SHARE = 0.9
"""Share of the acceleration limits with which the driver brakes by itself."""

LOST_RAD = 0.05
"""An arm that is found so far from where it is held, in any joint, is held where it is."""

KEEP_S = 0.5
"""For so long it is remembered where the arm was meant to be: joint states are measured earlier than they arrive."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DriverLimits:
    """What the robot's own controller lets the joints do: (J,) each, in rad, rad/s, rad/s²."""

    joint_names: tuple[str, ...]
    lower: Vector
    upper: Vector
    velocity: Vector
    acceleration: Vector

    @classmethod
    def read(cls, joint_names: Sequence[str], path: Path = LIMITS) -> DriverLimits:
        """Read a YAML file with `joint_limits` by joint, in the vocabulary of ros2_control.

        Raises:
            BadInput: the file or a limit of a joint is missing, or a limit is no finite number.
        """
        if not path.is_file():
            raise BadInput(f"{path} does not exist; give a YAML file with joint_limits")
        try:
            entries: Mapping[str, Any] = dict(yaml.safe_load(path.read_text(encoding="utf-8"))["joint_limits"])
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path} cannot be read ({error!r}); give a YAML file with joint_limits by joint") from error
        rows = []
        for joint in joint_names:
            entry = entries.get(joint)
            if entry is None:
                raise BadInput(f"{path} has no joint_limits of {joint}; a driver knows the limits of all its joints")
            try:
                row = [float(entry[name]) for name in ("min_position", "max_position")]
                row += [float(entry[name]) for name in ("max_velocity", "max_acceleration")]
            except (KeyError, TypeError, ValueError) as error:
                raise BadInput(
                    f"{path}: joint_limits of {joint} lack {error}; give min_position, max_position, max_velocity and "
                    "max_acceleration"
                ) from error
            if not (np.isfinite(row).all() and row[0] < row[1] and row[2] > 0 and row[3] > 0):
                raise BadInput(f"{path}: joint_limits of {joint} are {row}; give finite numbers, min below max")
            rows.append(row)
        lower, upper, velocity, acceleration = np.array(rows).T
        return cls(tuple(joint_names), lower, upper, velocity, acceleration)


@dataclass(frozen=True, eq=False)
class Goal:
    """What is asked of a trajectory that somebody waits for.

    Attributes:
        path_rad, goal_rad: how far a joint may be off on the way and at the end, (J,); infinite where it does not
            matter.
        goal_s: how long after its end the arm may take to get there.
    """

    path_rad: Vector
    goal_rad: Vector
    goal_s: float


Ending = Literal["reached", "path_tolerance", "goal_tolerance", "replaced", "cancelled"]


@dataclass(frozen=True)
class Result:
    """How a goal ended, and why in words."""

    ending: Ending
    reason: str = ""


@dataclass
class Account:
    """What the driver counts.

    Attributes:
        accepted: trajectories followed.
        malformed: trajectories that no driver could follow, or that came too late.
        refused: trajectories that would have broken a limit, by the limit; none of them was followed.
        violations: setpoints that broke a limit, by the limit; computed from the setpoints alone.
        velocity_share, acceleration_share: the largest share of these limits that an accepted trajectory took.
        late_s: how long after its beginning a trajectory came, at most.
        braked: how often the driver braked by itself.
        last: the last complaint, in words.
    """

    accepted: int = 0
    malformed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    velocity_share: float = 0.0
    acceleration_share: float = 0.0
    late_s: float = 0.0
    braked: int = 0
    last: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "refused": dict(self.refused), "violations": dict(self.violations)}


class Driver:
    """Follows joint trajectories within its limits. Times are of one steady clock.

    Attributes:
        limits: its own.
        account: what it counts.
    """

    def __init__(self, limits: DriverLimits, positions: Vector) -> None:
        self.limits = limits
        self.account = Account()
        self._controller = JointTrajectoryController(positions)
        self._streamed: list[Setpoint] = []
        self._goal: Goal | None = None
        self._result: Result | None = None

    # ---- orders

    def offer(self, path: JointPath, start_s: float, now_s: float, goal: Goal | None = None) -> None:
        """Follow a trajectory whose time 0 is `start_s`; what was followed before goes on until it is joined.

        Raises:
            BadInput: it is malformed or over already.
            Refused: a limit of the driver would be broken. In both cases the arm goes on as before.
        """
        self.account.late_s = max(self.account.late_s, now_s - start_s)
        try:
            plan = self._controller.plan(path, start_s, max(start_s, now_s))
            shares = self._check(plan)
        except BadInput as error:
            self.account.malformed += 1
            self.account.last = str(error)
            raise
        except Refused as error:
            self.account.refused[error.rule] += 1
            self.account.last = str(error)
            raise
        if self._goal is not None:
            self._end("replaced", "a new trajectory took its place")
        self._controller.take(plan)
        self._goal = goal
        self.account.accepted += 1
        self.account.velocity_share = max(self.account.velocity_share, shares[0])
        self.account.acceleration_share = max(self.account.acceleration_share, shares[1])

    def cancel(self, now_s: float) -> None:
        """Give up the goal in hand and come to rest."""
        if self._goal is not None:
            self._end("cancelled", "the goal was cancelled; the arm holds")
        self.brake(now_s)

    def brake(self, now_s: float) -> None:
        """Come to rest at once, every joint within its own acceleration."""
        q, qd, _ = self._controller.sample(now_s)
        brake_s = float((np.abs(qd) / (BRAKE_SHARE * self.limits.acceleration)).max())
        if brake_s <= CHECK_S:
            self._controller.hold(q)
            return
        self.account.braked += 1
        ends = np.clip(q + qd * brake_s / 2, self.limits.lower, self.limits.upper)
        path = JointPath(np.array([brake_s]), ends[None], np.zeros((1, len(q))))
        self._controller.take(self._controller.plan(path, now_s, now_s))

    # ---- time

    def setpoint(self, now_s: float) -> Setpoint:
        """Where the arm shall be now; call it at the rate of the driver."""
        self._controller.forget_before(now_s - KEEP_S)
        q, qd, _ = self._controller.sample(now_s)
        point = Setpoint(now_s, q, qd)
        self._witness(point)
        return point

    def desired(self, now_s: float) -> Desired:
        """Where the arm is meant to be at a time of the last half second or later."""
        return self._controller.sample(now_s)

    def find(self, positions: Vector, now_s: float) -> None:
        """The arm, (J,) in rad, is seen again after a while: where it was moved meanwhile, it is held there."""
        if np.abs(positions - self._controller.sample(now_s).positions).max() > LOST_RAD:
            self.cancel(now_s)
            self._controller.hold(positions)
            self._streamed = []

    def measure(self, positions: Vector, measured_s: float, now_s: float) -> None:
        """Compare where the arm is, (J,) in rad, with where it was meant to be then; see `result`."""
        if self._goal is None:
            return
        goal, over_s = self._goal, now_s - self._controller.end_s
        off = np.abs(positions - self._controller.sample(measured_s).positions)
        if over_s < 0:
            if (off > goal.path_rad).any():
                self._end("path_tolerance", self._words(off, goal.path_rad, "on its way"))
                self.brake(now_s)
            return
        if measured_s < self._controller.end_s:
            return
        if (off <= goal.goal_rad).all():
            self._end("reached", "")
        elif over_s > goal.goal_s:
            self._end("goal_tolerance", self._words(off, goal.goal_rad, f"{over_s:.2f} s after its end"))

    def result(self) -> Result | None:
        """How the last goal ended; told once."""
        result, self._result = self._result, None
        return result

    def _end(self, ending: Ending, reason: str) -> None:
        self._goal, self._result = None, Result(ending, reason)

    def _words(self, off: Vector, bound: Vector, when: str) -> str:
        worst = int((off - bound).argmax())
        name = self.limits.joint_names[worst]
        return f"{name} is {off[worst]:.4f} rad away from where it is meant to be {when}, tolerance {bound[worst]:g}"

    # ---- limits

    def _check(self, plan: Plan) -> tuple[float, float]:
        """Refuse a plan that breaks a limit anywhere; the largest shares of velocity and acceleration otherwise."""
        count = max(2, int(np.ceil((plan.times_s[-1] - plan.start_s) / CHECK_S)) + 1)
        times = np.union1d(np.linspace(plan.start_s, plan.times_s[-1], count), plan.times_s)
        q, qd, qdd = plan.sample(times)
        jump = np.abs(q[0] - self._controller.sample(plan.start_s).positions)
        self._bound("velocity", jump[None] / CHECK_S, self.limits.velocity, "to where it begins")
        middle, half = (self.limits.upper + self.limits.lower) / 2, (self.limits.upper - self.limits.lower) / 2
        self._bound("position", q - middle, half, "from the middle")
        return (
            self._bound("velocity", qd, self.limits.velocity, ""),
            self._bound("acceleration", qdd, self.limits.acceleration, ""),
        )

    def _bound(self, rule: str, values: NDArray[np.float64], bounds: Vector, about: str) -> float:
        shares = np.abs(values) / bounds
        row, joint = np.unravel_index(int(shares.argmax()), shares.shape)
        share = float(shares[row, joint])
        if share > 1 + ROUNDING:
            where = f"{rule} {about} of {self.limits.joint_names[joint]}".replace("  ", " ")
            raise Refused(
                f"driver_{rule}_limit",
                where,
                f"{values[row, joint]:.4f}",
                f"{bounds[joint]:.4f}",
                "plan within the limits of the robot",
            )
        return share

    def _witness(self, point: Setpoint) -> None:
        """Judge the stream itself, from its positions and times alone; it knows nothing of plans."""
        if self._streamed and point.time_s < self._streamed[-1].time_s + CHECK_S:
            return  # differences over less time are rounding
        self._streamed = [*self._streamed[-2:], point]
        q = [p.positions for p in self._streamed]
        t = [p.time_s for p in self._streamed]
        limits = self.limits
        over = [("position", np.maximum(limits.lower - q[-1], q[-1] - limits.upper) > ROUNDING)]
        speeds = [(q[i + 1] - q[i]) / (t[i + 1] - t[i]) for i in range(len(q) - 1)]
        if speeds:
            over.append(("velocity", np.abs(speeds[-1]) > limits.velocity * (1 + NOISE)))
        if len(speeds) == 2:
            change = 2 * (speeds[1] - speeds[0]) / (t[2] - t[0])
            over.append(("acceleration", np.abs(change) > limits.acceleration * (1 + NOISE)))
        for rule, broken in over:
            if broken.any():
                self.account.violations[rule] += 1
                joint = limits.joint_names[int(np.argmax(broken))]
                self.account.last = f"the stream of setpoints broke the {rule} limit of {joint}"

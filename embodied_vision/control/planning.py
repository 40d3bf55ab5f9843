"""Point-to-point planners: `plan_joint` through joint space, `plan_line` straight for the tip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ruckig import InputParameter, Result, Ruckig
from ruckig import Trajectory as RuckigTrajectory
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp

from embodied_vision.control.inverse import descend, unreachable
from embodied_vision.control.limits import JointLimits, Vector
from embodied_vision.control.robot import Matrix, RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import BadInput, Refused, RunFailed
from embodied_vision.types import FloatArray

Samples = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
SAMPLE_S = 0.01
BRAKE_S = 0.25
"""Longest time in which a moving arm is brought to rest along its path."""
LEAST_SINGULAR = 0.02
"""A line is refused where the smallest singular value of the tip's Jacobian (m and rad a rad) falls below: there some
joint turns 50 times as fast as the tip moves, and the arm cannot give way in some direction. Motion through joint space
may pass such places, for it asks nothing of the tip."""


@dataclass(frozen=True)
class Pace:
    """How much of the joint limits planned motion uses.

    Attributes:
        speed: 1 is the default pace; at 0.5 everything takes twice as long. In (0, 1].
        velocity, acceleration: fractions of the limits at speed 1.
        ramp_s: time in which acceleration builds up at speed 1; bounds the jerk.
        tip_m_s, tip_rad_s: tip speed on straight lines at speed 1.
    """

    speed: float = 1.0
    velocity: float = 0.75
    acceleration: float = 0.75
    ramp_s: float = 0.04
    tip_m_s: float = 0.6
    tip_rad_s: float = 1.5

    def __post_init__(self) -> None:
        for name in ("speed", "velocity", "acceleration"):
            if not 0 < getattr(self, name) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}; give a number in (0, 1]")
        for name in ("ramp_s", "tip_m_s", "tip_rad_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} is {getattr(self, name)}; give a positive number")

    def apply(self, limits: JointLimits) -> JointLimits:
        """Limits for planning. They leave what it takes to brake along the path within `BRAKE_S`."""
        acceleration = limits.acceleration * self.acceleration
        velocity = np.minimum(limits.velocity * self.velocity, 0.9 * limits.acceleration * BRAKE_S)
        jerk = np.minimum(limits.jerk, acceleration / self.ramp_s)
        s = self.speed
        return JointLimits(limits.lower, limits.upper, velocity * s, acceleration * s**2, jerk * s**3)


def _time_law(velocity: float, acceleration: float, jerk: float) -> Samples:
    """Fastest way from rest at 0 to rest at 1 within the bounds: times, values and two derivatives, each (N,)."""
    request = InputParameter(1)
    request.current_position, request.target_position = [0.0], [1.0]
    request.max_velocity, request.max_acceleration, request.max_jerk = [velocity], [acceleration], [jerk]
    profile = RuckigTrajectory(1)
    result = Ruckig(1).calculate(request, profile)
    if result not in (Result.Working, Result.Finished):
        raise RunFailed(f"no time law for {velocity} /s, {acceleration} /s², {jerk} /s³: {result}; check the limits")
    times = np.linspace(0.0, profile.duration, max(2, int(np.ceil(profile.duration / SAMPLE_S)) + 1))
    samples = np.array([profile.at_time(t) for t in times.tolist()])[:, :, 0]
    samples[-1] = 1.0, 0.0, 0.0
    return times, np.clip(samples[:, 0], 0.0, 1.0), samples[:, 1], samples[:, 2]


def plan_joint(model: RobotModel, q0: Vector, q1: Vector, pace: Pace | None = None) -> Trajectory:
    """Rest to rest on the straight line in joint space, within velocity, acceleration and jerk.

    Raises:
        Refused: rule `position_limit`, the goal lies outside the limits.
    """
    start, goal = np.asarray(q0, float), np.asarray(q1, float)
    for index, name in enumerate(model.joint_names):
        low, high = model.limits.lower[index], model.limits.upper[index]
        if not low <= goal[index] <= high:
            raise Refused("position_limit", name, float(goal[index]), (low, high), "choose a goal within the limits")
    way = goal - start
    if np.abs(way).max() < 1e-9:
        still = np.zeros((2, len(way)))
        return Trajectory(np.array([0.0, SAMPLE_S]), np.stack([start, start]), still, still)
    limits = (pace or Pace()).apply(model.limits)
    reach = np.maximum(np.abs(way), 1e-9)
    times, s, sd, sdd = _time_law(
        *(float((bound / reach).min()) for bound in (limits.velocity, limits.acceleration, limits.jerk))
    )
    return Trajectory(times, start + s[:, None] * way, sd[:, None] * way, sdd[:, None] * way)


def _line_poses(start: Matrix, goal: FloatArray, fractions: NDArray[np.float64]) -> list[Matrix]:
    rotations = Slerp([0.0, 1.0], Rotation.from_matrix([start[:3, :3], goal[:3, :3]]))(fractions).as_matrix()
    poses = np.tile(np.eye(4), (len(fractions), 1, 1))
    poses[:, :3, :3] = rotations
    poses[:, :3, 3] = start[:3, 3] + fractions[:, None] * (goal[:3, 3] - start[:3, 3])
    return list(poses)


def plan_line(model: RobotModel, q0: Vector, T1: FloatArray, pace: Pace | None = None) -> Trajectory:
    """Rest to rest with the tip on the straight line from its pose at q0 (J,) to T1 (4, 4).

    The joints follow a spline through inverse kinematics every centimetre; a jerk-limited law of
    the path parameter keeps every joint within its limits.

    Raises:
        Refused: rule `unreachable`, some pose on the line cannot be taken without a jump of the joints; rule
            `singular`, some pose on it can hardly be left in some direction.
    """
    pace = pace or Pace()
    q0 = np.asarray(q0, float)
    start = model.forward(q0)
    length = float(np.linalg.norm(T1[:3, 3] - start[:3, 3]))
    turn = float(Rotation.from_matrix(start[:3, :3].T @ T1[:3, :3]).magnitude())
    if max(length, turn) < 1e-6:
        return plan_joint(model, q0, q0, pace)
    knots = np.linspace(0.0, 1.0, max(6, int(np.ceil(max(length / 0.02, turn / 0.1))) + 1))
    joints = [q0]
    _check_singular(model, q0, 0.0)
    for fraction, pose in zip(knots[1:], _line_poses(start, T1, knots[1:]), strict=True):
        guess = 2 * joints[-1] - joints[-2] if len(joints) > 1 else joints[-1]
        q = descend(model, pose, guess, q0, model.posture, free_spin=False, iterations=25)
        if q is None or np.abs(q - joints[-1]).max() > 0.5:
            raise unreachable(f"line to the tip pose, after {fraction:.0%} of the way,", pose, model)
        _check_singular(model, q, fraction)
        joints.append(q)
    spline = CubicSpline(knots, np.array(joints))
    return _within_jerk(spline, length, turn, pace, model.limits)


def _check_singular(model: RobotModel, q: Vector, fraction: float) -> None:
    least = float(np.linalg.svd(model.jacobian(q), compute_uv=False)[-1])
    if least < LEAST_SINGULAR:
        raise Refused(
            "singular",
            f"line to the tip pose, after {fraction:.0%} of the way,",
            f"smallest singular value {least:.4f}",
            f"at least {LEAST_SINGULAR}",
            "choose a pose where the arm is neither stretched nor its wrist in line",
        )


def _within_jerk(spline: CubicSpline, length: float, turn: float, pace: Pace, limits: JointLimits) -> Trajectory:
    """Along the spline, slowed down where its bends ask for more jerk than the joints have.

    `_along` counts the greatest parts of the jerk alone; arms whose jerk limits are low next to their accelerations
    may need a little more time.
    """
    planned = pace.apply(limits)
    for _ in range(4):
        trajectory = _along(spline, length, turn, pace, planned)
        jerk = np.abs(np.diff(trajectory.accelerations, axis=0)) / np.diff(trajectory.times_s)[:, None]
        excess = float((jerk / limits.jerk).max())
        if excess <= 1:
            break
        slower = 1.05 * float(np.cbrt(excess))
        planned = JointLimits(
            planned.lower,
            planned.upper,
            planned.velocity / slower,
            planned.acceleration / slower**2,
            planned.jerk / slower**3,
        )
    return trajectory


def _along(spline: CubicSpline, length: float, turn: float, pace: Pace, limits: JointLimits) -> Trajectory:
    """Jerk-limited law of the spline's parameter, 0 to 1, that keeps the joints within the limits."""
    u = np.linspace(0.0, 1.0, 41)
    d1, d2, d3 = (np.abs(spline(u, order)) + 1e-9 for order in (1, 2, 3))
    fastest = pace.speed * min(pace.tip_m_s / max(length, 1e-9), pace.tip_rad_s / max(turn, 1e-9))
    fastest = min(fastest, float((limits.velocity / d1).min()), float(np.cbrt(0.25 * limits.jerk / d3).min()))
    # The acceleration of a joint is d2·v² + d1·a: of the ways to share its limit, the quickest.
    slow = min(fastest, float(np.sqrt(0.5 * limits.acceleration / d2).min()))
    shares = np.linspace(slow, fastest, 16)
    rest = ((limits.acceleration - d2 * shares[:, None, None] ** 2) / d1).min((1, 2))
    possible = rest > 0
    v, a = shares[possible], rest[possible]
    best = int(np.argmin(np.where(v * v < a, 1 / v + v / a, 2 / np.sqrt(a))))
    v, a = float(v[best]), float(a[best])
    j = float((0.8 * limits.jerk / d1).min())
    times, s, sd, sdd = _time_law(v, a, j)
    q, q1, q2 = spline(s), spline(s, 1), spline(s, 2)
    return Trajectory(times, q, q1 * sd[:, None], q2 * sd[:, None] ** 2 + q1 * sdd[:, None])

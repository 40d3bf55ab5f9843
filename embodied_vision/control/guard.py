"""The last stage before the arm: every decision and every trajectory passes here or is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.motion import Motion
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Matrix, Trajectory
from embodied_vision.errors import BadInput, Refused
from embodied_vision.types import FloatArray, PickPlace, Workspace

NS = 1e-9
SLACK = 1.001
"""Relative tolerance of comparisons between samples: stamps are whole nanoseconds, samples are rounded."""


@dataclass(frozen=True)
class GuardSettings:
    """Bounds beside the joint limits.

    Attributes:
        observation_age_s: greatest age of the frames that a decision came from.
        joint_state_age_s: greatest age of the joint state that a trajectory starts from.
        clock_slack_s: how far a stamp may lie in the future.
        jump_rad: greatest distance of a trajectory's start from the current joint positions.
        gap_s: greatest time between samples of a trajectory.
        tip_height_m: least height of the tip above the base's z = 0, the table.
        path_margin_m: how far the tip may travel outside the workspace in x and y.
        ceiling_m: greatest height of the tip.
    """

    observation_age_s: float = 2.0
    joint_state_age_s: float = 0.25
    clock_slack_s: float = 0.05
    jump_rad: float = 0.1
    gap_s: float = 0.05
    tip_height_m: float = 0.002
    path_margin_m: float = 0.2
    ceiling_m: float = 0.9

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < np.inf:
                raise BadInput(f"guard setting {name} is {value}; give a finite number of at least 0")


class Guard:
    """Refuses what could harm arm or table; a stop is latched until `resume`.

    The rules, named by `Refused.rule`: `stopped`, `non_finite`, `not_a_pose`, `stale_observation`,
    `stale_joint_state`, `shape`, `times`, `jump`, `position_limit`, `velocity_limit`, `acceleration_limit`,
    `inconsistent`, `not_at_rest`, `workspace`. Planners add `unreachable`.
    """

    def __init__(
        self, model: RobotModel, workspace: Workspace | None = None, settings: GuardSettings | None = None
    ) -> None:
        self._model = model
        self._workspace = workspace or Workspace()
        self._settings = settings or GuardSettings()
        self._stopped: str | None = None

    @property
    def stopped(self) -> str | None:
        """Why everything is refused, None when nothing is stopped."""
        return self._stopped

    def stop(self, reason: str) -> None:
        """Refuse everything from now on; the first reason is kept. Send the brake first: it is refused afterwards."""
        self._stopped = self._stopped or reason or "stopped"

    def resume(self) -> None:
        """End the stop."""
        self._stopped = None

    def check_action(self, action: PickPlace, now_ns: int) -> None:
        """Whether a decision may be planned and carried out.

        Raises:
            Refused: naming the rule, the pose or axis, its value and limit.
        """
        self._check_stop()
        for name, pose in (("pick", action.pick), ("place", action.place)):
            _check_pose(name, pose)
        for name, score in action.scores.items():
            if not np.isfinite(score):
                raise Refused(
                    "non_finite", f"score {name!r}", score, "finite numbers", "check the policy and its input"
                )
        self._check_age(
            "stale_observation", "age of the frames", action.stamp_ns, now_ns, self._settings.observation_age_s
        )
        bounds = zip("xyz", (self._workspace.x, self._workspace.y, self._heights()), strict=True)
        for axis, (index, (low, high)) in enumerate(bounds):
            for name, pose in (("pick", action.pick), ("place", action.place)):
                value = float(pose[axis, 3])
                if not low <= value <= high:
                    raise _refuse_place(f"{index} of the {name} pose", value, low, high)

    def check_motion(self, motion: Motion, q_now: NDArray[np.float64], q_stamp_ns: int, now_ns: int) -> None:
        """Check every segment; the first against the current joint positions, the others against the one before.

        Raises:
            Refused: as `check_trajectory`.
        """
        start = q_now
        for segment in motion.segments:
            self.check_trajectory(segment.trajectory, start, q_stamp_ns, now_ns)
            start = segment.trajectory.positions[-1]

    def check_trajectory(
        self, trajectory: Trajectory, q_now: NDArray[np.float64], q_stamp_ns: int, now_ns: int
    ) -> None:
        """Whether a trajectory may be sent to the arm, which is at q_now (J,), rad.

        Velocities and accelerations are checked as stated and as they follow from the samples, so that a
        trajectory cannot lie about its speed.

        Raises:
            Refused: naming the rule, joint or axis, its value and limit.
        """
        self._check_stop()
        names, limits = self._model.joint_names, self._model.limits
        shape = (len(trajectory.times_s), len(names))
        if trajectory.positions.shape != shape or np.shape(q_now) != shape[1:]:
            found = f"{trajectory.positions.shape[1:]} and {np.shape(q_now)}"
            raise Refused("shape", "joints of trajectory and joint state", found, shape[1:], "send all joints in order")
        self._check_finite(trajectory, q_now)
        self._check_times(trajectory)
        self._check_age(
            "stale_joint_state", "age of the joint state", q_stamp_ns, now_ns, self._settings.joint_state_age_s
        )
        t, q, qd, qdd = trajectory.times_s, trajectory.positions, trajectory.velocities, trajectory.accelerations
        self._bound(
            "jump",
            "start",
            q[:1] - q_now,
            np.full(len(names), self._settings.jump_rad),
            t,
            "plan again from where it is",
        )
        self._check_positions(t, q)
        slower = "plan at a lower speed"
        self._bound("velocity_limit", "velocity", qd, limits.velocity, t, slower)
        self._bound("acceleration_limit", "acceleration", qdd, limits.acceleration, t, slower)
        h = np.diff(t)[:, None]
        self._bound("velocity_limit", "change of position", np.diff(q, axis=0) / h, limits.velocity * SLACK, t, slower)
        change = np.diff(qd, axis=0) / h
        self._bound("acceleration_limit", "change of velocity", change, limits.acceleration * SLACK, t, slower)
        gap = (np.diff(q, axis=0) - 0.5 * h * (qd[1:] + qd[:-1])) / (0.25 * h * h)
        self._bound(
            "inconsistent", "position against velocity", gap, limits.acceleration * SLACK, t, "sample one smooth motion"
        )
        self._bound("not_at_rest", "velocity at the end", qd[-1:], np.full(len(names), 1e-3), t[-1:], "end at rest")
        self._check_links(t, q)

    def _check_stop(self) -> None:
        if self._stopped is not None:
            raise Refused("stopped", "the arm", self._stopped, "no stop", "look for the cause, then resume")

    def _check_age(self, rule: str, where: str, stamp_ns: int, now_ns: int, limit: float) -> None:
        age = (now_ns - stamp_ns) * NS
        if not -self._settings.clock_slack_s <= age <= limit:
            remedy = "check that its publisher runs and that the clocks agree"
            raise Refused(rule, where, f"{age:.3f} s", f"{-self._settings.clock_slack_s:g} to {limit:g} s", remedy)

    def _check_finite(self, trajectory: Trajectory, q_now: NDArray[np.float64]) -> None:
        parts = {
            "time": trajectory.times_s[:, None],
            "position": trajectory.positions,
            "velocity": trajectory.velocities,
            "acceleration": trajectory.accelerations,
            "current position": np.asarray(q_now)[None],
        }
        for quantity, values in parts.items():
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                sample, joint = bad[0]
                name = f"of {self._model.joint_names[joint]} " if values.shape[1] > 1 else ""
                raise Refused(
                    "non_finite",
                    f"{quantity} {name}at sample {sample}",
                    float(values[sample, joint]),
                    "finite numbers",
                    "check what computed it",
                )

    def _check_times(self, trajectory: Trajectory) -> None:
        steps = np.diff(trajectory.times_s)
        if trajectory.times_s[0] != 0:
            raise Refused("times", "first sample", f"{trajectory.times_s[0]} s", "0 s", "start times at 0")
        if not (steps > 0).all():
            i = int(np.argmax(steps <= 0))
            raise Refused("times", f"step after sample {i}", f"{steps[i]} s", "above 0 s", "sort the samples by time")
        if steps.max() > self._settings.gap_s * SLACK:
            i = int(steps.argmax())
            limit = f"{self._settings.gap_s} s"
            raise Refused("times", f"step after sample {i}", f"{steps[i]} s", limit, "sample the motion more densely")

    def _bound(
        self, rule: str, quantity: str, values: Matrix, bounds: NDArray[np.float64], t: NDArray[np.float64], remedy: str
    ) -> None:
        """Refuse the value (M, J) that exceeds its joint's bound (J,) the most."""
        share = np.abs(values) / bounds
        if share.max() > 1:
            i, j = np.unravel_index(int(share.argmax()), share.shape)
            where = f"{quantity} of {self._model.joint_names[j]} at {t[i]:.3f} s"
            raise Refused(rule, where, float(values[i, j]), float(bounds[j]), remedy)

    def _check_positions(self, t: NDArray[np.float64], q: Matrix) -> None:
        limits = self._model.limits
        beyond = np.maximum(limits.lower - q, q - limits.upper)
        if beyond.max() > 0:
            i, j = np.unravel_index(int(beyond.argmax()), beyond.shape)
            raise Refused(
                "position_limit",
                f"position of {self._model.joint_names[j]} at {t[i]:.3f} s",
                float(q[i, j]),
                (float(limits.lower[j]), float(limits.upper[j])),
                "choose another pose or turn the tool",
            )

    def _check_links(self, t: NDArray[np.float64], q: Matrix) -> None:
        """Tip inside its box and above the table, elbow and wrist well above it."""
        positions = self._model.link_positions(q)
        tip, margin = positions[:, -1], self._settings.path_margin_m
        boxes = (
            (self._workspace.x[0] - margin, self._workspace.x[1] + margin),
            (self._workspace.y[0] - margin, self._workspace.y[1] + margin),
            (self._settings.tip_height_m, self._settings.ceiling_m),
        )
        for axis, (low, high) in enumerate(boxes):
            beyond = np.maximum(low - tip[:, axis], tip[:, axis] - high)
            if beyond.max() > 0:
                i = int(beyond.argmax())
                raise _refuse_place(f"{'xyz'[axis]} of the tip at {t[i]:.3f} s", float(tip[i, axis]), low, high)
        heights = positions[:, 1:-1, 2]
        if heights.min() < self._model.link_clearance_m:
            sample, joint = np.unravel_index(int(heights.argmin()), heights.shape)
            where = f"z of {self._model.joint_names[int(joint) + 1]} at {t[sample]:.3f} s"
            raise _refuse_place(where, float(heights[sample, joint]), self._model.link_clearance_m, np.inf)

    def _heights(self) -> tuple[float, float]:
        return self._settings.tip_height_m, self._workspace.z[1]


def _refuse_place(where: str, value: float, low: float, high: float) -> Refused:
    return Refused("workspace", where, f"{value:.4f} m", f"{low:g} to {high:g} m", "choose a pose inside the workspace")


def _check_pose(name: str, pose: FloatArray) -> None:
    if not np.isfinite(pose).all():
        raise Refused("non_finite", f"{name} pose", pose.tolist(), "finite numbers", "check the policy and its input")
    R = pose[:3, :3]
    error = max(float(np.abs(R @ R.T - np.eye(3)).max()), float(np.abs(pose[3] - (0, 0, 0, 1)).max()))
    if error > 1e-4 or np.linalg.det(R) < 0:
        raise Refused("not_a_pose", f"{name} pose", pose.tolist(), "a rotation and a position", "give an SE(3) matrix")

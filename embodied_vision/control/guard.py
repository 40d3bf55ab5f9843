"""The last stage before the arm: every decision and every trajectory passes here or is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.bodies import links_without_bodies
from embodied_vision.control.guard_settings import GuardSettings
from embodied_vision.control.joint_rules import JointRules
from embodied_vision.control.motion import Motion
from embodied_vision.control.planning import BRAKE_S
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.space_rules import SpaceRules, refuse_place
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import Refused
from embodied_vision.types import FloatArray, PickPlace, Workspace

__all__ = ["Guard", "GuardSettings"]

NS = 1e-9


class Guard:
    """Refuses what could harm arm or table; a stop is latched until `resume`. Holds scratch memory: one a thread.

    The rules, named by `Refused.rule`: `stopped`, `non_finite`, `not_a_pose`, `stale_observation`,
    `stale_joint_state`, `time_went_back`, `shape`, `times`, `jump`, `position_limit`, `velocity_limit`,
    `acceleration_limit`, `jerk_limit`, `inconsistent`, `not_at_rest`, `workspace`, `table`, `self_collision`,
    `keep_out`. Planners add `unreachable` and `singular`. docs/guard.md says what each checks, and how exactly.

    Attributes:
        workspace: where decisions may lie.
        keep_out: boxes that no part of the arm may enter.
        unchecked: links that have no body in the URDF, of which only the frames are checked.
    """

    def __init__(
        self,
        model: RobotModel,
        workspace: Workspace | None = None,
        settings: GuardSettings | None = None,
        keep_out: Sequence[KeepOut] = (),
    ) -> None:
        """A guard that has seen no stamps and refused nothing.

        Raises:
            BadInput: the robot's collision shapes cannot be used, see `ContactCheck`.
        """
        self.workspace = workspace or Workspace()
        self.keep_out = tuple(keep_out)
        self._settings = settings or GuardSettings()
        self._joints = JointRules(model.joint_names, model.limits, self._settings)
        self._space = SpaceRules(model, self.workspace, self._settings, self.keep_out)
        self.unchecked = links_without_bodies(model, self._space.contacts.bodies)
        self._stopped: str | None = None
        self._counts: Counter[str] = Counter()
        self._counted: Refused | None = None
        self._newest_ns: dict[str, int] = {}

    @property
    def stopped(self) -> str | None:
        """Why everything is refused, None when nothing is stopped."""
        return self._stopped

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each rule refused something so far, for diagnostics; rules that never did are not in it."""
        return dict(self._counts)

    def count(self, refusal: Refused) -> None:
        """Count a refusal once, so that `counts` may hold those of planners too; the guard counts its own."""
        if refusal is not self._counted:
            self._counts[refusal.rule] += 1
            self._counted = refusal

    def stop(self, reason: str) -> None:
        """Refuse everything from now on; the first reason is kept. Send the brake first: it is refused afterwards."""
        self._stopped = self._stopped or reason or "stopped"

    def resume(self) -> None:
        """End the stop, and forget the stamps seen: a clock that went back may go on from here."""
        self._stopped = None
        self._newest_ns.clear()

    def forget_stamps(self) -> None:
        """Compare stamps with those to come alone: the clock was set."""
        self._newest_ns.clear()

    def check_action(self, action: PickPlace, now_ns: int) -> None:
        """Whether a decision may be planned and carried out.

        Raises:
            Refused: naming the rule, the pose or axis, its value and limit.
        """
        with self._counting():
            self._check_stop()
            for name, pose in (("pick", action.pick), ("place", action.place)):
                _check_pose(name, pose)
            for name, score in action.scores.items():
                if not (isinstance(score, Real) and abs(score) < np.inf):
                    remedy = "check the policy and its input"
                    raise Refused("non_finite", f"score {name!r}", score, "finite numbers", remedy)
            self.check_observation(action.stamp_ns, now_ns)
            self._check_order("observation", action.stamp_ns)
            heights = self._settings.tip_height_m, self.workspace.z[1]
            for axis, (low, high) in enumerate((self.workspace.x, self.workspace.y, heights)):
                for name, pose in (("pick", action.pick), ("place", action.place)):
                    value = float(pose[axis, 3])
                    if not low <= value <= high:
                        raise refuse_place(f"{'xyz'[axis]} of the {name} pose", value, low, high)
            self._newest_ns["observation"] = action.stamp_ns

    def check_observation(self, stamp_ns: int, now_ns: int) -> None:
        """Check the age of the frames that a decision came from.

        Raises:
            Refused: they are too old, or from the future.
        """
        age = self._settings.observation_age_s
        self._check_age("stale_observation", "age of the frames", stamp_ns, now_ns, age)

    def check_motion(self, motion: Motion, q_now: NDArray[np.float64], q_stamp_ns: int, now_ns: int) -> None:
        """Check every segment; the first against the current joint positions, the others against the one before.

        Raises:
            Refused: as `check_trajectory`, no segment brakes.
        """
        start = q_now
        for segment in motion.segments:
            self.check_trajectory(segment.trajectory, start, q_stamp_ns, now_ns, brake_s=0.0)
            start = segment.trajectory.positions[-1]

    def check_trajectory(
        self,
        trajectory: Trajectory,
        q_now: NDArray[np.float64],
        q_stamp_ns: int,
        now_ns: int,
        brake_s: float = BRAKE_S,
    ) -> None:
        """Whether a trajectory may be sent to the arm, which is at q_now (J,), rad.

        Limits hold for what the samples state, for what follows from their differences, and for the spline through
        them, so that a trajectory cannot lie about its speed.

        Args:
            trajectory: what is to be sent.
            q_now: where the arm is.
            q_stamp_ns: when it was there.
            now_ns: the time now.
            brake_s: so long before the end a brake may begin, whose jerk is bounded by the acceleration limits alone.

        Raises:
            Refused: naming the rule, joint or axis, its value and limit.
        """
        with self._counting():
            self._check_stop()
            self._joints.check_values(trajectory, q_now)
            age = self._settings.joint_state_age_s
            self._check_age("stale_joint_state", "age of the joint state", q_stamp_ns, now_ns, age)
            self._check_order("joint state", q_stamp_ns)
            spline = self._joints.check(trajectory, q_now, brake_s)
            self._space.check(trajectory.times_s, spline)
            self._newest_ns["joint state"] = q_stamp_ns

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self.count(refusal)
            raise

    def _check_stop(self) -> None:
        if self._stopped is not None:
            raise Refused("stopped", "the arm", self._stopped, "no stop", "look for the cause, then resume")

    def _check_age(self, rule: str, where: str, stamp_ns: int, now_ns: int, limit: float) -> None:
        age = (now_ns - stamp_ns) * NS
        if not -self._settings.clock_slack_s <= age <= limit:
            remedy = "check that its publisher runs and that the clocks agree"
            raise Refused(rule, where, f"{age:.3f} s", f"{-self._settings.clock_slack_s:g} to {limit:g} s", remedy)

    def _check_order(self, what: str, stamp_ns: int) -> None:
        newest_ns = self._newest_ns.get(what, stamp_ns)
        if stamp_ns < newest_ns:
            back = f"{(newest_ns - stamp_ns) * NS:.3f} s before the last one"
            remedy = "let one clock stamp them and one publisher send them; a stop and ~/resume begin anew"
            raise Refused("time_went_back", f"stamp of the {what}", back, "not before it", remedy)


def _check_pose(name: str, pose: FloatArray) -> None:
    if not np.isfinite(pose).all():
        raise Refused("non_finite", f"{name} pose", pose.tolist(), "finite numbers", "check the policy and its input")
    R = pose[:3, :3]
    with np.errstate(all="ignore"):
        error = float(np.abs(R @ R.T - np.eye(3)).max())
        right_handed = bool(np.linalg.det(R) > 0)
    # Numbers near the largest overflow to what is no number, which is no small error.
    if not (error <= 1e-4 and right_handed and np.abs(pose[3] - (0, 0, 0, 1)).max() <= 1e-4):
        raise Refused("not_a_pose", f"{name} pose", pose.tolist(), "a rotation and a position", "give an SE(3) matrix")

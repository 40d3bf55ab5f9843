"""What the arm does and why: takes decisions, plays their motions through the guard, pauses when others fall silent.

No ROS and no clock: the caller passes the time and two functions that send. They are called with nothing
that the guard has not let through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.arm_state import ArmStatus, Joints
from embodied_vision.control.driver import DriverState
from embodied_vision.control.guard import Guard
from embodied_vision.control.holding import Holding
from embodied_vision.control.motion import OPEN, Motion, MotionSettings, Segment, plan, plan_home
from embodied_vision.control.player import MotionPlayer, PlayerSettings
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.standstill import hold, to_rest
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.errors import Refused, RunFailed
from embodied_vision.types import PickPlace

REST_RAD_S = 0.05
"""An arm slower than this in every joint counts as resting."""

NEAR_RAD = 0.05
"""A paused arm must be so near to where its path was left, in every joint, to go on."""

STALE_NS = 250_000_000
"""A motion that was planned waits for a younger joint state than this, which the guard would refuse."""

COME_TO_REST_S = 2.0
"""A paused arm that is not there after this time gives its motion up."""

HOLD_S = 0.3
"""Time between two brakes of a stopped arm that somebody else moves: no more than it takes to come to rest."""

ASK_S = 0.25
"""Time between two holds by which an arm finds out whether it is heard."""

HEARD_S = 3.0
"""A motion that not all have acknowledged to hear after this time is given up; a dead one is forgotten sooner."""

_FAILED = {
    "grasp_missed": "nothing is held after the lift; the arm lets go and returns home",
    "dropped": "what was carried is no longer held; the arm lets go and returns home",
}


@dataclass(frozen=True)
class ExecutiveSettings:
    """How the arm is driven.

    Attributes:
        motion: pace and heights of pick and place.
        homing: the same for the way home after a fault.
        player: horizons.
        resume_within_s: a motion interrupted for less than this goes on; otherwise it is given up.
        healthy_s: for how long all must be well before a motion goes on.
        recovered_s: for how long all must be well before a motion that was given up makes way for the next.
    """

    motion: MotionSettings
    homing: MotionSettings
    player: PlayerSettings
    resume_within_s: float = 0.5
    healthy_s: float = 0.2
    recovered_s: float = 1.0


def _nothing() -> None:
    pass


def _all_hear() -> str:
    return ""


class ArmExecutive:
    """The arm's state machine. `now_s` is a steady clock, `now_ns` the clock of the stamps.

    Args:
        model: the arm.
        guard: the last word on everything that is sent.
        watchdog: who has to be heard while the arm moves.
        settings: how it is driven.
        send, grip: what reaches arm and gripper.
        drop: takes back what was sent and is still under way, where the way to the arm can do that.
        unheard: who is known not to hear what is sent, or not known to, in words; a motion begins when it is empty.
        driver: what the driver says; without it the arm counts as ready and at full pace.
        holding: sensor of the gripper; without it every grasp counts as a success.
        dry_run: `send` and `grip` reach no arm; only said in the status.

    Attributes:
        guard, watchdog, driver, holding: as given.
    """

    def __init__(
        self,
        model: RobotModel,
        guard: Guard,
        watchdog: Watchdog,
        settings: ExecutiveSettings,
        send: Callable[[Trajectory, int], None],
        grip: Callable[[float], None],
        drop: Callable[[], None] = _nothing,
        *,
        unheard: Callable[[], str] = _all_hear,
        driver: DriverState | None = None,
        holding: Holding | None = None,
        dry_run: bool = False,
    ) -> None:
        self._model = model
        self.guard = guard
        self.watchdog = watchdog
        self.driver = driver or DriverState()
        self.holding = holding
        self._settings = settings
        self._send = send
        self._grip = grip
        self._drop = drop
        self._unheard = unheard
        self._player: MotionPlayer | None = None
        self._paused_s = 0.0
        self._sent_ns = 0
        self._give_up = False
        self._begun = False
        self._observed_ns: int | None = None
        self._confirmed = False
        self._returning = False
        self._seen_s: float | None = None
        self._delay_s = 0.0
        self._held_s = -HOLD_S
        self._asked_s: float | None = None
        self._ask_again_s = 0.0
        stopped = guard.stopped
        self._status = ArmStatus(dry_run=dry_run)
        if stopped is not None:
            self._set(state="stopped", reason=stopped)

    @property
    def status(self) -> ArmStatus:
        """What the arm does now."""
        return self._status

    # ---- orders

    def begin(self, action: PickPlace, joints: Joints | None, now_s: float, now_ns: int) -> None:
        """Start to carry out a decision; the next tick sends the beginning.

        Raises:
            Refused: it is not begun.
        """
        try:
            self.guard.check_action(action, now_ns)
            q = self._ready(joints, now_s)
            motion = plan(self._model, q, action, self._settings.motion)
            self._play(motion, action.decision_id, joints, now_s, now_ns)
            self._observed_ns = action.stamp_ns
        except Refused as error:
            self.note_refusal(error, action.decision_id)
            raise

    def home(self, joints: Joints | None, now_s: float, now_ns: int) -> None:
        """Start the slow way home, at whose end the gripper lets go; the next tick sends the beginning.

        Raises:
            Refused: it is not begun.
        """
        try:
            q = self._ready(joints, now_s)
            self._play(self._way_home(q), "home", joints, now_s, now_ns)
        except Refused as error:
            self.note_refusal(error, "home")
            raise

    def can_begin(self, joints: Joints | None, now_s: float, now_ns: int) -> bool:
        """False while waiting helps: others are silent, joint states old, or the arm has not come to rest."""
        fresh = joints is not None and now_ns - joints.stamp_ns < 100_000_000
        free = self._player is None and self.guard.stopped is None
        return not free or (fresh and joints is not None and self._rests(joints) and not self._lost(now_s))

    def stop(self, reason: str, now_s: float, now_ns: int, joints: Joints | None) -> None:
        """Brake and stay stopped until `resume`. What was in hand is given up."""
        if not (self._brake(joints, now_s, now_ns) or self._halt(joints, now_ns)):
            self._drop()
        self._latch(reason, now_ns)

    def fail(self, reason: str, now_ns: int) -> None:
        """Stay stopped until `resume` and send nothing, not even a brake: the driver gave up or was stopped itself."""
        self._drop()
        self._latch(reason, now_ns)

    def _latch(self, reason: str, now_ns: int) -> None:
        self.guard.stop(reason)
        aborted = self._player is not None
        self._player = None
        self._set(
            state="stopped",
            reason=reason,
            segment="",
            aborted=aborted or self._status.aborted,
            ended_ns=now_ns if aborted else self._status.ended_ns,
        )

    def hold_still(self, joints: Joints | None, now_s: float, now_ns: int) -> None:
        """Bring a stopped arm to rest that somebody else has set in motion; not before the last such brake is over."""
        reason = self.guard.stopped
        if reason is None or joints is None or self._rests(joints) or now_s - self._held_s < HOLD_S:
            return
        self.guard.resume()
        try:
            if self._halt(joints, now_ns):
                self._held_s = now_s
        finally:
            self.guard.stop(reason)

    def explain(self, reason: str) -> None:
        """Give a stop a better reason than was known when it came."""
        if self._status.state == "stopped":
            self.guard.resume()
            self.guard.stop(reason)
            self._set(reason=reason)

    def resume(self) -> None:
        """End a stop; the arm waits for the next decision."""
        if self._status.state == "stopped":
            self.guard.resume()
            self._set(state="idle", reason="")

    def note_refusal(self, error: Refused, decision_id: str) -> None:
        """Keep the account of something refused; a decision in hand is not touched by the refusal of another."""
        self.guard.count(error)
        refusals = self._status.refusals + 1
        if self._player is not None:
            self._set(refusals=refusals)
            return
        self._set(
            decision_id=decision_id,
            done=False,
            aborted=False,
            refused=error.rule,
            failed="",
            reason=str(error),
            refusals=refusals,
        )

    # ---- time

    def tick(self, joints: Joints | None, now_s: float, now_ns: int) -> None:
        """Go on; call it every few 10 ms, and at once when the watchdog has news."""
        self._keep_time(now_s)
        lost = self._lost(now_s)
        if ", ".join(lost) != self._status.lost:
            self._set(lost=", ".join(lost))
        if self._player is None:
            return
        problems = self.driver.problems
        if problems:
            self.fail(f"{'; '.join(problems.values())}; when the arm is ready again, resume", now_ns)
        elif self._status.state == "paused":
            self._wait(self._player, lost, joints, now_s, now_ns)
        elif lost:
            self._brake(joints, now_s, now_ns)
            self._pause("; ".join(lost.values()), now_s, give_up=False)
        if self._player is not None and self._status.state == "moving":
            self._advance(self._player, joints, now_s, now_ns)

    def _lost(self, now_s: float) -> dict[str, str]:
        """Who is not heard or keeps the arm from moving, with the reason in words."""
        return {**self.watchdog.lost(now_s), **self.driver.problems}

    def _keep_time(self, now_s: float) -> None:
        """Let a motion's time go by at the pace at which the driver runs trajectories."""
        if self._seen_s is not None:
            self._delay_s += (now_s - self._seen_s) * (1.0 - self.driver.pace)
        self._seen_s = now_s
        pace = round(self.driver.pace, 2)
        if pace != self._status.speed_scaling:
            self._set(speed_scaling=pace)

    def _motion_s(self, now_s: float) -> float:
        """Time on the clock of motions, which stands still when the driver's does."""
        return now_s - self._delay_s

    def _advance(self, player: MotionPlayer, joints: Joints | None, now_s: float, now_ns: int) -> None:
        try:
            if joints is None:
                raise RunFailed("there are no joint states; the arm brakes")
            if not self._begun and now_ns - joints.stamp_ns > STALE_NS:
                return  # nothing moves yet, and those that came while it was planned are read soon
            if not self._begun:
                if not self._is_heard(joints, now_s, now_ns):
                    return
                if self._observed_ns is not None:
                    self.guard.check_observation(self._observed_ns, now_ns)  # planning and waiting took their time
                self._begun = True
            if self._returning:
                self._return_empty(player, joints, now_s, now_ns)
                return
            step = player.tick(self._motion_s(now_s), joints.positions)
            if step.trajectory is not None:
                self._checked(step.trajectory, joints, now_ns)
        except (Refused, RunFailed) as error:
            # Nothing more is sent: the horizon sent last brakes by itself. An arm that merely lags goes on afterwards.
            lags = isinstance(error, Refused) and error.rule in ("jump", "stale_joint_state")
            if isinstance(error, Refused):
                self._set(refused=error.rule, refusals=self._status.refusals + 1)
                if not self._returning:
                    player.withdraw()
            else:
                player.hold()
            self._pause(str(error), now_s, give_up=not lags)
            return
        if step.gripper is not None:
            self._grip(step.gripper)
        failed = self._grasp_failed(player, now_s)
        if failed:
            self._set(failed=failed, reason=_FAILED[failed], segment="return")
            self._brake(joints, now_s, now_ns)
            self._returning = True
        elif step.done:
            self._end(done=not self._status.failed, reason=self._status.reason, now_ns=now_ns)
        elif player.name != self._status.segment:
            self._set(segment=player.name)

    def _is_heard(self, joints: Joints, now_s: float, now_ns: int) -> bool:
        """Whether what is sent reaches who should follow. Where that is not known yet, a hold is sent to find out.

        Raises:
            Refused: the arm may not even stand where it is.
            RunFailed: it is not known after `HEARD_S`.
        """
        missing = self._unheard()
        if not missing:
            return True
        if self._asked_s is None:
            self._asked_s = self._ask_again_s = now_s
        if now_s - self._asked_s > HEARD_S:
            raise RunFailed(f"{missing}; the arm does not move before that")
        if now_s >= self._ask_again_s:
            self._ask_again_s = now_s + ASK_S
            self._checked(hold(joints.positions, ASK_S), joints, now_ns)
        return False

    def _grasp_failed(self, player: MotionPlayer, now_s: float) -> str:
        """`grasp_missed` or `dropped` when what the arm should carry is not there, else empty."""
        if self.holding is None or player.load != "carried":
            return ""
        if self.holding.empty(now_s):
            return "dropped" if self._confirmed else "grasp_missed"
        self._confirmed = self._confirmed or self.holding.held
        return ""

    def _return_empty(self, player: MotionPlayer, joints: Joints, now_s: float, now_ns: int) -> None:
        """Once the arm rests after a failed grasp: let go and go home, slowly.

        Raises:
            Refused: there is no way home that may be sent.
        """
        if not (player.settled(self._motion_s(now_s)) and self._rests(joints)):
            return
        self._start(self._way_home(joints.positions), joints, now_ns)
        self._returning = False
        self._grip(OPEN)

    def _pause(self, reason: str, now_s: float, *, give_up: bool) -> None:
        self._paused_s, self._give_up = now_s, give_up
        self._set(state="paused", reason=reason)

    def _wait(
        self, player: MotionPlayer, lost: dict[str, str], joints: Joints | None, now_s: float, now_ns: int
    ) -> None:
        """Paused: go on soon, or give up and wait until all are well."""
        since_s = now_s - self._paused_s
        if lost:
            more = [words for name, words in lost.items() if name not in self._status.reason]
            if more:
                self._set(reason="; ".join([self._status.reason, *more]))
            self._give_up = self._give_up or since_s > self._settings.resume_within_s
            return
        if not player.settled(self._motion_s(now_s)):
            return
        healthy_s = self.watchdog.healthy_s(now_s)
        if self._give_up and healthy_s >= self._settings.recovered_s:
            self._end(done=False, reason=self._status.reason, now_ns=now_ns)
        elif not self._give_up and healthy_s >= self._settings.healthy_s:
            q = None if joints is None else joints.positions
            if q is not None and joints is not None and self._rests(joints) and player.off_rest(q) < NEAR_RAD:
                if not self._returning:
                    player.resume(self._motion_s(now_s))
                self._set(state="moving", reason=_FAILED.get(self._status.failed, ""), refused="")
            else:
                self._give_up = since_s > self._settings.resume_within_s + COME_TO_REST_S

    def _end(self, *, done: bool, reason: str, now_ns: int) -> None:
        self._player = None
        self._set(
            state="idle",
            done=done,
            aborted=not done and self._status.state == "paused",
            reason=reason,
            segment="",
            ended_ns=now_ns,
            last_sent_ns=self._sent_ns,
        )

    # ---- what is sent

    def _ready(self, joints: Joints | None, now_s: float) -> NDArray[np.float64]:
        """Joint positions (J,) to plan from, when the arm may begin something."""
        if self.guard.stopped is not None:
            raise Refused("stopped", "the arm", self.guard.stopped, "no stop", "look for the cause, then resume")
        if self._player is not None:
            raise Refused("busy", "the arm", self._status.decision_id, "one motion at a time", "wait until it is done")
        lost = self._lost(now_s)
        if lost:
            raise Refused("lost", ", ".join(lost), "; ".join(lost.values()), "all heard", "bring it back first")
        if joints is None:
            raise Refused("stale_joint_state", "joint states", "none", "one", "start the arm's driver")
        if not self._rests(joints):
            speed = float(np.abs(joints.velocities).max())
            raise Refused("moving", "the arm", f"{speed:.3f} rad/s", f"{REST_RAD_S} rad/s", "wait until it rests")
        return joints.positions

    @staticmethod
    def _rests(joints: Joints) -> bool:
        return bool(np.abs(joints.velocities).max() <= REST_RAD_S)

    def _play(self, motion: Motion, decision_id: str, joints: Joints | None, now_s: float, now_ns: int) -> None:
        assert joints is not None
        self._keep_time(now_s)
        player = self._start(motion, joints, now_ns)
        self._confirmed = self._returning = False
        self._set(
            state="moving",
            decision_id=decision_id,
            done=False,
            aborted=False,
            refused="",
            failed="",
            reason="",
            segment=player.name,
        )

    def _start(self, motion: Motion, joints: Joints, now_ns: int) -> MotionPlayer:
        """Check a whole motion. The next tick sends its first horizon: planning has taken its time meanwhile."""
        self.guard.check_motion(motion, joints.positions, joints.stamp_ns, now_ns)
        self._player = player = MotionPlayer(motion, self._model.limits, self._settings.player)
        self._begun, self._asked_s, self._observed_ns = False, None, None
        return player

    def _way_home(self, q: NDArray[np.float64]) -> Motion:
        """The slow way home from q (J,), at whose end the gripper lets go."""
        motion = plan_home(self._model, q, self._settings.homing)
        letting_go = Segment("let_go", motion.segments[-1].trajectory, OPEN, self._settings.homing.release_s)
        return Motion((*motion.segments[:-1], letting_go))

    def _checked(self, trajectory: Trajectory, joints: Joints, now_ns: int) -> None:
        self.guard.check_trajectory(trajectory, joints.at(now_ns), joints.stamp_ns, now_ns)
        self._send(trajectory, now_ns)
        self._sent_ns = now_ns

    def _brake(self, joints: Joints | None, now_s: float, now_ns: int) -> bool:
        """Send a brake where one is needed. Should the guard refuse it, the horizon sent last brakes a little later.

        Returns:
            Whether the arm is on its path to rest, so that nothing more need be done.
        """
        self._keep_time(now_s)
        motion_s = self._motion_s(now_s)
        stop = self._player.pause(motion_s) if self._player is not None else None
        if stop is None or joints is None:
            return self._player is not None and not self._player.settled(motion_s)
        try:
            self._checked(stop, joints, now_ns)
        except Refused as error:
            self._set(refused=error.rule, refusals=self._status.refusals + 1)
            if self._player is not None:
                self._player.withdraw()
            return False
        return True

    def _halt(self, joints: Joints | None, now_ns: int) -> bool:
        """Bring an arm to rest that moves otherwise than we told it to: somebody else commands it.

        Returns:
            Whether it rests or will by what was sent.
        """
        if joints is None:
            return False
        if self._rests(joints):
            return True
        try:
            q = joints.at(now_ns)
            self._checked(to_rest(q, joints.velocities, self._model.limits), joints, now_ns)
        except Refused as error:
            self._set(refused=error.rule, refusals=self._status.refusals + 1)
            return False
        except RunFailed:  # nothing is known of its speed
            return False
        return True

    def _set(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]

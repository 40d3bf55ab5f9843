"""Decisions in, short horizons of joint motion out: the only node that speaks to arm and gripper, through the guard."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.subscription import MessageInfo
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_vision.control.arm_state import ArmStatus, Joints
from embodied_vision.control.clock_watch import ClockWatch
from embodied_vision.control.executive import ArmExecutive, ExecutiveSettings
from embodied_vision.control.guard import Guard, GuardSettings
from embodied_vision.control.motion import MotionSettings
from embodied_vision.control.planning import Pace
from embodied_vision.control.player import PlayerSettings
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.shadow import ShadowArm
from embodied_vision.control.standstill import without_stands
from embodied_vision.control.surroundings import read_surroundings
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.errors import BadInput, Refused
from embodied_vision.nodes import qos
from embodied_vision.nodes.arm_output import ArmOutput
from embodied_vision.nodes.arm_senses import ArmSenses
from embodied_vision.nodes.conversions import (
    JointSamples,
    from_json,
    ns_to_stamp,
    poses_to_pick_place,
    samples_to_trajectory,
    stamp_to_ns,
    to_json,
)
from embodied_vision.nodes.deferred import Answer, DeferredTrigger
from embodied_vision.nodes.exclusive import Exclusive
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.paired_clocks import PairedClocks
from embodied_vision.nodes.robot_reports import RobotReports
from embodied_vision.nodes.running import run
from embodied_vision.nodes.trace import Tracer

DECISION_WAIT_S = 0.1
"""How long `pick_place` waits for the `policy/decision` of its stamp, which names it; then it goes on unnamed."""

ACTION_CHECK_S = 0.2
"""Time between two looks at the action servers."""

CANCEL_S = 0.6
"""What is under way so long after a stop, at full pace, is cancelled: by then its brake should have come to rest."""

CLOCK_TIMEOUT_S = 0.2
"""A simulated clock that stands for so long is as bad as a dead node."""

HOME_WAIT_S = 5.0
"""How long `~/home` waits for joint states and the nodes that must be heard, as right after a start."""


class ArmNode(ManagedNode):
    """Carries out one decision at a time, and stands still within half a second when anybody it needs falls silent."""

    HANDLES_IMAGES = False

    def __init__(self) -> None:
        super().__init__("arm")
        self.param("robot", "panda_suction", "shipped robot by name, or the path of its YAML", read_only=True)
        self.param(
            "upstream",
            ["encoder", "policy", "recorder", "task"],
            "nodes whose heartbeat must be there while the arm moves; an empty name for none",
            read_only=True,
        )
        self.param("cameras", ["camera"], "cameras that must go on while the arm moves; an empty name for none")
        self.param("calibration", "", "YAML with the cameras; empty for the simulated cell's", read_only=True)
        self.param(
            "frozen_px",
            5.0,
            "how far the tool may move within a picture that stays the same, px; its camera is frozen; 0: not asked",
            (0.0, 1000.0),
        )
        self.param("joint_state_topics", ["joint_states"], "topics that together carry the joints", read_only=True)
        self.param("heartbeat_timeout", 1.0, "longest silence of an upstream node's main thread, s", (0.2, 10.0))
        self.param("camera_timeout", 0.2, "longest time without a frame while the arm moves, s", (0.05, 10.0))
        self.param(
            "joint_state_timeout", 0.15, "longest time without a joint state while the arm moves, s", (0.02, 2.0)
        )
        self.param("observation_age", 2.0, "greatest age of the frames that a decision came from, s", (0.1, 60.0))
        self.param("jump", 0.2, "how far a horizon may start from the measured joints, rad", (0.01, 1.0))
        self.param("surroundings", "", "YAML with workspace and keep-out boxes; empty: only the table", read_only=True)
        clear = "least distance between parts of the arm, and from each of them to keep-out boxes, m"
        self.param("body_clearance", 0.005, clear, (0.0, 0.2), read_only=True)
        self.param("body_height", 0.0, "least height of moving parts above the table, m", (0.0, 0.2), read_only=True)
        self.param("tip_height", 0.002, "least height of the tip above the table, m", (0.0, 0.2), read_only=True)
        self.param("path_margin", 0.2, "how far the tip may leave the workspace in x, y, m", (0.0, 2.0), read_only=True)
        self.param("ceiling", 0.9, "greatest height of the tip, m", (0.05, 3.0), read_only=True)
        self.param("speed", 1.0, "pace of pick and place, 1 the default", (0.05, 1.0))
        self.param("home_speed", 0.5, "pace of the way home after a fault; never above `speed`", (0.05, 1.0))
        self.param("rate", 40.0, "looks a second; a horizon is sent at every second one", (10.0, 200.0), read_only=True)
        self.param("horizon", 0.15, "how long the arm goes on without news before it brakes, s", (0.05, 0.5))
        self.param("lead", 0.04, "time that the controller has to join a new horizon, s", (0.0, 0.1))
        self.param("stamp_trajectories", True, "say when a trajectory began; false: 0, which is when it arrives")
        self.param("resume_within", 3.0, "a motion interrupted for less than this goes on, s", (0.0, 10.0))
        self.param("clearance", 0.19, "height of the tip above the base at which the arm travels, m", (0.0, 1.0))
        self.param("approach", 0.08, "length of the straight way down to a pose, m", (0.0, 0.5))
        self.param("gripper_time", 0.12, "time given to the gripper to close or open, at least, s", (0.0, 10.0))
        self.param("dry_run", False, "plan, check and publish under arm/dry_run/, but move nothing", read_only=True)
        self.param("command_interface", "topic", "how trajectories reach the arm: topic or action", read_only=True)
        self.param(
            "trajectory_action",
            "arm/follow_joint_trajectory",
            "name of the FollowJointTrajectory action",
            read_only=True,
        )
        self.param("gripper_interface", "topic", "how the gripper is commanded: topic or action", read_only=True)
        self.param("gripper_action", "gripper/gripper_cmd", "name of the ParallelGripperCommand action", read_only=True)
        self.param("gripper_joint", "", "joint that the gripper's action commands; empty: its only one", read_only=True)
        self.param("gripper_closed", 0.0, "its position when closed, m or rad", (-10.0, 10.0), read_only=True)
        self.param("gripper_open", 0.04, "its position when open, m or rad", (-10.0, 10.0), read_only=True)
        self.param("gripper_effort", 0.0, "its greatest force, N or Nm; 0: as the driver has it", (0.0, 1000.0))
        self.param("program_running_topic", "", "std_msgs/Bool, false while the arm may not move", read_only=True)
        self.param("robot_mode_topic", "", "std_msgs/String with the robot's mode", read_only=True)
        self.param("ready_modes", ["RUNNING"], "modes in which the arm may move")
        self.param("speed_scaling_topic", "", "std_msgs/Float64, % at which the driver runs", read_only=True)
        self.param("grasp_check", "none", "how a grasp is confirmed: none, vacuum or width", read_only=True)
        self.param(
            "finger_joints", [""], "joints whose positions add up to the width; empty: the robot's", read_only=True
        )
        self.param(
            "held_between", [0.002, 0.2], "width between the fingers when they hold something, m", read_only=True
        )
        self.param("report_timeout", 0.5, "longest silence of gripper sensor and speed scaling, s", (0.05, 10.0))
        self.param("start_stopped", False, "come up stopped, as after a death; ~/resume goes on", read_only=True)
        self._tracer = Tracer(self)
        self._exclusive = Exclusive(self)
        self._output = ArmOutput(self, self._exclusive, self._on_fault, self._on_gripper)
        self._shadow = ShadowArm() if self.value("dry_run") else None
        self._clocks = PairedClocks(self.now_ns)
        self._clock_watch = ClockWatch()
        self._clock_doubtful_until_s = 0.0
        self._ended_for = ""
        self._status = self.create_publisher(String, "arm/status", qos.STATUS)
        self._arm: ArmExecutive | None = None
        self._model: RobotModel | None = None
        self._reports: RobotReports | None = None
        self._senses: ArmSenses | None = None
        self._clock_ns = 0
        self._said: ArmStatus | None = None
        self._stopped_s = 0.0
        self._decisions: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._waiting: tuple[PoseArray, float] | None = None
        self._untraced_ns: int | None = None
        self._homing: Answer | None = None
        self._home_until_s: float | None = None
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/resume", self._on_resume)
        self._home_service = DeferredTrigger(self, "~/home", self._on_home)

    # ---- life cycle

    def setup(self) -> None:
        self._model = model = RobotModel.load(self.value("robot"))
        bounds = GuardSettings(
            observation_age_s=self.value("observation_age"),
            jump_rad=self.value("jump"),
            clearance_m=self.value("body_clearance"),
            body_height_m=self.value("body_height"),
            tip_height_m=self.value("tip_height"),
            path_margin_m=self.value("path_margin"),
            ceiling_m=self.value("ceiling"),
        )
        around = read_surroundings(self.value("surroundings"))
        guard = Guard(model, around.workspace, bounds, around.keep_out)
        if guard.unchecked:
            self.get_logger().warning(f"only the frames of {', '.join(guard.unchecked)} are checked: no <collision>")
        if self.value("start_stopped"):
            guard.stop("the arm node was started again after a death")
        self._reports = reports = RobotReports(self, model)
        self._senses = senses = ArmSenses(self, model, reports.take_joints, self._tick)
        limits = senses.limits_s | reports.limits_s
        if self.value("use_sim_time"):
            limits["the clock"] = CLOCK_TIMEOUT_S
        self._output.open()
        for name in self._output.sources:
            reports.driver.report(name, f"{name} was not looked for yet")
        settings = ExecutiveSettings(
            motion=self._motion(self.value("speed")),
            homing=self._motion(min(self.value("home_speed"), self.value("speed"))),
            player=PlayerSettings(horizon_s=self.value("horizon")),
            resume_within_s=self.value("resume_within"),
            healthy_s=1.5 * max(self.value("camera_timeout"), self.value("joint_state_timeout")),
        )
        self._arm = ArmExecutive(
            model,
            guard,
            Watchdog(limits),
            settings,
            self._send,
            self._grip,
            self._output.cancel,
            unheard=self._output.unheard,
            driver=reports.driver,
            holding=reports.holding,
            dry_run=self.value("dry_run"),
        )

    def _motion(self, speed: float) -> MotionSettings:
        return MotionSettings(
            pace=Pace(speed=speed),
            clearance_m=self.value("clearance"),
            approach_m=self.value("approach"),
            take_s=self.value("gripper_time"),
            release_s=self.value("gripper_time"),
        )

    def start(self) -> None:
        self.subscribe(String, "policy/decision", qos.DECISION, self._on_decision)
        self.subscribe(PoseArray, "pick_place", qos.DECISION, self._on_pick_place)
        assert self._reports is not None
        assert self._senses is not None
        self._senses.start(self._executive.watchdog)
        self._reports.start(self._executive.watchdog)
        self.every(1.0 / self.value("rate"), self._tick)
        if self._output.sources:
            self.every(ACTION_CHECK_S, self._check_actions)
        self._say()

    def halt(self) -> None:
        if self._homing is not None:
            self._homing.give(False, "the arm node was deactivated")
            self._homing = self._home_until_s = None
        if self._arm is not None and self._arm.status.state in ("moving", "paused"):
            self._arm.stop("the arm node was deactivated", *self._clocks.now(), self._seen_joints())
            self._say()

    def teardown(self) -> None:
        self._output.close()
        self._arm = None

    @property
    def _executive(self) -> ArmExecutive:
        if self._arm is None:
            raise BadInput("the arm node is not configured; configure it first")
        return self._arm

    # ---- what comes back from the drivers

    def _seen_joints(self) -> Joints | None:
        """Where the arm is; in a dry run, where it would be while a motion is tried."""
        measured = None if self._senses is None else self._senses.joints
        if self._shadow is None or measured is None:
            return measured
        if self._executive.status.state not in ("moving", "paused"):
            self._shadow.forget()
        at_s = time.monotonic() - (self.now_ns() - measured.stamp_ns) * 1e-9
        q, qd = self._shadow.state(measured.positions, measured.velocities, at_s)
        return Joints(q, qd, measured.stamp_ns)

    def _on_fault(self, reason: str) -> None:
        """A driver did not carry out what it was sent: the arm stays stopped until somebody has looked."""
        self.get_logger().error(reason)
        if self._executive.status.state != "stopped":
            self._executive.fail(f"{reason}; look for the cause, then call ~/resume", self.now_ns())
            self._say()

    def _on_gripper(self, joints: JointState) -> None:
        if self._reports is not None:
            self._reports.take_joints(joints)

    def _check_actions(self) -> None:
        now_s = time.monotonic()
        for name, problem in self._output.problems(now_s).items():
            self._executive.driver.report(name, problem)
        braked_s = CANCEL_S / max(self._executive.driver.pace, 0.1)
        if self._executive.status.state == "stopped" and now_s - self._stopped_s > braked_s:
            self._output.cancel()

    # ---- decisions

    def _on_decision(self, message: String, info: MessageInfo) -> None:
        if self._has_rival("policy/decision", info):
            return
        try:
            decision = from_json(message, "policy/decision")
            self._decisions[int(decision["stamp_ns"])] = decision
        except (BadInput, KeyError, TypeError, ValueError) as error:
            self.get_logger().error(f"policy/decision ignored: {error!r}")
            return
        while len(self._decisions) > 8:
            self._decisions.popitem(last=False)
        self._take_waiting()

    def _on_pick_place(self, message: PoseArray, info: MessageInfo) -> None:
        if self._has_rival("pick_place", info):
            return
        self._tracer.mark("arm.receive", stamp_to_ns(message.header.stamp))
        self._waiting = (message, time.monotonic() + DECISION_WAIT_S)
        self._take_waiting()

    def _take_waiting(self) -> None:
        """Begin the decision that came last, once its name is known or no longer waited for."""
        if self._waiting is None:
            return
        message, until_s = self._waiting
        stamp_ns = stamp_to_ns(message.header.stamp)
        decision = self._decisions.get(stamp_ns)
        if decision is None and time.monotonic() < until_s:
            return
        self._waiting = None
        name = "" if decision is None else str(decision.get("decision_id", ""))
        try:
            try:
                action = poses_to_pick_place(message, decision)
            except (BadInput, KeyError, TypeError) as error:
                refusal = Refused("not_a_pose", "pick_place", str(error), "two poses", "check the policy and its input")
                self._executive.note_refusal(refusal, name)
                raise refusal from error
            self._untraced_ns = stamp_ns
            self._executive.begin(action, self._seen_joints(), *self._clocks.now())
            self._executive.tick(self._seen_joints(), *self._clocks.now())
        except Refused as error:
            self._untraced_ns = None
            self.get_logger().error(f"decision {name or '(unnamed)'} refused: {error}")
        self._say()

    def _tick(self) -> None:
        if self.value("use_sim_time"):
            self._hear_clock()
        self._watch_clock()
        self._watch_publishers()
        self._output.look()
        self._take_waiting()
        self._go_home()
        self._executive.tick(self._seen_joints(), *self._clocks.now())
        self._say()

    # ---- what nobody announces

    def _watch_publishers(self) -> None:
        """Nobody else commands the arm. What may be left of a dead namesake is waited out, all others end the work."""
        intruder = self._exclusive.intruder()
        self._executive.watchdog.set_problem("exclusive command", "" if intruder is None else intruder.words)
        if intruder is not None and (intruder.lives or self._executive.status.state == "moving"):
            self._end_work(f"{intruder.words}; end it, then call ~/resume")
            self._executive.hold_still(self._seen_joints(), *self._clocks.now())

    def _has_rival(self, topic: str, info: MessageInfo) -> bool:
        """Whether two nodes make decisions. Then neither's is carried out, and the arm stops."""
        words = self._exclusive.rival(topic, info)
        if words:
            refusal = Refused("second_publisher", topic, words, "one publisher", "end one of them, then call ~/resume")
            self.get_logger().error(f"decision refused: {refusal}", throttle_duration_sec=1.0)
            self._executive.note_refusal(refusal, "")
            self._waiting = None
            self._end_work(str(refusal))
            self._say()
        return bool(words)

    def _end_work(self, reason: str) -> None:
        """Stop for good. A better reason replaces the former one, as when the name of a publisher becomes known."""
        status = self._executive.status
        if status.state != "stopped":
            self._executive.stop(reason, *self._clocks.now(), self._seen_joints())
        elif status.reason == self._ended_for:
            self._executive.explain(reason)
        else:
            return
        self._ended_for = reason

    def _watch_clock(self) -> None:
        """Stamps from before and after a jump of the clock cannot be compared: wait until the old ones are too old."""
        if self.value("use_sim_time"):
            return
        now_s, step_s = time.monotonic(), self._clock_watch.look()
        if step_s:
            self._clock_doubtful_until_s = now_s + self.value("observation_age")
            self._executive.watchdog.set_problem("clock", f"the system clock was set by {step_s:+.3f} s")
            self._executive.guard.forget_stamps()
            self._waiting = None
            if self._senses is not None:
                self._senses.shift_stamps(round(step_s * 1e9))
        elif now_s >= self._clock_doubtful_until_s:
            self._executive.watchdog.set_problem("clock", "")

    def _hear_clock(self) -> None:
        """Under simulated time the clock is one more that must be heard."""
        before_ns, self._clock_ns = self._clock_ns, self.now_ns()
        if self._clock_ns != before_ns:
            self._executive.watchdog.feed("the clock", time.monotonic())

    # ---- what the guard let through

    def _send(self, trajectory: Trajectory, now_ns: int) -> None:
        assert self._model is not None
        # Points nearer than the lead are left out: the controller joins the others from where it is. It lays cubics
        # through points without accelerations; quintics would overshoot the limits where a brake begins.
        sent = without_stands(trajectory)
        first = min(int(np.searchsorted(sent.times_s, self.value("lead"))), len(sent.times_s) - 1)
        parts = (sent.times_s, sent.positions, sent.velocities, sent.accelerations)
        samples = JointSamples(*(part[first:] for part in parts))
        message = samples_to_trajectory(self._model.joint_names, samples)
        for point in message.points:
            point.accelerations = []
        if self.value("stamp_trajectories"):
            message.header.stamp = ns_to_stamp(now_ns)
        now_s = time.monotonic()
        if self._shadow is not None:
            self._shadow.send(trajectory, now_s)
        self._output.send(message, now_s)
        # The hold before a motion whose readers are not known yet is no answer to the decision.
        if self._untraced_ns is not None and trajectory.velocities.any():
            self._tracer.mark("arm.publish", self._untraced_ns)
            self._untraced_ns = None

    def _grip(self, command: float) -> None:
        self._output.grip(command, time.monotonic())

    # ---- services

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._executive.stop("stopped by ~/stop", *self._clocks.now(), self._seen_joints())
        self._say()
        response.success, response.message = True, "stopped; ~/resume goes on"
        return response

    def _on_resume(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        intruder = self._exclusive.intruder()
        if intruder is not None and intruder.lives:
            response.success, response.message = False, f"{intruder.words}; end it first"
            return response
        self._exclusive.forget()
        self._executive.resume()
        self._say()
        response.success, response.message = True, f"the arm is {self._executive.status.state}"
        return response

    def _on_home(self, answer: Answer) -> None:
        if not self.is_active:
            answer.give(False, "the arm node is not active; activate it first")
        elif self._homing is not None:
            answer.give(False, "the arm is asked to go home already; wait for that")
        else:
            self._homing, self._home_until_s = answer, time.monotonic() + HOME_WAIT_S
            self._go_home()

    def _go_home(self) -> None:
        """Begin the way home that somebody waits for; an arm node just started has to hear the others first."""
        if self._homing is None or self._home_until_s is None:
            return
        now_s, now_ns = self._clocks.now()
        if now_s < self._home_until_s and not self._executive.can_begin(self._seen_joints(), now_s, now_ns):
            return
        self._home_until_s = self._untraced_ns = None
        try:
            self._executive.home(self._seen_joints(), now_s, now_ns)
        except Refused as error:
            self.get_logger().error(f"the way home is refused: {error}")
            self._homing.give(False, str(error))
            self._homing = None
        self._say()

    # ---- status

    def _say(self) -> None:
        """Publish the status when it changed, and answer who waits for the way home."""
        status = self._executive.status
        if status == self._said:
            return
        before, self._said = self._said, status
        if status.state == "stopped" and (before is None or before.state != "stopped"):
            self._stopped_s = time.monotonic()
        self._status.publish(to_json({**vars(status), "stamp_ns": self.now_ns()}))
        if before is None or (before.state, before.reason) != (status.state, status.reason):
            # rclpy ties a severity to the line that logs.
            if status.state in ("paused", "stopped"):
                self.get_logger().warning(f"{status.state}: {status.reason}")
            else:
                self.get_logger().info(f"{status.state} {status.segment or status.reason}".rstrip())
        if self._homing is not None and self._home_until_s is None and status.state not in ("moving", "paused"):
            self._homing.give(status.done, status.reason or "home, and let go")
            self._homing = None
        values: dict[str, Any] = {"decision_id": status.decision_id, "segment": status.segment}
        values |= {"refusals": status.refusals, "speed_scaling": status.speed_scaling, "dry_run": status.dry_run}
        values |= {"tracking_error_rad": round(self._output.tracking_error_rad, 5)}
        values |= {f"refused {rule}": count for rule, count in self._executive.guard.counts.items()}
        if status.state in ("paused", "stopped"):
            self.health(ERROR, f"{status.state}: {status.reason}", **values)
        elif status.refused:
            self.health(WARN, f"refused {status.reason}", rule=status.refused, **values)
        elif status.failed:
            self.health(WARN, f"{status.failed}: {status.reason}", **values)
        else:
            self.health(OK, status.state, **values)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(ArmNode))


if __name__ == "__main__":
    main()

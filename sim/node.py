"""The simulated cell on ROS topics: cameras, joint states and an arm that executes trajectories, paced to real time."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.publisher import Publisher
from rclpy.subscription import MessageInfo
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    camera_to_info,
    color_to_image,
    depth_to_image,
    joint_state_message,
    ns_to_stamp,
    optical_frame,
    stamp_to_ns,
    to_json,
    trajectory_to_samples,
)
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.running import run
from embodied_vision.nodes.trace import Tracer
from embodied_vision.types import RGBD
from embodied_vision_sim.joint_trajectory_controller import JointPath
from embodied_vision_sim.live import JointSample, Judgement, LiveCell
from embodied_vision_sim.randomisation import Randomisation
from embodied_vision_sim.setpoints import Setpoint
from embodied_vision_sim.world import STEP_HZ

SLOW_FACTOR = 0.97
"""Below this real-time factor the cell warns."""

DRIVER_GONE_S = 0.2
"""Another driver may take over when the one that moved the arm has been silent for so long."""


class CellNode(ManagedNode):
    """Steps the world, publishes what its sensors see, and judges the scene when it rests."""

    def __init__(self) -> None:
        super().__init__("cell")
        self.param("task", "block-insertion", "task whose scene the next reset builds")
        self.param("seed", 2_000_000, "scene that the next reset builds", (0, 2**31 - 1))
        self.param(
            "randomisation", "none", "what the next reset may change: a preset's name, or fields as JSON; not cameras"
        )
        self.param("robot", "panda_suction", "arm and tool, as the arm node's", read_only=True)
        self.param("calibration", "", "calibration YAML of the cameras; empty: the simulated cell's", read_only=True)
        self.param(
            "renderer",
            "software",
            "who draws: software, egl or auto; the shipped policies know software",
            read_only=True,
        )
        self.param("camera_rate", 15.0, "frames a second of every camera", (0.5, 60.0), read_only=True)
        self.param(
            "joint_rate", 60.0, "joint states a second, rounded to a divisor of 240", (10.0, 240.0), read_only=True
        )
        self.param(
            "driven",
            False,
            "arm and gripper have a driver (embodied_vision_sim.driver_node), whose setpoints are followed",
            read_only=True,
        )
        self.param("camera_enabled", True, "false: the cameras fall silent, as with a cable pulled")
        self._tracer = Tracer(self)
        self._joints = self.create_publisher(JointState, "joint_states", qos.SENSOR)
        self._holding = self.create_publisher(Bool, "gripper/holding", qos.SENSOR)
        self._outcome = self.create_publisher(String, "outcome", qos.STATUS)
        self._status = self.create_publisher(String, "~/status", qos.STATUS)
        self._cell: LiveCell | None = None
        self._images: dict[str, tuple[Publisher[Image], Publisher[Image], Publisher[CameraInfo]]] = {}
        self._sim_clock: Publisher[Clock] | None = None
        self._frames = 0
        self._rejected = 0
        self._left_out = 0
        self._driver: Any = None
        self._driver_heard_s = -math.inf
        self._frame_s = 0.0
        self._epoch_ns = 0
        self.create_service(Trigger, "~/reset", self._on_reset)

    # ---- life cycle

    def setup(self) -> None:
        if self.value("driven") and self.value("use_sim_time"):
            raise BadInput("a driven cell keeps the driver's time; unset use_sim_time or driven")
        cameras = read_cameras(self.value("calibration"))
        for camera in cameras:
            self._images[camera.name] = (
                self.create_publisher(Image, topics.color(camera.name), qos.SENSOR),
                self.create_publisher(Image, topics.depth(camera.name), qos.SENSOR),
                self.create_publisher(CameraInfo, topics.color_info(camera.name), qos.SENSOR),
            )
        if self.value("use_sim_time"):
            self._sim_clock = self.create_publisher(Clock, "/clock", qos.SENSOR)
        self._sample_every = max(1, round(STEP_HZ / self.value("joint_rate")))
        self._frame_period_s = 1.0 / self.value("camera_rate")
        self._cell = LiveCell(cameras, self.value("renderer"), self.value("robot"), driven=self.value("driven"))
        self._epoch_ns = time.time_ns()
        self._reset()

    def start(self) -> None:
        cell = self._live
        cell.pacer.forgive(time.monotonic())
        self._frame_s = cell.pacer.time_s
        if self.value("driven"):
            # The queue holds what comes while a picture is rendered.
            self.subscribe(JointState, "driver/setpoints", qos.LOG, self._on_setpoint)
            self.subscribe(Float64, "driver/gripper", qos.COMMAND, self._on_gripper)
        else:
            self.subscribe(JointTrajectory, "arm/joint_trajectory", qos.COMMAND, self._on_trajectory)
            self.subscribe(Float64, "gripper/command", qos.COMMAND, self._on_gripper)
        self.every(self._sample_every / STEP_HZ, self._tick)
        self.every(0.1, self._publish_holding)
        self.every(1.0, self._report_status)

    def halt(self) -> None:
        if self._cell is not None:
            self._report_status()

    def teardown(self) -> None:
        if self._cell is not None:
            self._cell.close()
            self._cell = None

    @property
    def _live(self) -> LiveCell:
        if self._cell is None:
            raise BadInput("the cell is not configured; configure it first")
        return self._cell

    # ---- time

    def _stamp_ns(self, sim_s: float) -> int:
        """When a simulated moment happened, on the clock of all stamps."""
        if self._sim_clock is not None:
            return self._epoch_ns + round(sim_s * 1e9)
        behind_s = self._live.pacer.clock_s(time.monotonic()) - sim_s
        return time.time_ns() - round(behind_s * 1e9)

    def _sim_s(self, system_ns: int) -> float:
        """The simulated moment of a time on the system's clock."""
        ago_s = max(0.0, (time.time_ns() - system_ns) * 1e-9)
        return self._live.pacer.clock_s(time.monotonic()) - ago_s

    def _tick(self) -> None:
        cell = self._live
        for sample in cell.advance(time.monotonic(), self._sample_every):
            self._publish_joints(sample)
        judgement = cell.judge()
        if judgement is not None:
            self._publish_outcome(judgement)
        if cell.pacer.time_s >= self._frame_s:
            late_s = cell.pacer.time_s - self._frame_s
            self._frame_s += self._frame_period_s * (1 + late_s // self._frame_period_s)
            if self.value("camera_enabled"):
                self._publish_frames(cell.render(self._stamp_ns(cell.pacer.time_s)))

    # ---- out

    def _publish_joints(self, sample: JointSample) -> None:
        stamp_ns = self._stamp_ns(sample.time_s)
        names = self._live.world.robot.joint_names
        self._joints.publish(joint_state_message(names, sample.positions, sample.velocities, stamp_ns))
        if self._sim_clock is not None:
            self._sim_clock.publish(Clock(clock=ns_to_stamp(stamp_ns)))

    def _publish_holding(self) -> None:
        """What a vacuum switch, or a sensor between the fingers, would tell."""
        self._holding.publish(Bool(data=self._live.world.holding is not None))

    def _publish_frames(self, frames: list[RGBD]) -> None:
        for frame in frames:
            color, depth, info = self._images[frame.camera.name]
            frame_id = optical_frame(frame.camera.name)
            messages = (
                color_to_image(frame.color, frame.stamp_ns, frame_id),
                depth_to_image(frame.depth, frame.stamp_ns, frame_id),
                camera_to_info(frame.camera, frame.stamp_ns),
            )
            self._tracer.mark("cell.publish", frame.stamp_ns)
            info.publish(messages[2])
            color.publish(messages[0])
            depth.publish(messages[1])
            self._frames += 1

    def _publish_outcome(self, judgement: Judgement) -> None:
        cell = self._live
        self._outcome.publish(
            to_json(
                {
                    "task": cell.task,
                    "seed": cell.seed,
                    "scene": f"{cell.task}/{cell.seed}",
                    "reward": judgement.reward,
                    "solved": judgement.solved,
                    "settled": judgement.settled,
                    "motions": judgement.motions,
                    "max_steps": cell.max_steps,
                    "renderer": cell.world.renderer,
                    "preset": cell.world.randomisation.name,
                    "stamp_ns": self._stamp_ns(judgement.time_s),
                }
            )
        )
        self._report_status()

    def _report_status(self) -> None:
        cell = self._live
        factor = cell.pacer.real_time_factor()
        status: dict[str, Any] = {
            "task": cell.task,
            "seed": cell.seed,
            "frames_published": self._frames,
            "real_time_factor": round(factor, 4),
            "lost_s": round(cell.pacer.lost_s, 3),
            "trajectories_rejected": self._rejected,
            "setpoints_left_out": self._left_out,
            "holding": cell.world.holding,
        }
        self._status.publish(to_json(status))
        if not self.value("camera_enabled"):
            self.health(ERROR, "the cameras are switched off (parameter camera_enabled)", **status)
        elif factor < SLOW_FACTOR:
            self.health(WARN, f"simulated time runs at {factor:.2f} of real time; free the processor", **status)
        else:
            self.health(OK, "running in real time", **status)

    # ---- in

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._live.moving:
                raise BadInput("the arm is moving; reset the cell when it rests")
            judgement = self._reset()
        except EmbodiedVisionError as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(f"reset: {error}")
        else:
            response.success, response.message = True, f"scene {self._live.seed}, score {judgement.reward:.3f}"
        return response

    def _reset(self) -> Judgement:
        cell = self._live
        randomisation = Randomisation.parse(self.value("randomisation"))
        judgement = cell.reset(self.value("task"), self.value("seed"), randomisation)
        cell.pacer.forgive(time.monotonic())
        self._frame_s = cell.pacer.time_s
        self._publish_joints(cell.sample())
        self._publish_outcome(judgement)
        self.get_logger().info(f"scene {cell.seed} of {cell.task}")
        return judgement

    def _on_trajectory(self, message: JointTrajectory, info: MessageInfo) -> None:
        cell = self._live
        try:
            path = to_path(message, cell.world.robot.joint_names)
            start_s = self._start_s(stamp_to_ns(message.header.stamp), int(info["source_timestamp"]))
            cell.follow(path, start_s)
        except BadInput as error:
            self._rejected += 1
            self.get_logger().error(f"trajectory rejected, the arm goes on as before: {error}")

    def _start_s(self, stamp_ns: int, sent_ns: int) -> float:
        """When a trajectory starts: at its stamp, or with stamp 0 when it was sent.

        A real controller takes a message at once, this one only after the picture that it is rendering.
        """
        if stamp_ns == 0:
            return self._sim_s(sent_ns)
        return (stamp_ns - self._epoch_ns) * 1e-9 if self._sim_clock is not None else self._sim_s(stamp_ns)

    def _on_setpoint(self, message: JointState, info: MessageInfo) -> None:
        sender, now_s = info["publisher_gid"], time.monotonic()
        if sender != self._driver and now_s < self._driver_heard_s + DRIVER_GONE_S:
            self._left_out += 1
            self.get_logger().error(
                "a second driver sends setpoints, which are left out; end one of them", throttle_duration_sec=1.0
            )
            return
        self._driver, self._driver_heard_s = sender, now_s
        names = self._live.world.robot.joint_names
        if tuple(message.name) != names or not len(message.position) == len(message.velocity) == len(names):
            raise BadInput(
                f"setpoint for {list(message.name)}, the arm has {list(names)}; give driver and cell one robot"
            )
        time_s = self._sim_s(stamp_to_ns(message.header.stamp))
        self._live.setpoint(Setpoint(time_s, np.array(message.position), np.array(message.velocity)))

    def _on_gripper(self, message: Float64) -> None:
        if not (math.isfinite(message.data) and 0.0 <= message.data <= 1.0):
            self.get_logger().error(f"gripper command {message.data} ignored; send 0 (closed) … 1 (open)")
            return
        self._live.grip(message.data)


def to_path(message: JointTrajectory, joint_names: Sequence[str]) -> JointPath:
    """A trajectory with what its points hold of velocities and accelerations.

    Raises:
        BadInput: no points, other joints, or points of the wrong length.
    """
    samples = trajectory_to_samples(message, joint_names)
    velocities = samples.velocities if message.points[0].velocities else None
    accelerations = samples.accelerations if velocities is not None and message.points[0].accelerations else None
    return JointPath(samples.times_s, samples.positions, velocities, accelerations)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(CellNode))


if __name__ == "__main__":
    main()

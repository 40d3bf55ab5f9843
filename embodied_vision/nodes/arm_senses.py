"""What the arm node has to hear while the arm moves: its joints, the cameras and their pictures, and upstream nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rclpy.event_handler import QoSLivelinessChangedInfo, SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import String

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.control.arm_state import Joints
from embodied_vision.control.joint_parts import JointParts
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.seen_tip import SeenTip
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.errors import BadInput
from embodied_vision.frame_health import FrameReport
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json, stamp_to_ns
from embodied_vision.nodes.lifecycle import ManagedNode


class ArmSenses:
    """Keeps the newest joint positions and feeds the watchdog.

    Args:
        node: the arm node; its parameters say who has to be heard.
        model: of the robot.
        on_joints: gets every joint state, as it comes.
        on_loss: called when somebody is known to be lost, before the next look at the watchdog.

    Attributes:
        joints: the newest complete joint state, None before the first.
        limits_s: who has to be heard how often, for the watchdog.

    Raises:
        BadInput: a camera is not calibrated.
    """

    def __init__(
        self,
        node: ManagedNode,
        model: RobotModel,
        on_joints: Callable[[JointState], None],
        on_loss: Callable[[], None],
    ) -> None:
        self._node, self._on_joint_state, self._on_loss = node, on_joints, on_loss
        self._cameras = [name for name in node.value("cameras") if name]
        self._upstream = [name for name in node.value("upstream") if name]
        calibrated = {camera.name: camera for camera in read_cameras(node.value("calibration"))}
        if unknown := set(self._cameras) - set(calibrated):
            raise BadInput(f"cameras {sorted(unknown)} are not in the calibration, which has {sorted(calibrated)}")
        self._tips = {name: SeenTip(model, calibrated[name]) for name in self._cameras}
        self._pictures: dict[str, FrameReport] = {}
        self._parts = JointParts(model.joint_names)
        self._beats: dict[str, int] = {}
        self._watchdog = Watchdog({})
        self.joints: Joints | None = None
        self.limits_s = {"joint_states": float(node.value("joint_state_timeout"))}
        self.limits_s |= {f"camera {name}": float(node.value("camera_timeout")) for name in self._cameras}
        self.limits_s |= {name: float(node.value("heartbeat_timeout")) for name in self._upstream}

    def start(self, watchdog: Watchdog) -> None:
        """Subscribe while the node is active, and feed the watchdog."""
        node, self._watchdog = self._node, watchdog
        for topic in node.value("joint_state_topics"):
            node.subscribe_sensor(JointState, topic, self._on_joints)
        for camera in self._cameras:
            node.subscribe_sensor(CameraInfo, topics.color_info(camera), self._on_camera(camera))
            node.subscribe(String, topics.health(camera), qos.SENSOR, self._on_camera_health(camera))
        for name in self._upstream:
            events = SubscriptionEventCallbacks(liveliness=self._on_liveliness(name))
            node.subscribe(String, f"heartbeat/{name}", qos.HEARTBEAT, self._on_heartbeat(name), event_callbacks=events)

    def shift_stamps(self, step_ns: int) -> None:
        """The clock was set by so much: the stamp of the newest joint state goes with it."""
        if self.joints is not None:
            self.joints = replace(self.joints, stamp_ns=self.joints.stamp_ns + step_ns)

    def _on_joints(self, message: JointState) -> None:
        """A whole joint state or a part of one. Only a complete and finite set of now is a sign of life."""
        now_s = time.monotonic()
        self._on_joint_state(message)
        joints = self._parts.add(message.name, message.position, message.velocity, stamp_to_ns(message.header.stamp))
        if joints is None:
            if self._watchdog.age_s("joint_states", now_s) > self.limits_s["joint_states"]:
                logger = self._node.get_logger()
                logger.error(f"joint states lack {self._parts.wanted}", throttle_duration_sec=5.0)
            return
        self.joints = joints
        for camera, tip in self._tips.items():
            moved_px = tip.moved_px
            tip.add_joints(joints.positions, joints.stamp_ns)
            if tip.moved_px != moved_px:
                self._judge_picture(camera)
        age_s = abs(self._node.now_ns() - joints.stamp_ns) * 1e-9
        if np.isfinite(joints.positions).all() and age_s <= self.limits_s["joint_states"]:
            self._watchdog.feed("joint_states", now_s)

    def _on_camera(self, name: str) -> Callable[[CameraInfo], None]:
        def hear(_message: CameraInfo) -> None:
            self._watchdog.feed(f"camera {name}", time.monotonic())

        return hear

    def _on_camera_health(self, name: str) -> Callable[[String], None]:
        def hear(message: String) -> None:
            report = from_json(message, topics.health(name))
            picture = FrameReport(
                int(report.get("stamp_ns", 0)), str(report.get("problem", "")), int(report.get("unchanged_ns", 0))
            )
            self._pictures[name] = picture
            self._tips[name].add_picture(picture.unchanged_ns, picture.stamp_ns)
            self._judge_picture(name)

        return hear

    def _judge_picture(self, camera: str) -> None:
        """Say whether a camera's newest picture can be believed."""
        picture = self._pictures[camera]
        problem = picture.problem or self._frozen(picture, self._tips[camera].moved_px)
        words = f"picture of {camera} cannot be believed: {problem}" if problem else ""
        self._watchdog.set_problem(f"picture of {camera}", words)
        if problem:
            self._on_loss()

    def _frozen(self, picture: FrameReport, moved_px: float) -> str:
        """What is wrong with a picture that has been the same for some time, in words; empty when nothing is."""
        bound_px = float(self._node.value("frozen_px"))
        if not bound_px or moved_px <= bound_px:
            return ""
        same_s = (picture.stamp_ns - picture.unchanged_ns) * 1e-9
        return f"its picture stays the same for {same_s:.2f} s, while the tool moved {moved_px:.0f} px in it"

    def _on_heartbeat(self, name: str) -> Callable[[String], None]:
        def hear(message: String) -> None:
            if from_json(message, f"heartbeat/{name}").get("state") == "active":
                self._watchdog.feed(name, time.monotonic())
                self._beats[name] = self._beats.get(name, 0) + 1
                if self._beats[name] > 1:  # the first may have waited here since before the death
                    self._watchdog.set_alive(name, True)

        return hear

    def _on_liveliness(self, name: str) -> Callable[[QoSLivelinessChangedInfo], None]:
        """Only a loss is believed: Fast DDS may count no publisher that lived before this reader was made."""

        def hear(info: QoSLivelinessChangedInfo) -> None:
            if info.alive_count_change < 0 or info.not_alive_count_change > 0:
                self._beats[name] = 0
                self._watchdog.set_alive(name, False)
                self._on_loss()

        return hear

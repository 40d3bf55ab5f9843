"""A graph of real processes and somebody who watches and drives it, for the system tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseArray
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory

from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import GraphConfig, NodeSpec
from embodied_vision.launching.heartbeats import MODULE as MONITOR
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.conversions import (
    image_to_color,
    image_to_depth,
    pick_place_to_poses,
    stamp_to_ns,
    to_json,
)
from embodied_vision.types import PickPlace

CELL = NodeSpec("cell", "embodied_vision_sim.node", 2)
ARM = NodeSpec("arm", "embodied_vision.nodes.arm", 1, {"start_stopped": True})
START_S = 90.0
STILL_RAD_S = 0.02
MOVING_RAD_S = 0.1


def monitor_pid() -> int:
    """The monitor of the supervisor in this process, 0 while there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and MONITOR in (folder / "cmdline").read_text():
                return int(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return 0


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true value of `condition`, polled; fails with `what` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.005)
    return value


@dataclass(frozen=True)
class Reaction:
    """How the arm answered a fault.

    Attributes:
        halt_s: from the fault to the last trajectory that was sent; each ends in a brake.
        stands_s: from the fault to the last joint state of the driver with motion in it.
    """

    halt_s: float
    stands_s: float


class Rig:
    """Processes under a supervisor, with all their traffic kept.

    Attributes:
        cell: the supervisor.
        client: services, parameters and status topics.
        positions: joint positions now, rad.
        speeds: (stamp in ns, largest joint speed in rad/s) of every joint state.
        heard: (time of arrival on the steady clock in s, largest joint speed in rad/s) of every joint state.
        frames: stamps in ns of every color image.
        trajectories: time on the steady clock in s at which each trajectory arrived.
        grips: every gripper command.
        health: (level, message) that each node said last of itself and its streams.
        errors: (who, message) of everything that was said at level ERROR, in order.
        running: all that run now.
    """

    running: ClassVar[list[Rig]] = []

    def __init__(
        self,
        run_dir: Path,
        nodes: tuple[NodeSpec, ...],
        parameters: Mapping[str, Mapping[str, Any]],
        *,
        driver: str = "joint_states",
        images: bool = True,
        **options: Any,
    ) -> None:
        """Start nothing yet.

        Args:
            run_dir: of the supervisor.
            nodes: to start.
            parameters: node → parameter → value.
            driver: topic on which the arm's driver tells the truth about the joints.
            images: whether to take the images, which costs time.
            options: more of `GraphConfig`.
        """
        options.setdefault("params_files", ())
        config = GraphConfig(nodes=nodes, run_dir=run_dir, parameters=parameters, **options)
        self.cell = Supervisor(config)
        self._driver, self._images = driver, images
        self.speeds: list[tuple[int, float]] = []
        self.heard: list[tuple[float, float]] = []
        self.frames: list[int] = []
        self.trajectories: list[float] = []
        self.grips: list[float] = []
        self.positions = np.zeros(0)
        self.image: Image | None = None
        self.depth: Image | None = None
        self.health: dict[str, tuple[bytes, str]] = {}
        self.errors: list[tuple[str, str]] = []

    def __enter__(self) -> Rig:
        self._before = dict(os.environ)
        self.cell.__enter__()
        os.environ.update(self.cell.environment.variables)
        self.client = GraphClient(domain_id=self.cell.domain)
        node = self.client.node
        node.create_subscription(JointState, self._driver, self._on_joints, qos.SENSOR)
        node.create_subscription(JointTrajectory, "arm/joint_trajectory", self._on_trajectory, qos.LOG)
        node.create_subscription(Float64, "gripper/command", lambda m: self.grips.append(m.data), qos.LOG)
        if self._images:
            node.create_subscription(Image, "camera/color/image_raw", self._on_image, qos.SENSOR)
            node.create_subscription(Image, "camera/aligned_depth_to_color/image_raw", self._on_depth, qos.SENSOR)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self._poses = node.create_publisher(PoseArray, "pick_place", qos.DECISION)
        self._decisions = node.create_publisher(String, "policy/decision", qos.DECISION)
        self.client.watch("arm/status", "outcome", "cell/status", "task/status", "recorder/status")
        self.running.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running.remove(self)
        if error is not None:
            print(self.account())
        self.client.close()
        self.cell.stop()
        os.environ.clear()
        os.environ.update(self._before)

    def _on_joints(self, message: JointState) -> None:
        self.positions = np.array(message.position)
        speed = float(np.abs(message.velocity).max())
        self.speeds.append((stamp_to_ns(message.header.stamp), speed))
        self.heard.append((time.monotonic(), speed))

    def _on_trajectory(self, _message: JointTrajectory) -> None:
        self.trajectories.append(time.monotonic())

    def _on_image(self, message: Image) -> None:
        self.frames.append(stamp_to_ns(message.header.stamp))
        self.image = message

    def _on_depth(self, message: Image) -> None:
        self.depth = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.health[status.name.strip("/")] = (status.level, status.message)
            if status.level == DiagnosticStatus.ERROR:
                self.errors.append((status.name.strip("/"), status.message))

    # ---- what tests ask

    def account(self, lines: int = 25) -> str:
        """How things stand and the last lines of every log, for whoever has to explain a failure."""
        topics = ("arm/status", "cell/status", "recorder/status")
        said = [f"{topic}: {self.status(topic)}" for topic in topics if self.client.messages(topic)]
        for log in sorted((self.cell.run_dir / "logs").glob("*.log")):
            said += [f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(said)

    def status(self, topic: str) -> dict[str, Any]:
        """The newest message of a watched status topic, empty before the first."""
        messages = self.client.messages(topic)
        return messages[-1] if messages else {}

    def wait_joined(self) -> None:
        """Wait until our publishers are heard and frames come in."""
        until(lambda: self._poses.get_subscription_count() and self._decisions.get_subscription_count(), 20, "the arm")
        until(lambda: self.speeds and (self.depth or not self._images), 20, "frames and joint states")

    def insist(self, service: str, each_s: float = 10.0, timeout_s: float = 40.0) -> None:
        """Call a service of a process that has just come: the way there is known before the way back of its answer.

        rmw_fastrtps gives an answer up whose reader it does not find within 0.1 s; it is asked for again then.
        """

        def answered() -> bool:
            try:
                self.client.trigger(service, each_s)
            except RunFailed as error:
                if "did not answer" not in str(error):
                    raise
                return False
            return True

        until(answered, timeout_s, f"an answer of {service}")

    def reset(self, task: str, seed: int) -> dict[str, Any]:
        """Build a scene and return its first outcome."""
        self.client.set_parameters("cell", {"task": task, "seed": seed})
        before = len(self.client.messages("outcome"))
        self.client.trigger("cell/reset")
        until(lambda: len(self.client.messages("outcome")) > before, 10, "the outcome of the reset")
        return self.status("outcome")

    def decide(self, action: PickPlace) -> None:
        """Publish a decision as the policy does."""
        self._decisions.publish(to_json(action.to_dict()))
        self._poses.publish(pick_place_to_poses(action))

    def publish_poses(self, message: PoseArray) -> None:
        """Publish any `pick_place` message."""
        self._poses.publish(message)

    def newest_frame_ns(self) -> int:
        """Stamp of a frame that was taken after this call."""
        now = time.time_ns()
        return int(until(lambda: next((s for s in self.frames[-3:] if s > now), 0), 5, "a frame"))

    def picture(self, after_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Color and depth of the first image whose stamp is later."""

        def both() -> Any:
            color, depth = self.image, self.depth
            if color is None or depth is None or color.header.stamp != depth.header.stamp:
                return None
            return (color, depth) if stamp_to_ns(color.header.stamp) > after_ns else None

        color, depth = until(both, 10, "a frame")
        return image_to_color(color), image_to_depth(depth)

    def wait_arm(self, accept: Callable[[dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
        """The first newest `arm/status` that is accepted."""
        return self.client.wait("arm/status", accept, timeout_s)

    def begin(self, action: PickPlace) -> None:
        """Publish a decision until the arm takes it: it refuses while an upstream node is still new to it."""

        def moving() -> bool:
            self.decide(replace(action, stamp_ns=self.newest_frame_ns()))
            self.wait_arm(lambda s: s["decision_id"] == action.decision_id, 5)
            return bool(self.status("arm/status")["state"] == "moving")

        self.wait_arm(lambda s: s["state"] == "idle", 20)
        until(moving, 20, "the arm to move")

    def wait_moving(self, timeout_s: float = 10.0) -> None:
        """Wait until the joints move."""
        start = len(self.speeds)
        until(lambda: any(v > MOVING_RAD_S for _, v in self.speeds[start:]), timeout_s, "the arm to move")

    def speed(self) -> float:
        """Largest joint speed of the newest joint state, rad/s."""
        return self.heard[-1][1] if self.heard else 0.0

    def reaction(self, since_s: float, watch_s: float = 1.0) -> Reaction:
        """What the arm did within `watch_s` after `since_s` on the steady clock."""
        end_s = since_s + watch_s
        time.sleep(max(0.0, end_s - time.monotonic()))
        sent = [when for when in self.trajectories if since_s <= when <= end_s]
        moving = [when for when, speed in self.heard if since_s <= when <= end_s and speed >= STILL_RAD_S]
        return Reaction(*(events[-1] - since_s if events else 0.0 for events in (sent, moving)))

    def still_after_s(self, since_ns: int, watch_s: float = 1.0) -> float:
        """How long after `since_ns` the last joint state with motion was measured, watching for `watch_s`."""
        end_ns = since_ns + int(watch_s * 1e9)
        until(lambda: self.speeds[-1][0] >= end_ns, watch_s + 5, "joint states")
        moving = [stamp for stamp, speed in self.speeds if since_ns <= stamp <= end_ns and speed >= STILL_RAD_S]
        stood_s = (moving[-1] - since_ns) * 1e-9 if moving else 0.0
        print(f"the arm stood still after {stood_s:.3f} s")
        return stood_s

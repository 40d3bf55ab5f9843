"""Logs every frame, joint state, command and decision of an episode to the episode store."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.subscription import MessageInfo
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.episodes.background import BackgroundWriter
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.schema import color_codec
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.matching import StampMatcher
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    from_json,
    image_to_color,
    image_to_depth,
    joint_state_to_positions,
    stamp_to_ns,
    to_json,
    trajectory_to_samples,
)
from embodied_vision.nodes.deferred import Answer, DeferredTrigger
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode, run
from embodied_vision.nodes.trace import Tracer
from embodied_vision.types import RGBD, Camera, PickPlace

_NS = 1_000_000_000
_FrameKey = tuple[str, int]


@dataclass
class _Counts:
    """Frames since activation: complete ones, those refused because the disk is slow, those lacking a part."""

    frames_received: int = 0
    frames_dropped: int = 0
    frames_bad: int = 0
    decisions: int = 0
    decisions_incomplete: int = 0


@dataclass
class _Pending:
    """A decision whose frames have not all arrived yet."""

    action: PickPlace
    info: dict[str, Any]
    keys: list[_FrameKey]
    deadline_ns: int


@dataclass
class _Episode:
    """The episode being logged."""

    task: str
    seed: Any = None
    id: str = ""
    frames_received: int = 0
    pending: list[_Pending] = field(default_factory=list)
    joint_names: list[str] = field(default_factory=list)
    reward: float = 0.0


class RecorderNode(ManagedNode):
    """Takes messages in the executor's thread, writes in another. Episodes follow `episode/event`, or ~/start, ~/stop.

    Streams: `joint_state` (positions, velocities), `joint_trajectory/N` (a command of N points, each time from start,
    positions, velocities, accelerations), `gripper`, `reward`; commands are stamped with the time they were sent.
    """

    def __init__(self) -> None:
        super().__init__("recorder")
        self.param("store", "episodes", "folder of the episode store", read_only=True)
        self.param("robot", "panda_suction", "name of the robot, for the record", read_only=True)
        self.param("calibration", "", "YAML with the cameras; empty for the simulated cell's", read_only=True)
        self.param("task", "manual", "task name of episodes that ~/start begins")
        self.param("color_codec", "jpeg", "`jpeg` or `lossless`; frames of decisions are always lossless")
        self.param("quality", 90, "quality of the JPEG images", (1, 100))
        self.param("queue", 90, "frames that may wait for the disk before new ones are dropped", (1, 10_000))
        self.param("decision_buffer", 45, "newest frames a camera that stay in memory for decisions", (2, 1000))
        self.param("slop", 0.005, "largest difference of stamps of a color and a depth image, s", (0.0, 1.0))
        self._tracer = Tracer(self)
        self._status = self.create_publisher(String, "recorder/status", qos.STATUS)
        DeferredTrigger(self, "~/start", self._start_by_hand)
        DeferredTrigger(self, "~/stop", self._stop_by_hand)
        self._writer: BackgroundWriter | None = None
        self._episode: _Episode | None = None
        self._last_episode = self._closing = ""
        self._unfinished = 0
        self._counts = _Counts()
        self._recent: OrderedDict[_FrameKey, RGBD] = OrderedDict()
        self._joint_names: list[str] = []
        self._ids = {"encoder_id": "", "checkpoint_id": ""}
        self._activated_ns = 0

    # ---- life cycle

    def setup(self) -> None:
        self._store = EpisodeStore(Path(self.value("store")).expanduser().resolve())
        self._cameras = {camera.name: camera for camera in read_cameras(self.value("calibration"))}
        color_codec(self.value("color_codec"), self.value("quality"))
        for repaired in repair(self._store):
            log = self.get_logger().error if repaired.state == "failed" else self.get_logger().info
            log(f"episode {repaired.id} in staging: {repaired.state}, {repaired.records} records {repaired.detail}")

    def start(self) -> None:
        self._counts, self._activated_ns, self._unfinished = _Counts(), self.now_ns(), 0
        self._recent.clear()
        self._writer = BackgroundWriter(self.value("queue"), self._on_write_error)
        for camera in self._cameras.values():
            matcher = StampMatcher(("color", "depth"), round(self.value("slop") * _NS))
            for part, topic in (("color", topics.color(camera.name)), ("depth", topics.depth(camera.name))):
                self.subscribe_sensor(Image, topic, self._taker(camera, matcher, part), qos.LOG)
        self.subscribe_sensor(JointState, "joint_states", self._take_joints, qos.LOG)
        self.subscribe(JointTrajectory, "arm/joint_trajectory", qos.LOG, self._take_trajectory)
        self.subscribe(Float64, "gripper/command", qos.LOG, self._take_gripper)
        self.subscribe(String, "policy/decision", qos.LOG, self._guarded(self._take_decision))
        self.subscribe(String, "outcome", qos.STATUS, self._guarded(self._take_outcome))
        self.subscribe(String, "episode/event", qos.EVENT, self._guarded(self._take_event))
        self.subscribe(String, "encoder/info", qos.STATUS, self._guarded(self._take_info("encoder_id")))
        self.subscribe(String, "policy/info", qos.STATUS, self._guarded(self._take_info("checkpoint_id")))
        self.every(0.25, self._tick)
        self._report_status()

    def halt(self) -> None:
        if self._writer is None:
            return
        if self._episode is not None:
            self._end({"reward": self._episode.reward, "solved": False, "aborted": True, "reason": "recorder stopped"})
        self._writer.close()
        self._report_status()
        self._writer = None

    # ---- episodes

    def _begin(self, task: str, attributes: Mapping[str, Any], answer: Answer | None = None) -> None:
        assert self._writer is not None
        if self._episode is not None:
            self.get_logger().warning(f"episode {self._episode.id} had no end; closed as aborted")
            self._end({"reward": self._episode.reward, "solved": False, "aborted": True, "reason": "no end event"})
        episode = self._episode = _Episode(task, attributes.get("seed"), joint_names=list(self._joint_names))
        cameras, ids = list(self._cameras.values()), dict(self._ids)

        def make() -> EpisodeWriter:
            return EpisodeWriter(
                self._store,
                task=task,
                robot=self.value("robot"),
                cameras=cameras,
                encoder_id=ids["encoder_id"],
                policy_id=ids["checkpoint_id"],
                attributes={**attributes, "joint_names": episode.joint_names},
                color_codec=self.value("color_codec"),
                quality=self.value("quality"),
            )

        self._unfinished += 1

        def begun(episode_id: str) -> None:
            episode.id = episode_id
            if answer is not None:
                answer.give(True, episode_id)
            self._report_status()

        self._writer.begin(make, lambda episode_id: self.post(lambda: begun(episode_id)))

    def _end(self, outcome: Mapping[str, Any], answer: Answer | None = None) -> None:
        assert self._writer is not None
        assert self._episode is not None
        for pending in self._episode.pending:
            self._log_decision(pending)
        self._closing, self._episode = self._episode.id, None

        def ended(episode_id: str) -> None:
            self._last_episode, self._closing = episode_id, ""
            self._unfinished -= 1
            self.get_logger().info(f"episode {episode_id} logged: {dict(outcome)}")
            if answer is not None:
                answer.give(True, episode_id)
            self._report_status()

        self._writer.end(outcome, lambda episode_id: self.post(lambda: ended(episode_id)))

    def _on_write_error(self, error: EmbodiedVisionError) -> None:
        self.post(lambda: self._fail(str(error)))

    def _fail(self, message: str) -> None:
        self._episode = None
        self.give_up(f"the episode cannot be logged: {message}")

    def _start_by_hand(self, answer: Answer) -> None:
        if not self.is_active:
            answer.give(False, f"the recorder is {self.state}; activate it first")
        elif self._episode is not None:
            answer.give(False, f"episode {self._episode.id} is being logged; stop it first")
        else:
            self._begin(self.value("task"), {"started": "by hand"}, answer)

    def _stop_by_hand(self, answer: Answer) -> None:
        if self._episode is None:
            answer.give(False, "no episode is being logged; start one first")
        else:
            self._end({"reward": self._episode.reward, "solved": False, "reason": "stopped by hand"}, answer)

    def _take_event(self, message: String) -> None:
        event = from_json(message, "episode/event")
        if int(event.get("stamp_ns", self._activated_ns)) < self._activated_ns:
            return
        kind = event.pop("event", None)
        if kind == "start":
            self._begin(str(event.pop("task", "unknown")), event)
        elif kind == "end":
            outcome = event.get("outcome")
            if not isinstance(outcome, dict):
                raise BadInput(f"episode/event ends an episode without an `outcome`: {event}")
            if self._episode is not None:
                self._end(outcome)
        else:
            raise BadInput(f"episode/event has the event {kind!r}, expected start or end")

    # ---- what comes in

    def _guarded(self, take: Callable[[String], None]) -> Callable[[String], None]:
        """Bad messages are reported and left out; the recorder goes on."""

        def guarded(message: String) -> None:
            try:
                take(message)
            except (BadInput, KeyError, TypeError, ValueError) as error:
                self.get_logger().error(f"message left out: {error!r}")
                self.health(WARN, f"message left out: {error}")

        return guarded

    def _take_info(self, key: str) -> Callable[[String], None]:
        def take(message: String) -> None:
            self._ids[key] = str(from_json(message, "info")[key])

        return take

    def _taker(self, camera: Camera, matcher: StampMatcher, part: str) -> Callable[[Image], None]:
        def take(message: Image) -> None:
            parts = matcher.add(part, stamp_to_ns(message.header.stamp), message)
            if parts is not None:
                self._take_frame(camera, parts["color"], parts["depth"])

        return take

    def _take_frame(self, camera: Camera, color: Image, depth: Image) -> None:
        stamp_ns = stamp_to_ns(color.header.stamp)
        self._tracer.mark("recorder.receive", stamp_ns)
        self._counts.frames_received += 1
        try:
            frame = RGBD(image_to_color(color), image_to_depth(depth), camera, stamp_ns)
        except BadInput as error:
            self._counts.frames_bad += 1
            self.health(ERROR, str(error), **vars(self._counts))
            return
        self._recent[camera.name, stamp_ns] = frame
        while len(self._recent) > self.value("decision_buffer") * len(self._cameras):
            self._recent.popitem(last=False)
        if self._episode is None or self._writer is None:
            return
        self._episode.frames_received += 1
        if not self._writer.frame(frame):
            self._counts.frames_dropped += 1
        self._log_complete_decisions()

    def _take_joints(self, message: JointState) -> None:
        self._joint_names = self._joint_names or list(message.name)
        if self._episode is None or self._writer is None:
            return
        try:
            positions = joint_state_to_positions(message, self._joint_names)
        except BadInput as error:
            self.health(ERROR, str(error), **vars(self._counts))
            return
        velocities = np.full(len(positions), np.nan)
        if len(message.velocity) == len(message.name):
            order = {name: index for index, name in enumerate(message.name)}
            velocities = np.array([message.velocity[order[name]] for name in self._joint_names])
        self._writer.sample("joint_state", stamp_to_ns(message.header.stamp), np.concatenate([positions, velocities]))

    def _take_trajectory(self, message: JointTrajectory, info: MessageInfo) -> None:
        if self._episode is None or self._writer is None:
            return
        try:
            samples = trajectory_to_samples(message, self._joint_names or list(message.joint_names))
        except BadInput as error:
            self.health(ERROR, str(error), **vars(self._counts))
            return
        rows = np.column_stack([samples.times_s, samples.positions, samples.velocities, samples.accelerations])
        self._writer.sample(f"joint_trajectory/{len(rows)}", self._sent_ns(info), rows.ravel())

    def _sent_ns(self, info: MessageInfo) -> int:
        """When a message without a stamp was sent, on the clock of all stamps."""
        return self.now_ns() if self.value("use_sim_time") else int(info["source_timestamp"])

    def _take_gripper(self, message: Float64, info: MessageInfo) -> None:
        if self._episode is not None and self._writer is not None:
            self._writer.sample("gripper", self._sent_ns(info), [message.data])

    def _take_outcome(self, message: String) -> None:
        outcome = from_json(message, "outcome")
        if self._episode is not None and self._writer is not None:
            self._episode.reward = float(outcome["reward"])
            self._writer.sample("reward", int(outcome.get("stamp_ns", self.now_ns())), [self._episode.reward])

    def _take_decision(self, message: String) -> None:
        decision = from_json(message, "policy/decision")
        if self._episode is None:
            return
        keys = [(str(entry["camera"]), int(entry["stamp_ns"])) for entry in decision["frames"]]
        deadline_ns = self._steady.now().nanoseconds + _NS
        self._episode.pending.append(_Pending(PickPlace.from_dict(decision), decision, keys, deadline_ns))
        self._log_complete_decisions()

    def _log_complete_decisions(self) -> None:
        if self._episode is None or not self._episode.pending:
            return
        now = self._steady.now().nanoseconds
        waiting = []
        for pending in self._episode.pending:
            if all(key in self._recent for key in pending.keys) or now > pending.deadline_ns:
                self._log_decision(pending)
            else:
                waiting.append(pending)
        self._episode.pending = waiting

    def _log_decision(self, pending: _Pending) -> None:
        assert self._writer is not None
        frames = [self._recent[key] for key in pending.keys if key in self._recent]
        missing = [list(key) for key in pending.keys if key not in self._recent]
        if missing:
            self._counts.decisions_incomplete += 1
            self.get_logger().error(f"decision {pending.action.decision_id} is logged without its frames {missing}")
        self._counts.decisions += 1
        self._writer.decision(pending.action, frames, {**pending.info, "frames_missing": missing})

    # ---- status

    def _tick(self) -> None:
        self._log_complete_decisions()
        self._report_status()
        counts = self._counts
        if counts.frames_dropped:
            self.health(ERROR, "the disk is too slow, frames were dropped; log to a faster one", **vars(counts))
        elif not counts.frames_bad:
            self.health(OK, "logging" if self._episode else "waiting for an episode", **vars(counts))

    def _report_status(self) -> None:
        if self._writer is None:
            return
        episode = self._episode
        status = {
            "episode": episode.id if episode else self._closing,
            "unfinished": self._unfinished,
            "task": episode.task if episode else "",
            "seed": episode.seed if episode else None,
            "episode_frames_received": episode.frames_received if episode else 0,
            "episode_frames_logged": self._writer.written.frames,
            "frames_logged": self._writer.frames_logged,
            "last_episode": self._last_episode,
            "store": str(self._store.path),
            **vars(self._counts),
        }
        self._status.publish(to_json(status))


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(RecorderNode))


if __name__ == "__main__":
    main()

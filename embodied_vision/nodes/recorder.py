"""Logs every frame, joint state, command and decision of an episode to the episode store."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import String

from embodied_vision.calibration import read_cameras
from embodied_vision.episodes.background import BackgroundWriter, Room
from embodied_vision.episodes.contract import Expected, default_contract, read_contract
from embodied_vision.episodes.contract_check import ContractCheck
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.schema import DECISIONS_BEGUN, color_codec
from embodied_vision.episodes.space import SpaceWatch
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json, to_json
from embodied_vision.nodes.correcting import Corrections, LoggedEpisode
from embodied_vision.nodes.decision_log import DecisionLog
from embodied_vision.nodes.deferred import Answer, DeferredTrigger
from embodied_vision.nodes.durations import Durations
from embodied_vision.nodes.image_transport import declare_color_transport, declare_depth_transport
from embodied_vision.nodes.intake import Intake
from embodied_vision.nodes.judging import Judging
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.running import run
from embodied_vision.nodes.trace import Tracer
from embodied_vision.types import PickPlace

_NS = 1_000_000_000
_MB = 1_000_000
BAD_FRAME_S = 5.0
"""A frame that could not be read is told of for so long."""


@dataclass
class _Counts:
    """Since activation.

    Attributes:
        frames_received: of which both images came.
        frames_dropped: of these, refused because the disk or the processor is too slow.
        frames_bad: of these, unusable.
        frames_incomplete: color images without a depth image.
        messages_lost: published, but lost before they came here.
        decisions: logged.
        decisions_incomplete: of these, without some of their frames.
    """

    frames_received: int = 0
    frames_dropped: int = 0
    frames_bad: int = 0
    frames_incomplete: int = 0
    messages_lost: int = 0
    decisions: int = 0
    decisions_incomplete: int = 0


@dataclass
class _Episode:
    """The episode being logged."""

    task: str
    check: ContractCheck
    joint_names: list[str]
    logged: LoggedEpisode
    seed: Any = None
    id: str = ""
    frames_received: int = 0
    reward: float = 0.0
    refused_before: int = 0
    incomplete: int = 0
    lost: int = 0
    noted: int = 0
    begun: list[str] | None = None


class RecorderNode(ManagedNode):
    """Takes messages in the executor's thread, writes in others. Episodes follow `episode/event`, or ~/start, ~/stop.

    What is logged is said by the stream contract. By default: every calibrated camera, `joint_state` (positions,
    velocities), `joint_trajectory/N` (a command of N points, each time from start, positions, velocities,
    accelerations) and `gripper`; commands are stamped with the time they were sent. Always: decisions and `reward`.
    """

    def __init__(self) -> None:
        super().__init__("recorder")
        self.param("store", "episodes", "folder of the episode store", read_only=True)
        self.param("robot", "panda_suction", "name of the robot, for the record", read_only=True)
        self.param("calibration", "", "YAML with the cameras; empty for the simulated cell's", read_only=True)
        self.param("contract", "", "YAML with the streams to log; empty for those of this package", read_only=True)
        self.param("task", "manual", "task name of episodes that ~/start begins")
        self.param(
            "color_codec",
            "jpeg",
            "`jpeg`, `htj2k` (smaller, slower) or `lossless`; frames of decisions are always lossless",
        )
        self.param("quality", 90, "quality of lossy images", (1, 100))
        self.param("low_quality", 60, "quality of lossy images while the queue is filling", (1, 100))
        self.param("queue", 300, "frames that may wait for the disk; quality sinks when half of them do", (1, 10_000))
        self.param("queue_mb", 256, "memory that frames may take while they wait, MB", (1, 65_536))
        self.param("encoders", 2, "threads that encode frames", (1, 64))
        self.param("min_free_mb", 500, "no episode begins with less room on the disk, MB", (0, 10_000_000))
        self.param("decision_buffer", 45, "newest frames a camera that stay in memory for decisions", (2, 1000))
        self.param("slop", 0.005, "largest difference of stamps of a color and a depth image, s", (0.0, 1.0))
        declare_color_transport(self)
        declare_depth_transport(self)
        self._tracer = Tracer(self)
        self._status = self.create_publisher(String, "recorder/status", qos.STATUS)
        self._corrections = Corrections(self)
        self._judging = Judging(self)
        DeferredTrigger(self, "~/start", self._start_by_hand)
        DeferredTrigger(self, "~/stop", self._stop_by_hand)
        self._writer: BackgroundWriter | None = None
        self._space: SpaceWatch | None = None
        self._episode: _Episode | None = None
        self._last_episode = self._closing = self._bad_frame = ""
        self._unfinished = 0
        self._waiting: list[Answer] = []
        self._counts = _Counts()
        self._durations = Durations()
        self._ids = {"encoder_id": "", "checkpoint_id": ""}
        self._arm_heard = False
        self._activated_ns = 0

    # ---- life cycle

    def setup(self) -> None:
        self._store = EpisodeStore(Path(self.value("store")).expanduser().resolve())
        calibrated = {camera.name: camera for camera in read_cameras(self.value("calibration"))}
        path = self.value("contract")
        self._contract = read_contract(Path(path).expanduser()) if path else default_contract(calibrated)
        self._contract.check_cameras(calibrated, f"stream contract {path}")
        self._cameras = {source.name: calibrated[source.name] for source in self._contract.cameras}
        self._intake = Intake(self, self._contract, self._cameras, self, self._durations)
        color_codec(self.value("color_codec"), self.value("quality"))
        for repaired in repair(self._store):
            log = self.get_logger().error if repaired.state == "failed" else self.get_logger().info
            log(f"episode {repaired.id} in staging: {repaired.state}, {repaired.records} records {repaired.detail}")

    def start(self) -> None:
        self._counts, self._activated_ns = _Counts(), self.now_ns()
        self._unfinished, self._bad_frame, self._bad_frame_s = 0, "", -math.inf
        self._decisions = DecisionLog(self.value("decision_buffer") * len(self._cameras), self._log_decision)
        self._space = SpaceWatch(self._store.path, self._on_space_error)
        room = Room(frames=self.value("queue"), frame_bytes=self.value("queue_mb") * _MB)
        self._writer = BackgroundWriter(room, self._on_write_error, self.value("encoders"))
        self._intake.subscribe(round(self.value("slop") * _NS))
        for topic, profile, take in (
            ("policy/decision", qos.LOG, self._take_decision),
            ("arm/status", qos.STATUS, self._take_arm_status),
            ("outcome", qos.STATUS, self._take_outcome),
            ("episode/event", qos.EVENT, self._take_event),
            ("encoder/info", qos.STATUS, self._take_info("encoder_id")),
            ("policy/info", qos.STATUS, self._take_info("checkpoint_id")),
        ):
            self.subscribe(String, topic, profile, self._durations.timed(self._guarded(take)))
        self.every(0.25, self._durations.timed(self._tick))
        self._report_status()

    def halt(self) -> None:
        if self._space is not None:
            self._space.stop()
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
        assert self._space is not None
        if self._episode is not None:
            self.get_logger().warning(f"episode {self._episode.id} had no end; closed as aborted")
            self._end({"reward": self._episode.reward, "solved": False, "aborted": True, "reason": "no end event"})
        if (full := self._lack_of_space(self.value("min_free_mb"))) is not None:
            self.get_logger().error(f"no episode begins: {full}")
            self.health(ERROR, f"no episode begins: {full}")
            if answer is not None:
                answer.give(False, full)
            return
        check = ContractCheck(self._contract, self.now_ns())
        logged, names = LoggedEpisode(self._writer.note), list(self._intake.joint_names)
        episode = self._episode = _Episode(task, check, names, logged, attributes.get("seed"))
        episode.refused_before = self._refused()
        self._intake.begin()
        cameras, ids, space = list(self._cameras.values()), dict(self._ids), self._space
        codec, quality = self.value("color_codec"), self.value("quality")
        robot = self.value("robot")
        heard: dict[str, Any] = {DECISIONS_BEGUN: []} if self._arm_heard else {}
        episode.begun = heard.get(DECISIONS_BEGUN)

        def make() -> EpisodeWriter:
            writer = EpisodeWriter(
                self._store,
                task=task,
                robot=robot,
                cameras=cameras,
                encoder_id=ids["encoder_id"],
                policy_id=ids["checkpoint_id"],
                attributes={
                    **attributes,
                    **heard,
                    "joint_names": episode.joint_names,
                    "contract": self._contract.to_dict(),
                },
                color_codec=codec,
                quality=quality,
            )
            space.remember()
            return writer

        self._unfinished += 1
        if answer is not None:
            self._waiting.append(answer)

        def begun(episode_id: str) -> None:
            episode.id = episode_id
            self._answer(answer, True, episode_id)
            self._report_status()

        low = min(self.value("low_quality"), quality)
        lower = low if codec != "lossless" and low < quality else None
        self._writer.begin(make, lambda episode_id: self.post(lambda: begun(episode_id)), low_quality=lower)

    def _end(self, outcome: Mapping[str, Any], answer: Answer | None = None) -> None:
        assert self._writer is not None
        assert self._episode is not None
        self._decisions.look(all_of_them=True)
        if violations := self._episode.check.finish(self.now_ns()):
            self._writer.note("contract_violations", violations)
        logged = self._episode.logged
        logged.note = None
        self._closing, self._episode = self._episode.id, None
        if answer is not None:
            self._waiting.append(answer)

        closing = self._closing

        def ended(episode_id: str) -> None:
            self._last_episode = logged.id = episode_id
            self._judging.closed(episode_id)
            self._closing = "" if self._closing == closing else self._closing
            self._unfinished -= 1
            self.get_logger().info(f"episode {episode_id} logged: {dict(outcome)}")
            self._answer(answer, True, episode_id)
            self._report_status()

        self._writer.end(outcome, lambda episode_id: self.post(lambda: ended(episode_id)))

    def _on_write_error(self, error: EmbodiedVisionError) -> None:
        self.post(lambda: self._fail(str(error)))

    def _on_space_error(self, error: EmbodiedVisionError) -> None:
        self.post(lambda: self._fail(str(error)) if self._episode is not None else None)

    def _fail(self, message: str) -> None:
        """What was logged stays in staging. Without its recorder the arm stops; the next one repairs the episode."""
        if self._episode is not None:
            self._episode.logged.note = None
        self._episode = None
        for answer in list(self._waiting):
            self._answer(answer, False, message)
        self.give_up(f"the episode cannot be logged: {message}")

    def _answer(self, answer: Answer | None, success: bool, message: str) -> None:
        if answer is not None and answer in self._waiting:
            self._waiting.remove(answer)
            answer.give(success, message)

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

    def seen(self, source: Expected, stamp_ns: int, frame_id: str) -> None:
        if self._episode is not None:
            self._episode.check.seen(source, stamp_ns, frame_id)

    def take_frame(self, frame: RawFrame) -> None:
        self._tracer.mark("recorder.receive", frame.stamp_ns)
        self._counts.frames_received += 1
        if self._episode is not None and self._writer is not None:
            self._episode.frames_received += 1
            self._counts.frames_dropped += not self._writer.frame(frame)
        self._decisions.add_frame(frame)

    def take_bad_frame(self, error: BadInput) -> None:
        self._counts.frames_received += 1
        self._counts.frames_bad += 1
        self._bad_frame, self._bad_frame_s = str(error), time.monotonic()

    def take_lost(self, source: Expected, count: int, stamp_ns: int) -> None:
        self._counts.messages_lost += count
        if self._episode is not None:
            self._episode.lost += count
            self._episode.check.lost(source, count, stamp_ns)

    def take_incomplete(self, source: Expected, count: int, stamp_ns: int) -> None:
        self._counts.frames_incomplete += count
        if self._episode is not None:
            self._episode.incomplete += count
            self._episode.check.incomplete(source, count, stamp_ns)

    def take_value(self, stream: str, stamp_ns: int, value: NDArray[np.float64]) -> None:
        if self._episode is None or self._writer is None:
            return
        self._writer.sample(stream, stamp_ns, value)
        if not self._episode.joint_names and (names := self._intake.joint_names):
            self._episode.joint_names = list(names)
            self._writer.note("joint_names", list(names))

    def _take_outcome(self, message: String) -> None:
        outcome = from_json(message, "outcome")
        if self._episode is not None and self._writer is not None:
            self._episode.reward = float(outcome["reward"])
            self._writer.sample("reward", int(outcome.get("stamp_ns", self.now_ns())), [self._episode.reward])

    def _take_decision(self, message: String) -> None:
        if self._episode is not None:
            self._decisions.add(from_json(message, "policy/decision"))

    def _take_arm_status(self, message: String) -> None:
        """Note which decisions the arm began: others than these earned nothing and teach nothing.

        That it began none is noted as well once it was heard, for the episodes in which it refused all of them.
        """
        status = from_json(message, "arm/status")
        self._arm_heard = True
        if self._episode is None or self._writer is None:
            return
        before, begun = self._episode.begun, list(self._episode.begun or ())
        decision_id = str(status["decision_id"])
        if status["state"] == "moving" and decision_id not in begun:
            begun.append(decision_id)
        if begun != before:
            self._episode.begun = begun
            self._writer.note(DECISIONS_BEGUN, begun)

    def _log_decision(
        self, action: PickPlace, frames: list[RawFrame], info: Mapping[str, Any], missing: list[tuple[str, int]]
    ) -> None:
        assert self._writer is not None
        if missing:
            self._counts.decisions_incomplete += 1
            self.get_logger().error(f"decision {action.decision_id} is logged without its frames {missing}")
        self._counts.decisions += 1
        self._writer.decision(action, frames, {**info, "frames_missing": [list(key) for key in missing]})
        if self._episode is not None:
            self._corrections.add(self._episode.logged, action, frames)

    # ---- status

    def _tick(self) -> None:
        self._decisions.look()
        if self._episode is not None and self._writer is not None:
            self._episode.check.look(self.now_ns())
            if self._episode.check.changes > self._episode.noted:
                self._episode.noted = self._episode.check.changes
                self._writer.note("contract_violations", self._episode.check.violations())
        self._report_status()
        self._judging.look(self._store.path)
        level, message = self._condition()
        self.health(level, message, **vars(self._counts))

    def _condition(self) -> tuple[bytes, str]:
        """The worst that is to be said now."""
        assert self._writer is not None
        load, found = self._writer.load, list[tuple[bytes, str]]()
        if load.level != "full":
            level = ERROR if load.level == "none" else WARN
            found.append((level, f"the disk or the processor is too slow, frames come at level `{load.level}`"))
        refused = self._refused() - (self._episode.refused_before if self._episode else 0)
        if refused:
            level = ERROR if self._episode else WARN
            found.append((level, f"{refused} frames, samples or decisions were refused; log to a faster disk"))
        if time.monotonic() - self._bad_frame_s < BAD_FRAME_S:
            found.append((ERROR, self._bad_frame))
        if (full := self._lack_of_space(2 * self.value("min_free_mb"))) is not None:
            found.append((WARN if self._lack_of_space(self.value("min_free_mb")) is None else ERROR, full))
        if self._episode is not None:
            lines = self._episode.check.look(self.now_ns())
            found += [(ERROR if "requires" in line else WARN, line) for line in lines]
            if self._episode.incomplete:
                found.append((WARN, f"{self._episode.incomplete} color images came without their depth image"))
            if self._episode.lost:
                found.append((ERROR, f"{self._episode.lost} messages were lost on their way; the machine is too busy"))
        if not found:
            return OK, "logging" if self._episode else "waiting for an episode"
        return max(level for level, _ in found), "; ".join(message for _, message in found)

    def _lack_of_space(self, least_mb: int) -> str | None:
        """What to tell people when the disk has less room than this."""
        assert self._space is not None
        free_mb = self._space.free_bytes // _MB
        if free_mb >= least_mb:
            return None
        return (
            f"the disk of {self._store.path} has {free_mb} MB left, episodes need {self.value('min_free_mb')} MB "
            "(min_free_mb); delete or move episodes"
        )

    def _refused(self) -> int:
        assert self._writer is not None
        load = self._writer.load
        return load.frames_refused + load.samples_refused + load.decisions_refused

    def _report_status(self) -> None:
        if self._writer is None or self._space is None:
            return
        episode, load = self._episode, self._writer.load
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
            "free_mb": self._space.free_bytes // _MB,
            "contract_violations": episode.check.violations() if episode else [],
            "callback_ms": self._durations.to_dict(),
            **vars(load),
            **vars(self._counts),
        }
        self._status.publish(to_json(status))


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(RecorderNode))


if __name__ == "__main__":
    main()

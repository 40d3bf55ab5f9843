"""Puts a logged episode back on topics under `replay/`, with its original stamps and its own timing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import topics
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.select import find_episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EmbodiedVisionError, RunFailed
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    JointSamples,
    camera_to_info,
    color_to_image,
    depth_to_image,
    joint_state_message,
    optical_frame,
    pick_place_to_poses,
    samples_to_trajectory,
    to_json,
)
from embodied_vision.nodes.deferred import Answer, DeferredTrigger
from embodied_vision.nodes.lifecycle import OK, ManagedNode, run

PREFIX = "replay"

_Step = tuple[int, Callable[[], None]]
"""When, in ns on the episode's clock, and what is published then."""


class ReplayNode(ManagedNode):
    """Plays in a thread of its own. It publishes nowhere but under `replay/`, whatever is remapped."""

    def __init__(self) -> None:
        super().__init__("replay")
        self.param("store", "episodes", "folder of the episode store")
        self.param("episode", "latest", "id of the episode, its beginning, or `latest`")
        self.param("rate", 1.0, "1 is the speed at which it happened", (0.01, 100.0))
        self.param("play", True, "play once as soon as active")
        self.param("exit_when_done", False, "end the process after playing")
        self.param("readers", 0, "start when so many nodes subscribe to the replayed color images", (0, 100))
        self.param(
            "settle", 1.0, "the first message waits until no subscriber has joined or left for so long, s", (0.0, 60.0)
        )
        self._status = self.create_publisher(String, "~/status", qos.STATUS)
        DeferredTrigger(self, "~/play", self._play_on_demand)
        self._replayed: dict[str, Publisher[Any]] = {}
        self._episode: Episode | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._published = 0
        self._length = 0
        self._latest_ns = 0

    def setup(self) -> None:
        self._episode = self._open()
        for name in self._episode.cameras:
            self._publisher(Image, topics.color(name), qos.SENSOR)
            self._publisher(Image, topics.depth(name), qos.SENSOR)
            self._publisher(CameraInfo, topics.color_info(name), qos.SENSOR)
        self._publisher(JointState, "joint_states", qos.SENSOR)
        self._publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND)
        self._publisher(Float64, "gripper/command", qos.COMMAND)
        self._publisher(PoseArray, "pick_place", qos.DECISION)
        self._publisher(String, "policy/decision", qos.DECISION)
        self._publisher(String, "episode/event", qos.EVENT)

    def _open(self) -> Episode:
        return find_episode(EpisodeStore(Path(self.value("store")).expanduser()), self.value("episode"))

    def _publisher(self, kind: Any, topic: str, profile: QoSProfile) -> None:
        """A publisher under `replay/`.

        Raises:
            BadInput: a remap would lead it to a topic that something live may listen to.
        """
        wanted = f"{PREFIX}/{topic}"
        resolved = self.resolve_topic_name(wanted)
        if PREFIX not in resolved.split("/")[1:-1]:
            raise BadInput(f"{wanted} is remapped to {resolved}, outside {PREFIX}/; logged commands never go live")
        self._replayed[topic] = self.create_publisher(kind, wanted, profile)

    def start(self) -> None:
        self._ended.clear()
        self.every(0.5, self._report_status)
        if self.value("play"):
            self._play(self._autoplayed)

    def halt(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def teardown(self) -> None:
        for publisher in self._replayed.values():
            self.destroy_publisher(publisher)
        self._replayed, self._episode = {}, None

    # ---- playing

    def _autoplayed(self, error: EmbodiedVisionError | None) -> None:
        if error is not None:
            self.give_up(str(error), error.exit_code)
        elif self.value("exit_when_done"):
            self.stop()

    def _play_on_demand(self, answer: Answer) -> None:
        if not self.is_active:
            answer.give(False, f"the replay node is {self.state}; activate it first")
        elif self._thread is not None:
            answer.give(False, "an episode is being played; wait for its end")
        else:
            try:
                self._episode = self._open()
            except EmbodiedVisionError as error:
                answer.give(False, str(error))
                return
            self._play(lambda error: answer.give(error is None, str(error or f"{self._published} messages")))

    def _play(self, done: Callable[[EmbodiedVisionError | None], None]) -> None:
        assert self._episode is not None
        episode = self._episode

        def ended(error: EmbodiedVisionError | None) -> None:
            self._thread = None
            self._report_status()
            done(error)

        def play() -> None:
            failure: EmbodiedVisionError | None = None
            try:
                self._run(episode)
            except EmbodiedVisionError as error:
                failure = error
            except Exception as error:
                failure = RunFailed(f"episode {episode.id} cannot be played: {error!r}")
            self.post(lambda: ended(failure))

        self._published, self._latest_ns = 0, 0
        self._thread = threading.Thread(target=play, name="replay", daemon=True)
        self._thread.start()

    def _run(self, episode: Episode) -> None:
        steps = sorted(self._steps(episode), key=lambda step: step[0])
        self._length = len(steps)
        while not self._subscribed(episode) and not self._ended.wait(0.02):
            pass
        if not self._settled():
            return
        rate = float(self.value("rate"))
        self._publish("episode/event", to_json(self._event(episode, "start")))
        start = time.monotonic()
        for stamp_ns, publish in steps:
            due = start + (stamp_ns - steps[0][0]) * 1e-9 / rate
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            publish()
            self._latest_ns = max(self._latest_ns, round((time.monotonic() - due) * 1e9))
        self._publish("episode/event", to_json(self._event(episode, "end")))

    def _settled(self) -> bool:
        """Wait until no subscriber has joined or left any topic for the time `settle`; false when stopped meanwhile."""
        known, since = self._subscribers(), time.monotonic()
        while time.monotonic() < since + self.value("settle"):
            if self._ended.wait(0.02):
                return False
            now = self._subscribers()
            if now != known:
                known, since = now, time.monotonic()
        return True

    def _subscribers(self) -> list[int]:
        return [publisher.get_subscription_count() for publisher in self._replayed.values()]

    def _subscribed(self, episode: Episode) -> bool:
        wanted: int = self.value("readers")
        return all(self._replayed[topics.color(n)].get_subscription_count() >= wanted for n in episode.cameras)

    def _publish(self, topic: str, message: Any) -> None:
        self._replayed[topic].publish(message)
        self._published += 1

    def _event(self, episode: Episode, event: str) -> dict[str, Any]:
        stamp_ns = episode.created_ns if event == "start" else episode.closed_ns
        extra = {"outcome": dict(episode.outcome)} if event == "end" else {}
        return {"event": event, "task": episode.task, "episode": episode.id, "stamp_ns": stamp_ns, **extra}

    # ---- what was logged, as messages

    def _steps(self, episode: Episode) -> Iterator[_Step]:
        for name in episode.cameras:
            for index, stamp_ns in enumerate(episode.frames(name).stamps_ns):
                yield int(stamp_ns), self._frame(episode, name, index)
        for stream in episode.streams:
            make = self._message_maker(episode, stream)
            if make is None:
                continue
            topic, to_message = make
            for stamp_ns, value in zip(*episode.stream(stream), strict=True):
                yield int(stamp_ns), self._sample(topic, to_message, int(stamp_ns), value)
        for index in range(len(episode.decisions)):
            action = episode.decisions.action(index)
            yield action.stamp_ns, self._decision(episode, index)

    def _frame(self, episode: Episode, name: str, index: int) -> Callable[[], None]:
        def publish() -> None:
            frame = episode.frames(name)[index]
            frame_id = optical_frame(name)
            self._publish(topics.color_info(name), camera_to_info(frame.camera, frame.stamp_ns))
            self._publish(topics.color(name), color_to_image(frame.color, frame.stamp_ns, frame_id))
            self._publish(topics.depth(name), depth_to_image(frame.depth, frame.stamp_ns, frame_id))

        return publish

    def _sample(
        self, topic: str, to_message: Callable[[int, Any], Any], stamp_ns: int, value: Any
    ) -> Callable[[], None]:
        return lambda: self._publish(topic, to_message(stamp_ns, value))

    def _decision(self, episode: Episode, index: int) -> Callable[[], None]:
        def publish() -> None:
            decision = episode.decisions[index]
            self._publish("policy/decision", to_json({**decision.info, **decision.action.to_dict()}))
            self._publish("pick_place", pick_place_to_poses(decision.action))

        return publish

    def _message_maker(self, episode: Episode, stream: str) -> tuple[str, Callable[[int, Any], Any]] | None:
        """Topic of a stream and how one of its values becomes a message; None for streams without a topic."""
        logged_names = episode.attributes.get("joint_names", [])

        def names(joints: int) -> list[str]:
            return list(logged_names) if len(logged_names) == joints else [f"joint_{i + 1}" for i in range(joints)]

        def joint_state(stamp_ns: int, value: Any) -> JointState:
            positions, velocities = np.split(value, 2)
            return joint_state_message(names(len(positions)), positions, velocities, stamp_ns)

        def trajectory(_stamp_ns: int, value: Any) -> JointTrajectory:
            rows = value.reshape(int(stream.partition("/")[2]), -1)
            samples = JointSamples(rows[:, 0], *np.split(rows[:, 1:], 3, axis=1))
            return samples_to_trajectory(names(samples.positions.shape[1]), samples)

        if stream == "joint_state":
            return "joint_states", joint_state
        if stream.startswith("joint_trajectory/"):
            return "arm/joint_trajectory", trajectory
        if stream == "gripper":
            return "gripper/command", lambda _stamp_ns, value: Float64(data=float(value[0]))
        return None

    def _report_status(self) -> None:
        status = {
            "episode": self._episode.id if self._episode is not None else "",
            "playing": self._thread is not None,
            "messages_published": self._published,
            "latest_ms": self._latest_ns / 1e6,
        }
        self._status.publish(to_json(status))
        self.health(OK, "playing" if status["playing"] else "waiting", **status)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(ReplayNode))


if __name__ == "__main__":
    main()

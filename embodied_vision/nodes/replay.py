"""Puts a logged episode back on topics under `replay/`, with its original stamps and its own timing.

While it plays, `~/pause`, `~/play`, `~/step` and `~/seek` (to the parameter `seek_to`) do what they say, and the
parameters `rate` and `loop` may be set.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.duration import Duration
from rclpy.parameter import Parameter
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
from embodied_vision.nodes.keys import KEYS, Keys
from embodied_vision.nodes.lifecycle import OK, ManagedNode
from embodied_vision.nodes.playback import Act, Items, Playback
from embodied_vision.nodes.running import run

PREFIX = "replay"

_DELIVERY_S = 2.0
_BACK_S = 1.0
"""How far the left arrow goes back."""

_Kind = Literal["frame", "decision", "sample"]

_Item = tuple[int, _Kind, str, Callable[[], Act]]
"""When, in ns on the episode's clock; what; of which camera or stream; what makes it ready to be published."""


class ReplayNode(ManagedNode):
    """Plays in a thread of its own. It publishes nowhere but under `replay/`, whatever is remapped."""

    def __init__(self) -> None:
        super().__init__("replay")
        self.param("store", "episodes", "folder of the episode store, or its URL in object storage")
        self.param("episode", "latest", "id of the episode, its beginning, or `latest`")
        self.param("rate", 1.0, "1 is the speed at which it happened; may be set while playing", (0.01, 100.0))
        self.param("start_at", 0.0, "where playing begins, s since the first message", (0.0, 1e9))
        self.param("end_at", -1.0, "where playing ends, s since the first message; negative is the end", (-1.0, 1e9))
        self.param("loop", False, "begin anew at the end; may be set while playing")
        self.param("seek_to", 0.0, "where ~/seek goes, s since the first message", (0.0, 1e9))
        self.param("paused", False, "begin paused, for ~/play, ~/step and ~/seek")
        self.param("step_by", "frame", "what ~/step goes to: the next `frame` of the first camera, or `decision`")
        self.param("keyboard", False, f"take keys from the standard input: {KEYS}")
        self.param("play", True, "play once as soon as active")
        self.param("exit_when_done", False, "end the process after playing")
        self.param("readers", 0, "start when so many nodes subscribe to the replayed color images", (0, 100))
        self.param(
            "settle", 1.0, "the first message waits until no subscriber has joined or left for so long, s", (0.0, 60.0)
        )
        self._status = self.create_publisher(String, "~/status", qos.STATUS)
        DeferredTrigger(self, "~/play", self._play_on_demand)
        DeferredTrigger(self, "~/pause", lambda answer: self._control(answer, Playback.pause))
        DeferredTrigger(self, "~/step", lambda answer: self._control(answer, Playback.step))
        DeferredTrigger(self, "~/seek", lambda answer: self._control(answer, lambda p: p.seek(self.value("seek_to"))))
        self.add_post_set_parameters_callback(self._parameters_set)
        self._replayed: dict[str, Publisher[Any]] = {}
        self._episode: Episode | None = None
        self._thread: threading.Thread | None = None
        self._playback: Playback | None = None
        self._keys: Keys | None = None
        self._ended = threading.Event()
        self._published = 0

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
        if self.value("step_by") not in ("frame", "decision"):
            raise BadInput(f"step_by is {self.value('step_by')!r}; give frame or decision")
        return find_episode(EpisodeStore(os.path.expanduser(self.value("store"))), self.value("episode"))

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
        if self.value("keyboard"):
            self._keys = Keys(lambda key: self.post(lambda: self._pressed(key)))
        if self.value("play"):
            self._play(self._autoplayed)

    def halt(self) -> None:
        self._ended.set()
        if self._keys is not None:
            self._keys.close()
            self._keys = None
        if self._playback is not None:
            self._playback.stop()
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
        elif self._playback is not None and self._playback.status().paused:
            self._control(answer, Playback.resume)
        elif self._thread is not None:
            answer.give(False, "an episode is being played; wait for its end")
        else:
            try:
                self._episode = self._open()
            except EmbodiedVisionError as error:
                answer.give(False, str(error))
                return
            self._play(lambda error: answer.give(error is None, str(error or f"{self._published} messages")))

    def _control(self, answer: Answer, act: Callable[[Playback], None]) -> None:
        if self._playback is None:
            answer.give(False, "no episode is being played; call ~/play first")
            return
        act(self._playback)
        status = self._playback.status()
        answer.give(True, f"{'paused' if status.paused else 'playing'} at {status.position_s:.3f} s")
        self._report_status()

    def _parameters_set(self, parameters: list[Parameter[Any]]) -> None:
        for parameter in parameters:
            if self._playback is not None and parameter.name == "rate":
                self._playback.set_rate(parameter.value)
            elif self._playback is not None and parameter.name == "loop":
                self._playback.set_loop(parameter.value)

    def _pressed(self, key: str) -> None:
        playback = self._playback
        if key == "q":
            self.stop()
        elif playback is not None and key == " ":
            (playback.resume if playback.status().paused else playback.pause)()
        elif playback is not None and key in (".", "right"):
            playback.step()
        elif playback is not None and key == "left":
            playback.seek(max(0.0, playback.status().position_s - _BACK_S))
        elif key in ("+", "-"):
            rate = min(100.0, max(0.01, self.value("rate") * (2.0 if key == "+" else 0.5)))
            self.set_parameters([Parameter("rate", value=rate)])
        self._report_status()

    def _play(self, done: Callable[[EmbodiedVisionError | None], None]) -> None:
        assert self._episode is not None
        episode = self._episode

        def ended(error: EmbodiedVisionError | None) -> None:
            self._thread = self._playback = None
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

        self._published = 0
        self._thread = threading.Thread(target=play, name="replay", daemon=True)
        self._thread.start()

    def _run(self, episode: Episode) -> None:
        playback = self._playback_of(episode)
        while not self._subscribed(episode) and not self._ended.wait(0.02):
            pass
        if not self._settled():
            return
        self._publish("episode/event", to_json(self._event(episode, "start")))
        playback.seek(self.value("start_at"))  # the time until here does not count
        self._playback = playback
        if self._ended.is_set():
            return
        if playback.run():
            self._publish("episode/event", to_json(self._event(episode, "end")))
            self._deliver()

    def _deliver(self) -> None:
        """Wait for reliable subscribers, a little: a process that ends takes along what it has not delivered."""
        deadline = time.monotonic() + _DELIVERY_S
        for publisher in self._replayed.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, deadline - time.monotonic())))

    def _playback_of(self, episode: Episode) -> Playback:
        items = sorted(self._items(episode), key=lambda item: item[0])
        first_camera = next(iter(episode.cameras), "")
        by_decision = self.value("step_by") == "decision"
        marks = [
            number
            for number, (_, kind, name, _) in enumerate(items)
            if kind == ("decision" if by_decision else "frame") and name in ("", first_camera)
        ]
        end_s: float = self.value("end_at")
        playback = Playback(
            Items(
                np.array([stamp_ns for stamp_ns, _, _, _ in items], np.int64),
                lambda number: items[number][3](),
                np.array([number for number, item in enumerate(items) if item[1] != "sample"], np.int64),
                np.array(marks, np.int64),
            ),
            start_s=self.value("start_at"),
            end_s=None if end_s < 0 else end_s,
            rate=self.value("rate"),
            loop=self.value("loop"),
            paused=self.value("paused"),
        )
        if self.value("start_at") > playback.duration_s:
            raise BadInput(
                f"start_at is {self.value('start_at')} s, but episode {episode.id} lasts {playback.duration_s:.3f} s"
            )
        return playback

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

    def _items(self, episode: Episode) -> Iterator[_Item]:
        for name in episode.cameras:
            for index, stamp_ns in enumerate(episode.frames(name).stamps_ns):
                yield int(stamp_ns), "frame", name, self._frame(episode, name, index)
        for stream in episode.streams:
            make = self._message_maker(episode, stream)
            if make is None:
                continue
            topic, to_message = make
            for stamp_ns, value in zip(*episode.stream(stream), strict=True):
                yield int(stamp_ns), "sample", stream, self._sample(topic, to_message, int(stamp_ns), value)
        for index in range(len(episode.decisions)):
            action = episode.decisions.action(index)
            yield action.stamp_ns, "decision", "", self._decision(episode, index)

    def _frame(self, episode: Episode, name: str, index: int) -> Callable[[], Act]:
        def prepare() -> Act:
            frame = episode.frames(name)[index]
            frame_id = optical_frame(name)
            return self._publishing(
                (topics.color_info(name), camera_to_info(frame.camera, frame.stamp_ns)),
                (topics.color(name), color_to_image(frame.color, frame.stamp_ns, frame_id)),
                (topics.depth(name), depth_to_image(frame.depth, frame.stamp_ns, frame_id)),
            )

        return prepare

    def _sample(
        self, topic: str, to_message: Callable[[int, Any], Any], stamp_ns: int, value: Any
    ) -> Callable[[], Act]:
        return lambda: self._publishing((topic, to_message(stamp_ns, value)))

    def _decision(self, episode: Episode, index: int) -> Callable[[], Act]:
        def prepare() -> Act:
            decision = episode.decisions[index]
            return self._publishing(
                ("policy/decision", to_json({**decision.info, **decision.action.to_dict()})),
                ("pick_place", pick_place_to_poses(decision.action)),
            )

        return prepare

    def _publishing(self, *messages: tuple[str, Any]) -> Act:
        def publish() -> None:
            for topic, message in messages:
                self._publish(topic, message)

        return publish

    def _message_maker(self, episode: Episode, stream: str) -> tuple[str, Callable[[int, Any], Any]] | None:
        """Topic of a stream and how one of its values becomes a message; None for streams without a topic."""
        logged_names = episode.attributes.get("joint_names", [])

        def names(joints: int) -> list[str]:
            return list(logged_names) if len(logged_names) == joints else [f"joint_{i + 1}" for i in range(joints)]

        def joint_state(stamp_ns: int, value: Any) -> JointState:
            joints = len(value) // (2 if len(value) % 2 == 0 else 3)
            if logged_names and len(value) % len(logged_names) == 0:
                joints = len(logged_names)
            positions, velocities = value[:joints], value[joints : 2 * joints]  # efforts may follow
            return joint_state_message(names(joints), positions, velocities, stamp_ns)

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
        playback = self._playback
        now = playback.status() if playback is not None else None
        status = {
            "episode": self._episode.id if self._episode is not None else "",
            "playing": self._thread is not None,
            "paused": now.paused if now is not None else False,
            "position_s": now.position_s if now is not None else 0.0,
            "duration_s": playback.duration_s if playback is not None else 0.0,
            "rate": now.rate if now is not None else self.value("rate"),
            "loops": now.loops if now is not None else 0,
            "messages_published": self._published,
            "latest_ms": now.latest_s * 1e3 if now is not None else 0.0,
        }
        self._status.publish(to_json(status))
        self.health(OK, "paused" if status["paused"] else "playing" if status["playing"] else "waiting", **status)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(ReplayNode))


if __name__ == "__main__":
    main()

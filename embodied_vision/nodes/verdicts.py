"""The cameras' verdict on each action, for a cell where no simulator says what an action earned.

Cameras are listened to only while a picture is waited for, with the arm at rest. A process of the lowest priority
judges; it may be slow, or die, and nobody but the one who asked waits for it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rclpy.subscription import Subscription
from std_msgs.msg import String

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.errors import BadInput
from embodied_vision.frame_health import check_frame
from embodied_vision.learning.outcomes_process import JudgeProcess
from embodied_vision.learning.outcomes_verdict import Tally, Verdict
from embodied_vision.matching import StampMatcher
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json, image_to_color, image_to_depth, stamp_to_ns
from embodied_vision.nodes.image_transport import (
    color_stream,
    declare_color_transport,
    declare_depth_transport,
    depth_stream,
)
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.types import RGBD, Camera, PickPlace

LOAD_S, LOOK_S = 60.0, 5.0
"""Longest wait for the judge to be loaded, and for a picture."""

_REMEMBERED = 8
Wait = Callable[[Callable[[], bool], float], bool]
"""Waits until a condition holds, at most so many seconds; whether it does."""


class Look:
    """The first frames of all cameras that were taken after a moment.

    Args:
        node: subscribes, in its own thread.
        cameras: calibrated ones.
        slop_ns: largest difference of stamps within the frames.
        after_ns: the moment.
        wake: called, in the node's thread, when something came.

    Attributes:
        frames: one a camera, empty until they are there.
        problem: what is wrong with those that came, in words.
    """

    def __init__(
        self, node: ManagedNode, cameras: Sequence[Camera], slop_ns: int, after_ns: int, wake: Callable[[], None]
    ) -> None:
        self.frames: tuple[RGBD, ...] = ()
        self.problem = ""
        self._node, self._cameras, self._after_ns, self._wake = node, {c.name: c for c in cameras}, after_ns, wake
        self._matchers = {name: StampMatcher(("color", "depth"), slop_ns) for name in self._cameras}
        self._sets = StampMatcher(list(self._cameras), slop_ns)
        self._subscriptions: list[Subscription[Any]] = []
        node.post(self._begin)

    @property
    def missing(self) -> str:
        """Why there are no frames, in words."""
        waiting = {name: matcher.newest() for name, matcher in self._matchers.items()}
        parts = [f"{part} of {name}" for name, found in waiting.items() for part in found if found[part] is None]
        return self.problem or (f"nothing came: {', '.join(parts)}" if parts else "their stamps differ")

    def end(self) -> None:
        """Listen no more; may be called from any thread."""
        self._node.post(self._end)

    def _begin(self) -> None:
        for name in self._cameras:
            self._hear(*color_stream(self._node, topics.color(name)), name, "color")
            self._hear(*depth_stream(self._node, topics.depth(name)), name, "depth")

    def _hear(self, kind: Any, topic: str, camera: str, part: str) -> None:
        offered = self._node.get_publishers_info_by_topic(topic)
        reliable = all(one.qos_profile.reliability == qos.SENSOR.reliability for one in offered)
        profile = qos.SENSOR if reliable else qos.best_effort(qos.SENSOR)
        self._subscriptions.append(
            self._node.create_subscription(kind, topic, lambda message: self._take(message, camera, part), profile)
        )

    def _take(self, message: Any, camera: str, part: str) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if self.frames or stamp_ns <= self._after_ns:
            return
        both = self._matchers[camera].add(part, stamp_ns, message)
        if both is None:
            return
        matched = self._sets.add(camera, stamp_to_ns(both["color"].header.stamp), both)
        if matched is None:
            return
        try:
            self.frames = tuple(self._frame(self._cameras[name], matched[name]) for name in self._cameras)
        except BadInput as error:
            self.problem = str(error)
        self._wake()

    @staticmethod
    def _frame(camera: Camera, parts: Any) -> RGBD:
        stamp_ns = stamp_to_ns(parts["color"].header.stamp)
        frame = RGBD(image_to_color(parts["color"]), image_to_depth(parts["depth"]), camera, stamp_ns)
        check_frame(frame)
        return frame

    def _end(self) -> None:
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())


class Verdicts:
    """Looks at the cell before and after an action, and asks the judge; off where no classifier is given.

    Its calls that wait belong to another thread than the node's.

    Attributes:
        task: whose actions are judged, once `load` was called.
    """

    def __init__(self, node: ManagedNode) -> None:
        """Declare the parameters on a node that is being made."""
        node.param(
            "outcome_classifier",
            "",
            "folder of a classifier by whose verdicts the work goes on, see docs/outcomes.md; empty: by `outcome`",
            read_only=True,
        )
        node.param(
            "actions", 1, "actions that must succeed for a scene to be solved, where the cameras judge", (1, 1000)
        )
        node.param(
            "settle", 0.5, "time that what was moved has to come to rest before the cameras look, s", (0.0, 60.0)
        )
        node.param("verdict_timeout", 30.0, "longest wait for the cameras' verdict on an action, s", (0.1, 600.0))
        node.param("encoder", "default", "encoder that the classifier was trained on", read_only=True)
        node.param("calibration", "", "YAML with the cameras; empty for the simulated cell's", read_only=True)
        node.param("slop", 0.005, "largest difference of stamps within one set of frames, s", (0.0, 1.0))
        declare_color_transport(node)
        declare_depth_transport(node)
        self.task = ""
        self._node = node
        self._judge: JudgeProcess | None = None
        self._classifier_id = ""
        self._cameras: tuple[Camera, ...] = ()
        self._decisions: OrderedDict[str, PickPlace] = OrderedDict()
        self._before: tuple[RGBD, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether the cameras judge."""
        return bool(self._node.value("outcome_classifier"))

    def load(self) -> None:
        """Have the judge loaded.

        Raises:
            BadInput: classifier, encoder or calibration cannot be used, or the encoder is not the classifier's.
            RunFailed: the judge's process ended, or is not there in time.
        """
        if not self.wanted:
            return
        self._cameras = read_cameras(self._node.value("calibration"))
        folder = Path(self._node.value("outcome_classifier")).expanduser().resolve()
        self._judge = JudgeProcess.of(folder, self._node.value("encoder"))
        about = self._judge.about(LOAD_S)
        self.task, self._classifier_id = about.task, about.classifier_id
        self._node.get_logger().info(f"classifier {about.classifier_id} judges {about.task!r} from the cameras")

    def listen(self) -> None:
        """Hear what is decided while the node is active."""
        if self.wanted:
            self._node.subscribe(String, "policy/decision", qos.DECISION, self._take_decision)

    def close(self) -> None:
        """End the judge's process."""
        if self._judge is not None:
            self._judge.close()
        self._judge = None

    def _take_decision(self, message: String) -> None:
        try:
            action = PickPlace.from_dict(from_json(message, "policy/decision"))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"it is no decision: {error!r}") from error
        self._decisions[action.decision_id] = action
        while len(self._decisions) > _REMEMBERED:
            self._decisions.popitem(last=False)

    # ---- in the thread of the work

    def begin(self) -> Tally:
        """A scene begins."""
        self._before = ()
        return Tally(self._node.value("actions"), self._classifier_id)

    def forget(self) -> None:
        """What was seen last no longer holds."""
        self._before = ()

    def look(self, wait: Wait, wake: Callable[[], None]) -> str:
        """See the cell as it is before an action, unless it was just seen; what is wrong when it cannot be seen."""
        if self._before:
            return ""
        self._before, problem = self._see(0.0, wait, wake)
        return problem

    def verdict(self, decision_id: str, wait: Wait, wake: Callable[[], None]) -> Verdict:
        """What became of the last action, in `settle`, `LOOK_S` and `verdict_timeout` at most; else it is unsure."""
        before, self._before = self._before, ()
        after, problem = self._see(float(self._node.value("settle")), wait, wake)
        if problem:
            return _nothing(f"the cell is not seen after the action: {problem}")
        self._before = after
        action = self._decisions.get(decision_id)
        if action is None:
            return _nothing("its decision was not heard on policy/decision")
        if action.primitive == "grasp":
            return _nothing("what a grasp earned is not seen on the table")
        assert self._judge is not None
        timeout_s = float(self._node.value("verdict_timeout"))
        asked = self._judge.ask(before, after, action)
        asked.add_done_callback(lambda _: wake())
        if not wait(asked.done, timeout_s):
            self._judge.drop()
            return _nothing(f"no verdict came within {timeout_s:g} s (verdict_timeout)")
        if (error := asked.exception()) is not None:
            self._node.get_logger().error(f"no verdict on decision {decision_id}: {error}")
            return _nothing(f"no verdict: {(str(error).strip() or repr(error)).splitlines()[-1]}")
        return asked.result()

    def _see(self, in_s: float, wait: Wait, wake: Callable[[], None]) -> tuple[tuple[RGBD, ...], str]:
        slop_ns, after_ns = round(self._node.value("slop") * 1e9), self._node.now_ns() + round(in_s * 1e9)
        look = Look(self._node, self._cameras, slop_ns, after_ns, wake)
        try:
            wait(lambda: bool(look.frames), in_s + LOOK_S)
        finally:
            look.end()
        return look.frames, "" if look.frames else f"no frames within {LOOK_S:g} s: {look.missing}"


def _nothing(reason: str) -> Verdict:
    return Verdict("unsure", math.nan, reason)

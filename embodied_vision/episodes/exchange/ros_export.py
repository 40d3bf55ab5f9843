"""An episode as messages on the topics of the live graph, so that it comes back whole.

Every value is on one topic that holds it exactly; a stream whose values its usual message would round is on a topic
of its own besides.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from embodied_vision import topics
from embodied_vision.episodes.codecs import JpegChunks
from embodied_vision.episodes.exchange import ros_messages as ros
from embodied_vision.episodes.exchange.about import describe
from embodied_vision.episodes.exchange.cdr import Message, Topic, definition, encode
from embodied_vision.episodes.exchange.streams import Form, graph_form, plain_form
from embodied_vision.episodes.reader import Episode, Frames
from embodied_vision.episodes.schema import plain
from embodied_vision.errors import BadInput
from embodied_vision.messages import optical_frame

EVENT = "/episode/event"
DECISION = "/policy/decision"
PICK_PLACE = "/pick_place"
STATIC_FRAMES = "/tf_static"
LOGGED = "logged"
"""Key in the JSON of a decision that holds what was logged with it, exactly."""

_Part = tuple[str, str, int, Any]
"""Topic, type, stamp in ns and the message."""
_Step = tuple[int, Callable[[], Iterator[_Part]]]
"""When and what; one step's messages stay together."""


@dataclass(frozen=True)
class CameraTopics:
    """Topics of one camera, absolute."""

    color: str
    info: str
    depth: str
    decision_color: str
    decision_depth: str

    @classmethod
    def of(cls, name: str) -> CameraTopics:
        """The topics of a camera whose name is fit for them."""
        color, depth = topics.color(name), topics.depth(name)
        return cls(
            f"/{color}/compressed",
            f"/{topics.color_info(name)}",
            f"/{depth}",
            f"/decisions/{color}/compressed",
            f"/decisions/{depth}",
        )


class EpisodeMessages:
    """The messages of an episode.

    Attributes:
        about: what the messages do not say, JSON; with `topics`, the topic of each camera and stream.

    Raises:
        BadInput: stamps that ROS cannot hold.
    """

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        taken: set[str] = set()
        self._cameras = {name: CameraTopics.of(_topic_name(name, taken)) for name in episode.cameras}
        self._streams: dict[str, list[Form]] = {}
        for name in episode.streams:
            stamps, values = episode.stream(name)
            form = graph_form(name, values.shape[1], episode.attributes)
            forms = [] if form is None else [form]
            if form is None or not all(form.is_exact(int(n), row) for n, row in zip(stamps, values, strict=True)):
                forms.append(plain_form(name, f"/streams/{_topic_name(name, taken)}"))
            self._streams[name] = forms
        self.about = {
            **describe(episode),
            "topics": {
                "cameras": {name: vars(of) for name, of in self._cameras.items()},
                "streams": {name: forms[-1].topic for name, forms in self._streams.items()},
            },
            "dimensions": {name: int(episode.stream(name)[1].shape[1]) for name in episode.streams},
        }

    def topics(self) -> list[Topic]:
        """All topics, also those on which nothing will come."""
        kinds = {EVENT: ros.TEXT, DECISION: ros.TEXT, PICK_PLACE: ros.POSES, STATIC_FRAMES: ros.FRAMES}
        for of in self._cameras.values():
            kinds |= {of.color: ros.COMPRESSED, of.info: ros.INFO, of.depth: ros.IMAGE}
            kinds |= {of.decision_color: ros.COMPRESSED, of.decision_depth: ros.IMAGE}
        for forms in self._streams.values():
            kinds |= {form.topic: form.type for form in forms}
        return [Topic(name, kind, definition(kind)) for name, kind in sorted(kinds.items())]

    def __iter__(self) -> Iterator[Message]:
        sources = [source for source in self._sources() if source]
        stamps = [stamp for source in sources for stamp, _ in source]
        first, last = (min(stamps), max(stamps)) if stamps else (self._episode.created_ns, self._episode.closed_ns)
        yield from _messages(self._event("start", self._episode.created_ns, first))
        cameras = list(self._episode.cameras.values())
        yield from _messages(iter([(STATIC_FRAMES, ros.FRAMES, first, ros.camera_poses(cameras, first))]))
        # Each source keeps its order of logging, for that is how it comes back, even where its stamps go backwards.
        ordered = [
            zip(accumulate((stamp for stamp, _ in source), max), (make for _, make in source), strict=True)
            for source in sources
        ]
        for _, make in heapq.merge(*ordered, key=lambda step: step[0]):
            yield from _messages(make())
        yield from _messages(self._event("end", self._episode.closed_ns, last))

    def _event(self, event: str, stamp_ns: int, log_ns: int) -> Iterator[_Part]:
        about = {"event": event, "task": self._episode.task, "episode": self._episode.id, "stamp_ns": stamp_ns}
        if event == "end":
            about["outcome"] = plain(self._episode.outcome, "outcome")
        yield EVENT, ros.TEXT, log_ns, ros.text(about)

    def _sources(self) -> Iterator[list[_Step]]:
        for name in self._episode.cameras:
            stamps = self._episode.frames(name).stamps_ns
            yield [(int(stamp), self._frame(name, index)) for index, stamp in enumerate(stamps)]
        for name, forms in self._streams.items():
            stamps, values = self._episode.stream(name)
            yield [
                (int(stamp), self._sample(forms, int(stamp), row)) for stamp, row in zip(stamps, values, strict=True)
            ]
        yield [
            (self._episode.decisions.action(index).stamp_ns, self._decision(index))
            for index in range(len(self._episode.decisions))
        ]

    def _frame(self, name: str, index: int) -> Callable[[], Iterator[_Part]]:
        def make() -> Iterator[_Part]:
            frames, of, frame_id = self._episode.frames(name), self._cameras[name], optical_frame(name)
            stamp = int(frames.stamps_ns[index])
            if isinstance(frames.color_codec, JpegChunks):
                codec, image = "jpeg", frames.encoded_color(index)
            else:
                codec, image = "png", _png(frames.color(index))
            depth = frames.depth_mm(index)
            yield of.info, ros.INFO, stamp, ros.camera_info(frames.camera, stamp)
            yield of.color, ros.COMPRESSED, stamp, ros.compressed(image, codec, stamp, frame_id)
            yield of.depth, ros.IMAGE, stamp, ros.depth_image(depth, stamp, frame_id)

        return make

    def _sample(self, forms: list[Form], stamp_ns: int, row: Any) -> Callable[[], Iterator[_Part]]:
        def make() -> Iterator[_Part]:
            for form in forms:
                try:
                    message = form.encode(stamp_ns, row)
                except BadInput:
                    if form is forms[-1]:
                        raise
                    continue  # not to be had in this message; the exact one follows
                yield form.topic, form.type, stamp_ns, message

        return make

    def _decision(self, index: int) -> Callable[[], Iterator[_Part]]:
        def make() -> Iterator[_Part]:
            decisions = self._episode.decisions
            action, info, used = decisions.action(index), decisions.info(index), decisions.used(index)
            for frames, number in used:
                yield from self._decision_frame(frames, number)
            seen = [[frames.camera.name, int(frames.stamps_ns[number])] for frames, number in used]
            content = plain({**info, **action.to_dict(), LOGGED: {"info": info, "frames": seen}}, "decision")
            yield DECISION, ros.TEXT, action.stamp_ns, ros.text(content)
            if np.isfinite(action.pick).all() and np.isfinite(action.place).all():
                yield PICK_PLACE, ros.POSES, action.stamp_ns, ros.pick_place(action)

        return make

    def _decision_frame(self, frames: Frames, number: int) -> Iterator[_Part]:
        of, frame_id = self._cameras[frames.camera.name], optical_frame(frames.camera.name)
        stamp = int(frames.stamps_ns[number])
        image, depth = _png(frames.color(number)), frames.depth_mm(number)
        yield of.decision_color, ros.COMPRESSED, stamp, ros.compressed(image, "png", stamp, frame_id)
        yield of.decision_depth, ros.IMAGE, stamp, ros.depth_image(depth, stamp, frame_id)


def _messages(parts: Iterator[_Part]) -> Iterator[Message]:
    for topic, kind, stamp_ns, message in parts:
        if stamp_ns < 0:
            raise BadInput(f"stamp {stamp_ns} ns on {topic}: recordings hold no times before 1970; export to HDF5")
        yield Message(topic, kind, stamp_ns, encode(kind, message))


def _png(color: Any) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(color), level=1))


def _topic_name(name: str, taken: set[str]) -> str:
    """A name as ROS wants it in a topic: letters, digits, _, in parts that begin with no digit."""
    parts = [re.sub(r"^(?=[0-9])", "_", part.replace("-", "_")) for part in name.split("/")]
    wanted = re.sub("__+", "_", "/".join(parts))
    free, number = wanted, 2
    while free in taken:
        free, number = f"{wanted}_{number}", number + 1
    taken.add(free)
    return free

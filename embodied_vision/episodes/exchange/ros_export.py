"""An episode as messages on the topics of the live graph, so that it comes back whole.

Every value is on one topic that holds it exactly; a stream whose values its usual message would round is on a topic
of its own besides.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
_Source = tuple[NDArray[np.int64], Callable[[int], Iterator[_Part]]]
"""Stamps in the order of logging, and what makes the messages of one of them; those stay together."""


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
            if form is None or not form.holds(stamps, values):
                forms.append(plain_form(name, f"/streams/{_topic_name(name, taken)}"))
            self._streams[name] = forms
        self._check_topics()
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

    def _check_topics(self) -> None:
        named = [EVENT, DECISION, PICK_PLACE, STATIC_FRAMES]
        named += [topic for of in self._cameras.values() for topic in vars(of).values()]
        named += {form.topic for forms in self._streams.values() for form in forms}
        if twice := sorted({topic for topic in named if named.count(topic) > 1}):
            raise BadInput(
                f"episode {self._episode.id}: its cameras and streams would share the topics {', '.join(twice)}; "
                "export to HDF5"
            )

    def __iter__(self) -> Iterator[Message]:
        sources = [source for source in self._sources() if len(source[0])]
        first = min((int(stamps.min()) for stamps, _ in sources), default=self._episode.created_ns)
        last = max((int(stamps.max()) for stamps, _ in sources), default=self._episode.closed_ns)
        yield from _messages(self._event("start", self._episode.created_ns, first))
        cameras = list(self._episode.cameras.values())
        yield from _messages(iter([(STATIC_FRAMES, ros.FRAMES, first, ros.camera_poses(cameras, first))]))
        for _, make, index in heapq.merge(*map(_in_order, sources), key=lambda step: step[0]):
            yield from _messages(make(index))
        yield from _messages(self._event("end", self._episode.closed_ns, last))

    def _event(self, event: str, stamp_ns: int, log_ns: int) -> Iterator[_Part]:
        about = {"event": event, "task": self._episode.task, "episode": self._episode.id, "stamp_ns": stamp_ns}
        if event == "end":
            about["outcome"] = plain(self._episode.outcome, "outcome")
        yield EVENT, ros.TEXT, log_ns, ros.text(about)

    def _sources(self) -> Iterator[_Source]:
        for name in self._episode.cameras:
            yield self._episode.frames(name).stamps_ns, partial(self._frame, name)
        for name, forms in self._streams.items():
            stamps, values = self._episode.stream(name)
            yield stamps, partial(self._sample, forms, stamps, values)
        yield self._episode.decisions.stamps_ns, self._decision

    def _frame(self, name: str, index: int) -> Iterator[_Part]:
        frames, of, frame_id = self._episode.frames(name), self._cameras[name], optical_frame(name)
        stamp = int(frames.stamps_ns[index])
        if isinstance(frames.color_codec, JpegChunks):
            codec, image = "jpeg", frames.encoded_color(index)
        else:
            codec, image = "png", _png(frames.color(index))
        yield of.info, ros.INFO, stamp, ros.camera_info(frames.camera, stamp)
        yield of.color, ros.COMPRESSED, stamp, ros.compressed(image, codec, stamp, frame_id)
        yield of.depth, ros.IMAGE, stamp, ros.depth_image(frames.depth_mm(index), stamp, frame_id)

    def _sample(
        self, forms: list[Form], stamps: NDArray[np.int64], values: NDArray[np.float64], index: int
    ) -> Iterator[_Part]:
        stamp = int(stamps[index])
        for form in forms:
            try:
                message = form.encode(stamp, values[index])
            except BadInput:
                if form is forms[-1]:
                    raise
                continue  # not to be had in this message; the exact one follows
            yield form.topic, form.type, stamp, message

    def _decision(self, index: int) -> Iterator[_Part]:
        decisions = self._episode.decisions
        action, info, used = decisions.action(index), decisions.info(index), decisions.used(index)
        for frames, number in used:
            yield from self._decision_frame(frames, number)
        seen = [[frames.camera.name, int(frames.stamps_ns[number])] for frames, number in used]
        content = plain({**info, **action.to_dict(), LOGGED: {"info": info, "frames": seen}}, "decision")
        yield DECISION, ros.TEXT, action.stamp_ns, ros.text(content)
        if np.isfinite(action.pick).all() and np.isfinite(action.place).all():
            yield PICK_PLACE, ros.POSES, action.stamp_ns, ros.pick_place(action)

    def _decision_frame(self, frames: Frames, number: int) -> Iterator[_Part]:
        of, frame_id = self._cameras[frames.camera.name], optical_frame(frames.camera.name)
        stamp = int(frames.stamps_ns[number])
        image, depth = _png(frames.color(number)), frames.depth_mm(number)
        yield of.decision_color, ros.COMPRESSED, stamp, ros.compressed(image, "png", stamp, frame_id)
        yield of.decision_depth, ros.IMAGE, stamp, ros.depth_image(depth, stamp, frame_id)


def _in_order(source: _Source) -> Iterator[tuple[int, Callable[[int], Iterator[_Part]], int]]:
    """Each source keeps its order of logging, for that is how it comes back, even where its stamps go backwards."""
    stamps, make = source
    for index, latest in enumerate(np.maximum.accumulate(stamps)):
        yield int(latest), make, index


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

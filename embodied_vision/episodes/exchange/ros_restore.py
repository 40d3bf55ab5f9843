"""An episode from the messages that `ros_export` made of it: equal in every value, or an error."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embodied_vision.episodes import strict
from embodied_vision.episodes.encoded import decode_image
from embodied_vision.episodes.exchange.about import Digests, Origin, writer_arguments
from embodied_vision.episodes.exchange.cdr import Decoder, Message
from embodied_vision.episodes.exchange.recording import LARGEST, Recording
from embodied_vision.episodes.exchange.ros_export import DECISION, LOGGED, CameraTopics
from embodied_vision.episodes.exchange.streams import Form, graph_form, plain_form
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.messages import pixels, stamp_to_ns
from embodied_vision.types import Camera, PickPlace

_TRAJECTORIES = "joint_trajectory/"


def restore(
    store: EpisodeStore, recording: Recording, about: Mapping[str, Any], origin: Origin, task: str | None
) -> str:
    """Write the episode that a recording holds.

    Returns:
        its new id.

    Raises:
        BadInput: the recording is damaged, or is not what it says; nothing of the episode is left in the store.
        EpisodeError: the disk is full or fails.
    """
    writer = EpisodeWriter(store, **writer_arguments(about, origin, task))
    try:
        restorer = _Restorer(writer, recording, about)
        outcome = restorer.run()
    except BaseException:
        writer.discard()
        raise
    with writer:
        return writer.close(outcome, closed_ns=restorer.closed_ns)


@dataclass
class _Pair:
    """Color and depth of one camera that wait for each other, or for the decision that they belong to."""

    color: deque[Any] = field(default_factory=deque)
    depth: deque[Any] = field(default_factory=deque)


class _Restorer:
    def __init__(self, writer: EpisodeWriter, recording: Recording, about: Mapping[str, Any]) -> None:
        self._writer = writer
        self._recording = recording
        self._decoder = Decoder(recording.topics)
        try:
            self._outcome = dict(about["outcome"])
            self.closed_ns = strict.integer(about["closed_ns"], "closed_ns", 0)
            self._wanted = {str(topic): list(entry) for topic, entry in about["digests"].items()}
            self._cameras = {camera["name"]: Camera.from_dict(camera) for camera in about["cameras"]}
            self._is_jpeg = about["color_codec"] == "jpeg"
            places = {name: CameraTopics(**of) for name, of in about["topics"]["cameras"].items()}
            streams = {str(name): str(topic) for name, topic in about["topics"]["streams"].items()}
            self._forms = {name: self._form(name, topic, about) for name, topic in streams.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"{recording.path}: what it says of its episode lacks or garbles a field ({error!r}); export it again"
            ) from error
        self._color = {of.color: name for name, of in places.items()}
        self._depth = {of.depth: name for name, of in places.items()}
        self._decision_color = {of.decision_color: name for name, of in places.items()}
        self._decision_depth = {of.decision_depth: name for name, of in places.items()}
        self._stream_names: dict[str, list[str]] = {}
        for name, form in self._forms.items():
            self._stream_names.setdefault(form.topic, []).append(name)
        self._frames = {name: _Pair() for name in places}
        self._decision_frames = {name: _Pair() for name in places}
        self._decisions: deque[dict[str, Any]] = deque()
        self._waiting = 0

    @staticmethod
    def _form(name: str, topic: str, about: Mapping[str, Any]) -> Form:
        form = graph_form(name, int(about["dimensions"][name]), about["attributes"])
        return form if form is not None and form.topic == topic else plain_form(name, topic)

    def run(self) -> Mapping[str, Any]:
        """Write everything but the end; returns the outcome."""
        digests = Digests()
        for message in self._recording.messages():
            digests.add(message)
            self._take(message)
        if digests.to_dict() != self._wanted:
            found = digests.to_dict()
            topics = sorted(name for name in {*found, *self._wanted} if found.get(name) != self._wanted.get(name))
            raise EpisodeError(
                f"{self._recording.path}: the messages of {', '.join(topics)} are not those that were exported; "
                "copy it again, or import it as it is by --topics"
            )
        if self._waiting or self._decisions:
            raise BadInput(
                f"{self._recording.path}: frames without their other half, or decisions without their frames"
            )
        return self._outcome

    def _take(self, message: Message) -> None:
        topic = message.topic
        if topic in self._color or topic in self._depth:
            camera = self._color.get(topic) or self._depth[topic]
            self._wait(self._frames[camera], message, topic in self._color)
            self._write_frames(camera)
        elif topic in self._decision_color or topic in self._decision_depth:
            camera = self._decision_color.get(topic) or self._decision_depth[topic]
            self._wait(self._decision_frames[camera], message, topic in self._decision_color)
            self._write_decisions()
        elif topic in self._stream_names:
            self._write_sample(message)
        elif topic == DECISION:
            self._decisions.append(self._json(message))
            self._write_decisions()

    def _wait(self, pair: _Pair, message: Message, is_color: bool) -> None:
        self._waiting += len(message.data)
        if self._waiting > LARGEST:
            raise BadInput(
                f"{self._recording.path}: {self._waiting} bytes of images wait for their other half; it is damaged"
            )
        (pair.color if is_color else pair.depth).append((len(message.data), self._decoder.decode(message)))

    def _pop(self, pair: _Pair, camera: str) -> tuple[Any, Any, int]:
        (size, color), (other, depth) = pair.color.popleft(), pair.depth.popleft()
        self._waiting -= size + other
        stamps = stamp_to_ns(color.header.stamp), stamp_to_ns(depth.header.stamp)
        if stamps[0] != stamps[1]:
            raise BadInput(f"camera {camera!r}: color is stamped {stamps[0]}, its depth {stamps[1]}; it is damaged")
        return color, depth, stamps[0]

    def _write_frames(self, camera: str) -> None:
        pair = self._frames[camera]
        while pair.color and pair.depth:
            color, depth, stamp_ns = self._pop(pair, camera)
            if self._is_jpeg:
                jpeg, millimetres = bytes(color.data), _depth(depth)
                frame = self._writer.encode_jpeg(camera, stamp_ns, jpeg, millimetres)
                decode_image(jpeg, millimetres.shape)
                self._writer.append_encoded(frame)
            else:
                self._writer.append_frame(self._raw(camera, color, depth, stamp_ns))

    def _raw(self, camera: str, color: Any, depth: Any, stamp_ns: int) -> RawFrame:
        known = self._cameras[camera]
        image = decode_image(bytes(color.data), (known.height, known.width))
        return RawFrame(image, _depth(depth), known, stamp_ns)

    def _write_sample(self, message: Message) -> None:
        names = self._stream_names[message.topic]
        content = self._decoder.decode(message)
        name = names[0]
        if name.startswith(_TRAJECTORIES) and hasattr(content, "points"):
            name = f"{_TRAJECTORIES}{len(content.points)}"
        if name not in names:
            return  # of a stream that this message rounds; it comes exactly on a topic of its own
        self._writer.append(name, message.log_ns, self._forms[name].decode(content))

    def _json(self, message: Message) -> dict[str, Any]:
        try:
            content = strict.parse(self._decoder.decode(message).data.encode())
            logged = content[LOGGED]
            return {
                "action": PickPlace.from_dict({**content, "scores": _floats(content["scores"])}),
                "info": dict(logged["info"]),
                "frames": [(str(camera), int(stamp)) for camera, stamp in logged["frames"]],
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"topic {message.topic}: no decision of an episode ({error!r}); it is damaged") from error

    def _write_decisions(self) -> None:
        while self._decisions and self._is_complete(self._decisions[0]["frames"]):
            decision = self._decisions.popleft()
            frames = []
            for camera, stamp_ns in decision["frames"]:
                color, depth, found_ns = self._pop(self._decision_frames[camera], camera)
                if found_ns != stamp_ns:
                    raise BadInput(f"camera {camera!r}: a decision's frame {stamp_ns} is missing; it is damaged")
                frames.append(self._raw(camera, color, depth, stamp_ns))
            self._writer.append_decision(decision["action"], frames, decision["info"])

    def _is_complete(self, frames: list[tuple[str, int]]) -> bool:
        for camera in {name for name, _ in frames}:
            if camera not in self._decision_frames:
                raise BadInput(f"a decision on frames of camera {camera!r}, which the episode has not")
            pair = self._decision_frames[camera]
            if min(len(pair.color), len(pair.depth)) < sum(name == camera for name, _ in frames):
                return False
        return True


def _depth(message: Any) -> Any:
    if message.encoding != "16UC1":
        raise BadInput(f"depth of the encoding {message.encoding!r}, expected 16UC1; the recording is damaged")
    return pixels(message, "u2", 1)[..., 0]


def _floats(scores: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(score) for name, score in scores.items()}

"""What formats for learning have no place for: written beside the data, so that `import` brings it back.

Exact stamps, every sample of every stream, depth, decisions with their frames, calibration, outcome and attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes import strict
from embodied_vision.episodes.exchange import about
from embodied_vision.episodes.frames import AnyFrame
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.schema import ColorCodec
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.types import RGBD, Camera, PickPlace

FOLDER = "embodied_vision"

Sample = tuple[str, int, NDArray[np.float64]]
"""Stream, stamp in ns, value (D,)."""


@dataclass(frozen=True, eq=False)
class LoggedDecision:
    """A decision on its way into a store; fields as those of `reader.Decision`."""

    action: PickPlace
    frames: tuple[RGBD, ...]
    info: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Head:
    """What is known of an episode besides its data; fields as those of `EpisodeWriter`."""

    task: str
    robot: str
    cameras: tuple[Camera, ...]
    outcome: Mapping[str, Any]
    attributes: Mapping[str, Any]
    encoder_id: str = ""
    policy_id: str = ""
    created_ns: int | None = None
    tags: Sequence[str] = ()

    def camera(self, name: str) -> Camera:
        """Its camera of that name.

        Raises:
            BadInput: there is none.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise BadInput(f"frame of camera {name!r}, which the episode does not have; export it anew")


def describe(episode: Episode, rows: int) -> dict[str, Any]:
    """An episode but for its arrays and images, JSON. `rows` ties it to the data that it is beside."""
    decisions = episode.decisions
    return {
        **about.describe(episode),
        "rows": rows,
        "decisions": [
            {"action": decisions.action(number).to_dict(), "info": dict(decisions.info(number)), "frames": used}
            for number, used in enumerate(_numbered(episode))
        ],
    }


def decision_frames(episode: Episode) -> Iterator[RGBD]:
    """The frames that decisions were made on, each once as long as the next decision of its camera is made on it."""
    row = -1
    for number, used in enumerate(_numbered(episode)):
        for (frames, index), (_, at) in zip(episode.decisions.used(number), used, strict=True):
            if at > row:
                row = at
                yield frames[index]


def _numbered(episode: Episode) -> Iterator[list[tuple[str, int]]]:
    """Camera, and number among `decision_frames`, of the frames of each decision."""
    newest: dict[str, tuple[int, int]] = {}
    count = 0
    for number in range(len(episode.decisions)):
        named = []
        for frames, index in episode.decisions.used(number):
            name = frames.camera.name
            if name not in newest or newest[name][0] != index:
                newest[name], count = (index, count), count + 1
            named.append((name, newest[name][1]))
        yield named


def head_of(description: Any, rows: int, origin: about.Origin, where: str) -> Head:
    """Read what `describe` wrote.

    Raises:
        BadInput: it is damaged, of another version, or does not belong to data with so many rows.
    """
    try:
        if description["version"] != about.VERSION:
            raise BadInput(
                f"{where} is of version {description['version']}, this software knows {about.VERSION}; update it"
            )
        if description["rows"] != rows:
            raise BadInput(
                f"{where} belongs to {description['rows']} rows, the data have {rows}: somebody changed them; delete "
                f"the folder {FOLDER} to import what the format itself holds"
            )
        outcome = dict(description["outcome"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{where} is damaged ({error!r}); export the episodes anew") from error
    found = about.writer_arguments(description, origin, None)
    del found["color_codec"], found["quality"]  # told by what the format lost
    return Head(**{**found, "cameras": tuple(found["cameras"])}, outcome=outcome)


def frames_of_decisions(description: Any, frames: Iterator[RGBD], where: str) -> Iterator[tuple[RGBD, ...]]:
    """The frames of each decision, out of those that `decision_frames` gave.

    Raises:
        BadInput: the description is damaged, or belongs to other frames.
    """
    newest: dict[str, tuple[int, RGBD]] = {}
    count = 0
    for named in _checked(description, where):
        found = []
        for name, row in named:
            if name not in newest or newest[name][0] != row:
                frame = next(frames, None)
                if frame is None or row != count or frame.camera.name != name:
                    raise BadInput(f"{where}: frame {row} of {name!r}, which a decision was made on, is not there")
                newest[name], count = (row, frame), count + 1
            found.append(newest[name][1])
        yield tuple(found)


def _checked(description: Any, where: str) -> list[list[tuple[str, int]]]:
    try:
        return [
            [
                (strict.text(name, "camera"), strict.integer(row, "row"))
                for name, row in strict.items(record["frames"], "frames")
            ]
            for record in _records(description, where)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where}: its decisions are damaged ({error!r}); export the episodes anew") from error


def _records(description: Any, where: str) -> list[Any]:
    records = description.get("decisions")
    if not isinstance(records, list):
        raise BadInput(f"{where}: its decisions are damaged (there is no list of them); export the episodes anew")
    return records


def decisions_of(description: Any, frames: Iterable[tuple[RGBD, ...]], where: str) -> Iterable[LoggedDecision]:
    """The decisions that `describe` wrote, with the frames of each.

    Raises:
        BadInput: they are damaged.
    """
    for record, seen in zip(_records(description, where), frames, strict=True):
        try:
            action, info = PickPlace.from_dict(record["action"]), dict(record["info"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{where}: a decision is damaged ({error!r}); export the episodes anew") from error
        yield LoggedDecision(action, seen, info)


def take_in(
    store: EpisodeStore,
    head: Head,
    frames: Iterable[AnyFrame],
    samples: Iterable[Sample],
    decisions: Iterable[LoggedDecision] = (),
    *,
    color_codec: ColorCodec = "lossless",
    quality: int = 95,
) -> str:
    """Write an episode into a store; on any error nothing of it stays.

    Raises:
        BadInput: unusable data.
        EpisodeError: the store cannot be written.
    """
    writer = EpisodeWriter(
        store,
        task=head.task,
        robot=head.robot,
        cameras=head.cameras,
        encoder_id=head.encoder_id,
        policy_id=head.policy_id,
        attributes=head.attributes,
        created_ns=head.created_ns,
        tags=head.tags,
        color_codec=color_codec,
        quality=quality,
    )
    try:
        for frame in frames:
            writer.append_frame(frame)
        for stream, stamp_ns, value in samples:
            writer.append(stream, stamp_ns, value)
        for decision in decisions:
            writer.append_decision(decision.action, decision.frames, decision.info)
        return writer.close(head.outcome, closed_ns=head.attributes.get("imported", {}).get("closed_ns"))
    except BaseException:
        writer.discard()
        raise

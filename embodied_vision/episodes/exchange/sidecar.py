"""What formats for learning have no place for: written beside the data, so that `import` brings it back.

Exact stamps, every sample of every stream, depth, decisions with their frames, calibration, outcome and attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes import strict
from embodied_vision.episodes.frames import AnyFrame
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.schema import ColorCodec
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.types import RGBD, Camera, PickPlace

VERSION = 1
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
    return {
        "version": VERSION,
        "id": episode.id,
        "rows": rows,
        "task": episode.task,
        "robot": episode.robot,
        "cameras": [camera.to_dict() for camera in episode.cameras.values()],
        "encoder_id": episode.encoder_id,
        "policy_id": episode.policy_id,
        "outcome": dict(episode.outcome),
        "attributes": dict(episode.attributes),
        "decisions": [
            {"action": decision.action.to_dict(), "info": dict(decision.info), "frames": _names(decision.frames)}
            for decision in episode.decisions
        ],
    }


def _names(frames: Iterable[RGBD]) -> list[list[Any]]:
    return [[frame.camera.name, int(frame.stamp_ns)] for frame in frames]


def head_of(description: Any, rows: int, where: str) -> Head:
    """Read what `describe` wrote.

    Raises:
        BadInput: it is damaged, of another version, or does not belong to data with so many rows.
    """
    try:
        if description["version"] != VERSION:
            raise BadInput(f"{where} is of version {description['version']}, this software knows {VERSION}; update it")
        if description["rows"] != rows:
            raise BadInput(
                f"{where} belongs to {description['rows']} rows, the data have {rows}: somebody changed them; delete "
                f"the folder {FOLDER} to import what the format itself holds"
            )
        return Head(
            task=str(description["task"]),
            robot=str(description["robot"]),
            cameras=tuple(Camera.from_dict(entry) for entry in description["cameras"]),
            outcome=dict(description["outcome"]),
            attributes={**description["attributes"], "imported_id": str(description["id"])},
            encoder_id=str(description["encoder_id"]),
            policy_id=str(description["policy_id"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{where} is damaged ({error!r}); export the episodes anew") from error


def decision_frames_of(description: Any, where: str) -> list[list[tuple[str, int]]]:
    """Camera and stamp of the frames of each decision, as `describe` wrote them.

    Raises:
        BadInput: they are damaged.
    """
    try:
        return [
            [
                (strict.text(name, "camera"), strict.integer(stamp_ns, "stamp"))
                for name, stamp_ns in strict.items(record["frames"], "frames")
            ]
            for record in strict.items(description["decisions"], "decisions")
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where}: its decisions are damaged ({error!r}); export the episodes anew") from error


def decisions_of(description: Any, frames: Iterable[tuple[RGBD, ...]], where: str) -> Iterable[LoggedDecision]:
    """The decisions that `describe` wrote, with the frames of each.

    Raises:
        BadInput: they are damaged.
    """
    for record, seen in zip(description["decisions"], frames, strict=True):
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
        return writer.close(head.outcome)
    except BaseException:
        writer.discard()
        raise

"""What the records of a journal must hold. A record that does not is treated as damage, whatever its checksum says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embodied_vision.episodes import strict
from embodied_vision.episodes.schema import SCHEMA, folder_name
from embodied_vision.episodes.versions import upgrade
from embodied_vision.types import Camera

_MOST_PIXELS = 1 << 16


class RecordRules:
    """Checks the records of one journal in their order; each kind of record by what came before it.

    Kinds that are not known are let through: a later version may have written them.
    """

    def __init__(self) -> None:
        self._cameras: frozenset[str] | None = None
        self._dimensions: dict[str, int] = {}

    def check(self, fields: Mapping[str, Any], blobs: Sequence[int]) -> None:
        """Check one record and sizes of its blobs.

        Raises:
            ValueError: no writer makes such a record.
        """
        kind = strict.text(fields.get("kind"), "kind")
        if kind == "header":
            self._header(fields)
        elif kind == "frame":
            self._frame(fields.get("camera"), fields.get("stamp"))
            _count(blobs, 2)
        elif kind == "sample":
            self._sample(fields, blobs)
        elif kind == "decision":
            self._decision(fields, blobs)
        elif kind == "note":
            strict.text(fields.get("name"), "name")
            if "value" not in fields:
                raise ValueError("a note without a value")
        elif kind == "outcome":
            strict.mapping(fields.get("outcome"), "outcome")
            strict.integer(fields.get("closed_ns", 0), "closed_ns", 0)

    def _header(self, fields: Mapping[str, Any]) -> None:
        if strict.integer(fields.get("schema"), "schema", 1) > SCHEMA:
            return  # whoever wants its contents says that this software is too old
        fields = upgrade(fields, "the header")
        for name in ("id", "task", "robot", "encoder_id", "policy_id", "color_codec"):
            strict.text(fields.get(name), name)
        strict.integer(fields.get("quality"), "quality", 1, 100)
        strict.integer(fields.get("created_ns"), "created_ns")
        strict.mapping(fields.get("attributes"), "attributes")
        for tag in strict.items(fields.get("tags"), "tags"):
            strict.text(tag, "tag")
        for edit in strict.items(fields.get("history"), "history"):
            strict.mapping(edit, "an edit of the history")
        cameras = check_cameras(fields.get("cameras"))
        if self._cameras is None:
            self._cameras = frozenset(cameras)

    def _frame(self, camera: Any, stamp: Any) -> None:
        strict.integer(stamp, "stamp")
        name = strict.text(camera, "camera")
        if self._cameras is not None and name not in self._cameras:
            raise ValueError(f"frame of camera {name!r:.80}, which the header does not name")

    def _sample(self, fields: Mapping[str, Any], blobs: Sequence[int]) -> None:
        strict.integer(fields.get("stamp"), "stamp")
        name = strict.text(fields.get("stream"), "stream")
        folder_name(name)
        _count(blobs, 1)
        if blobs[0] % 8 or blobs[0] != self._dimensions.get(name, blobs[0]):
            raise ValueError(f"{blobs[0]} bytes of stream {name!r}, after {self._dimensions.get(name)}")
        self._dimensions[name] = blobs[0]

    def _decision(self, fields: Mapping[str, Any], blobs: Sequence[int]) -> None:
        action = strict.mapping(fields.get("action"), "action")
        for name in ("pick", "place"):
            check_pose(action.get(name), name)
        for name in ("primitive", "decision_id"):
            strict.text(action.get(name), name)
        strict.integer(action.get("stamp_ns"), "stamp_ns")
        for name, score in strict.mapping(action.get("scores"), "scores").items():
            strict.number(score, f"score {name!r:.80}")
        strict.mapping(fields.get("info"), "info")
        frames = strict.items(fields.get("frames"), "frames")
        for entry in frames:
            if not isinstance(entry, list) or len(entry) != 2:
                raise ValueError(f"frames hold {strict.shortened(entry)}, not pairs of camera and stamp")
            self._frame(*entry)
        _count(blobs, 2 * len(frames))


def check_cameras(value: Any) -> dict[str, Camera]:
    """Calibrations by name from a list of what `Camera.to_dict` makes.

    Raises:
        ValueError: they are none.
    """
    cameras = {}
    for data in strict.items(value, "cameras"):
        strict.mapping(data, "camera")
        name = strict.text(data.get("name"), "name of a camera")
        folder_name(name)
        for side in ("width", "height"):
            strict.integer(data.get(side), f"{side} of camera {name!r}", 1, _MOST_PIXELS)
        _check_matrix(data.get("K"), 3, f"K of camera {name!r}")
        check_pose(data.get("T_base_camera"), f"T_base_camera of camera {name!r}")
        if name in cameras:
            raise ValueError(f"two cameras are called {name!r}")
        cameras[name] = Camera.from_dict(data)
    return cameras


def check_pose(value: Any, what: str) -> None:
    """Raises ValueError where `value` is no list of 4 × 4 numbers."""
    _check_matrix(value, 4, what)


def _check_matrix(value: Any, size: int, what: str) -> None:
    rows = strict.items(value, what)
    if len(rows) != size or any(not isinstance(row, list) or len(row) != size for row in rows):
        raise ValueError(f"{what} is no list of {size} × {size} numbers")
    for row in rows:
        for entry in row:
            strict.number(entry, what)


def _count(blobs: Sequence[int], wanted: int) -> None:
    if len(blobs) != wanted:
        raise ValueError(f"{len(blobs)} blobs, not {wanted}")

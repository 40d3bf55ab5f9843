"""Where the cameras stand: the calibration file that the cell, the policy and the recorder read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.paths import PACKAGE
from embodied_vision.types import Camera

SIMULATED_CELL = PACKAGE / "config" / "camera.yaml"
"""Calibration of the simulated cell."""


def read_cameras(path: Path | str = "") -> tuple[Camera, ...]:
    """Cameras of a calibration YAML, the simulated cell's without a path.

    Raises:
        BadInput: the file is missing or holds no cameras, or two of one name.
    """
    file = Path(path) if path else SIMULATED_CELL
    if not file.is_file():
        raise BadInput(f"calibration file {file} does not exist; give the path of a YAML with a list `cameras`")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        cameras = tuple(Camera.from_dict(entry) for entry in content["cameras"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"calibration file {file} cannot be used: {error}; compare it with {SIMULATED_CELL}") from error
    names = [camera.name for camera in cameras]
    if not names or len(set(names)) < len(names):
        raise BadInput(f"calibration file {file} names the cameras {names}; give one or more with names of their own")
    return cameras


def write_cameras(cameras: tuple[Camera, ...], path: Path) -> None:
    """Write a calibration file that `read_cameras` reads back exactly.

    Raises:
        RunFailed: the disk does not take it; a former file is as it was.
    """
    _write({"cameras": [camera.to_dict() for camera in cameras]}, path)


def put_camera(camera: Camera, about: Mapping[str, Any], path: Path) -> None:
    """Put a camera into a calibration file, in place of one of its name; others stay as they are.

    Args:
        camera: what nodes read.
        about: how it was calibrated, for people; nodes pass it over.
        path: the file, which may not exist yet.

    Raises:
        BadInput: there is a file that is no calibration.
        RunFailed: the disk does not take it; a former file is as it was.
    """
    entries: list[Any] = []
    if path.exists():
        read_cameras(path)
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["cameras"]
    entry = {**camera.to_dict(), "calibrated": dict(about)}
    place = next((i for i, other in enumerate(entries) if other["name"] == camera.name), len(entries))
    _write({"cameras": [*entries[:place], entry, *entries[place + 1 :]]}, path)


def _write(content: Mapping[str, Any], path: Path) -> None:
    write_text(path, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True))


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; folders on the way are made.

    Raises:
        RunFailed: the disk does not take it; a former file is as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise RunFailed(f"{path} cannot be written ({error}); make room, or give another place") from error

"""Where the cameras stand: the calibration file that the cell, the policy and the recorder read."""

from __future__ import annotations

from pathlib import Path

import yaml

from embodied_vision.errors import BadInput
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
    """Write a calibration file that `read_cameras` reads back exactly."""
    content = {"cameras": [camera.to_dict() for camera in cameras]}
    path.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None), encoding="utf-8")

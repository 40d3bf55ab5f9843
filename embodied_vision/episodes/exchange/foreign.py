"""Data of others: names that fit the store, and cameras that nobody calibrated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embodied_vision.calibration import read_cameras
from embodied_vision.errors import BadInput
from embodied_vision.types import Camera

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 100


class Names:
    """Names for cameras and streams, made of those of others: each one that the store takes, and none twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def camera(self, name: str) -> str:
        """Name of a camera."""
        return self._free(fit(name, "camera"), "camera:")

    def stream(self, name: str) -> str:
        """Name of a stream; dots and slashes divide its parts."""
        return self._free("/".join(fit(part, "stream") for part in re.split(r"[./]+", name) if part), "stream:")

    def _free(self, name: str, kind: str) -> str:
        name = name or "unnamed"
        free, number = name, 2
        while kind + free in self._taken:
            free, number = f"{name}_{number}", number + 1
        self._taken.add(kind + free)
        return free


def fit(name: str, instead: str) -> str:
    """A name as near to this one as the store takes, without slashes; `instead` where nothing is left of it."""
    return _UNFIT.sub("_", name).strip("_")[:_LONGEST] or instead


def cameras_for(sizes: Mapping[str, tuple[int, int]], calibration: Path | None) -> dict[str, Camera]:
    """A camera for each name and size (H, W): of the calibration file, or else a nominal one.

    A nominal camera has a horizontal field of view of 53° and stands in the base's origin: good enough to be shown,
    not to be measured with.

    Raises:
        BadInput: the file cannot be read, or has a camera of another size.
    """
    known = {camera.name: camera for camera in read_cameras(calibration)} if calibration is not None else {}
    found = {}
    for name, (height, width) in sizes.items():
        camera = known.get(name)
        if camera is None:
            K = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], float)
            camera = Camera(name, width, height, K, np.eye(4))
        if (camera.height, camera.width) != (height, width):
            raise BadInput(
                f"camera {name!r} of {calibration} is {camera.width}x{camera.height}, its images are {width}x{height}; "
                "calibrate at this resolution"
            )
        found[name] = camera
    return found

"""Intrinsics from and to files, and what is written when a calibration is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from embodied_vision.calibrating.lens import Lens
from embodied_vision.calibration import write_text
from embodied_vision.errors import BadInput


def read_lens(path: Path, camera: str) -> Lens:
    """Intrinsics from a calibration file of this project, or from one that ROS' camera drivers read and write.

    Args:
        path: YAML with a list `cameras`, or with `camera_matrix` and `distortion_coefficients`.
        camera: which one of the list.

    Raises:
        BadInput: the file is missing or has no such camera, or a distortion model that is not handled.
    """
    if not path.is_file():
        raise BadInput(f"intrinsics {path} do not exist; give a calibration YAML, or leave --intrinsics out")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "cameras" in content:
            entries = {str(entry["name"]): entry for entry in content["cameras"]}
            if camera not in entries:
                raise BadInput(f"{path} has the cameras {sorted(entries)}, not {camera!r}; name one of them")
            entry = entries[camera]
            size, K, distortion = (entry["width"], entry["height"]), entry["K"], []
        else:
            if content.get("distortion_model", "plumb_bob") != "plumb_bob":
                raise BadInput(
                    f"{path} has the distortion model {content['distortion_model']!r}, only plumb_bob is handled; let "
                    "the driver publish rectified pictures, or leave --intrinsics out"
                )
            size = (content["image_width"], content["image_height"])
            K, distortion = content["camera_matrix"]["data"], content["distortion_coefficients"]["data"]
        lens = Lens((int(size[0]), int(size[1])), np.reshape(np.asarray(K, float), (3, 3)), _five(distortion))
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"intrinsics {path} cannot be used: {error!r}; give a calibration YAML") from error
    if not (np.isfinite(lens.K).all() and np.isfinite(lens.distortion).all() and min(lens.K[0, 0], lens.K[1, 1]) > 0):
        raise BadInput(f"intrinsics {path} hold K {lens.K.tolist()}, D {lens.distortion.tolist()}; calibrate the lens")
    return lens


def _five(distortion: Any) -> Any:
    values = np.asarray(distortion, float).ravel()
    if len(values) > 5 and values[5:].any():
        raise BadInput(f"{len(values)} distortion coefficients are given, 5 of plumb_bob are handled")
    return np.concatenate([values, np.zeros(5)])[:5]


def write_lens(lens: Lens, camera: str, path: Path) -> None:
    """Write intrinsics as ROS' camera drivers read them, K of the rectified picture among them.

    Raises:
        RunFailed: the disk does not take it.
    """
    K = [float(value) for value in lens.K.ravel()]
    content = {
        "image_width": lens.size[0],
        "image_height": lens.size[1],
        "camera_name": camera,
        "camera_matrix": {"rows": 3, "cols": 3, "data": K},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [float(value) for value in lens.distortion]},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": np.eye(3).ravel().tolist()},
        "projection_matrix": {"rows": 3, "cols": 4, "data": [*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0]},
    }
    write_text(path, yaml.safe_dump(content, sort_keys=False, default_flow_style=None))

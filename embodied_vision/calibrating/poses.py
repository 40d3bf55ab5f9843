"""Where the arm stood for each picture: a CSV, JSON or YAML file of joint positions or tip poses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.geometry import vector_to_pose
from embodied_vision.types import FloatArray

POSE_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")
FARTHEST_M = 10.0
MOST_RAD = 6.5
"""No joint of an arm turns farther than once around from its middle."""


class Arm(Protocol):
    """Kinematics, as of `control.robot.RobotModel`."""

    @property
    def joint_names(self) -> tuple[str, ...]:
        """J of them, in the order of every joint vector."""
        ...

    def forward(self, q: NDArray[np.float64], /) -> FloatArray:
        """Tip pose (4, 4) in the base frame at joint positions (J,) in rad."""
        ...


def read_poses(path: Path, arm: Callable[[], Arm]) -> dict[str, FloatArray]:
    """Tip pose (4, 4) in the base frame by the picture's file name.

    CSV: columns `image` and either `x, y, z, qx, qy, qz, qw` in m, or one column a joint in rad. JSON and YAML: a
    list of mappings with `image` and either `tip_pose` (7 numbers as above, or a 4 × 4 matrix), or `joints` (a
    mapping by name, or a list in the robot's order) in rad.

    Args:
        path: the file.
        arm: gives the robot; called for files of joint positions alone.

    Raises:
        BadInput: the file is missing or malformed, holds non-finite numbers, or the same picture twice.
    """
    if not path.is_file():
        raise BadInput(f"poses {path} do not exist; give a CSV, JSON or YAML file with a pose for each picture")
    try:
        entries = _read(path)
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"poses {path} cannot be read ({error}); is the file cut short?") from error
    poses: dict[str, FloatArray] = {}
    for place, entry in entries:
        name = entry.get("image")
        if not isinstance(name, str) or not name:
            raise BadInput(f"{place}: there is no `image`; name the picture's file")
        if name in poses:
            raise BadInput(f"{place}: picture {name} has a pose already; give each picture once")
        poses[name] = _pose(place, entry, arm)
    if not poses:
        raise BadInput(f"poses {path} are empty; give a pose for each picture")
    return poses


def _read(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".csv":
        return list(_rows(path, text))
    content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise BadInput(f"poses {path} hold no list of mappings; compare docs/calibration.md")
    return [(f"{path}, entry {number}", entry) for number, entry in enumerate(content, 1)]


def _rows(path: Path, text: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    header = [name.strip() for name in next(rows, [])]
    if "image" not in header or len(set(header)) < len(header):
        raise BadInput(f"poses {path} have the columns {header}; the first line names each once, `image` among them")
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        place = f"{path}, line {number}"
        if len(row) != len(header):
            raise BadInput(f"{place} has {len(row)} values for {len(header)} columns; is the file cut short?")
        named = dict(zip(header, (value.strip() for value in row), strict=True))
        image = named.pop("image")
        if set(POSE_COLUMNS) <= set(named):
            yield place, {"image": image, "tip_pose": [named[name] for name in POSE_COLUMNS]}
        else:
            yield place, {"image": image, "joints": named}


def _pose(place: str, entry: Mapping[str, Any], arm: Callable[[], Arm]) -> FloatArray:
    if ("tip_pose" in entry) == ("joints" in entry):
        raise BadInput(f"{place}: give either `tip_pose` or `joints`")
    if "joints" in entry:
        robot = arm()
        return robot.forward(_joints(place, entry["joints"], robot.joint_names))
    try:
        numbers = np.asarray(entry["tip_pose"], float)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{place}: the tip pose {entry['tip_pose']} holds something that is no number") from error
    if not np.isfinite(numbers).all():
        raise BadInput(f"{place}: the tip pose {numbers.tolist()} is not finite; leave this picture out")
    if numbers.shape == (7,):
        norm = float(np.linalg.norm(numbers[3:]))
        if abs(norm - 1) > 0.01:
            raise BadInput(
                f"{place}: the quaternion {numbers[3:].tolist()} has the norm {norm:.3g}; give qx qy qz qw of norm 1"
            )
        pose = vector_to_pose(numbers)
    elif numbers.shape == (4, 4):
        R = numbers[:3, :3]
        if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0 or (numbers[3] != (0, 0, 0, 1)).any():
            raise BadInput(f"{place}: the matrix {numbers.tolist()} is no pose; give rotation and position")
        pose = numbers
    else:
        raise BadInput(f"{place}: the tip pose has the shape {numbers.shape}; give x y z qx qy qz qw or a 4 × 4 matrix")
    if np.abs(pose[:3, 3]).max() > FARTHEST_M:
        raise BadInput(f"{place}: the tip is {np.abs(pose[:3, 3]).max():g} m away; give metres, not millimetres")
    return pose


def _joints(place: str, joints: Any, joint_names: Sequence[str]) -> NDArray[np.float64]:
    if isinstance(joints, Mapping):
        missing = [name for name in joint_names if name not in joints]
        if missing:
            raise BadInput(f"{place}: joints {missing} are missing; the robot has {list(joint_names)}")
        joints = [joints[name] for name in joint_names]
    try:
        q = np.asarray(joints, float)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{place}: the joint positions {joints} hold something that is no number") from error
    if q.shape != (len(joint_names),):
        raise BadInput(f"{place}: {q.size} joint positions; the robot has {len(joint_names)}: {', '.join(joint_names)}")
    if not np.isfinite(q).all():
        raise BadInput(f"{place}: the joint positions {q.tolist()} are not finite; leave this picture out")
    if np.abs(q).max() > MOST_RAD:
        raise BadInput(f"{place}: a joint stands at {np.abs(q).max():g} rad; give radians, not degrees")
    return q

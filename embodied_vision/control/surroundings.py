"""What stands around the arm: where it may work, and boxes that no part of it may enter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from embodied_vision.errors import BadInput
from embodied_vision.types import Workspace


@dataclass(frozen=True, eq=False)
class KeepOut:
    """A box that no part of the arm may enter.

    Attributes:
        name: what stands there.
        pose: (4, 4) of its centre in the base frame.
        size: (3,) edges along its own axes, m.
    """

    name: str
    pose: NDArray[np.float64]
    size: NDArray[np.float64]

    def __post_init__(self) -> None:
        rotation = self.pose[:3, :3]
        if not (np.isfinite(self.pose).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-6):
            raise BadInput(f"keep-out {self.name!r} has no pose ({self.pose.tolist()}); give position and rpy")
        if not (self.size.shape == (3,) and np.isfinite(self.size).all() and (self.size > 0).all()):
            raise BadInput(f"keep-out {self.name!r} has the size {self.size.tolist()}; give three edges above 0, in m")


@dataclass(frozen=True)
class Surroundings:
    """Where the arm works.

    Attributes:
        workspace: where decisions may lie; None leaves it to who asks.
        keep_out: boxes that no part of the arm may enter.
    """

    workspace: Workspace | None = None
    keep_out: tuple[KeepOut, ...] = ()


def read_surroundings(path: str | Path = "") -> Surroundings:
    """Read a YAML file with `keep_out`, a list of boxes, and `workspace`, bounds x, y, z; both may be left out.

    Without a path there is nothing around the arm but the table.

    Raises:
        BadInput: the file is missing, or something in it is not what it should be.
    """
    if not str(path):
        return Surroundings()
    file = Path(path)
    if not file.is_file():
        raise BadInput(f"no surroundings at {file}; give the path of a YAML file with a list `keep_out`")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no YAML ({error}); correct it") from error
    fields = _fields(content, {"keep_out", "workspace"}, f"{file}")
    entries = fields.get("keep_out") or []
    if not isinstance(entries, list):
        raise BadInput(f"{file}: keep_out is {entries!r}; give a list of boxes")
    boxes = tuple(_read_box(entry, f"{file}: keep_out[{index}]") for index, entry in enumerate(entries))
    names = [box.name for box in boxes]
    if len(set(names)) < len(names):
        raise BadInput(f"{file}: the keep-outs are named {names}; give each a name of its own")
    workspace = fields.get("workspace")
    return Surroundings(None if workspace is None else _read_workspace(workspace, f"{file}: workspace"), boxes)


def _read_box(entry: object, where: str) -> KeepOut:
    fields = _fields(entry, {"name", "position", "rpy", "size"}, where)
    pose = np.eye(4)
    pose[:3, 3] = _numbers(fields.get("position"), 3, f"{where}.position, m")
    rpy = fields.get("rpy", [0.0, 0.0, 0.0])
    pose[:3, :3] = Rotation.from_euler("xyz", _numbers(rpy, 3, f"{where}.rpy, rad")).as_matrix()
    size = _numbers(fields.get("size"), 3, f"{where}.size, m")
    return KeepOut(str(fields.get("name") or where.rpartition(" ")[2]), pose, size)


def _read_workspace(entry: object, where: str) -> Workspace:
    fields = _fields(entry, {"x", "y", "z"}, where)
    bounds: dict[str, Any] = {}
    for axis in fields:
        low, high = _numbers(fields[axis], 2, f"{where}.{axis}, m")
        if not low < high:
            raise BadInput(f"{where}.{axis} is [{low:g}, {high:g}]; give the lower bound first")
        bounds[axis] = (float(low), float(high))
    return replace(Workspace(), **bounds)


def _fields(entry: object, known: set[str], where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise BadInput(f"{where} is {entry!r}; give a mapping with {', '.join(sorted(known))}")
    unknown = sorted(set(map(str, entry)) - known)
    if unknown:
        raise BadInput(f"{where} has unknown fields {unknown}; there are {', '.join(sorted(known))}")
    return entry


def _numbers(value: object, count: int, where: str) -> NDArray[np.float64]:
    good = isinstance(value, list) and len(value) == count
    if good and isinstance(value, list):
        good = all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    if not good or not np.isfinite(numbers := np.array(value, float)).all():
        raise BadInput(f"{where} is {value!r}; give a list of {count} finite numbers")
    return numbers

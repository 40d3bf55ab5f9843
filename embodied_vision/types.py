"""The data that flows: one frozen type per arrow of the architecture.

Frames follow REP 103: the robot base has x forward and z up, a camera's optical frame has z
forward, x right and y down. `T_a_b` maps coordinates in frame b to frame a. Lengths are metres,
angles radians, stamps int64 nanoseconds.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

FloatArray = NDArray[np.floating[Any]]
Primitive = Literal["pick_place", "drag", "push", "grasp"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BadInput(message)


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated pinhole camera.

    Attributes:
        name: topic prefix and key in logs.
        width, height: image size in px.
        K: (3, 3) intrinsics in px; pixel centres lie at integer coordinates.
        T_base_camera: (4, 4) pose of the optical frame in the robot base frame, metres.
    """

    name: str
    width: int
    height: int
    K: FloatArray
    T_base_camera: FloatArray

    def __post_init__(self) -> None:
        _require(self.K.shape == (3, 3), f"camera {self.name!r}: K has shape {self.K.shape}, give (3, 3)")
        _require(
            self.T_base_camera.shape == (4, 4),
            f"camera {self.name!r}: T_base_camera has shape {self.T_base_camera.shape}, give (4, 4)",
        )
        _require(
            bool(np.isfinite(self.K).all() and np.isfinite(self.T_base_camera).all()),
            f"camera {self.name!r}: calibration holds non-finite values; calibrate again",
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, inverse of `from_dict`."""
        return {
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "K": np.asarray(self.K, float).tolist(),
            "T_base_camera": np.asarray(self.T_base_camera, float).tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Camera:
        """Read what `to_dict` wrote.

        Raises:
            BadInput: a field is missing or of the wrong shape.
        """
        try:
            return cls(
                name=str(data["name"]),
                width=int(data["width"]),
                height=int(data["height"]),
                K=np.asarray(data["K"], float),
                T_base_camera=np.asarray(data["T_base_camera"], float),
            )
        except KeyError as error:
            raise BadInput(f"camera calibration lacks the field {error}; add it") from error


@dataclass(frozen=True, eq=False)
class RGBD:
    """One registered color and depth image of one camera.

    Attributes:
        color: uint8 (H, W, 3), RGB.
        depth: float32 (H, W), metres along the optical axis, 0 where there is no return.
        camera: who saw it.
        stamp_ns: when the shutter closed.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: Camera
    stamp_ns: int

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        _require(
            self.color.shape == (*size, 3) and self.color.dtype == np.uint8,
            f"camera {self.camera.name!r}: color is {self.color.dtype} {self.color.shape}, "
            f"its calibration says uint8 {(*size, 3)}; check the driver's resolution against the calibration",
        )
        _require(
            self.depth.shape == size and self.depth.dtype == np.float32,
            f"camera {self.camera.name!r}: depth is {self.depth.dtype} {self.depth.shape}, "
            f"its calibration says float32 {size}; publish depth aligned to color",
        )


@dataclass(frozen=True, eq=False)
class Features:
    """Dense features of one image.

    Attributes:
        grid: float32 (h, w, D); cell (i, j) describes the patch whose centre lies at pixel
            ((j + ½)·stride[1] − ½, (i + ½)·stride[0] − ½) of the color image.
        stride: patch size (rows, columns) in px of the color image.
        encoder_id: hash of weights, preprocessing and layer; what a checkpoint is bound to.
        artefact_id: runtime and precision that computed them.
        stamp_ns: stamp of the frame they describe.
    """

    grid: NDArray[np.float32]
    stride: tuple[float, float]
    encoder_id: str
    artefact_id: str
    stamp_ns: int


@dataclass(frozen=True)
class Workspace:
    """The part of the table that is mapped and worked on, in the base frame.

    Attributes:
        x, y, z: bounds (low, high) in m. Points outside are not mapped.
        cell: edge of a map cell in m. Map rows follow x, columns follow y.
    """

    x: tuple[float, float] = (0.244, 0.756)
    y: tuple[float, float] = (-0.512, 0.512)
    z: tuple[float, float] = (-0.02, 0.28)
    cell: float = 0.004

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the map."""
        return (
            round((self.x[1] - self.x[0]) / self.cell),
            round((self.y[1] - self.y[0]) / self.cell),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, inverse of `from_dict`."""
        return {"x": list(self.x), "y": list(self.y), "z": list(self.z), "cell": self.cell}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Workspace:
        """Read what `to_dict` wrote."""
        x, y, z = ((float(data[axis][0]), float(data[axis][1])) for axis in "xyz")
        return cls(x=x, y=y, z=z, cell=float(data["cell"]))


@dataclass(frozen=True, eq=False)
class Scene:
    """Metric top-down map of the workspace, fused from all cameras.

    Row i, column j is the cell centred at (x, y) = origin + (index + ½)·cell, see
    `geometry.cell_to_xy`.

    Attributes:
        color: uint8 (H, W, 3); 0 where invalid.
        height: float32 (H, W), m above the base's z = 0; 0 where invalid.
        features: float32 (H, W, D) encoder features; 0 where invalid. None when no encoder ran.
        valid: bool (H, W), cell seen by some camera.
        workspace: bounds and cell size.
        stamp_ns: oldest stamp among the frames.
    """

    color: NDArray[np.uint8]
    height: NDArray[np.float32]
    features: NDArray[np.float32] | None
    valid: NDArray[np.bool_]
    workspace: Workspace
    stamp_ns: int


def new_id() -> str:
    """A sortable unique id (UUID version 7, RFC 9562): time first, then randomness."""
    milliseconds = time.time_ns() // 1_000_000
    random = uuid.uuid4().int
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64
    value |= 0b10 << 62 | random & ((1 << 62) - 1)
    return str(uuid.UUID(int=value))


@dataclass(frozen=True, eq=False)
class PickPlace:
    """A decision: where the tool tip goes, in the base frame.

    Tool poses have z pointing out of the tool, so a tool that looks straight down is
    `geometry.tool_down(x, y, z, yaw)`.

    Attributes:
        pick: (4, 4) tip pose at which the object is taken.
        place: (4, 4) tip pose at which it is let go.
        primitive: how the two poses are used.
        decision_id: sortable unique id.
        scores: named scores of the decision, such as the probability of pick and place.
        stamp_ns: oldest stamp of the frames that it came from.
    """

    pick: FloatArray
    place: FloatArray
    primitive: Primitive = "pick_place"
    decision_id: str = field(default_factory=new_id)
    scores: Mapping[str, float] = field(default_factory=dict)
    stamp_ns: int = 0

    def __post_init__(self) -> None:
        for name, pose in (("pick", self.pick), ("place", self.place)):
            _require(pose.shape == (4, 4), f"{name} pose has shape {pose.shape}, give (4, 4)")

    def is_finite(self) -> bool:
        """Whether both poses and all scores are finite; the guard refuses anything else."""
        return bool(
            np.isfinite(self.pick).all()
            and np.isfinite(self.place).all()
            and all(math.isfinite(v) for v in self.scores.values())
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; floats survive exactly."""
        return {
            "pick": np.asarray(self.pick, float).tolist(),
            "place": np.asarray(self.place, float).tolist(),
            "primitive": self.primitive,
            "decision_id": self.decision_id,
            "scores": {k: float(v) for k, v in self.scores.items()},
            "stamp_ns": int(self.stamp_ns),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PickPlace:
        """Read what `to_dict` wrote."""
        return cls(
            pick=np.asarray(data["pick"], float),
            place=np.asarray(data["place"], float),
            primitive=data["primitive"],
            decision_id=data["decision_id"],
            scores=dict(data["scores"]),
            stamp_ns=int(data["stamp_ns"]),
        )

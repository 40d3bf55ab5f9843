"""Sets of views of one static scene: what an encoder learns from, kept on disk so that it is rendered once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import EncoderError, RunFailed
from embodied_vision.geometry import depth_to_metres, look_at, project, quantise_depth
from embodied_vision.types import RGBD, Camera, FloatArray

SOURCE = "source.json"
ABOUT = "about.json"


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Views of one scene during which nothing moved, or nearly so: points that moved are told by their depth.

    Attributes:
        frames: at least one.
        bodies: for each frame int32 (H, W), the id of the body that a pixel shows, −1 for none; None in real logs.
        names: what the bodies are called, such as `red block 1`.
        poses: of the bodies in the base frame (4, 4); none in real logs.
    """

    frames: tuple[RGBD, ...]
    bodies: tuple[NDArray[np.int32], ...] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    poses: Mapping[int, FloatArray] = field(default_factory=dict)


def dome_camera(
    rng: np.random.Generator,
    *,
    target_m: Sequence[float] = (0.5, 0.0, 0.0),
    distance_m: tuple[float, float] = (0.6, 1.25),
    elevation_rad: tuple[float, float] = (0.5, 1.45),
    size: tuple[int, int] = (240, 424),
    focal_px: tuple[float, float] = (290.0, 400.0),
    name: str = "dome",
) -> Camera:
    """A camera somewhere on a dome around the workspace that looks at a point near its middle.

    Args:
        rng: source of all randomness.
        target_m: middle of the workspace in the base frame; the camera looks up to 12 cm beside it.
        distance_m, elevation_rad, focal_px: ranges drawn from uniformly.
        size: (rows, columns) in px.
        name: of the camera.
    """
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(*elevation_rad)
    direction = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    target = np.array(target_m, float)
    target[:2] += rng.uniform(-0.12, 0.12, 2)
    roll = rng.normal(0.0, 0.15)
    up = np.array([0.0, 0.0, 1.0]) + roll * np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    focal = rng.uniform(*focal_px)
    rows, columns = size
    K = np.array([[focal, 0, (columns - 1) / 2], [0, focal, (rows - 1) / 2], [0, 0, 1.0]])
    eye = target + rng.uniform(*distance_m) * direction
    return Camera(name, columns, rows, K, look_at(eye, target, up))


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """What cannot be written is told with a remedy."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"frames cannot be written to {folder} ({error}); make room and run the same again") from error


class ViewCache:
    """A folder of view sets, written once and read at random; a half-written set does not count.

    Args:
        folder: made on first use.
        source: JSON description of where the sets come from; a folder with another one is refused.

    Raises:
        EncoderError: the folder holds sets from another source.
    """

    def __init__(self, folder: Path, source: Mapping[str, Any]) -> None:
        self.folder = folder
        self._count = 0
        self.source = json.loads(json.dumps(source))
        path = folder / SOURCE
        if path.is_file():
            try:
                there = json.loads(path.read_text())
            except ValueError as error:
                raise EncoderError(f"{path} cannot be read ({error}); delete {folder} to make it again") from error
            if there != self.source:
                raise EncoderError(
                    f"{folder} holds frames from {there}, asked for are {self.source}; give another folder or delete it"
                )
        else:
            part = path.with_suffix(".part")
            with _room(folder):
                folder.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps(self.source, indent=2) + "\n")
                part.rename(path)

    def __len__(self) -> int:
        while (self._path(self._count) / ABOUT).is_file():
            self._count += 1
        return self._count

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}"

    def append(self, views: ViewSet) -> None:
        """Write one set.

        Raises:
            RunFailed: it cannot be written.
        """
        with _room(self.folder):
            self._write(views)

    def _write(self, views: ViewSet) -> None:
        final = self._path(len(self))
        staging = final.with_suffix(".part")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        staging.mkdir(parents=True)
        for i, frame in enumerate(views.frames):
            np.save(staging / f"color_{i}.npy", frame.color)
            np.save(staging / f"depth_{i}.npy", quantise_depth(frame.depth))
            if views.bodies is not None:
                np.save(staging / f"bodies_{i}.npy", views.bodies[i].astype(np.int32))
        cameras = [{**f.camera.to_dict(), "stamp_ns": f.stamp_ns} for f in views.frames]
        names = {str(k): v for k, v in views.names.items()}
        poses = {str(k): v.tolist() for k, v in views.poses.items()}
        (staging / ABOUT).write_text(json.dumps({"cameras": cameras, "names": names, "poses": poses}))
        staging.rename(final)

    def extend(self, sets: Iterable[ViewSet]) -> Iterator[int]:
        """Write all sets, yielding how many there are after each."""
        for views in sets:
            self.append(views)
            yield len(self)

    def __getitem__(self, index: int) -> ViewSet:
        path = self._path(index)
        try:
            about = json.loads((path / ABOUT).read_text())
            frames = tuple(self._frame(path, i, camera) for i, camera in enumerate(about["cameras"]))
            names = {int(k): str(v) for k, v in about["names"].items()}
            poses = {int(k): np.array(v, float) for k, v in about.get("poses", {}).items()}
            bodies = tuple(np.load(path / f"bodies_{i}.npy") for i in range(len(frames))) if names else None
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(f"{path} cannot be read ({error}); delete {self.folder} to make it again") from error
        return ViewSet(frames, bodies, names, poses)

    @staticmethod
    def _frame(path: Path, i: int, camera: Mapping[str, Any]) -> RGBD:
        color = np.load(path / f"color_{i}.npy", allow_pickle=False)
        depth = depth_to_metres(np.load(path / f"depth_{i}.npy", allow_pickle=False))
        return RGBD(color, depth, Camera.from_dict(camera), int(camera["stamp_ns"]))


def points_at(frame: RGBD, pixels: FloatArray) -> FloatArray:
    """Points (N, 3) in the base frame that pixels (N, 2), as whole u, v, of a frame show."""
    u, v = pixels.astype(int).T
    K, pose = frame.camera.K, frame.camera.T_base_camera
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(len(u))], axis=1)
    return (rays * frame.depth[v, u, None]) @ pose[:3, :3].T + pose[:3, 3]


def visible_from(points_m: FloatArray, frame: RGBD, tolerance_m: float = 0.008) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Where points (N, 3) in the base frame appear in a frame, and which of them it really sees.

    Returns:
        Pixels (N, 2) as u, v, and bool (N,): inside the image and not hidden, by the frame's own depth.
    """
    pixels, depth = project(points_m, frame.camera.K, frame.camera.T_base_camera)
    rows, columns = frame.depth.shape
    with np.errstate(invalid="ignore"):
        nearest = np.round(pixels)
        inside = (depth > 0) & (nearest >= 0).all(1) & (nearest[:, 0] < columns) & (nearest[:, 1] < rows)
    seen = np.zeros(len(points_m), bool)
    u, v = nearest[inside].astype(int).T
    there = frame.depth[v, u]
    seen[inside] = (there > 0) & (np.abs(there - depth[inside]) < tolerance_m)
    return pixels, seen

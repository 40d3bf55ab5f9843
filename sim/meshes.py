"""Mesh files of boxes and textured tops, for what PyBullet cannot draw well by itself.

EGL gives boxes round normals, draws a file at one size only, whatever scale it is loaded with, and changes no texture
afterwards. A file for every shape, with normals and texture, is drawn alike by both renderers. Meshes from files are
freed with their bodies.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from embodied_vision.types import FloatArray
from embodied_vision_sim.shapes import Box

_CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


MOST_FILES = 500
"""Then they are deleted: a file is read when a body is made of it, and is not needed afterwards."""


class Meshes:
    """A temporary folder of mesh files, each written once."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="embodied-vision-")
        self._written: set[Path] = set()

    def close(self) -> None:
        """Delete the files."""
        self._folder.cleanup()

    def boxes(self, boxes: Sequence[Box], texture: NDArray[np.uint8] | None = None) -> Path:
        """Boxes in the frame of their body, every face with its own normal and all of a texture uint8 (H, W, 3)."""
        text = _obj([quad for box in boxes for quad in _faces(box)])
        return self._write(text if texture is None else self._textured(text, texture))

    def tiled(self, size: tuple[float, float, float], tiles: tuple[int, int], texture: NDArray[np.uint8]) -> Path:
        """Top of a box of `size` in m, covered by (along x, along y) `tiles` of a texture uint8 (H, W, 3)."""
        edges = [np.linspace(-length / 2, length / 2, count + 1) for length, count in zip(size, tiles, strict=False)]
        up = np.array([0.0, 0.0, 1.0])
        quads = [
            (np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]]), up)
            for z in (size[2] / 2,)
            for x0, x1 in zip(edges[0], edges[0][1:], strict=False)
            for y0, y1 in zip(edges[1], edges[1][1:], strict=False)
        ]
        return self._write(self._textured(_obj(quads), texture))

    def _textured(self, text: str, texture: NDArray[np.uint8]) -> str:
        """The text of a mesh with a texture, which is written beside it."""
        name = hashlib.sha256(texture.tobytes()).hexdigest()[:16]
        folder = Path(self._folder.name)
        Image.fromarray(texture).save(folder / f"{name}.png")
        (folder / f"{name}.mtl").write_text(f"newmtl top\nKd 1 1 1\nmap_Kd {name}.png\n", encoding="utf-8")
        return f"mtllib {name}.mtl\nusemtl top\n{text}"

    def forget(self, path: Path) -> None:
        """Delete a file of `tiled` and its texture; what was made with it stays."""
        self._written.discard(path)
        for line in path.read_text(encoding="utf-8").splitlines()[:1]:
            stem = Path(line.removeprefix("mtllib ")).stem
            for suffix in (".png", ".mtl"):
                (path.parent / f"{stem}{suffix}").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _write(self, text: str) -> Path:
        path = Path(self._folder.name) / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.obj"
        if path not in self._written:
            if len(self._written) >= MOST_FILES:
                for old in self._written:
                    old.unlink(missing_ok=True)
                self._written.clear()
            path.write_text(text, encoding="utf-8")
            self._written.add(path)
        return path


def _faces(box: Box) -> list[tuple[FloatArray, FloatArray]]:
    """Corners (4, 3), anticlockwise from outside, and normal (3,) of each face."""
    turn = Rotation.from_euler("ZY", [box.yaw, box.tilt]).as_matrix()
    half, axes = np.asarray(box.size) / 2, np.eye(3)
    faces = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            normal, u, v = sign * axes[axis], axes[(axis + 1) % 3], sign * axes[(axis + 2) % 3]
            corners = np.array([(normal + a * u + b * v) * half for a, b in _CORNERS])
            faces.append((np.asarray(box.centre) + corners @ turn.T, turn @ normal))
    return faces


def _obj(quads: Sequence[tuple[FloatArray, FloatArray]]) -> str:
    lines = ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    for number, (corners, normal) in enumerate(quads):
        lines += [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in corners]
        lines.append("vn {:.7f} {:.7f} {:.7f}".format(*normal))
        a, b, c, d = (f"{4 * number + k}/{k}/{number + 1}" for k in (1, 2, 3, 4))
        lines += [f"f {a} {b} {c}", f"f {a} {c} {d}"]
    return "\n".join(lines) + "\n"

"""Files of meshes have the shape of what they stand for, and do not pile up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embodied_vision_sim import meshes
from embodied_vision_sim.meshes import Meshes
from embodied_vision_sim.shapes import Box


@pytest.fixture
def files() -> Iterator[Meshes]:
    files = Meshes()
    yield files
    files.close()


def _triangles(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Corners (N, 3, 3) and normals (N, 3) of the triangles in a file."""
    vertices, normals, corners, of_faces = [], [], [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        key, *rest = line.split()
        if key == "v":
            vertices.append([float(x) for x in rest])
        elif key == "vn":
            normals.append([float(x) for x in rest])
        elif key == "f":
            indices = [[int(i) - 1 for i in corner.split("/")] for corner in rest]
            corners.append([vertices[i[0]] for i in indices])
            of_faces.append(normals[indices[0][2]])
    return np.array(corners), np.array(of_faces)


def test_boxes_are_closed_and_look_outwards(files: Meshes) -> None:
    boxes = (Box((0.1, 0.2, 0.3), (0.05, 0.0, 0.1), yaw=0.4, tilt=0.3), Box((0.02, 0.03, 0.04), (-0.3, 0.1, 0.0)))
    corners, normals = _triangles(files.boxes(boxes))
    assert len(corners) == 24
    turned = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(turned, axis=1)
    np.testing.assert_allclose(turned / areas[:, None], normals, atol=1e-4)
    # Divergence theorem: the volume that is enclosed.
    volume = np.einsum("ij,ij->", corners.mean(1), turned) / 6
    assert volume == pytest.approx(sum(box.volume for box in boxes), rel=1e-3)


def test_a_textured_top_lies_on_top(files: Meshes) -> None:
    path = files.tiled((1.0, 2.0, 0.1), (2, 4), np.full((8, 8, 3), 200, np.uint8))
    corners, normals = _triangles(path)
    assert len(corners) == 2 * 2 * 4
    np.testing.assert_allclose(corners[..., 2], 0.05)
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 16)
    np.testing.assert_allclose(corners.reshape(-1, 3).min(0)[:2], (-0.5, -1.0))
    folder = path.parent
    assert len(list(folder.iterdir())) == 3
    files.forget(path)
    assert not list(folder.iterdir())


def test_files_do_not_pile_up(files: Meshes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "MOST_FILES", 5)
    for number in range(23):
        path = files.boxes([Box((0.1, 0.1, 0.01 * (number + 1)))])
        assert path.is_file()
        assert files.boxes([Box((0.1, 0.1, 0.01 * (number + 1)))]) == path
    assert len(list(path.parent.iterdir())) <= 5

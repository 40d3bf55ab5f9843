"""Pictures: right size, right place, and a PNG that another reader opens."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from embodied_vision import pictures
from embodied_vision.geometry import cell_to_xy, look_at, tool_down
from embodied_vision.types import Camera, Features, PickPlace, Scene, Workspace

RNG = np.random.default_rng(0)


def scene() -> Scene:
    workspace = Workspace()
    return Scene(
        np.full((*workspace.shape, 3), 90, np.uint8),
        np.zeros(workspace.shape, np.float32),
        None,
        np.ones(workspace.shape, bool),
        workspace,
        0,
    )


def test_png_uri_is_a_png() -> None:
    picture = RNG.integers(0, 255, (7, 9, 3), dtype=np.uint8)
    data = base64.b64decode(pictures.png_uri(picture).split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)


def test_different_features_have_different_colors() -> None:
    grid = RNG.normal(size=(30, 53, 16)).astype(np.float32) * 0.01
    grid[:, :26] += 1
    picture = pictures.feature_colors(Features(grid, (8, 8), "", "", 0), (240, 424))
    assert picture.shape == (240, 424, 3)
    left, right = picture[:, :180].reshape(-1, 3).mean(0), picture[:, 240:].reshape(-1, 3).mean(0)
    assert np.abs(left - right).max() > 100


def test_a_decision_is_drawn_where_it_acts() -> None:
    world = scene()
    x, y = cell_to_xy((30, 40), world.workspace)
    action = PickPlace(tool_down(x, y, 0.0), tool_down(x + 0.2, y + 0.3, 0.0))
    picture = pictures.action_on_scene(world, action)
    rows, columns = np.nonzero((picture == pictures.PICK).all(-1))
    assert abs(rows.mean() / 2 - 30) < 2
    assert abs(columns.mean() / 2 - 40) < 2
    camera = Camera(
        "c", 424, 240, np.array([[340.0, 0, 212], [0, 340, 120], [0, 0, 1]]), look_at((1, 0, 0.85), (x, y, 0))
    )
    on_image = pictures.action_on_image(np.zeros((240, 424, 3), np.uint8), camera, action)
    rows, columns = np.nonzero((on_image == pictures.PICK).all(-1))
    assert abs(rows.mean() - 120) < 2
    assert abs(columns.mean() - 212) < 2


def test_heat_is_brightest_at_the_best_cell() -> None:
    scores = np.zeros((32, 64), np.float32)
    scores[10, 20] = 5
    picture = pictures.heat(scene(), scores)
    row, column = np.unravel_index(picture[..., 0].argmax(), picture.shape[:2])
    assert abs(row - 42) <= 3
    assert abs(column - 82) <= 3

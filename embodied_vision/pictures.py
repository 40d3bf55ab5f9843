"""Pictures of what the stack sees and decides, for reports and contact sheets: uint8 RGB arrays in, PNG out."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from embodied_vision.geometry import project, xy_to_cell
from embodied_vision.types import Camera, Features, FloatArray, PickPlace, Scene

Picture = NDArray[np.uint8]
PICK, PLACE = (255, 40, 40), (40, 220, 90)
"""Marker colors: red where the tool picks, green where it places."""


def png_uri(picture: Picture) -> str:
    """A data URI with the picture as PNG, for HTML that stands alone."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def enlarge(picture: Picture, factor: int) -> Picture:
    """Every pixel becomes a square of `factor` px."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def feature_colors(features: Features, size: tuple[int, int]) -> Picture:
    """First three principal components of a feature grid as red, green and blue, at `size` = (height, width)."""
    rows, columns, depth = features.grid.shape
    flat = features.grid.reshape(-1, depth).astype(np.float64)
    flat = flat - flat.mean(0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    components = flat @ directions[:3].T
    low, high = np.percentile(components, [2, 98], axis=0)
    scaled = np.clip((components - low) / np.maximum(high - low, 1e-9), 0, 1)
    picture = (scaled.reshape(rows, columns, 3) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def heat(scene: Scene, scores: NDArray[np.floating]) -> Picture:
    """A score map over the dimmed top-down color map; brightest yellow is the best cell of the map."""
    rows, columns = scene.valid.shape
    resized = Image.fromarray(np.asarray(scores, np.float32)).resize((columns, rows), Image.Resampling.BILINEAR)
    values = np.asarray(resized)
    low, high = float(values.min()), float(values.max())
    strength = ((values - low) / max(high - low, 1e-12))[..., None]
    glow = np.array([255.0, 210.0, 0.0])
    return (scene.color * 0.45 * (1 - strength) + glow * strength).astype(np.uint8)


def shades(values: NDArray[np.floating]) -> Picture:
    """A map in shades of grey, from its lowest value in black to its highest in white."""
    finite = np.nan_to_num(np.asarray(values, np.float64))
    low, high = float(finite.min()), float(finite.max())
    grey = (255 * (finite - low) / max(high - low, 1e-12)).astype(np.uint8)
    return grey[..., None].repeat(3, axis=2)


def height_shades(scene: Scene) -> Picture:
    """The height map in shades of grey, highest in white; what no camera sees is dark blue."""
    picture = shades(np.where(scene.valid, scene.height, scene.height[scene.valid].min()))
    picture[~scene.valid] = (20, 20, 90)
    return picture


def _mark(picture: Picture, points: Sequence[tuple[float, float]], scale: float) -> Picture:
    """Ring at the first point, cross at the second, a line between; points are (column, row)."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    (x0, y0), (x1, y1) = points
    radius = 5 * scale
    draw.line([x0, y0, x1, y1], fill=(255, 255, 255), width=max(1, round(scale)))
    draw.ellipse([x0 - radius, y0 - radius, x0 + radius, y0 + radius], outline=PICK, width=max(2, round(2 * scale)))
    for sign in (-1, 1):
        draw.line(
            [x1 - radius, y1 - sign * radius, x1 + radius, y1 + sign * radius],
            fill=PLACE,
            width=max(2, round(2 * scale)),
        )
    return np.asarray(image)


def action_on_scene(scene: Scene, action: PickPlace, factor: int = 2) -> Picture:
    """The top-down color map with the decision drawn on it."""
    cells = xy_to_cell(np.stack([action.pick[:2, 3], action.place[:2, 3]]), scene.workspace)
    points = [((column + 0.5) * factor, (row + 0.5) * factor) for row, column in cells]
    return _mark(enlarge(scene.color, factor), points, factor / 2)


def action_on_image(color: Picture, camera: Camera, action: PickPlace) -> Picture:
    """The camera image with the decision drawn on it."""
    positions: FloatArray = np.stack([action.pick[:3, 3], action.place[:3, 3]])
    pixels, _ = project(positions, camera.K, camera.T_base_camera)
    return _mark(color, [(float(u), float(v)) for u, v in pixels], 1.0)

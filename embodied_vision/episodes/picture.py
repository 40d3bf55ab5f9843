"""An episode on one sheet: its decisions with pick and place drawn in, and frames from start to end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from embodied_vision.episodes.reader import Episode
from embodied_vision.geometry import project
from embodied_vision.types import RGBD, FloatArray, PickPlace

TILE_WIDTH = 320
_COLUMNS = 4
_CAPTION, _GAP = 14, 4
Ink = tuple[int, int, int]
_PICK, _PLACE = (40, 220, 80), (255, 60, 160)
AGAIN_INKS: tuple[Ink, Ink] = ((60, 140, 255), (255, 220, 40))
"""Of pick and place of a second action on the same picture: blue and yellow."""
_MARK_M = 0.04


def contact_sheet(episode: Episode, frames_per_camera: int = 8) -> Image.Image:
    """Draw an episode.

    Args:
        episode: which.
        frames_per_camera: how many logged frames to show, evenly spaced; all decisions are shown.

    Raises:
        EpisodeError: its data are damaged.
    """
    start_ns = first_stamp_ns(episode)
    decided: list[Image.Image] = []
    for number, decision in enumerate(episode.decisions):
        for frame in decision.frames:
            caption = f"decision {number + 1}, {frame.camera.name}, {(frame.stamp_ns - start_ns) / 1e9:.2f} s"
            decided.append(_tile(draw_decision(frame, decision.action), caption))
    groups = [decided]
    for name in episode.cameras:
        tiles: list[Image.Image] = []
        frames = episode.frames(name)
        for index in np.unique(np.linspace(0, len(frames) - 1, frames_per_camera).round().astype(int)):
            if len(frames):
                frame = frames[int(index)]
                caption = f"frame {index}, {name}, {(frame.stamp_ns - start_ns) / 1e9:.2f} s"
                tiles.append(_tile(Image.fromarray(frame.color), caption))
        groups.append(tiles)
    outcome = ", ".join(f"{key}={value}" for key, value in episode.outcome.items())
    return _sheet(groups, f"{episode.task}  {episode.id}  {outcome}")


def first_stamp_ns(episode: Episode) -> int:
    """The earliest stamp among frames, streams and decisions, 0 in an empty episode."""
    stamps = [episode.frames(name).stamps_ns for name in episode.cameras]
    stamps += [episode.stream(name)[0] for name in episode.streams]
    stamps.append(np.array([episode.decisions.action(i).stamp_ns for i in range(len(episode.decisions))], np.int64))
    return min((int(s.min()) for s in stamps if len(s)), default=0)


def draw_decision(frame: RGBD, action: PickPlace, inks: tuple[Ink, Ink] = (_PICK, _PLACE)) -> Image.Image:
    """The color image with the pick (green) and the place (pink) of an action, as the camera sees them.

    A stroke along the tip's x axis, 4 cm long, shows the yaw.
    """
    image = Image.fromarray(frame.color)
    draw = ImageDraw.Draw(image)
    centres = []
    for pose, ink in zip((action.pick, action.place), inks, strict=True):
        ends = _pixels(frame, np.stack([pose[:3, 3], pose[:3, 3] + _MARK_M * pose[:3, 0]]))
        if ends is None:
            continue
        (u, v), (u_end, v_end) = ends
        draw.ellipse((u - 5, v - 5, u + 5, v + 5), outline=ink, width=2)
        draw.line((u, v, u_end, v_end), fill=ink, width=2)
        centres.append((u, v))
    if len(centres) == 2:
        draw.line((*centres[0], *centres[1]), fill=(255, 255, 255), width=1)
    return image


def _pixels(frame: RGBD, points: FloatArray) -> list[tuple[float, float]] | None:
    pixels, depth = project(points, frame.camera.K, frame.camera.T_base_camera)
    if not (np.isfinite(pixels).all() and (depth > 0).all()):
        return None
    return [(float(u), float(v)) for u, v in pixels]


def _tile(image: Image.Image, caption: str) -> Image.Image:
    height = max(1, round(image.height * TILE_WIDTH / image.width))
    tile = Image.new("RGB", (TILE_WIDTH, height + _CAPTION), "white")
    tile.paste(image.resize((TILE_WIDTH, height)), (0, _CAPTION))
    ImageDraw.Draw(tile).text((3, 1), caption, fill="black")
    return tile


def _sheet(groups: Sequence[Sequence[Image.Image]], title: str) -> Image.Image:
    """Every group begins a row."""
    rows = [group[start : start + _COLUMNS] for group in groups for start in range(0, len(group), _COLUMNS)]
    columns = max((len(row) for row in rows), default=1)
    heights = [max(tile.height for tile in row) + _GAP for row in rows]
    size = columns * (TILE_WIDTH + _GAP) - _GAP, _CAPTION + max(0, sum(heights) - _GAP)
    sheet = Image.new("RGB", size, "white")
    ImageDraw.Draw(sheet).text((3, 1), title, fill="black")
    top = _CAPTION
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * (TILE_WIDTH + _GAP), top))
        top += height
    return sheet

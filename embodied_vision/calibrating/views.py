"""Views of the board: a picture's corners and where the arm stood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from embodied_vision.calibrating.board import LEAST_CORNERS, Board, Corners
from embodied_vision.errors import BadInput
from embodied_vision.types import FloatArray

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
"""Endings of picture files."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture and where the arm stood.

    Attributes:
        name: of the picture, for messages.
        color: uint8 (H, W, 3) RGB.
        T_base_tip: (4, 4) pose of the tool's tip in the robot base frame, m.
    """

    name: str
    color: NDArray[np.uint8]
    T_base_tip: FloatArray


@dataclass(frozen=True, eq=False)
class View:
    """What a shot tells.

    Attributes:
        name: of the picture.
        corners: of the board in it.
        T_base_tip: (4, 4) pose of the tool's tip in the robot base frame, m.
    """

    name: str
    corners: Corners
    T_base_tip: FloatArray


@dataclass(frozen=True, eq=False)
class Views:
    """All usable views of one camera.

    Attributes:
        size: width and height of the pictures in px.
        views: those in which the board was found.
        left_out: names of the others, and why.
    """

    size: tuple[int, int]
    views: tuple[View, ...]
    left_out: dict[str, str]


def find_board(board: Board, shots: Iterable[Shot]) -> Views:
    """Find the board in every picture.

    Raises:
        BadInput: pictures of different sizes, no pictures, or the board in none of them.
    """
    size: tuple[int, int] | None = None
    first = ""
    views: list[View] = []
    left_out: dict[str, str] = {}
    for shot in shots:
        own = (shot.color.shape[1], shot.color.shape[0])
        size, first = (size, first) if size else (own, shot.name)
        if own != size:
            raise BadInput(
                f"picture {shot.name} has {own[0]}×{own[1]} px, {first} has {size[0]}×{size[1]}; take all at the "
                "resolution at which the camera will run"
            )
        corners = board.detect(shot.color)
        if len(corners) < LEAST_CORNERS or _in_line(board, corners):
            left_out[shot.name] = board.explain(shot.color)
        else:
            views.append(View(shot.name, corners, shot.T_base_tip))
    if size is None:
        raise BadInput("there are no pictures; take 15 or more of the board")
    if not views:
        name, reason = next(iter(left_out.items()))
        raise BadInput(f"the board ({board.describe()}) is in none of {len(left_out)} pictures; {name}: {reason}")
    return Views(size, tuple(views), left_out)


def _in_line(board: Board, corners: Corners) -> bool:
    """Whether the corners lie on one line of the board, which does not fix its pose."""
    points = board.points[corners.ids, :2]
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(spread[1] < 0.5 * board.square_m)


def read_shots(folder: Path, poses: dict[str, FloatArray]) -> Iterable[Shot]:
    """Pictures of a folder with their poses, in the order of the poses.

    Raises:
        BadInput: the folder is missing, or a picture of the poses is missing or cannot be read.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; give the one with the pictures")
    paths = {name: _picture(folder, name) for name in poses}
    for name, pose in poses.items():
        yield Shot(name, read_picture(paths[name]), pose)


def _picture(folder: Path, name: str) -> Path:
    path = folder / name
    if path.is_file():
        return path
    there = sorted(other.name for other in folder.iterdir() if other.is_file())
    raise BadInput(
        f"the poses name the picture {name}, which is not in {folder}; it holds {_some(there)}. Correct the names"
    )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB.

    Raises:
        BadInput: it is no picture, or cut short.
    """
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"), np.uint8)
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(
            f"{path} cannot be read as a picture ({error}); remove it from the poses or take it again"
        ) from error


def _some(names: Sequence[str]) -> str:
    return "nothing" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

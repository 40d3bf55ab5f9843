"""Where probes look, and what is there: points of labelled frames, chosen once for all encoders.

Drawn patches show the scene as it is, mostly table; patches of things show each thing alike, however large it is; and a
grid of points over a thing shows its shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.correspondence import ViewSource
from embodied_vision.encoders.raw import PATCH_PX
from embodied_vision.encoders.views import ViewSet
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import yaw_of
from embodied_vision.types import RGBD, FloatArray

TABLE, ROBOT = "table", "robot"
ASYMMETRIC = ("block", "fixture", "marker")
"""Kinds that look different from every side, so that their turn can be told: all are L-shaped."""
DRAWN = 120
"""Patches drawn from a frame."""
PATCHES_A_THING = 12
PURE = 0.6
"""Share of a patch's pixels that must show the thing that it stands for."""
GRID = 3
POINTS_VERSION = 1
"""To be raised when other points are chosen: features that are kept belong to their points."""


@dataclass(frozen=True, eq=False)
class Looked:
    """A frame and the pixels (N, 2), as u, v, whose features are asked for."""

    scene: int
    frame: int
    pixels: FloatArray


@dataclass(frozen=True, eq=False)
class Points:
    """Points of many frames with what they show; rows are those of the features of all points, in order.

    Attributes:
        looked: the frames, in order.
        drawn: (A,) rows of drawn patches, with kind (A,), depth_m (A,) along the optical axis and scene (A,).
        patches: (B,) rows of patches of things, with offset_m (B, 2) to the middle of the thing along the image's u and
            v, NaN where unknown, and scene (B,).
        things: (M, 2) first and last of `patches` of each thing, with kind (M,), scene (M,), the rows (M, 9) of a grid
            over it, and turn (M, 2): cosine and sine of its yaw as seen by the camera, NaN where unknown.
    """

    looked: list[Looked]
    drawn: NDArray[np.int64]
    drawn_kind: NDArray[np.str_]
    drawn_depth_m: FloatArray
    drawn_scene: NDArray[np.int64]
    patches: NDArray[np.int64]
    patch_offset_m: FloatArray
    patch_scene: NDArray[np.int64]
    things: NDArray[np.int64]
    thing_kind: NDArray[np.str_]
    thing_scene: NDArray[np.int64]
    thing_grid: NDArray[np.int64]
    thing_turn: FloatArray


def kind_of(name: str) -> str:
    """`red block 2` is a `red block`."""
    return re.sub(r"\s*\d+$", "", name)


def points_of(sets: ViewSource, seed: int) -> Points:
    """Choose points in all frames.

    Args:
        sets: labelled scenes.
        seed: of the drawn patches.

    Raises:
        EncoderError: the frames have no labels or no poses.
    """
    book = _Book()
    for scene in range(len(sets)):
        views = sets[scene]
        if views.bodies is None or not views.poses:
            raise EncoderError(
                f"view set {scene} says nothing about what it shows or how it stands; probe on simulated scenes, and "
                "delete frames that were rendered by an earlier version"
            )
        for index in range(len(views.frames)):
            _look(book, views, scene, index, np.random.default_rng([seed, scene, index]))
    return book.points()


class _Book:
    """Collects points, frame by frame."""

    def __init__(self) -> None:
        self.rows = 0
        self.looked: list[Looked] = []
        self.drawn: list[tuple[int, str, float, int]] = []
        self.patches: list[tuple[int, FloatArray, int]] = []
        self.things: list[tuple[int, int, str, int, list[int], FloatArray]] = []
        self._pixels: list[tuple[float, float]] = []

    def row(self, u: float, v: float) -> int:
        """Ask for the features at a pixel of the present frame; returns their row."""
        self._pixels.append((u, v))
        self.rows += 1
        return self.rows - 1

    def close(self, scene: int, frame: int) -> None:
        """Done with a frame."""
        self.looked.append(Looked(scene, frame, np.array(self._pixels).reshape(-1, 2)))
        self._pixels = []

    def points(self) -> Points:
        drawn, patches, things = self.drawn, self.patches, self.things
        return Points(
            looked=self.looked,
            drawn=np.array([row for row, *_ in drawn], np.int64),
            drawn_kind=np.array([kind for _, kind, *_ in drawn], np.str_),
            drawn_depth_m=np.array([depth for _, _, depth, _ in drawn]),
            drawn_scene=np.array([scene for *_, scene in drawn], np.int64),
            patches=np.array([row for row, *_ in patches], np.int64),
            patch_offset_m=np.array([offset for _, offset, _ in patches]).reshape(-1, 2),
            patch_scene=np.array([scene for *_, scene in patches], np.int64),
            things=np.array([(first, last) for first, last, *_ in things], np.int64).reshape(-1, 2),
            thing_kind=np.array([thing[2] for thing in things], np.str_),
            thing_scene=np.array([thing[3] for thing in things], np.int64),
            thing_grid=np.array([thing[4] for thing in things], np.int64).reshape(-1, GRID**2),
            thing_turn=np.array([thing[5] for thing in things]).reshape(-1, 2),
        )


def _look(book: _Book, views: ViewSet, scene: int, index: int, rng: np.random.Generator) -> None:
    assert views.bodies is not None
    frame, bodies = views.frames[index], views.bodies[index]
    rows, columns = bodies.shape[0] // PATCH_PX, bodies.shape[1] // PATCH_PX
    tiles = bodies[: rows * PATCH_PX, : columns * PATCH_PX].reshape(rows, PATCH_PX, columns, PATCH_PX)
    ids = np.unique(bodies[bodies >= 0])
    shares = np.stack([(tiles == body).mean((1, 3)) for body in ids])
    most = ids[shares.argmax(0)]
    half = PATCH_PX // 2
    depth = frame.depth[half : rows * PATCH_PX : PATCH_PX, half : columns * PATCH_PX : PATCH_PX]
    usable = np.argwhere((shares.max(0) > 0) & (depth > 0))
    for row, column in rng.permutation(usable)[:DRAWN].tolist():
        kind = kind_of(views.names.get(int(most[row, column]), ""))
        book.drawn.append((book.row(*_middle(row, column)), kind, float(depth[row, column]), scene))
    border = np.unique(np.concatenate([bodies[0], bodies[-1], bodies[:, 0], bodies[:, -1]]))
    for body, share in zip(ids.tolist(), shares, strict=True):
        kind = kind_of(views.names.get(body, ""))
        pure = np.argwhere((share >= PURE) & (depth > 0))
        if kind in (TABLE, ROBOT) or not len(pure):
            continue
        _note_thing(book, views, frame, bodies == body, (kind, body, scene), body not in border, rng.permutation(pure))
    book.close(scene, index)


def _note_thing(
    book: _Book,
    views: ViewSet,
    frame: RGBD,
    mask: NDArray[np.bool_],
    thing: tuple[str, int, int],
    whole: bool,
    pure: NDArray[np.int64],
) -> None:
    """Note a thing that a frame shows: patches of it, a grid over it, and its turn.

    Args:
        book: where.
        views, frame: of the scene.
        mask: its pixels.
        thing: its kind, its body and the number of its scene.
        whole: whether the frame shows all of it, but for what stands before it.
        pure: (N, 2) row and column of patches that show it.
    """
    kind, body, scene = thing
    cells = np.argwhere(mask)
    middle = cells.mean(0)[::-1]
    focal = frame.camera.K[[0, 1], [0, 1]]
    first = len(book.patches)
    for row, column in pure[:PATCHES_A_THING].tolist():
        u, v = _middle(row, column)
        away_m = float(frame.depth[int(v), int(u)]) or np.nan
        offset = (middle - (u, v)) * away_m / focal if whole else np.full(2, np.nan)
        book.patches.append((book.row(u, v), offset, scene))
    low, high = cells.min(0), cells.max(0)
    steps = (np.arange(GRID) + 0.5) / GRID
    grid = [
        book.row(float(low[1] + a * (high[1] - low[1])), float(low[0] + b * (high[0] - low[0])))
        for b in steps
        for a in steps
    ]
    turn = np.full(2, np.nan)
    if whole and kind in ASYMMETRIC and body in views.poses:
        right = frame.camera.T_base_camera[:3, 0]
        yaw = yaw_of(views.poses[body]) - np.arctan2(right[1], right[0])
        turn = np.array([np.cos(yaw), np.sin(yaw)])
    book.things.append((first, len(book.patches), kind, scene, grid, turn))


def _middle(row: int, column: int) -> tuple[float, float]:
    """Pixel (u, v) in the middle of a patch."""
    return (column + 0.5) * PATCH_PX - 0.5, (row + 0.5) * PATCH_PX - 0.5

"""The ChArUco board: its geometry, what is printed, and its corners in a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

DICTIONARIES = tuple(f"{bits}X{bits}_{count}" for bits in (4, 5, 6, 7) for count in (50, 100, 250, 1000))
"""Names of the sets of markers that a board may use, as OpenCV's without DICT_."""

LEAST_CORNERS = 6
"""A picture with fewer corners of the board is not used."""

WINDOW_PX = (2, 8)
"""Least and greatest half edge of the window in which a corner is fitted."""
STRAY_PX = 2.0
"""A corner that a fit moves farther is none."""

Rectangle = tuple[float, float, float, float]
"""x, y, width and height in m, from the board's upper left corner, y down."""


def opencv() -> Any:
    """OpenCV with its ArUco module.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise BadInput("calibration needs OpenCV: pip install 'embodied-vision[camera]'") from error
    return cv2


@dataclass(frozen=True)
class Corners:
    """Inner corners of the board seen in a picture.

    Attributes:
        ids: int (N,), which corners, row by row.
        pixels: float (N, 2), u and v in px of the picture; pixel centres lie at integers.
    """

    ids: NDArray[np.int64]
    pixels: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Board:
    """A ChArUco board. Its frame lies at the upper left corner, x to the right, y down, z into the board.

    Attributes:
        columns, rows: number of squares.
        square_m, marker_m: edges of squares and markers.
        dictionary: which markers, one of `DICTIONARIES`.
        legacy: pattern of OpenCV before 4.6, which differs where the number of rows is even.
    """

    columns: int = 7
    rows: int = 5
    square_m: float = 0.035
    marker_m: float = 0.026
    dictionary: str = "4X4_50"
    legacy: bool = False

    def __post_init__(self) -> None:
        if not (3 <= self.columns <= 40 and 3 <= self.rows <= 40):
            raise BadInput(f"a board of {self.columns} × {self.rows} squares; give 3 to 40 of each")
        if not (0.001 <= self.square_m <= 1.0):
            raise BadInput(f"squares of {1000 * self.square_m:g} mm; give 1 to 1000 mm, as measured on the print")
        if not (0.3 * self.square_m <= self.marker_m <= 0.9 * self.square_m):
            raise BadInput(
                f"markers of {1000 * self.marker_m:g} mm in squares of {1000 * self.square_m:g} mm; "
                "give 0.3 to 0.9 of the square's edge"
            )
        if self.dictionary not in DICTIONARIES:
            raise BadInput(f"no dictionary {self.dictionary!r}; choose one of {', '.join(DICTIONARIES)}")
        markers = self.columns * self.rows // 2
        if markers > int(self.dictionary.rpartition("_")[2]):
            raise BadInput(f"{markers} markers are needed, {self.dictionary} has fewer; choose a larger dictionary")

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of the printed pattern."""
        return self.columns * self.square_m, self.rows * self.square_m

    @property
    def points(self) -> NDArray[np.float64]:
        """Inner corners (N, 3) in the board's frame, m, by id."""
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        return np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1).astype(np.float64) * self.square_m

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.columns} × {self.rows} squares of {1000 * self.square_m:g} mm, markers {self.dictionary} of "
            f"{1000 * self.marker_m:g} mm" + (", legacy pattern" if self.legacy else "")
        )

    def charuco(self) -> Any:
        """The board as OpenCV knows it."""
        cv2 = opencv()
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f"DICT_{self.dictionary}"))
        board = cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, dictionary)
        board.setLegacyPattern(self.legacy)
        return board

    def black(self) -> list[Rectangle]:
        """What is printed black, as rectangles that do not overlap."""
        cv2 = opencv()
        board = self.charuco()
        cells = int(self.dictionary[0]) + 2
        cell = self.marker_m / cells
        held = set()
        rectangles: list[Rectangle] = []
        for marker, corners in zip(board.getIds().ravel().tolist(), board.getObjPoints(), strict=True):
            x, y = np.asarray(corners, float)[:, :2].min(axis=0).tolist()
            held.add((int(x / self.square_m), int(y / self.square_m)))
            bits = cv2.aruco.generateImageMarker(board.getDictionary(), marker, cells) == 0
            for row in range(cells):
                for start, end in _runs(bits[row]):
                    rectangles.append((x + start * cell, y + row * cell, (end - start) * cell, cell))
        square = self.square_m
        rectangles += [
            (i * square, j * square, square, square)
            for j in range(self.rows)
            for i in range(self.columns)
            if (i, j) not in held
        ]
        return rectangles

    def draw(self, px_per_m: float, margin_m: float = 0.0) -> NDArray[np.uint8]:
        """The board as a picture, uint8 (H, W): 0 black, 255 white, with a white margin all around."""
        width, height = (round((length + 2 * margin_m) * px_per_m) for length in self.size_m)
        picture = np.full((height, width), 255, np.uint8)
        for x, y, w, h in self.black():
            left, right = round((x + margin_m) * px_per_m), round((x + w + margin_m) * px_per_m)
            top, bottom = round((y + margin_m) * px_per_m), round((y + h + margin_m) * px_per_m)
            picture[top:bottom, left:right] = 0
        return picture

    def detect(self, color: NDArray[np.uint8]) -> Corners:
        """Inner corners in a picture uint8 (H, W, 3) RGB or (H, W), to a fraction of a pixel; none where none are."""
        cv2 = opencv()
        gray = color if color.ndim == 2 else cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
        pixels, ids, _, _ = cv2.aruco.CharucoDetector(self.charuco()).detectBoard(gray)
        if ids is None or len(ids) == 0:
            return Corners(np.zeros(0, np.int64), np.zeros((0, 2)))
        corners = Corners(np.asarray(ids, np.int64).ravel(), np.asarray(pixels, np.float64).reshape(-1, 2))
        return self._refined(corners, gray)

    def _refined(self, corners: Corners, gray: NDArray[np.uint8]) -> Corners:
        """Corners fitted once more: OpenCV 4 gives those of a ChArUco board half a pixel too far, OpenCV 5 does not."""
        cv2 = opencv()
        gaps = np.linalg.norm(corners.pixels[:, None] - corners.pixels, axis=2)
        square_px = float(gaps[gaps > 0].min(initial=np.inf))
        # No marker may reach into the window: it lies by the gap between the edges of square and marker away.
        reach = square_px * (1 - self.marker_m / self.square_m) / 2 if np.isfinite(square_px) else 0.0
        size = int(np.clip(reach, *WINDOW_PX))
        criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
        pixels = corners.pixels.astype(np.float32)[:, None]
        refined = cv2.cornerSubPix(gray, pixels.copy(), (size, size), (-1, -1), criteria)
        moved = np.linalg.norm(refined - pixels, axis=2)[:, 0]
        kept = moved < STRAY_PX
        return Corners(corners.ids[kept], refined[kept, 0].astype(np.float64))

    def explain(self, color: NDArray[np.uint8]) -> str:
        """Why a picture shows too few corners: what it shows instead, and the remedy."""
        cv2 = opencv()
        gray = color if color.ndim == 2 else cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
        if int(gray.max()) - int(gray.min()) < 30:
            return "it is nearly uniform; is the lens covered, or the light off?"
        if len(self.detect(np.ascontiguousarray(gray[:, ::-1]))) >= LEAST_CORNERS:
            return "it is mirrored; switch mirroring off in the camera's driver"
        other = replace(self, legacy=not self.legacy)
        if self.rows % 2 == 0 and len(other.detect(gray)) >= LEAST_CORNERS:
            return f"the board has the {'' if other.legacy else 'non-'}legacy pattern; change --legacy"
        best, seen = max((_markers(gray, name), name) for name in DICTIONARIES)
        if best == 0:
            return "no marker is seen; bring the board into view, sharp, unshaded and larger"
        if seen.partition("_")[0] != self.dictionary.partition("_")[0]:
            return f"the markers are of dictionary {seen}, not {self.dictionary}; change --dictionary"
        return (
            f"{best} markers are seen, but no corners between them; show more of the board, or correct --columns "
            "and --rows"
        )


def _markers(gray: NDArray[np.uint8], dictionary: str) -> int:
    cv2 = opencv()
    known = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f"DICT_{dictionary}"))
    _, ids, _ = cv2.aruco.ArucoDetector(known).detectMarkers(gray)
    return 0 if ids is None else len(ids)


def _runs(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]

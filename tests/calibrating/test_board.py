"""What is printed is what OpenCV looks for, at its true size, and pictures without it say why."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibrating.synthetic import BOARD, LENS, picture, pose, project
from embodied_vision.calibrating.board import Board
from embodied_vision.calibrating.board_page import POINT_M, write_board
from embodied_vision.errors import BadInput

BOARDS = [
    BOARD,
    Board(6, 4, 0.04, 0.03),
    Board(6, 4, 0.04, 0.03, legacy=True),
    Board(5, 8, 0.03, 0.02, "6X6_250"),
]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.describe())
def test_the_drawing_is_the_one_of_opencv(board: Board) -> None:
    px_per_m = 10_000
    drawn = board.draw(px_per_m)
    ours, theirs = (drawn, board.charuco().generateImage(drawn.shape[::-1]))
    # Markers' cells are no whole number of pixels: edges may differ by one.
    assert np.mean(ours != theirs) < 0.01


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.describe())
def test_corners_are_found_where_they_are(board: Board) -> None:
    px_per_m, margin = 3000.0, 0.02
    corners = board.detect(board.draw(px_per_m, margin))
    assert corners.ids.tolist() == list(range(len(board.points)))
    expected = (board.points[:, :2] + margin) * px_per_m - 0.5
    assert np.abs(corners.pixels - expected).max() < 0.05


def test_corners_in_perspective_are_found_to_a_fraction_of_a_pixel() -> None:
    T = pose((0.5, -0.4, 0.3), (-0.08, -0.1, 0.6))
    corners = BOARD.detect(picture(T))
    errors = corners.pixels - project(T, LENS)[corners.ids]
    assert len(corners) == len(BOARD.points)
    assert np.abs(errors.mean(axis=0)).max() < 0.05, "no half pixel anywhere"
    assert np.sqrt((errors**2).mean()) < 0.1


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.describe())
def test_pdf_has_the_true_size(board: Board, tmp_path: Path) -> None:
    path = tmp_path / "board.pdf"
    write_board(board, path)
    text = path.read_bytes().decode("latin-1")
    rectangles = [
        [float(value) * POINT_M for value in line.split()[:4]] for line in re.findall(r"^[\d. -]+ re f$", text, re.M)
    ]
    squares = [r for r in rectangles if abs(r[2] - board.square_m) < 1e-6 and abs(r[3] - board.square_m) < 1e-6]
    assert len(squares) == board.columns * board.rows - board.columns * board.rows // 2
    left, right = min(r[0] for r in rectangles), max(r[0] + r[2] for r in squares)
    assert right - left <= board.size_m[0] + 1e-6
    width, height = re.search(r"MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", text).groups()
    assert all(r[0] >= 0 and r[0] + r[2] <= float(width) * POINT_M for r in rectangles)
    assert all(r[1] >= 0 and r[1] + r[3] <= float(height) * POINT_M for r in rectangles)
    start = int(text.split("startxref\n")[1].split()[0])
    assert text[start:].startswith("xref")
    for number, place in enumerate(re.findall(r"^(\d{10}) 00000 n", text, re.M), 1):
        assert text[int(place) :].startswith(f"{number} 0 obj")


def test_the_default_fits_a4_and_png_knows_its_resolution(tmp_path: Path) -> None:
    assert write_board(Board(), tmp_path / "board.pdf") == "A4 landscape"
    assert write_board(Board(), tmp_path / "board.png") == "A4 landscape"
    with Image.open(tmp_path / "board.png") as page:
        dpi = page.info["dpi"]
        corners = Board().detect(np.asarray(page))
    step = np.diff(corners.pixels[:2, 0])[0] / dpi[0] * 0.0254
    assert step == pytest.approx(Board().square_m, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": 2}, "3 to 40"),
        ({"square_m": float("nan")}, "as measured on the print"),
        ({"marker_m": 0.035}, "0.3 to 0.9"),
        ({"dictionary": "9X9_1"}, "choose one of"),
        ({"columns": 12, "rows": 10}, "larger dictionary"),
    ],
)
def test_impossible_boards_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(BOARD, **change)


def test_a_name_without_a_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.pdf or \.png"):
        write_board(BOARD, tmp_path / "board.svg")


def test_pictures_without_the_board_say_why() -> None:
    seen = picture(pose((0.3, 0.2, 0.1), (-0.12, -0.09, 0.6)))
    assert "uniform" in BOARD.explain(np.zeros_like(seen))
    assert "mirrored" in BOARD.explain(np.ascontiguousarray(seen[:, ::-1]))
    assert "dictionary 4X4_50, not 6X6_250" in replace(BOARD, dictionary="6X6_250").explain(seen)
    even = Board(6, 4, 0.04, 0.03)
    assert "legacy pattern" in even.explain(replace(even, legacy=True).draw(3000, 0.02))
    noise = np.random.default_rng(0).integers(0, 255, seen.shape).astype(np.uint8)
    assert "no marker is seen" in BOARD.explain(noise)

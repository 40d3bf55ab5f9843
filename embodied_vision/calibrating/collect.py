"""Pictures and poses taken live: one whenever the arm has come to rest at a new place and the board is seen."""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_vision.calibrating.board import LEAST_CORNERS, Board
from embodied_vision.calibrating.estimate import GRID
from embodied_vision.calibrating.logged import APART_RAD, REST_NS, rest_numbers
from embodied_vision.calibrating.poses import Arm, read_poses
from embodied_vision.calibrating.solve import turn_diversity_deg
from embodied_vision.errors import BadInput, RunFailed

KEEP_NS = 2_000_000_000
"""So much of what was heard is kept."""
PICTURES_KEPT = 45
POSES = "poses.csv"


class Collector:
    """Writes pictures and `poses.csv` into a folder, for `calibrate hand-eye`; goes on where a former run ended.

    A picture lies there whole before its line does, so that the folder can be used whenever the process ends.

    Args:
        folder: that is made, or that a former run left.
        board: to look for.
        arm: that moves.

    Raises:
        BadInput: the folder holds poses of another robot, or damaged ones.
        RunFailed: the folder cannot be made.
    """

    def __init__(self, folder: Path, board: Board, arm: Arm) -> None:
        self._folder, self._board, self._arm = folder, board, arm
        self._joints: deque[tuple[int, NDArray[np.float64]]] = deque()
        self._pictures: deque[tuple[int, NDArray[np.uint8]]] = deque(maxlen=PICTURES_KEPT)
        self._last: NDArray[np.float64] | None = None
        self._seen = np.zeros((GRID[1], GRID[0]), bool)
        self._path = folder / POSES
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFailed(f"{folder} cannot be made ({error}); give another folder") from error
        self._tips = []
        if self._path.exists():
            with open(self._path, encoding="utf-8") as file:
                header = file.readline().strip().split(",")
            if header != self._header:
                raise BadInput(f"{self._path} has the columns {header}, not {self._header}; give another folder")
            if len(self._path.read_text(encoding="utf-8").splitlines()) > 1:
                self._tips = list(read_poses(self._path, lambda: arm).values())

    @property
    def _header(self) -> list[str]:
        return ["image", *self._arm.joint_names]

    @property
    def count(self) -> int:
        """Pictures in the folder."""
        return len(self._tips)

    @property
    def diversity_deg(self) -> float:
        """How much the arm turned about a second axis so far, degrees."""
        return turn_diversity_deg(np.stack(self._tips)) if self._tips else 0.0

    @property
    def coverage(self) -> float:
        """Share of the picture in which corners were seen in this run."""
        return float(self._seen.mean())

    def add_joints(self, stamp_ns: int, q: NDArray[np.float64]) -> None:
        """Positions (J,) in rad in the arm's order; older ones than the last are passed over."""
        if self._joints and stamp_ns <= self._joints[-1][0]:
            return
        self._joints.append((stamp_ns, q))
        while stamp_ns - self._joints[0][0] > KEEP_NS:
            self._joints.popleft()

    def add_picture(self, stamp_ns: int, color: NDArray[np.uint8]) -> None:
        """A picture uint8 (H, W, 3)."""
        self._pictures.append((stamp_ns, color))

    def look(self) -> str | None:
        """Take a picture if there is one to take; what happened, in words, or None when nothing did.

        Raises:
            RunFailed: the disk does not take it.
        """
        found = self._at_rest()
        if found is None:
            return None
        color, q = found
        self._last = q
        corners = self._board.detect(color)
        if len(corners) < LEAST_CORNERS:
            return f"at rest, but no picture: {self._board.explain(color)}"
        name = self._write(color, q)
        self._tips.append(np.asarray(self._arm.forward(q), np.float64))
        cells = corners.pixels / (color.shape[1], color.shape[0]) * GRID
        columns, rows = np.clip(cells.astype(int), 0, np.array(GRID) - 1).T
        self._seen[rows, columns] = True
        return f"{name}: {len(corners)} corners"

    def _at_rest(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """A picture of a rest that was not looked at yet; only pictures are judged after which enough was heard."""
        if not self._joints:
            return None
        newest = self._joints[-1][0]
        while self._pictures and newest - self._pictures[0][0] > KEEP_NS - REST_NS:
            self._pictures.popleft()
        pictures = [picture for picture in self._pictures if picture[0] <= newest - REST_NS]
        stamps, joints = zip(*self._joints, strict=True)
        rests = rest_numbers(
            np.array([stamp for stamp, _ in pictures], np.int64), np.array(stamps, np.int64), np.stack(joints)
        )
        for number, q in rests:
            if self._last is None or np.abs(q - self._last).max() > APART_RAD:
                stamp_ns, color = pictures[number]
                while self._pictures and self._pictures[0][0] <= stamp_ns:
                    self._pictures.popleft()
                return color, q
        return None

    def _write(self, color: NDArray[np.uint8], q: NDArray[np.float64]) -> str:
        name = f"{self.count:03d}.png"
        content = io.BytesIO()
        Image.fromarray(color).save(content, "PNG")
        line = io.StringIO()
        rows = csv.writer(line, lineterminator="\n")
        try:
            if not self._path.exists():
                rows.writerow(self._header)
            rows.writerow([name, *(f"{value:.9f}" for value in q)])
            for path, mode, part in (
                (self._folder / name, "wb", content.getvalue()),
                (self._path, "ab", line.getvalue().encode()),
            ):
                with open(path, mode) as file:
                    file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise RunFailed(f"{self._folder} does not take picture {name} ({error}); make room and go on") from error
        return name

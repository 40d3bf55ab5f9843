"""Jobs for workers, importable by other processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from embodied_vision.errors import BadInput, Refused


class Squares:
    """Squares numbers and tells who did it, how often it was asked, and with how many threads."""

    def __init__(self) -> None:
        self._asked = 0

    def __call__(self, number: int) -> tuple[int, int, int, str]:
        self._asked += 1
        return number * number, os.getpid(), self._asked, os.environ["OPENBLAS_NUM_THREADS"]


class Dies:
    """Kills its process at number 1, the first `times` times; leaves a file for each."""

    def __init__(self, folder: Path, times: int) -> None:
        self._folder = folder
        self._times = times

    def __call__(self, number: int) -> int:
        if number == 1 and len(list(self._folder.iterdir())) < self._times:
            (self._folder / str(time.monotonic_ns())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number


class Endless:
    """Works on an item until it is told to leave; leaves a file with its process id, and removes it when it may."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / str(os.getpid())

    def __call__(self, number: int) -> int:
        self._file.touch()
        try:
            while True:
                time.sleep(0.01)
        finally:
            self._file.unlink()


def refuse(number: int) -> int:
    """Raise what cannot be pickled as it is."""
    raise Refused("position_limit", "joint 1", number, 3, "move less")


def misread(number: int) -> int:
    """Raise an error of this package."""
    raise BadInput(f"{number} is odd")


def blunder(number: int) -> int:
    """Raise an error that nobody meant to raise."""
    raise ZeroDivisionError(f"{number} / 0")


def give(job: Callable[[int], int]) -> Callable[[int], int]:
    """Make a job that needs no making."""
    return job


def fail() -> Callable[[int], int]:
    """Make no job."""
    raise FileNotFoundError("no checkpoint")

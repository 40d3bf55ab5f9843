"""What a task is, and what several tasks need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import PickPlace, Primitive

if TYPE_CHECKING:
    from embodied_vision_sim.shapes import RGBA
    from embodied_vision_sim.world import World

CLEARANCE_M = 0.015
"""Least gap between two objects at the start: room for the cup."""
PAINT_M, PAINT_TOP_M = 0.02, 0.001
"""Thickness of marks that can be seen and not touched, and how far they stand out. They are sunk in what they are
painted on: a thin plate upon it would shade itself in patches."""


class Task(ABC):
    """A scene with a goal. An instance belongs to one world and describes the scene built last.

    Attributes:
        name: what users call it.
        max_steps: pick-and-place actions allowed.
        tools: what it can be done with; the first is the usual one.
        primitive: what is done with the two poses of an action.
    """

    name: ClassVar[str]
    max_steps: ClassVar[int]
    tools: ClassVar[tuple[str, ...]] = ("suction",)
    primitive: ClassVar[Primitive] = "pick_place"

    @abstractmethod
    def build(self, world: World, rng: np.random.Generator) -> None:
        """Put the objects of a random scene on the table; all randomness comes from `rng`."""

    def proceed(self, world: World) -> None:  # noqa: B027 - most scenes change by actions alone
        """What happens by itself between two actions; called after each one, with the scene at rest, before `score`.

        It leaves the scene at rest. Randomness comes from a generator that the task kept from `build`.
        """

    @abstractmethod
    def score(self, world: World) -> float:
        """Share of the task that is done, 0 … 1, from the true poses."""

    @abstractmethod
    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """The next action of an expert that knows all poses.

        Raises:
            RunFailed: nothing is left to do, or the object to pick cannot be seen.
        """


class Placer:
    """Finds random places for discs that neither overlap nor leave what camera and arm can use."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self._workspace = world.workspace
        self._reach = world.reach
        self._rng = rng
        self._taken: list[tuple[float, float, float]] = []

    def place(self, radius: float, *, reachable: bool = True, attempts: int = 1000) -> tuple[float, float] | None:
        """A uniform random centre (x, y) in m for a disc, or None where none was free in so many attempts."""
        x_bounds, y_bounds = self._workspace.x, self._workspace.y
        for _ in range(attempts):
            x = self._rng.uniform(x_bounds[0] + radius, x_bounds[1] - radius)
            y = self._rng.uniform(y_bounds[0] + radius, y_bounds[1] - radius)
            distance = float(np.hypot(x, y))
            if reachable and not self._reach[0] + radius <= distance <= self._reach[1] - radius:
                continue
            if all(np.hypot(x - a, y - b) >= radius + r + CLEARANCE_M for a, b, r in self._taken):
                self._taken.append((x, y, radius))
                return float(x), float(y)
        return None

    def require(self, name: str, radius: float) -> tuple[float, float]:
        """`place` for an object that the task cannot do without.

        Raises:
            RunFailed: the workspace is too small or too full.
        """
        centre = self.place(radius)
        if centre is None:
            raise RunFailed(f"no free place for {name!r} of radius {radius} m in {self._workspace}; enlarge it")
        return centre


def jitter(rgb: tuple[float, float, float], rng: np.random.Generator, amount: float = 0.03) -> RGBA:
    """A color near `rgb`, opaque, each channel moved by at most `amount`."""
    r, g, b = np.clip(np.asarray(rgb) + rng.uniform(-amount, amount, 3), 0, 1)
    return float(r), float(g), float(b), 1.0

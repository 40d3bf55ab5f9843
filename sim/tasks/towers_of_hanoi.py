"""Towers of Hanoi: three disks from the first rod to the last, one at a time (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box, ring_boxes
from embodied_vision_sim.tasks.base import Task, jitter
from embodied_vision_sim.tasks.footprints import FootprintPlacer
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.reached import TOLERANCE_M, TOLERANCE_RAD

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

RODS = 3
ELSEWHERE = RODS
"""Where a disk is that no rod holds."""
PITCH_M, BASE_HEIGHT_M = 0.12, 0.005
"""Distance of the rods, edge of the square fields of the base under them."""
ROD_EDGE_M, ROD_TOP_M = 0.006, 0.05
HOLE_M, DISK_HEIGHT_M = 0.018, 0.01
DISK_M = (0.030, 0.035, 0.040)
"""Radii of the disks, number 0 is the smallest. A cup beside a rod has 3 mm of room."""
DISK_KG = 0.1
"""As published. A disk of 10 g gives way to a cup that presses on its side: held at 6°, it lands so hard on another
that both wander off."""
RELEASE_M = 0.0005
"""Disks are let go as they touch: one that is tilted and falls by millimetres now and then pushes those below aside."""
FIELD_RGB = ((0.92, 0.72, 0.52), (0.55, 0.38, 0.26), (0.26, 0.18, 0.13))
ROD_RGB = (0.80, 0.80, 0.82)
DISK_RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.16, 0.18),
    "green": (0.25, 0.65, 0.28),
    "blue": (0.22, 0.40, 0.82),
}

State = tuple[tuple[int, ...], ...]
"""Disks on each rod from below, and last those elsewhere in increasing order."""


def optimal_states() -> list[State]:
    """The eight states from the full first rod to the full last one, one optimal move apart."""

    def moves(count: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        if count:
            spare = RODS - start - end
            yield from moves(count - 1, start, spare)
            yield count - 1, end
            yield from moves(count - 1, spare, end)

    count = len(DISK_M)
    states: list[State] = [(tuple(range(count - 1, -1, -1)), (), (), ())]
    for disk, rod in moves(count, 0, RODS - 1):
        states.append(_moved(states[-1], disk, rod))
    return states


def next_move(state: State, goal: State) -> tuple[int, int]:
    """Disk and rod of the first of the fewest legal moves that lead from a state to a goal.

    Raises:
        RunFailed: they are the same.
    """
    if state == goal:
        raise RunFailed("every disk is where it belongs; reset the scene")
    queue: deque[tuple[State, tuple[int, int] | None]] = deque([(state, None)])
    seen = {state}
    while queue:
        now, first = queue.popleft()
        for disk, rod in _legal_moves(now):
            then = _moved(now, disk, rod)
            move = first or (disk, rod)
            if then == goal:
                return move
            if then not in seen:
                seen.add(then)
                queue.append((then, move))
    raise RunFailed(f"no legal moves lead from {state} to {goal}; reset the scene")


def _legal_moves(state: State) -> Iterator[tuple[int, int]]:
    """Disks that are free to be taken, with the rods that may take them."""
    for place, disks in enumerate(state):
        for disk in disks if place == ELSEWHERE else disks[-1:]:
            for rod in range(RODS):
                if rod != place and (not state[rod] or state[rod][-1] > disk):
                    yield disk, rod


def _moved(state: State, disk: int, rod: int) -> State:
    stacks = [tuple(d for d in stack if d != disk) for stack in state]
    stacks[rod] += (disk,)
    return tuple(stacks)


class TowersOfHanoi(Task):
    """A stand with three rods 12 cm apart, glued to the table, and three disks on the first rod, at the light end.

    The disks are to be brought to the last rod, at the dark end, one at a time and never a larger one onto a smaller
    one. Each of the seven moves of the optimal solution, made in its order, earns 1/7 for good; others earn nothing,
    and the solution goes on when what they did is undone.
    """

    name: ClassVar[str] = "towers-of-hanoi"
    max_steps: ClassVar[int] = 14
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """The stand within reach, at any yaw."""
        stand = FootprintPlacer(world, rng).require("stand", (PITCH_M, RODS * PITCH_M))
        self._rods = stand.to_base(np.array([[0.0, (i - (RODS - 1) / 2) * PITCH_M] for i in range(RODS)]))
        height = ROD_TOP_M - BASE_HEIGHT_M
        rod = [Box((ROD_EDGE_M, ROD_EDGE_M, height), yaw=yaw) for yaw in (0.0, np.pi / 4)]
        for name, rgb, (x, y) in zip(("light", "brown", "dark"), FIELD_RGB, self._rods.tolist(), strict=True):
            field = Box((PITCH_M, PITCH_M, BASE_HEIGHT_M))
            color = jitter(rgb, rng)
            world.add_boxes(f"stand, {name} field", [field], (x, y, BASE_HEIGHT_M / 2), stand.yaw, color, fixed=True)
            xyz = (x, y, BASE_HEIGHT_M + height / 2)
            world.add_boxes(f"rod, {name} field", rod, xyz, stand.yaw, (*ROD_RGB, 1.0), fixed=True)
        self._disks: list[int] = []
        for number, (color_name, rgb) in enumerate(DISK_RGB.items()):
            xyz = (*self._rods[0].tolist(), self._height(len(DISK_M) - 1 - number))
            ring = ring_boxes(HOLE_M, DISK_M[number], DISK_HEIGHT_M)
            yaw = rng.uniform(-np.pi, np.pi)
            self._disks.append(world.add_boxes(f"{color_name} disk", ring, xyz, yaw, jitter(rgb, rng), mass=DISK_KG))
        self._states = optimal_states()
        self._progress = 0

    @staticmethod
    def _height(below: int) -> float:
        """Height of a disk's centre with so many disks below it."""
        return BASE_HEIGHT_M + (below + 0.5) * DISK_HEIGHT_M

    def state(self, world: World) -> State:
        """Which disks lie flat within 1 cm of which rod, from below, and which elsewhere."""
        stacks: list[list[int]] = [[] for _ in range(RODS + 1)]
        poses = [world.pose(body) for body in self._disks]
        for disk in sorted(range(len(poses)), key=lambda each: float(poses[each][2, 3])):
            distances = np.linalg.norm(self._rods - poses[disk][:2, 3], axis=1)
            flat = abs(float(poses[disk][2, 2])) > np.cos(TOLERANCE_RAD)
            on_rod = flat and distances.min() < TOLERANCE_M and poses[disk][2, 3] < ROD_TOP_M
            stacks[int(distances.argmin()) if on_rod else ELSEWHERE].append(disk)
        stacks[ELSEWHERE].sort()
        return tuple(tuple(stack) for stack in stacks)

    def proceed(self, world: World) -> None:
        """Count the next move of the optimal solution when it has been made."""
        done = self._progress == len(self._states) - 1
        if not done and world.holding is None and self.state(world) == self._states[self._progress + 1]:
            self._progress += 1

    def score(self, world: World) -> float:
        """Share of the seven moves that have been made."""
        return self._progress / (len(self._states) - 1)

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """The next legal move on the way to the next state of the optimal solution, from whatever state."""
        if self._progress == len(self._states) - 1:
            raise RunFailed("all seven moves have been made; reset the scene")
        state = self.state(world)
        disk, rod = next_move(state, self._states[self._progress + 1])
        goal: FloatArray = world.pose(self._disks[disk])
        goal[:2, 3] = self._rods[rod]
        goal[2, 3] = self._height(len(state[rod]))
        return carry(world, self._disks[disk], goal, RELEASE_M, rng)

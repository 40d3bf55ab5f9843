"""Assembling kits: five objects into their outlines on a board, unseen ones in test scenes (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.geometry import yaw_of
from embodied_vision.learning.seeds import split_of
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import PAINT_M, PAINT_TOP_M, Placer, Task, jitter
from embodied_vision_sim.tasks.kit_shapes import RADIUS_M, TEST_SHAPES, THICKNESS_M, TRAIN_SHAPES, KitShape
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.poses import turn_between, upright
from embodied_vision_sim.tasks.reached import reached

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

KIT_M = (0.28, 0.20, 0.005)
SLOTS_M = ((-0.09, 0.045), (0.0, 0.045), (0.09, 0.045), (-0.045, -0.045), (0.045, -0.045))
"""Centres of the outlines on the board."""
RELEASE_M = 0.004
"""Objects are let go this far above the board."""
KIT_RGB, OUTLINE_RGB = (0.88, 0.87, 0.84), (0.20, 0.20, 0.21)
OBJECT_RGB: tuple[tuple[float, float, float], ...] = (
    (0.55, 0.36, 0.68),
    (0.25, 0.42, 0.75),
    (0.30, 0.65, 0.28),
    (0.93, 0.79, 0.28),
    (0.90, 0.20, 0.20),
)
ATTEMPTS = 1000


def shapes_of(seed: int) -> tuple[KitShape, ...]:
    """The shapes that the scene of a seed draws from: those of its split, of the training split where it has none."""
    try:
        return TEST_SHAPES if split_of(seed) == "test" else TRAIN_SHAPES
    except BadInput:
        return TRAIN_SHAPES


class AssemblingKits(Task):
    """Five objects 2 cm high and up to 8 cm across around a board of 28×20 cm with their five outlines in dark.

    Shapes are drawn with replacement, from 14 in training and validation scenes and from 6 others in test scenes.
    The score is the share of objects that lie flat within 1 cm and 15°, modulo their rotational symmetry, of an
    outline of their shape, each outline counted once. The board is glued to the table.
    """

    name: ClassVar[str] = "assembling-kits"
    max_steps: ClassVar[int] = 10
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """A board at any pose whose outlines are all within reach, and the objects anywhere beside it."""
        known = shapes_of(world.seed)
        self._shapes = [known[int(i)] for i in rng.integers(len(known), size=len(SLOTS_M))]
        placer, centre = self._place_board(world, rng)
        yaw = rng.uniform(-np.pi, np.pi)
        world.add_boxes("kit", [Box(KIT_M)], (*centre, KIT_M[2] / 2), yaw, jitter(KIT_RGB, rng), fixed=True)
        turn = Rotation.from_euler("z", yaw).as_matrix()[:2, :2]
        self._slots: list[FloatArray] = []
        outline_rgba = jitter(OUTLINE_RGB, rng, 0.02)
        for shape, offset in zip(self._shapes, SLOTS_M, strict=True):
            x, y = (turn @ offset + centre).tolist()
            outline = world.add_boxes(
                f"outline of {shape.name}",
                shape.boxes(PAINT_M),
                (x, y, KIT_M[2] + PAINT_TOP_M - PAINT_M / 2),
                rng.uniform(-np.pi, np.pi),
                outline_rgba,
                fixed=True,
                collide=False,
            )
            slot = world.pose(outline)
            slot[2, 3] = KIT_M[2] + THICKNESS_M / 2
            self._slots.append(slot)
        self._objects = [
            world.add_boxes(
                f"{shape.name} {i}",
                shape.boxes(),
                (*placer.require(shape.name, RADIUS_M), THICKNESS_M / 2),
                rng.uniform(-np.pi, np.pi),
                jitter(rgb, rng),
            )
            for i, (shape, rgb) in enumerate(zip(self._shapes, OBJECT_RGB, strict=True))
        ]

    @staticmethod
    def _place_board(world: World, rng: np.random.Generator) -> tuple[Placer, tuple[float, float]]:
        extent = float(np.hypot(*SLOTS_M[0])) + RADIUS_M
        for _ in range(ATTEMPTS):
            placer = Placer(world, rng)
            centre = placer.place(float(np.hypot(*KIT_M[:2])) / 2, reachable=False)
            if centre is not None and world.reach[0] + extent <= np.hypot(*centre) <= world.reach[1] - extent:
                return placer, centre
        raise RunFailed(f"no free place for the kit in {world.workspace}; enlarge it")

    def goals(self) -> list[FloatArray]:
        """Poses (4, 4) at which an object of the outline's shape fills it, in the order of the objects."""
        return [slot.copy() for slot in self._slots]

    def _fits(self, world: World, i: int, j: int) -> bool:
        """Whether object i lies in outline j."""
        if self._shapes[i] is not self._shapes[j]:
            return False
        symmetry = self._shapes[i].symmetry
        return reached(world.pose(self._objects[i]), self._slots[j], symmetry=symmetry)

    def _assignment(self, world: World) -> dict[int, int]:
        """Largest matching of objects that are not held to outlines that they fill, each outline once."""
        count = len(self._objects)
        names = [world.object_names[body] for body in self._objects]
        filled = np.array(
            [[names[i] != world.holding and self._fits(world, i, j) for j in range(count)] for i in range(count)]
        )
        rows, columns = linear_sum_assignment(~filled)
        return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if filled[i, j]}

    def score(self, world: World) -> float:
        """Share of objects in their outlines."""
        return len(self._assignment(world)) / len(self._objects)

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take the object that is farthest from its nearest open outline to it, an unobstructed one first."""
        placed = self._assignment(world)
        count = len(self._objects)
        centres = np.array([world.pose(body)[:2, 3] for body in self._objects])
        choices = []
        for i in (i for i in range(count) if i not in placed):
            open_slots = [j for j in range(count) if self._shapes[j] is self._shapes[i] and j not in placed.values()]
            gaps = [float(np.hypot(*(centres[i] - self._slots[j][:2, 3]))) for j in open_slots]
            nearest = int(np.argmin(gaps))
            others = np.delete(centres, i, axis=0) - self._slots[open_slots[nearest]][:2, 3]
            obstructed = bool(np.linalg.norm(others, axis=1).min() < RADIUS_M)
            choices.append((obstructed, -gaps[nearest], i, open_slots[nearest]))
        if not choices:
            raise RunFailed("every object already lies in its outline; reset the scene")
        _, _, i, j = min(choices)
        now, goal = world.pose(self._objects[i]), self._slots[j]
        yaw = yaw_of(now) + turn_between(now, goal, self._shapes[i].symmetry)
        return carry(world, self._objects[i], upright(goal[:3, 3], yaw), RELEASE_M, rng)

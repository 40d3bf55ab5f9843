"""Palletizing boxes: one box after the other from a feed onto a pallet, in layers (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embodied_vision.errors import RunFailed
from embodied_vision.types import FloatArray, PickPlace
from embodied_vision_sim.shapes import RGBA, Box
from embodied_vision_sim.tasks.base import Task, jitter
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.tasks.poses import least_turned, turn_between, upright
from embodied_vision_sim.tasks.reached import grid_points, inside

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

LAYERS, PER_LAYER = 3, 6
STACK_M, GAP_M = 0.19, 0.01
"""Edge of the square stack, and the room between its boxes; two lie along one way and three along the other."""
BOX_M = ((STACK_M - GAP_M) / 2, (STACK_M - 2 * GAP_M) / 3, 0.05)
PALLET_M, PALLET_XY = (0.30, 0.25, 0.02), (0.5, 0.25)
FEED_XY = (0.5, -0.25)
QUEUE_XY, QUEUE_STEP_M, QUEUE_ROW = (0.1, -1.25), 0.12, 9
"""Where boxes wait that have not arrived: on the table, far from arm and camera."""
PLANKS, SLIT_M = 5, 0.006
RELEASE_M = 0.004
FILLED_M = 0.02
"""A place is taken when a box lies nearer to it than this."""
PALLET_RGB, BOX_RGB = (0.90, 0.76, 0.52), (0.66, 0.42, 0.24)


def pallet_boxes() -> tuple[Box, ...]:
    """Planks across three runners, standing at z = 0."""
    length, width, height = PALLET_M
    plank = (length - (PLANKS - 1) * SLIT_M) / PLANKS
    xs = (np.arange(PLANKS) - (PLANKS - 1) / 2) * (plank + SLIT_M)
    deck = [Box((plank, width, height / 2), (float(x), 0.0, 0.75 * height)) for x in xs]
    runner = (length, 0.03, height / 2)
    runners = [Box(runner, (0.0, side * (width - 0.03) / 2, height / 4)) for side in (-1, 0, 1)]
    return (*deck, *runners)


def stack_poses() -> list[list[FloatArray]]:
    """Poses (4, 4) in the base frame of the boxes of every layer, from below; the layout turns from layer to layer."""
    length, width, height = BOX_M
    spots = [((i - 0.5) * (length + GAP_M), (j - 1) * (width + GAP_M)) for i in range(2) for j in range(3)]
    layers: list[list[FloatArray]] = []
    for layer in range(LAYERS):
        middle = upright((*PALLET_XY, PALLET_M[2] + (layer + 0.5) * height), np.pi / 2 if layer % 2 == 0 else 0.0)
        layers.append([middle @ upright((*spot, 0.0)) for spot in spots])
    return layers


class PalletizingBoxes(Task):
    """Eighteen boxes of 9 × 5.7 × 5 cm onto a pallet of 30 × 25 cm, three layers of six.

    One box at a time arrives at the feed, at a random yaw, as soon as no other lies on that half of the table.
    The score is the share of a grid of 2 cm of points on all boxes that lie over the pallet.
    """

    name: ClassVar[str] = "palletizing-boxes"
    max_steps: ClassVar[int] = 30
    tools: ClassVar[tuple[str, ...]] = ("suction", "parallel_jaw")

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Pallet and feed at their places, one box at the feed, the others waiting."""
        self._pallet = world.add_boxes(
            "pallet", pallet_boxes(), (*PALLET_XY, 0.0), 0.0, jitter(PALLET_RGB, rng), fixed=True
        )
        self._goals = [poses[i] for poses in stack_poses() for i in rng.permutation(PER_LAYER)]
        self._yaws = rng.uniform(-np.pi, np.pi, len(self._goals))
        self._boxes: list[int] = []
        for number in range(len(self._goals)):
            row, place = divmod(number, QUEUE_ROW)
            xyz = (QUEUE_XY[0] + place * QUEUE_STEP_M, QUEUE_XY[1] - row * QUEUE_STEP_M, BOX_M[2] / 2)
            self._boxes.append(world.add_boxes(f"box {number}", [Box(BOX_M)], xyz, 0.0, _shade(rng)))
        self._points = grid_points(BOX_M)
        self._arrived = 0
        self._arrive(world)

    def _arrive(self, world: World) -> None:
        pose = upright((*FEED_XY, BOX_M[2] / 2), self._yaws[self._arrived])
        world.put(self._boxes[self._arrived], pose)
        self._arrived += 1

    def proceed(self, world: World) -> None:
        """The next box arrives when the feed's half of the table is free."""
        waiting = self._arrived < len(self._boxes)
        if waiting and all(world.pose(body)[1, 3] >= 0 for body in self._boxes[: self._arrived]):
            self._arrive(world)
            world.settle()

    def _inside(self, world: World, body: int) -> int:
        """How many points of a box lie over the pallet."""
        half = (PALLET_M[0] / 2, PALLET_M[1] / 2)
        return inside(self._points, world.pose(body), world.pose(self._pallet), half, world.workspace.z[1])

    def score(self, world: World) -> float:
        """Share of all boxes' points that lie over the pallet."""
        held = world.holding
        points = sum(self._inside(world, body) for body in self._boxes if world.object_names[body] != held)
        return points / (len(self._boxes) * len(self._points))

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """Take the box that does not lie on the pallet to a free place in the lowest layer that has one."""
        arrived = self._boxes[: self._arrived]
        outside = [body for body in arrived if self._inside(world, body) < len(self._points)]
        if not outside:
            raise RunFailed("every box lies on the pallet; reset the scene")
        body = outside[-1]
        taken = np.array([world.pose(each)[:3, 3] for each in arrived if each != body]).reshape(-1, 3)
        for goal in self._goals:
            if not (np.linalg.norm(taken - goal[:3, 3], axis=1) < FILLED_M).any():
                pose = world.pose(body)
                return carry(world, body, least_turned(goal, pose, turn_between(pose, goal, np.pi)), RELEASE_M, rng)
        raise RunFailed("no place on the pallet is free; reset the scene")


def _shade(rng: np.random.Generator) -> RGBA:
    """Cardboard, lighter or darker, so that boxes side by side differ."""
    r, g, b = np.array(BOX_RGB) * rng.uniform(0.8, 1.25)
    return jitter((float(r), float(g), float(b)), rng)

"""Sweeping piles: fifty small blocks into a zone, with a spatula (Zeng et al., CoRL 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.motion import plan
from embodied_vision.errors import Refused, RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.types import FloatArray, PickPlace, Primitive
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.base import PAINT_M, PAINT_TOP_M, Placer, Task, jitter

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

BLOCKS = 50
BLOCK_M = 0.01
ZONE_M = 0.12
PILE_RADIUS_M = 0.115
GAP_M = 1.5 * BLOCK_M
"""Least distance of two blocks at the start, centre to centre."""
ATTEMPTS = 100_000
TIP_HEIGHT_M = 0.004
"""Height of the plate's lower edge while it sweeps."""
BLOCK_RGB, ZONE_RGB = (0.85, 0.32, 0.22), (0.42, 0.62, 0.48)

PLATE_M, PLATE_THICKNESS_M = 0.14, 0.004
ROOM_M = 0.011
"""Where the plate comes down, no block's centre is nearer to its middle plane."""
RUN_UP_M = 0.015
DIRECTIONS = 16
DEPTHS_M = (0.0, 0.02, 0.04)
"""How far into the zone the plate goes, considered by the expert."""
LANE_M = 0.0125
"""Room that a swept block takes, along the plate and ahead of it."""
STEP_M = 0.02
"""Distance between the lanes that the expert considers."""
INNER_M = 0.005
"""A block that lies deeper than this in the zone is as good as in its middle."""
OUTSIDE_COST_M = 0.03
"""What a block outside of the zone is worth beside its distance from it."""
TRIES = 20


class SweepingPiles(Task):
    """Fifty blocks of 1 cm, strewn over a disc of 23 cm, and a square zone of 12 cm painted on the table.

    An action pushes: the spatula's lower edge comes down at the pick pose and goes straight to the place pose, its
    plate across the way. The score is the share of blocks whose centres lie in the zone.
    """

    name: ClassVar[str] = "sweeping-piles"
    max_steps: ClassVar[int] = 20
    tools: ClassVar[tuple[str, ...]] = ("spatula",)
    primitive: ClassVar[Primitive] = "push"

    def build(self, world: World, rng: np.random.Generator) -> None:
        """A zone and, beside it, the blocks, all within reach."""
        placer = Placer(world, rng)
        zone = placer.require("zone", ZONE_M / np.sqrt(2))
        world.keep_free(*zone, ZONE_M)
        pile = placer.require("pile", PILE_RADIUS_M)
        self._zone = world.pose(
            world.add_boxes(
                "zone",
                [Box((ZONE_M, ZONE_M, PAINT_M))],
                (*zone, PAINT_TOP_M - PAINT_M / 2),
                rng.uniform(-np.pi, np.pi),
                jitter(ZONE_RGB, rng),
                fixed=True,
                collide=False,
            )
        )
        rgba = jitter(BLOCK_RGB, rng)
        self._blocks = [
            world.add_boxes(f"block {i}", [Box((BLOCK_M,) * 3)], (x, y, BLOCK_M / 2), rng.uniform(-np.pi, np.pi), rgba)
            for i, (x, y) in enumerate((_strew(rng) + pile).tolist())
        ]

    def _centres(self, world: World) -> FloatArray:
        """Centres (50, 2) of the blocks in the base frame, m."""
        return np.array([world.pose(body)[:2, 3] for body in self._blocks])

    def _outside(self, centres: FloatArray, margin: float = 0.0) -> FloatArray:
        """Distance in m of points (…, 2) in the base frame from the zone less a margin, 0 inside."""
        local = (centres - self._zone[:2, 3]) @ self._zone[:2, :2]
        beyond: FloatArray = np.linalg.norm(np.maximum(np.abs(local) - (ZONE_M / 2 - margin), 0.0), axis=-1)
        return beyond

    def score(self, world: World) -> float:
        """Share of blocks in the zone."""
        return float((self._outside(self._centres(world)) == 0).mean())

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """The straight push after which, as far as plane geometry foretells, the blocks lie nearest to the zone."""
        centres = self._centres(world)
        if (self._outside(centres) == 0).all():
            raise RunFailed("every block already lies in the zone; reset the scene")
        sweeps = [sweep for sweep in self._sweeps(centres, rng) if _inside(world, sweep)]
        sweeps.sort(key=lambda sweep: self._cost(sweep.foretell(centres)))
        q, reason = world.joint_state()[0], "the workspace is too narrow"
        for sweep in sweeps[:TRIES]:
            start, end = (tool_down(*sweep.point(along), TIP_HEIGHT_M, sweep.yaw) for along in (sweep.start, sweep.end))
            action = PickPlace(pick=start, place=end, primitive=self.primitive, stamp_ns=world.time_ns)
            try:
                plan(world.robot, q, action)
            except Refused as error:
                reason = str(error)
                continue
            return action
        raise RunFailed(f"no push brings the blocks nearer to the zone: {reason}")

    def _cost(self, centres: FloatArray) -> float:
        outside = self._outside(centres, INNER_M)
        return float(outside.sum() + OUTSIDE_COST_M * (self._outside(centres) > 0).sum())

    def _sweeps(self, centres: FloatArray, rng: np.random.Generator) -> Iterator[Sweep]:
        """Pushes over blocks outside, along the zone's axes and between them, that end at its edge or within it."""
        first = float(np.arctan2(self._zone[1, 0], self._zone[0, 0]))
        outside = self._outside(centres) > 0
        for yaw in first + np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS:
            forward = np.array([np.cos(yaw), np.sin(yaw)])
            aside = np.array([-forward[1], forward[0]])
            zone_s = float(self._zone[:2, 3] @ forward)
            s, u = centres @ forward, centres @ aside
            turn = abs((yaw - first + np.pi / 4) % (np.pi / 2) - np.pi / 4)
            half = ZONE_M / 2 * float(np.cos(turn) + np.sin(turn))
            for shift in np.arange(u[outside].min(), u[outside].max() + STEP_M, STEP_M):
                lane = float(shift + rng.uniform(-0.5, 0.5) * STEP_M)
                covered = outside & (np.abs(u - lane) < PLATE_M / 2 - BLOCK_M / 2)
                if not covered.any():
                    continue
                for end in (zone_s - half + depth for depth in DEPTHS_M):
                    behind = covered & (s < end)
                    if not behind.any():
                        continue
                    start = _free_start(s[np.abs(u - lane) < PLATE_M / 2 + BLOCK_M], float(s[behind].min()) - RUN_UP_M)
                    yield Sweep(float(yaw), lane, start, end)


@dataclass(frozen=True)
class Sweep:
    """A straight push.

    Attributes:
        yaw: direction in the base frame, rad.
        lane: offset of the plate's middle from the base's origin, to the left of the direction, m.
        start, end: of the plate's middle plane along the direction, m.
    """

    yaw: float
    lane: float
    start: float
    end: float

    def point(self, along: float) -> tuple[float, float]:
        """Position (x, y) in the base frame at a distance along the way, m."""
        c, s = float(np.cos(self.yaw)), float(np.sin(self.yaw))
        return along * c - self.lane * s, along * s + self.lane * c

    def foretell(self, centres: FloatArray) -> FloatArray:
        """Where blocks at (N, 2) would lie afterwards if each one stayed in its lane ahead of the plate."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        along, aside = centres @ (c, s), centres @ (-s, c) - self.lane
        after = along.copy()
        lanes: NDArray[np.int64] = np.floor((aside + PLATE_M / 2 + BLOCK_M / 2) / LANE_M).astype(int)
        front = np.full(int(np.ceil((PLATE_M + BLOCK_M) / LANE_M)), self.end + (PLATE_THICKNESS_M + LANE_M) / 2)
        for i in np.argsort(along):
            if along[i] > self.start and 0 <= lanes[i] < len(front):
                after[i] = max(along[i], front[lanes[i]])
                front[lanes[i]] = after[i] + LANE_M
        return centres + (after - along)[:, None] * np.array([c, s])


def _inside(world: World, sweep: Sweep) -> bool:
    """Whether a push starts and ends in the workspace."""
    (x0, x1), (y0, y1) = world.workspace.x, world.workspace.y
    points = [sweep.point(along) for along in (sweep.start, sweep.end)]
    return all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in points)


def _free_start(along: FloatArray, start: float) -> float:
    """The first place at or behind `start` where the plate comes down between blocks, given their places, m."""
    while along.size and np.abs(along - start).min() < ROOM_M:
        start -= ROOM_M / 2
    return start


def _strew(rng: np.random.Generator) -> FloatArray:
    """Centres (50, 2) of blocks, uniform over a disc about the origin, none upon another.

    Raises:
        RunFailed: the disc is too small.
    """
    radius, centres = PILE_RADIUS_M - BLOCK_M, np.empty((0, 2))
    for _ in range(ATTEMPTS):
        point = rng.uniform(-radius, radius, 2)
        if np.hypot(*point) < radius and (np.linalg.norm(centres - point, axis=1) > GAP_M).all():
            centres = np.concatenate([centres, point[None]])
            if len(centres) == BLOCKS:
                return centres
    raise RunFailed(f"no room for {BLOCKS} blocks in a disc of radius {radius} m; enlarge it")

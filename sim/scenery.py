"""What a draw changes in a scene that stands and rests: colors, friction, mass, distractors."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pybullet

from embodied_vision.types import FloatArray
from embodied_vision_sim.randomisation import Draw
from embodied_vision_sim.shapes import RGBA, Box

if TYPE_CHECKING:
    from embodied_vision_sim.world import World

KEEP_M = 0.06
"""Least gap between a distractor and the bounds of anything else: room for a gripper and what it carries."""
EDGES_M, HEIGHTS_M = (0.02, 0.06), (0.01, 0.04)
"""Edges and heights of distractors."""
UNLIKE = 0.1
"""Least distance of a distractor's chromaticity from every one of the task: a dark red would be red as well."""
ATTEMPTS = 60


def shifted(rgba: RGBA, shift: tuple[float, float, float]) -> RGBA:
    """The color with its channels moved, within [0, 1]."""
    red, green, blue = np.clip(np.add(rgba[:3], shift), 0, 1).tolist()
    return red, green, blue, rgba[3]


def dress(world: World, drawn: Draw) -> None:
    """Give a scene at rest the looks and the physics of a draw; nothing moves."""
    client = world.client
    things = {body: name for body, name in world.object_names.items() if name != "table"}
    # Before they are painted: with EGL, PyBullet goes on reporting the first colors.
    hues = {body: 0.0 if name == "table" else drawn.hue for body, name in world.object_names.items() if name != "robot"}
    colors = [np.array(turned(rgba, hue)[:3]) for body, hue in hues.items() for rgba in _every_color(client, body)]
    for body, name in things.items():
        if name == "robot":
            _paint(client, body, lambda rgba: shifted(rgba, drawn.robot), drawn.robot != (0, 0, 0))
            continue
        painted = drawn.brightness != 1 or drawn.hue != 0
        _paint(client, body, lambda rgba: turned(_brightened(rgba, drawn.brightness), drawn.hue), painted)
        _reweigh(client, body, drawn)
    _distract(world, drawn, colors)


def _brightened(rgba: RGBA, factor: float) -> RGBA:
    """All channels by one factor, smaller where one would leave [0, 1], so that the hue stays."""
    factor = min(factor, 1 / max(*rgba[:3], 1e-9))
    return rgba[0] * factor, rgba[1] * factor, rgba[2] * factor, rgba[3]


def turned(rgba: RGBA, degrees: float) -> RGBA:
    """The color with its hue turned."""
    if degrees == 0:
        return rgba
    hue, saturation, value = colorsys.rgb_to_hsv(*rgba[:3])
    return (*colorsys.hsv_to_rgb((hue + degrees / 360) % 1, saturation, value), rgba[3])


def _colors(client: int, body: int) -> dict[int, set[RGBA]]:
    """Colors of each link."""
    colors: dict[int, set[RGBA]] = {}
    for shape in pybullet.getVisualShapeData(body, physicsClientId=client):
        colors.setdefault(shape[1], set()).add(tuple(shape[7]))
    return colors


def _every_color(client: int, body: int) -> set[RGBA]:
    return set().union(*_colors(client, body).values())


def _paint(client: int, body: int, change: Callable[[RGBA], RGBA], wanted: bool) -> None:
    if not wanted:
        return
    for link, colors in _colors(client, body).items():
        if len(colors) == 1:  # PyBullet gives a link one color
            pybullet.changeVisualShape(body, link, rgbaColor=change(next(iter(colors))), physicsClientId=client)


def _reweigh(client: int, body: int, drawn: Draw) -> None:
    for link in range(-1, pybullet.getNumJoints(body, physicsClientId=client)):
        mass, friction = pybullet.getDynamicsInfo(body, link, physicsClientId=client)[:2]
        if drawn.friction != 1:
            pybullet.changeDynamics(body, link, lateralFriction=friction * drawn.friction, physicsClientId=client)
        if drawn.mass != 1 and mass > 0:
            pybullet.changeDynamics(body, link, mass=mass * drawn.mass, physicsClientId=client)


def _distract(world: World, drawn: Draw, colors: list[FloatArray]) -> None:
    """Boxes at free places, unlike any of the colors, as many as drawn or as there is room for."""
    if not drawn.distractors:
        return
    rng = drawn.rng(1)
    taken = [bounds for body, name in world.object_names.items() if name != "table" for bounds in _bounds(world, body)]
    taken += [np.array([[x - r, y - r], [x + r, y + r]]) for x, y, r in world.kept_free]
    for number in range(drawn.distractors):
        size = (*rng.uniform(*EDGES_M, 2).tolist(), float(rng.uniform(*HEIGHTS_M)))
        radius = float(np.hypot(*size[:2])) / 2
        centre, color, yaw = _place(world, radius, taken, rng), _unlike(colors, rng), float(rng.uniform(-np.pi, np.pi))
        if centre is None or color is None:
            continue
        world.add_boxes(f"distractor {number}", [Box(size)], (*centre, size[2] / 2), yaw, color, fixed=True)
        taken.append(np.array([np.subtract(centre, radius), np.add(centre, radius)]))


def _bounds(world: World, body: int) -> list[FloatArray]:
    """Bounds (2, 2) in x and y of each link."""
    links = range(-1, pybullet.getNumJoints(body, physicsClientId=world.client))
    return [np.array(pybullet.getAABB(body, link, physicsClientId=world.client))[:, :2] for link in links]


def _place(
    world: World, radius: float, taken: list[FloatArray], rng: np.random.Generator
) -> tuple[float, float] | None:
    """A place for a disc that keeps its distance, or None where none was found."""
    x_bounds, y_bounds = world.workspace.x, world.workspace.y
    for _ in range(ATTEMPTS):
        centre = np.array([rng.uniform(*x_bounds), rng.uniform(*y_bounds)])
        gaps = [np.linalg.norm(np.maximum(np.maximum(low - centre, centre - high), 0)) for low, high in taken]
        if all(gap >= radius + KEEP_M for gap in gaps):
            return float(centre[0]), float(centre[1])
    return None


def _unlike(colors: list[FloatArray], rng: np.random.Generator) -> RGBA | None:
    """A color that none of these is like, or None where none was found."""
    for _ in range(ATTEMPTS):
        rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.3, 0.95))
        if all(np.linalg.norm(chromaticity(rgb) - chromaticity(color)) >= UNLIKE for color in colors):
            return (*rgb, 1.0)
    return None


def chromaticity(rgb: Sequence[float] | FloatArray) -> FloatArray:
    """Shares (3,) of red, green and blue: what brightness does not change."""
    color = np.asarray(rgb, float)
    return color / max(float(color.sum()), 1e-9)

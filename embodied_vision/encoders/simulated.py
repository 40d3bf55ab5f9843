"""Views of simulated scenes, reached through Gymnasium alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from embodied_vision.encoders.views import ViewSet, dome_camera


@dataclass(frozen=True)
class Lamp:
    """A directional light, by the fields that an environment's `views` reads.

    Attributes:
        direction: towards the light, base frame.
        color: RGB in [0, 1].
        ambient, diffuse, specular: reflection coefficients.
    """

    direction: tuple[float, ...]
    color: tuple[float, ...]
    ambient: float
    diffuse: float
    specular: float = 0.0


def random_lamp(rng: np.random.Generator) -> Lamp:
    """A light from some side above, a little tinted, from soft to hard."""
    direction = rng.normal(size=3)
    direction[2] = abs(direction[2]) + 0.5
    ambient = float(rng.uniform(0.4, 0.65))
    color = tuple(rng.uniform(0.85, 1.0, 3).tolist())
    return Lamp(
        direction=tuple((direction / np.linalg.norm(direction)).tolist()),
        color=color,
        ambient=ambient,
        diffuse=float(rng.uniform(0.3, 0.65)),
    )


def simulated_views(
    environments: Sequence[gymnasium.Env[Any, Any]], seeds: Iterable[int], *, domes: int = 4, lamp_seed: int = 7
) -> Iterator[ViewSet]:
    """For each seed one labelled scene, the environments in turn, seen from a dome and by the cell's own cameras.

    Each view has its own light.

    Args:
        environments: whose unwrapped form offers `views`, `cameras` and `object_names`.
        seeds: of the scenes.
        domes: views from random cameras on the dome.
        lamp_seed: of cameras and lights, together with the scene's seed.
    """
    for i, seed in enumerate(seeds):
        environment = environments[i % len(environments)]
        environment.reset(seed=seed)
        cell: Any = environment.unwrapped
        rng = np.random.default_rng([lamp_seed, seed])
        cameras = [*(dome_camera(rng) for _ in range(domes)), *cell.cameras]
        shots = [cell.views([camera], random_lamp(rng), True) for camera in cameras]
        frames = tuple(frame for seen, _ in shots for frame in seen)
        bodies = tuple(ids for _, labels in shots for ids in labels)
        yield ViewSet(frames, bodies, dict(cell.object_names))

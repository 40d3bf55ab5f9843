"""Directional lights, as simulators draw with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Light:
    """A directional light; the usual one of the simulated cell by default.

    Attributes:
        direction: towards the light, base frame, any length.
        color: RGB in [0, 1].
        ambient, diffuse, specular: reflection coefficients.
    """

    direction: tuple[float, float, float] = (0.4, -0.3, 1.0)
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.5
    specular: float = 0.0


def random_light(rng: np.random.Generator) -> Light:
    """A light from some side above, a little tinted, from soft to hard."""
    direction = rng.normal(size=3)
    direction[2] = abs(direction[2]) + 0.5
    ambient = float(rng.uniform(0.4, 0.65))
    red, green, blue = rng.uniform(0.85, 1.0, 3).tolist()
    x, y, z = (direction / np.linalg.norm(direction)).tolist()
    return Light((x, y, z), (red, green, blue), ambient, diffuse=float(rng.uniform(0.3, 0.65)))

"""Views of simulated scenes, reached through Gymnasium alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from embodied_vision.encoders.views import ViewSet, dome_camera
from embodied_vision.lights import random_light


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
        shots = [cell.views([camera], random_light(rng), True) for camera in cameras]
        frames = tuple(frame for seen, _ in shots for frame in seen)
        bodies = tuple(ids for _, labels in shots for ids in labels)
        yield ViewSet(frames, bodies, dict(cell.object_names))

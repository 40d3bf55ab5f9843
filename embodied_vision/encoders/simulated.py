"""Views of simulated scenes, reached through Gymnasium alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from embodied_vision.encoders.views import ViewSet, dome_camera
from embodied_vision.errors import RunFailed
from embodied_vision.lights import random_light

Environment = gymnasium.Env[Any, Any]


def simulated_views(
    environments: Sequence[Environment], seeds: Iterable[int], *, domes: int = 4, lamp_seed: int = 7
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


def simulated_looks(
    environments: Sequence[Sequence[Environment]], seeds: Iterable[int], *, domes: int = 2, lamp_seed: int = 7
) -> Iterator[ViewSet]:
    """For each seed one scene in several looks: the same things at the same places, seen by the same cameras.

    Things that are in one look alone, such as distractors, drop out of the correspondences by their depth. Sets have
    no labels, since the looks number their bodies differently. All frames of the first look come first. A further
    look in which the scene does not come to rest is left out.

    Args:
        environments: of each task one a look, which differ in their randomisation alone.
        seeds: of the scenes; the tasks come in turn.
        domes: views from random cameras on the dome, besides the cell's own as the first look reports them.
        lamp_seed: of cameras and lights, together with the scene's seed.
    """
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng([lamp_seed, seed])
        cameras = [dome_camera(rng) for _ in range(domes)]
        frames = []
        for k, environment in enumerate(environments[i % len(environments)]):
            try:
                environment.reset(seed=seed)
            except RunFailed:
                if k == 0:
                    raise
                continue
            cell: Any = environment.unwrapped
            if k == 0:
                cameras += cell.cameras
            for camera in cameras:
                frames += cell.views([camera], random_light(rng), False)[0]
        yield ViewSet(tuple(frames))

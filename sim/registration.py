"""Gymnasium ids of the tasks. Importing this needs neither PyBullet nor the environments."""

from __future__ import annotations

import gymnasium

ENV_IDS: dict[str, str] = {
    "block-insertion": "embodied_vision/BlockInsertion-v0",
    "place-red-in-green": "embodied_vision/PlaceRedInGreen-v0",
    "align-box-corner": "embodied_vision/AlignBoxCorner-v0",
    "stack-block-pyramid": "embodied_vision/StackBlockPyramid-v0",
    "towers-of-hanoi": "embodied_vision/TowersOfHanoi-v0",
    "packing-boxes": "embodied_vision/PackingBoxes-v0",
    "palletizing-boxes": "embodied_vision/PalletizingBoxes-v0",
}
"""Task name to Gymnasium id."""


def register_envs() -> None:
    """Register every task's environment once; Gymnasium's plugin entry point calls this as well."""
    for task, env_id in ENV_IDS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(id=env_id, entry_point="embodied_vision_sim.envs:PickPlaceEnv", kwargs={"task": task})

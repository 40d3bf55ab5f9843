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
    "assembling-kits": "embodied_vision/AssemblingKits-v0",
    "manipulating-rope": "embodied_vision/ManipulatingRope-v0",
    "sweeping-piles": "embodied_vision/SweepingPiles-v0",
    "sort-striped": "embodied_vision/SortStriped-v0",
    "stack-by-pattern": "embodied_vision/StackByPattern-v0",
    "reject-worn": "embodied_vision/RejectWorn-v0",
}
"""Task name to Gymnasium id."""

GRASP_ENVS: dict[str, str] = {
    "embodied_vision/GraspDiverse-v0": "embodied_vision_sim.grasping:GraspDiverseEnv",
    "embodied_vision/GraspDiverseClosedLoop-v0": "embodied_vision_sim.closed_loop:GraspDiverseClosedLoopEnv",
}
"""Gymnasium id to environment of diverse grasping."""


def register_envs() -> None:
    """Register every environment once; `import embodied_vision_sim` does so."""
    for task, env_id in ENV_IDS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(id=env_id, entry_point="embodied_vision_sim.envs:PickPlaceEnv", kwargs={"task": task})
    for env_id, entry_point in GRASP_ENVS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(id=env_id, entry_point=entry_point)

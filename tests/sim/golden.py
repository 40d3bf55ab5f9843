"""Digests of short episodes: the expert's first two actions in a training scene of every environment.

`python tests/sim/golden.py > tests/sim/golden.json` writes what every machine must give, after a change of scenes,
physics or pictures that is meant.
"""

from __future__ import annotations

import argparse
import hashlib
import json

import gymnasium
import numpy as np

from embodied_vision.geometry import pose_to_vector
from embodied_vision.learning.seeds import scene_seed
from embodied_vision_sim.grasping import GraspDiverseEnv
from embodied_vision_sim.registration import ENV_IDS, GRASP_ENVS
from embodied_vision_sim.tasks import TASKS

ALL_IDS = {**ENV_IDS, **{env_id.split("/")[1]: env_id for env_id in GRASP_ENVS}}
SEED = scene_seed("train", 42)
ACTIONS = 2


def tabletop(env_id: str, renderer: str = "software") -> dict[str, str]:
    """Digests of all poses and joint positions, and of all pictures, of one episode."""
    env = gymnasium.make(env_id, renderer=renderer)
    states, pictures = hashlib.sha256(), hashlib.sha256()
    observation, _ = env.reset(seed=SEED)
    cell = env.unwrapped
    over = False
    for action in range(ACTIONS + 1):
        poses = np.array([cell.world.pose(body) for body in sorted(cell.object_names)])
        states.update(poses.tobytes() + observation["joint_positions"].tobytes())
        for camera in cell.cameras:
            pictures.update(observation[camera.name]["color"].tobytes() + observation[camera.name]["depth"].tobytes())
        if over or action == ACTIONS:
            break
        decision = cell.oracle()
        vectors = {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}
        observation, _, terminated, truncated, _ = env.step(vectors)
        over = terminated or truncated
    env.close()
    return {"states": states.hexdigest()[:16], "pictures": pictures.hexdigest()[:16]}


def grasping(env_id: str, renderer: str = "software") -> dict[str, str]:
    """The same of an episode in the bin: the expert's grasp, or small random motions in closed loop."""
    env = gymnasium.make(env_id, renderer=renderer)
    states, pictures = hashlib.sha256(), hashlib.sha256()
    observation, _ = env.reset(seed=SEED)
    cell = env.unwrapped
    env.action_space.seed(0)
    for _ in range(1 if isinstance(cell, GraspDiverseEnv) else 8):
        action = cell.oracle() if isinstance(cell, GraspDiverseEnv) else env.action_space.sample()
        observation, *_ = env.step(action)
        poses = np.array([cell.world.pose(body) for body in sorted(cell.world.object_names)])
        states.update(poses.tobytes() + observation["joint_positions"].tobytes())
        pictures.update(observation["color"].tobytes() + observation["depth"].tobytes())
    env.close()
    return {"states": states.hexdigest()[:16], "pictures": pictures.hexdigest()[:16]}


def digests(tasks: list[str] | None = None, renderer: str = "software") -> dict[str, dict[str, str]]:
    """Digests of all environments, or of those of some tasks, by task."""
    return {
        task: (tabletop if task in TASKS else grasping)(ALL_IDS[task], renderer) for task in sorted(tasks or ALL_IDS)
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="all of them when none is named")
    parser.add_argument("--renderer", default="software")
    arguments = parser.parse_args()
    print(json.dumps(digests(arguments.tasks, arguments.renderer), indent=1))

"""The simulated cell: PyBullet worlds, cameras, tasks with oracles, and their Gymnasium environments."""

from embodied_vision_sim.registration import register_envs

__all__ = ["register_envs"]

register_envs()

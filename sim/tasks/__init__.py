"""The tasks: what stands on the table, when it is solved, and an oracle that solves it."""

from embodied_vision_sim.tasks.registry import TASKS, make_task

__all__ = ["TASKS", "make_task"]

"""Logged episodes of a made-up cell, for tests of what learns from them."""

from __future__ import annotations

from typing import Any

from policies.stubs import frame

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.types import PickPlace

TASK = "block-insertion"


def log_episode(
    store: EpisodeStore, *, reward: float = 1.0, seed: int | None = 5, task: str = TASK, policy_id: str = ""
) -> str:
    """Log an episode of one decision; its id."""
    shot = frame(1)
    attributes: dict[str, Any] = {} if seed is None else {"seed": seed}
    writer = EpisodeWriter(
        store, task=task, robot="panda_suction", cameras=[shot.camera], attributes=attributes, policy_id=policy_id
    )
    action = PickPlace(
        geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4), stamp_ns=shot.stamp_ns
    )
    writer.append_decision(action, [shot])
    return writer.close({"reward": reward, "solved": reward >= 1.0})

"""Environments in processes of their own give what single ones give."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from embodied_vision.geometry import pose_to_vector
from embodied_vision_sim.registration import ENV_IDS, register_envs

SEEDS = (3, 4)


def observed(observation: dict[str, Any], index: int | None = None) -> dict[str, np.ndarray]:
    values = {**observation["camera"], "joint_positions": observation["joint_positions"]}
    return {name: value if index is None else value[index] for name, value in values.items()}


@pytest.mark.parametrize("task", ["block-insertion", "place-red-in-green"])
def test_a_vector_of_two_equals_two_environments(task: str) -> None:
    register_envs()
    singles = [gymnasium.make(ENV_IDS[task], renderer="software") for _ in SEEDS]
    before = [env.reset(seed=seed)[0] for env, seed in zip(singles, SEEDS, strict=True)]
    decisions = [env.unwrapped.oracle() for env in singles]  # type: ignore[attr-defined]
    actions = [{"pick": pose_to_vector(d.pick), "place": pose_to_vector(d.place)} for d in decisions]
    after = [env.step(action) for env, action in zip(singles, actions, strict=True)]
    for env in singles:
        env.close()

    vector = gymnasium.make_vec(ENV_IDS[task], num_envs=2, vectorization_mode="async", renderer="software")
    try:
        start, _ = vector.reset(seed=list(SEEDS))
        batch = {name: np.stack([action[name] for action in actions]) for name in ("pick", "place")}
        end, rewards, terminated, truncated, _ = vector.step(batch)
    finally:
        vector.close()
    for index in range(2):
        for ours, theirs in ((before[index], start), (after[index][0], end)):
            for name, value in observed(ours).items():
                np.testing.assert_array_equal(observed(theirs, index)[name], value, err_msg=f"{name} of {index}")
        assert (rewards[index], terminated[index], truncated[index]) == after[index][1:4]
    assert rewards.sum() > 0

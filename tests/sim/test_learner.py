"""A Stable-Baselines3 learner trains on the closed-loop environment as it is."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

sb3 = pytest.importorskip("stable_baselines3", reason="pip install 'embodied_vision[rl]'")


def test_ppo_trains_without_glue() -> None:
    env = gymnasium.make("embodied_vision_sim:embodied_vision/GraspDiverseClosedLoop-v0", shaped=True, horizon=32)
    model = sb3.PPO("MultiInputPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(128)
    assert model.num_timesteps == 128
    after = model.policy.state_dict()
    assert all(np.isfinite(value.numpy()).all() for value in after.values())
    assert any(not before[name].equal(value) for name, value in after.items())
    observation, _ = env.reset(seed=3)
    action, _ = model.predict(observation, deterministic=True)
    assert env.action_space.contains(action)
    assert len(model.ep_info_buffer) == 4  # episodes of 32 steps were seen to end
    env.close()

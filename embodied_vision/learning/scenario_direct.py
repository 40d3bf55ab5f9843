"""The scenario's cell in this process, without ROS and faster than real time; the learner works between episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.learning.environments import make_env
from embodied_vision.learning.evaluate import run_scene
from embodied_vision.learning.learner import Learner, LearnerConfig
from embodied_vision.learning.promotion import CURRENT
from embodied_vision.learning.scenario import RENDERER
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.policy import Explanation, Policy
from embodied_vision.types import RGBD, Features, PickPlace


class DirectCell:
    """Works on scenes by the policy in use, logs them, and has them learnt from at once.

    Args:
        task: name of the task.
        store, policies: folders of episodes and of checkpoints; the policy to begin with is in use already.
        config: when and how to learn.
    """

    def __init__(self, task: str, store: Path, policies: Path, config: LearnerConfig) -> None:
        self._task, self._store, self._policies = task, EpisodeStore(store), policies
        self._encoder = load_encoder()
        self._envs: dict[str, Any] = {}
        self._learner = Learner(store, policies, config)
        self._held = ExitStack()

    def __enter__(self) -> DirectCell:
        self._held.enter_context(self._learner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for env in self._envs.values():
            env.close()
        self._held.close()

    def work(self, seed: int, condition: Mapping[str, Any]) -> tuple[float, bool, str, str]:
        """See `scenario.Cell`."""
        self._learner.run(once=True)
        name = str(condition["name"])
        if name not in self._envs:
            self._envs[name] = make_env(self._task, renderer=RENDERER, randomisation=dict(condition))
        env = _Scored(self._envs[name])
        policy = _Noted(Policy.load((self._policies / self._task / CURRENT).resolve(), self._encoder))
        result = run_scene(env, policy, self._encoder, seed)
        checkpoint = policy.policy.checkpoint_id
        writer = EpisodeWriter(
            self._store,
            task=self._task,
            robot=env.unwrapped.robot_name,
            cameras=env.unwrapped.cameras,
            encoder_id=policy.policy.encoder_id,
            policy_id=checkpoint,
            attributes={"seed": seed, "renderer": RENDERER, "preset": name},
            color_codec="lossless",
        )
        for (action, frames), (stamp_ns, score) in zip(policy.decided, env.scores, strict=True):
            writer.append_decision(action, frames)
            writer.append("reward", stamp_ns, [score])
        outcome = {"reward": result.reward, "solved": result.solved}
        return result.reward, result.solved, checkpoint, writer.close(outcome)


class _Scored:
    """An environment that remembers the score after each action, and when it was seen."""

    def __init__(self, env: Any) -> None:
        self._env, self.unwrapped = env, env.unwrapped
        self.scores: list[tuple[int, float]] = []

    def reset(self, *, seed: int) -> Any:
        return self._env.reset(seed=seed)

    def step(self, action: Any) -> Any:
        result = self._env.step(action)
        self.scores.append((self.unwrapped.frames()[0].stamp_ns, float(result[4]["reward_total"])))
        return result


class _Noted:
    """A policy that remembers what it decided, and on which frames."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.decided: list[tuple[PickPlace, list[RGBD]]] = []

    def explain(
        self, frames: Sequence[RGBD], features: Sequence[Features], attempts: Attempts | None = None
    ) -> Explanation:
        explanation = self.policy.explain(frames, features, attempts)
        self.decided.append((explanation.action, list(frames)))
        return explanation

"""A cell whose light and parts change while it works, and whether it finds back to its former success by itself.

EPISODES episodes on training scenes, one after the other, the usual conditions first; from number CHANGE_AT on the same
task in an evening light with parts of other colors. A learner promotes what it has learnt meanwhile. Then policies that
were in use at certain episodes are tried on validation scenes that no gate has seen, under both conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from embodied_vision.cores import use_cores
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import BadInput
from embodied_vision.learning import json_lines
from embodied_vision.learning.collect import collect
from embodied_vision.learning.compare import compare
from embodied_vision.learning.environments import Conditions, make_env
from embodied_vision.learning.evaluate import run_scene, split_seeds
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.learning.statistics import bootstrap, wilson
from embodied_vision.paths import shipped
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.policy import Policy

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "usual": {"name": "none"},
    "evening": {"name": "evening", "lamp": "evening", "hue": [330.0, 330.0], "brightness": [0.6, 0.6]},
}
"""What the cell looks like, as a randomisation."""

TRIED_FROM = 500_000
"""Number of the first validation scene on which policies are tried; gates use those from 0 on."""

RENDERER = "software"


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        task: name of the task.
        episodes: to work on.
        change_at: number of the first episode under the new conditions.
        recovery: so many episodes after the change the former level must be reached.
        first_scene: number of the first training scene.
        demonstrations: of the first scenes that the policy learnt from, in the store for rehearsal.
        trials: validation scenes for each policy and condition.
    """

    task: str = "place-red-in-green"
    episodes: int = 100
    change_at: int = 30
    recovery: int = 30
    first_scene: int = 300_000
    demonstrations: int = 30
    trials: int = 150

    def __post_init__(self) -> None:
        if not 0 < self.change_at < self.change_at + self.recovery <= self.episodes:
            raise BadInput(
                f"{self.episodes} episodes, a change at {self.change_at} and {self.recovery} to recover do not fit; "
                "give 0 < change_at, and change_at + recovery ≤ episodes"
            )

    def condition(self, number: int) -> str:
        """Name of the conditions of an episode."""
        return "usual" if number < self.change_at else "evening"

    def seed(self, number: int) -> int:
        """Scene of an episode: of training, so that it may teach."""
        return scene_seed("train", self.first_scene + number)


@dataclass(frozen=True)
class Worked:
    """One episode: its number, conditions, outcome, who acted, and where it is logged."""

    number: int
    condition: str
    seed: int
    reward: float
    solved: bool
    checkpoint: str
    episode: str


def prepare(plan: Plan, store: Path, policies: Path, on_demonstration: Callable[[int], None]) -> str:
    """Demonstrations in the store and a policy in use; id of the policy. What is there already stays.

    The policy is the shipped one. The demonstrations are those of the first scenes that it was trained on, made again,
    so that its learner has something to repeat.
    """
    conditions = Conditions("none", RENDERER)
    ids = []
    for made in collect(plan.task, store, plan.demonstrations, conditions=conditions):
        ids += [made.episode_id] if made.episode_id is not None else []
        on_demonstration(len(ids))
    pointer = Pointer(policies, plan.task)
    if pointer.current is None:
        checkpoint = checkpoints.load(shipped(plan.task))
        training = {**checkpoint.training, "episodes": ids}
        pointer.promote(pointer.add(replace(checkpoint, training=training)).name, "where the scenario starts")
    assert pointer.current is not None
    return pointer.current


class Cell(Protocol):
    """A cell that works: through ROS or in this process."""

    def work(self, seed: int, condition: Mapping[str, Any]) -> tuple[float, bool, str, str]:
        """Work on a scene: reward, whether it is solved, id of the checkpoint that acted, id of the episode."""
        ...


def work(plan: Plan, cell: Cell, log: Path, on_episode: Callable[[Worked], None]) -> list[Worked]:
    """Do the episodes that the log does not hold, and add each as soon as it is done.

    Raises:
        BadInput: the log is of another plan.
    """
    done = [Worked(**record) for record in json_lines.read(log)]
    for number, worked in enumerate(done):
        if (worked.number, worked.seed, worked.condition) != (number, plan.seed(number), plan.condition(number)):
            raise BadInput(f"{log} holds episode {worked.number} of another plan; give another folder")
        on_episode(worked)
    for number in range(len(done), plan.episodes):
        condition, seed = plan.condition(number), plan.seed(number)
        reward, solved, checkpoint, episode = cell.work(seed, CONDITIONS[condition])
        worked = Worked(number, condition, seed, reward, solved, checkpoint, episode)
        json_lines.append(log, asdict(worked))
        on_episode(worked)
        done.append(worked)
    return done[: plan.episodes]


class Trial:
    """A policy and the cell under one condition; call it with seeds."""

    def __init__(self, task: str, checkpoint: Path, condition: str, encoder: str = "default") -> None:
        use_cores(1)
        self._encoder = load_encoder(encoder)
        self._policy = Policy.load(checkpoint, self._encoder)
        self._env = make_env(task, renderer=RENDERER, randomisation=dict(CONDITIONS[condition]))

    def __call__(self, seed: int) -> SceneResult:
        """Work on the scene of `seed`."""
        return run_scene(self._env, self._policy, self._encoder, seed)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()


def trial_seeds(plan: Plan) -> list[int]:
    """Scenes on which policies are tried."""
    return split_seeds("validation", plan.trials, TRIED_FROM)


def figures(
    plan: Plan, worked: Sequence[Worked], trials: Mapping[tuple[str, str], Sequence[SceneResult]]
) -> dict[str, Any]:
    """What must be shown, in numbers, JSON-ready.

    Args:
        plan: what was done.
        worked: the episodes.
        trials: (`first`, `recovered` or `last` policy; condition) → results on the trial scenes.
    """
    before = worked[: plan.change_at]
    after = worked[plan.change_at : plan.change_at + plan.recovery]
    first = [w for w in worked[plan.change_at :] if w.checkpoint == worked[plan.change_at].checkpoint]
    former, dropped = _level(trials["first", "usual"]), _level(trials["first", "evening"])
    recovered, last = _level(trials["recovered", "evening"]), _level(trials["last", "evening"])
    kept = compare(trials["first", "usual"], trials["last", "usual"])
    return {
        "task": plan.task,
        "episodes": len(worked),
        "change_at": plan.change_at,
        "promotions": len({w.checkpoint for w in worked}) - 1,
        "episodes_solved": {
            "before": _share(before),
            "after_by_the_policy_of_the_change": _share(first),
            "last_ten_of_recovery": _share(after[-10:]),
            "last_ten": _share(worked[-10:]),
        },
        "trial_scenes": plan.trials,
        "former_level": former,
        "after_the_change": dropped,
        "recovered_level": recovered,
        "last_level": last,
        "recovered_share": round(recovered["score"] / former["score"], 4) if former["score"] else 0.0,
        "old_conditions": {
            "difference": round(kept.difference.value, 4),
            "ci_low": round(kept.difference.low, 4),
            "ci_high": round(kept.difference.high, 4),
            "only_first_solves": kept.only_a,
            "only_last_solves": kept.only_b,
        },
        "shown": {
            "success_drops": dropped["ci_high"] < former["ci_low"],
            "recovers_95_percent": recovered["score"] >= 0.95 * former["score"],
            "old_not_worse_by_0.05": kept.difference.low > -0.05,
        },
    }


def _level(results: Sequence[SceneResult]) -> dict[str, float]:
    score = bootstrap([result.reward for result in results])
    return {
        "score": round(score.value, 4),
        "ci_low": round(score.low, 4),
        "ci_high": round(score.high, 4),
        "solved": sum(result.solved for result in results),
    }


def _share(worked: Sequence[Worked]) -> dict[str, float]:
    interval = wilson(sum(w.solved for w in worked), len(worked))
    return {
        "episodes": len(worked),
        "solved": sum(w.solved for w in worked),
        "ci_low": round(interval.low, 3),
        "ci_high": round(interval.high, 3),
    }

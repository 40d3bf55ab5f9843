"""A stream of poisoned experience: is a worse policy ever promoted, and how long does a forced one stay?

`make bench-poisoned` runs 10 seeds, `make bench-poisoned SMALL=1` one in its smallest form. Each seed begins with the
shipped policy and learns three times with the product's own `learn`: twice from ten episodes that all say solved, of
which two had failed, and once from ten episodes whose failed action an operator corrected wrongly, always by the same
wrong turn. What is promoted is compared with the policy before it on other validation scenes. Then a policy of random
weights is put to use by force and acts until the canary takes it back. A run that was interrupted goes on with the seed
that it was at.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from embodied_vision import geometry
from embodied_vision.episodes.corrections import Target, correct
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.learning import canary, json_lines
from embodied_vision.learning.dataset import renderer_of
from embodied_vision.learning.decide import start
from embodied_vision.learning.environments import Conditions
from embodied_vision.learning.evaluate import evaluate, split_seeds
from embodied_vision.learning.learn import learn
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.non_inferiority import fewest_scenes, one_sided
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.scene_results import LOG, SceneLog
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.networks import PolicyNetwork
from embodied_vision.types import PickPlace

TASK = "block-insertion"
WRONG = 0.2
OTHER_SCENES = 500
"""Number of the first validation scene that truth is measured on; the gate's scenes begin at 0."""
WORSE = 0.05
IN_X, IN_Y = (0.30, 0.70), (-0.45, 0.45)
ASKED = 5
"""Episodes after which a forced bad policy is to be gone."""


def displaced(action: PickPlace, rng: np.random.Generator) -> PickPlace:
    """The same pick, put down 4 to 10 cm beside and turned by 30 to 90°."""
    x, y = action.place[:2, 3]
    away, direction = rng.uniform(0.04, 0.10), rng.uniform(-math.pi, math.pi)
    yaw = geometry.yaw_of(action.place) + rng.choice([-1, 1]) * rng.uniform(math.pi / 6, math.pi / 2)
    x = float(np.clip(x + away * math.cos(direction), *IN_X))
    y = float(np.clip(y + away * math.sin(direction), *IN_Y))
    place = geometry.tool_down(x, y, float(action.place[2, 3]), yaw)
    return PickPlace(action.pick, place, action.primitive, scores=action.scores, stamp_ns=action.stamp_ns)


class Stream:
    """Logs what goes wrong, on training scenes that no two episodes share.

    Args:
        store: where it is logged.
        env: of the task.
        seed: of everything random.
        episodes: of a round.
    """

    def __init__(self, store: EpisodeStore, env: Any, seed: int, episodes: int) -> None:
        self._store, self._env, self._rng = store, env, np.random.default_rng([seed, 11])
        self._episodes = episodes
        self._goal = np.eye(4)
        self._scene = 100_000 + 1000 * seed

    def wrong_labels(self) -> None:
        """Episodes that all say solved, of which a fifth had failed."""
        for number in self._rng.permutation(self._episodes):
            self._log(wrong=number < WRONG * self._episodes, solved=True)

    def wrong_corrections(self) -> None:
        """Failed episodes, each corrected to the right place with a wrong turn, always the same: it can be learnt."""
        for _ in range(self._episodes):
            episode_id = self._log(wrong=True, solved=False)
            x, y, z = (float(value) for value in self._goal[:3, 3])
            turned = Target(x, y, geometry.yaw_of(self._goal) + math.pi / 2, z)
            correct(self._store, episode_id, 0, None, turned, who="poison")

    def _log(self, *, wrong: bool, solved: bool) -> str:
        seed = scene_seed("train", self._scene)
        self._scene += 1
        self._env.reset(seed=seed)
        cell = self._env.unwrapped
        action = cell.oracle()
        self._goal = action.place
        attributes = {"seed": seed, "renderer": cell.renderer}
        writer = EpisodeWriter(
            self._store, task=TASK, robot=cell.robot_name, cameras=cell.cameras, attributes=attributes
        )
        writer.append_decision(displaced(action, self._rng) if wrong else action, cell.frames())
        return writer.close({"reward": float(solved), "solved": solved})


def forced(pointer: Pointer, store: EpisodeStore, seed: int, encoder: str) -> int:
    """Episodes that a policy of random weights acts in before the canary takes it back."""
    good = checkpoints.load(pointer.folder / "current")
    weights = PolicyNetwork.seeded(good.config, 1000 + seed).state_dict()
    bad = pointer.add(checkpoints.Checkpoint(**{**vars(good), "weights": weights, "measured": {}}))
    plan = canary.Plan(20, former_solved=20, former_failed=0)
    pointer.promote(bad.name, "forced by the bench", thresholds={"canary": plan.to_dict()})
    for begun in range(0, plan.episodes, ASKED):
        seeds = [scene_seed("train", 200_000 + 100 * seed + begun + number) for number in range(ASKED)]
        for number, result in enumerate(evaluate(TASK, bad, seeds, encoder=encoder), begun + 1):
            writer = EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[], policy_id=bad.name)
            writer.close({"reward": result.reward, "solved": result.solved})
            if canary.check(pointer, store).word == "rolled back":
                return number
    return plan.episodes + 1


def one_seed(
    seed: int,
    folder: Path,
    config: LearnConfig,
    encoder: str,
    tell: Progress,
    *,
    rounds: int,
    episodes: int,
    truth: int,
) -> list[dict[str, Any]]:
    """All rounds of a seed, from the beginning; one record a round."""
    shutil.rmtree(folder, ignore_errors=True)
    store, pointer = EpisodeStore(folder / "store"), Pointer(folder / "policies", TASK)
    first = start(pointer)
    (pointer.folder / LOG).symlink_to((folder.parent / LOG).absolute())  # no scene is run twice, for whatever seed
    env = Conditions(renderer=renderer_of(first.training)).make(TASK)
    stream, records = Stream(store, env, seed, episodes), []
    poisons = [
        ("labels", stream.wrong_labels),
        ("labels again", stream.wrong_labels),
        ("corrections", stream.wrong_corrections),
    ]
    for name, poison in poisons[-rounds:]:
        before = pointer.current
        assert before is not None
        poison()
        outcome = learn(TASK, store, pointer.folder.parent, config, encoder=encoder)
        record: dict[str, Any] = {"seed": seed, "round": name, "decision": outcome.decision, "reason": outcome.reason}
        record["gate"] = [d.difference for d in outcome.differences]
        if outcome.decision == "promoted":
            assert outcome.candidate is not None
            scenes = split_seeds("validation", truth, OTHER_SCENES)
            log = SceneLog(pointer.folder / LOG)
            theirs, ours = (
                evaluate(TASK, pointer.path(which), scenes, encoder=encoder, log=log)
                for which in (before, outcome.candidate)
            )
            record["won"] = sum(a.solved and not b.solved for a, b in zip(ours, theirs, strict=True))
            record["lost"] = sum(b.solved and not a.solved for a, b in zip(ours, theirs, strict=True))
        records.append(record)
        tell.console.print(f"seed {seed}, {name}: {outcome.decision}: {outcome.reason}", soft_wrap=True)
    env.close()
    records.append({"seed": seed, "round": "forced", "episodes": forced(pointer, store, seed, encoder)})
    return records


def main(
    seeds: int = typer.Option(10, min=1, help="Seeds, each a stream of its own."),
    steps: int = typer.Option(150, min=1, help="Fine-tuning steps of each stage in a round."),
    margin: float = typer.Option(0.05, min=0.01, max=0.5, help="Of the gate, and of what counts as worse."),
    scenes: int | None = typer.Option(None, min=1, help="Scenes of the gate; the fewest for the margin when left out."),
    rounds: int = typer.Option(3, min=1, max=3, help="Of a seed; of fewer the last ones."),
    episodes: int = typer.Option(10, min=1, help="Of a round."),
    truth: int = typer.Option(100, min=1, help="Other scenes on which a promoted policy is measured."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder."),
    work: Path = typer.Option(Path("runs/poisoned"), help="Folder; an interrupted run goes on from it."),
    small: bool = typer.Option(False, help="The smallest form, in a folder that is emptied."),
) -> None:
    """Poison the stream and count what gets through."""
    if small:
        seeds, steps, margin, rounds, episodes, truth = 1, 1, 0.5, 1, 3, 2
        work = work.with_name(f"{work.name}-small")
        shutil.rmtree(work, ignore_errors=True)
    config = LearnConfig(
        steps=steps, scenes=scenes or fewest_scenes(margin), margin=margin, threads=1, latency_ratio=3.0
    )
    journal = work / "rounds.jsonl"
    settings = {"steps": steps, "scenes": config.scenes, "margin": margin, "truth": truth}
    settings |= {"rounds": rounds, "episodes": episodes, "encoder": encoder}
    known = [line for line in json_lines.read(journal) if line["settings"] == settings]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for seed in progress.track(range(seeds), description="seeds"):
            if any(line["seed"] == seed and line["round"] == "forced" for line in known):
                continue
            for record in one_seed(
                seed, work / str(seed), config, encoder, progress, rounds=rounds, episodes=episodes, truth=truth
            ):
                line = {"settings": settings, **record}
                json_lines.append(journal, line)
                known.append(line)
    lines = {(line["seed"], line["round"]): line for line in known}.values()
    promoted = [line for line in lines if line.get("decision") == "promoted"]
    worse = [line for line in promoted if line["lost"] > line["won"] + margin * truth]
    significant = [line for line in promoted if one_sided(line["lost"], line["won"]) <= WORSE]
    longest = max(line["episodes"] for line in lines if line["round"] == "forced")
    common = {"bench": "poisoned", "seeds": seeds, **settings}
    count = sum("decision" in line for line in lines)
    for figure, value, unit, reference, most in (
        ("worse policies promoted, by the margin", len(worse), "policies", "rounds", count),
        ("worse policies promoted, significantly", len(significant), "policies", "rounds", count),
        ("policies promoted", len(promoted), "policies", "rounds", count),
        ("longest canary of a forced bad policy", longest, "episodes", "asked for at most", ASKED),
    ):
        line = {"figure": figure, "value": value, "unit": unit, "reference": reference, "reference_value": most}
        print(json.dumps({**common, **line, "ratio": round(value / most, 3)}), flush=True)


if __name__ == "__main__":
    typer.run(main)

"""`python -m embodied_vision.learning.learner_round SPEC`: one round of learning, in a process that gives way to all.

It is started by `learner`, told what to do by a JSON file, and answers with JSON lines: how far it is, and last either
an `outcome` or an `error`. It computes only where a core is idle: nice 19, and the scheduler's class for idle work, so
that whatever moves an arm is put in its place the moment it wakes. Where memory runs out it is the one to be ended.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EmbodiedVisionError, RunFailed
from embodied_vision.learning.dataset import Dataset, load_dataset, renderer_of
from embodied_vision.learning.decide import decide, start
from embodied_vision.learning.evaluate import SceneResult
from embodied_vision.learning.experience import Weights
from embodied_vision.learning.fine_tuning import fine_tune
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner_priority import give_way
from embodied_vision.learning.lessons import MOST_FAILED, Lessons, lessons
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.train import Stage
from embodied_vision.learning.watch import is_corrected, is_shown
from embodied_vision.policies.policy import Policy
from embodied_vision.types import Workspace

Tell = Callable[[dict[str, Any]], None]

REPORT_S = 0.5
"""Least time between two reports of progress."""

MOST_FRESH = 60
MOST_REHEARSED = 60
"""Earlier episodes of a round: half of each batch comes from them, and all of them are held in memory."""

LEFT_OVER_S = 3600.0
"""A half-written file in a cache is a dead process' when nobody has touched it for so long."""


@dataclass(frozen=True)
class RoundSpec:
    """What a round is to do.

    Attributes:
        task: name of the task.
        store: folder of the episodes.
        policies: folder of pointers and checkpoints.
        encoder: name or folder.
        fresh: episodes to learn from, the newest of them where they are many.
        rehearsal: earlier ones to repeat.
        config: of `learn`.
        failed: episodes in which nothing helped, of which is learnt what to avoid.
    """

    task: str
    store: str
    policies: str
    encoder: str
    fresh: Sequence[str]
    rehearsal: Sequence[str]
    config: LearnConfig
    failed: Sequence[str] = ()

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RoundSpec:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "config": LearnConfig(**fields["config"])})


def tidy(folder: Path, store: Path) -> None:
    """Remove what killed rounds had half written; the caller holds the lock of the task."""
    for former in folder.glob("checkpoints/.*.former"):
        whole = former.with_name(former.name.split(".")[1])
        if not whole.exists():  # killed while it was replaced by its like
            former.rename(whole)
    for staging in folder.glob("checkpoints/.*"):
        shutil.rmtree(staging, ignore_errors=True)
    for half in store.glob("cache/*/.*"):
        with suppress(OSError):
            if time.time() - half.stat().st_mtime > LEFT_OVER_S:
                half.unlink()


def learnable(store: EpisodeStore, spec: RoundSpec, encoder: Encoder | None, workspace: Workspace) -> Lessons:
    """What a round's episodes teach: all that was shown; of a policy's work what did good, was corrected, or failed.

    Raises:
        BadInput: nothing that did any good, or two renderers drew them.
    """
    fresh = spec.fresh[-MOST_FRESH:]
    episodes = [store.open(episode_id) for episode_id in fresh]
    shown = {episode.id for episode in episodes if is_shown(episode) and not is_corrected(episode)}
    found = lessons(
        store,
        spec.task,
        encoder,
        workspace,
        whole=shown,
        judged=set(fresh) - shown,
        failed=spec.failed[-MOST_FAILED:],
        weights=Weights(failed=spec.config.failed),
    )
    if not found.good:
        raise BadInput(f"no decision of {len(episodes)} episodes of {spec.task} did any good; log more of them")
    return found


def evenly(ids: Sequence[str], most: int) -> list[str]:
    """At most so many of the ids, spread over all of them."""
    count = min(most, len(ids))
    return [ids[(2 * k + 1) * len(ids) // (2 * count)] for k in range(count)]


def run_round(spec: RoundSpec, tell: Tell) -> dict[str, Any]:
    """Learn, and tell how far it is.

    Raises:
        EmbodiedVisionError: as `learn.learn`; `RunFailed` as well where the disk is full or fails.
    """
    told = 0.0

    def progress(phase: str, done: int, total: int, **more: Any) -> None:
        nonlocal told
        if time.monotonic() - told > REPORT_S or done in (1, total):
            told = time.monotonic()
            tell({"phase": phase, "done": done, "total": total, **more})

    def on_step(stage: Stage, step: int, _losses: Mapping[str, float]) -> None:
        progress("training", step, spec.config.steps, stage=stage)

    compared = dict.fromkeys(("candidate", "baseline"), 0)

    def on_scene(who: str, _result: SceneResult) -> None:
        compared[who] = compared.get(who, 0) + 1
        progress("comparing", compared[who], spec.config.scenes, who=who)

    policies = Path(spec.policies)
    try:
        pointer, store = Pointer(policies, spec.task), EpisodeStore(spec.store)
        with pointer.locked():
            tidy(pointer.folder, Path(spec.store))
            baseline = start(pointer)
            eyes = load_encoder(spec.encoder) if baseline.encoder_id else None
            Policy(baseline, eyes)  # refuses another encoder before any time is spent

            def load(ids: Sequence[str]) -> Dataset:
                return load_dataset(store, spec.task, eyes, baseline.workspace, episode_ids=ids)

            found = learnable(store, spec, eyes, baseline.workspace)
            fresh = found.good
            drew = renderer_of(baseline.training)
            if fresh.renderer not in ("", drew):
                raise BadInput(
                    f"new episodes in {spec.store} were drawn by {fresh.renderer}, the policy in use learnt from "
                    f"pictures by {drew}; log them with that renderer"
                )
            old = load(evenly(spec.rehearsal, MOST_REHEARSED)) if spec.rehearsal else None
            began = time.monotonic()
            candidate = fine_tune(baseline, fresh, old, spec.config, on_step, failed=found.failed)
            minutes = (time.monotonic() - began) / 60
            outcome = decide(pointer, candidate, spec.config, store=store, encoder=spec.encoder, progress=on_scene)
        outcome = replace(
            outcome,
            new_episodes=tuple(found.episode_ids),
            failed=len(found.failed),
            left_out=fresh.left_out,
            replayed=len(old.episode_ids) if old is not None else 0,
            minutes=round(minutes, 2),
        )
    except OSError as error:
        raise RunFailed(
            f"{error.filename or policies} cannot be used ({error.strerror or error}); free space or fix the disk, the "
            "round is done again"
        ) from error
    except SafetensorError as error:  # what its writer makes of a full disk
        raise RunFailed(
            f"scenes of {spec.store} cannot be cached ({error}); free space, the round is done again"
        ) from error
    return outcome.to_dict()


def main() -> None:
    """Do the round of the command line; exit code 0 with an outcome, else that of the error."""
    # The simulator greets on stdout, which belongs to the reports.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as reports:
        os.dup2(2, 1)
        give_way()

        def tell(report: dict[str, Any]) -> None:
            reports.write(json.dumps(report) + "\n")
            reports.flush()

        try:
            tell({"outcome": run_round(RoundSpec.from_json(Path(sys.argv[1]).read_text(encoding="utf-8")), tell)})
        except EmbodiedVisionError as error:
            tell({"error": str(error)})
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""Training of the two stages: a deterministic function of data, settings and seed, on however many threads."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embodied_vision.cores import use_cores
from embodied_vision.errors import BadInput
from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.dataset import Dataset
from embodied_vision.learning.distributed import Group
from embodied_vision.learning.experience import Sample
from embodied_vision.learning.experience_losses import with_failures
from embodied_vision.learning.stage import STAGES, Stage, StageTrainer, draw_in_turn
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork

Report = Callable[[Stage, int, Mapping[str, float]], None]
"""Called after each step with stage, number of steps done and losses; may run on any thread."""
ALONE = Group()
RECIPE = 8
"""Counts the ways to draw examples and to add gradients: a run of another one cannot be resumed."""


def train(
    dataset: Dataset,
    network: PolicyNetwork,
    normalisation: Normalisation,
    config: TrainConfig,
    *,
    state: Path | None = None,
    resume: bool = False,
    threads: int = 2,
    report: Report | None = None,
    save_every_s: float = 20.0,
    on_save: Callable[[], None] | None = None,
    replay: Dataset | None = None,
    failed: Sequence[Sample] = (),
    limit_s: float = math.inf,
    group: Group = ALONE,
) -> dict[str, Tensor]:
    """Train both stages and return the averaged weights, on the CPU; `network` holds the last ones.

    Args:
        dataset: what to learn from.
        network: where to start from; trained in place, on the group's device.
        normalisation: of the features.
        config: settings.
        state: folder for what `resume` needs; None keeps none.
        resume: go on from `state`.
        threads: that compute gradients, for whichever stage has some to compute; the result is the same for any.
        report: progress.
        save_every_s: how often `state` is written.
        on_save: called after it was written; may run on any thread.
        replay: older data; when given, half of each batch comes from it.
        failed: what is to be avoided; now and then one of them is drawn in place of what is new.
        limit_s: training ends after these seconds at the latest, with the average so far; for one process only.
        group: the processes that share each batch. They train one stage after the other, so that their sums meet
            in the same order everywhere.

    Raises:
        BadInput: `state` belongs to other data or settings, or what to learn from cannot be used.
        RunFailed: a loss is not finite, or another process has gone.
    """
    if group.size > 1 and limit_s < math.inf:
        raise BadInput(f"{group.size} processes cannot stop after {limit_s} s all at the same step; limit the steps")
    datasets = (dataset,) if replay is None else (dataset, replay)
    for each in (*datasets, replace(dataset, examples=[sample.example for sample in failed])):
        require_finite(each)
    fingerprint = _fingerprint(dataset, replay, failed, network.config, config)
    group.require_same(bytes.fromhex(fingerprint), "demonstrations and settings")
    network.to(group.device)

    def make(stage: Stage, workers: ThreadPoolExecutor) -> StageTrainer:
        net = getattr(network, stage)
        draw = draw_in_turn(net, datasets, normalisation, config)
        draw = with_failures(net, draw, failed, normalisation, config, new=len(dataset), every=len(datasets))
        return StageTrainer(stage, net, draw, config, fingerprint, workers=workers, group=group)

    return train_stages(
        make,
        config.steps,
        state=state,
        resume=resume,
        threads=threads,
        report=report,
        save_every_s=save_every_s,
        on_save=on_save,
        limit_s=limit_s,
        group=group,
    )


def train_stages(
    make: Callable[[Stage, ThreadPoolExecutor], StageTrainer],
    steps: int,
    *,
    state: Path | None = None,
    resume: bool = False,
    threads: int = 2,
    report: Report | None = None,
    save_every_s: float = 20.0,
    on_save: Callable[[], None] | None = None,
    limit_s: float = math.inf,
    group: Group = ALONE,
) -> dict[str, Tensor]:
    """Bring the trainers of both stages to so many steps, and return their averages; `train` says what is what."""
    stop = threading.Event()
    deadline = time.monotonic() + limit_s

    def run(stage: Stage, workers: ThreadPoolExecutor) -> dict[str, Tensor]:
        path = state / f"{stage}.safetensors" if state is not None else None
        trainer = make(stage, workers)
        if path is not None and resume:
            trainer.restore(path)
        group.require_same(trainer.step.to_bytes(8), f"state of the {stage} stage")

        def save() -> None:
            if path is not None and group.leads:
                trainer.save(path)
                if on_save is not None:
                    on_save()

        saved = time.monotonic()
        while trainer.step < steps and not stop.is_set() and time.monotonic() < deadline:
            losses = trainer.advance()
            if report is not None:
                report(stage, trainer.step, losses)
            if time.monotonic() - saved > save_every_s:
                save()
                saved = time.monotonic()
        save()
        return {f"{stage}.{name}": value.cpu() for name, value in trainer.average.items()}

    side_by_side = len(STAGES) if group.size == 1 else 1
    with _one_thread_an_operation(), ThreadPoolExecutor(max(1, threads)) as workers:
        with ThreadPoolExecutor(side_by_side) as stages:
            futures = [stages.submit(run, stage, workers) for stage in STAGES]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
            failed = [future for future in futures if future.done() and future.exception() is not None]
            for future in failed or futures:
                future.result()
    return {name: value for future in futures for name, value in future.result().items()}


def require_finite(dataset: Dataset) -> None:
    """Check what a network would be fed.

    Raises:
        BadInput: a demonstration holds numbers that are not finite; says which.
    """
    for example in dataset.examples:
        maps = {"height": example.scene.height, "encoder features": example.scene.features}
        for name, values in maps.items():
            if values is not None and not (finite := torch.from_numpy(values).isfinite()).all():
                raise BadInput(
                    f"{name} of demonstration {example.source or '?'} are not finite in {int((~finite).sum())} of "
                    f"{finite.numel()} numbers; check the encoder, delete the folder cache of the store, or leave the "
                    "episode out"
                )


@contextmanager
def _one_thread_an_operation() -> Iterator[None]:
    """Threads share examples, not operations: how an operation is split would change its last bits."""
    before = torch.get_num_threads()
    use_cores(1)
    try:
        yield
    finally:
        use_cores(before)


def _fingerprint(
    dataset: Dataset, replay: Dataset | None, failed: Sequence[Sample], network: NetworkConfig, config: TrainConfig
) -> str:
    what: list[Any] = [dataset.digest(), replay.digest() if replay else ""]
    if failed:
        what.append([[sample.source, sample.weight, sorted(sample.about)] for sample in failed])
    text = json.dumps([RECIPE, *what, network.to_dict(), asdict(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

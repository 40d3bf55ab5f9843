"""One update: a head, what it is to remember, and new experience give the next head.

Half of each batch is new experience, the other half comes from what is kept: a task evenly at random, then one of its
examples, the likelier the more the present head has got worse at it since it was learnt. With the former outputs as
targets, half of a replayed example's loss is the cross entropy with its label and half that with what the head, as it
was before the update, says of the very same augmented view (Li & Hoiem, "Learning without Forgetting", 2016, on
replayed inputs; Buzzega et al., "Dark Experience", 2020).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.continual.buffer import Buffer, reservoir, stratified
from embodied_vision.learning.continual.guards import (
    PRUNED_AFTER,
    Ewc,
    Guard,
    PackNet,
    owners,
    packed_trunk,
    remember_ewc,
    remember_packnet,
)
from embodied_vision.learning.continual.items import Item
from embodied_vision.learning.continual.methods import Method
from embodied_vision.learning.continual.shared import SharedHead, SharedStage, TaskSettings
from embodied_vision.learning.continual.trainer import SharedTrainer
from embodied_vision.learning.dataset import Dataset, Example
from embodied_vision.learning.losses import Output, cross_entropy, label_losses, stage_outputs, stage_samples
from embodied_vision.learning.stage import STAGES, Draw, Stage
from embodied_vision.learning.train import Report, require_finite, train_stages
from embodied_vision.policies.checkpoint import Checkpoint

Kind = Literal["task", "drift", "correction"]
RECIPE = 1
"""Counts the ways to update: a run of another one cannot be resumed."""
FISHER_EXAMPLES = 64
ALIKE_EXAMPLES = 6
KEPT_TURNS = 4
"""Of the turns that a fine sample tries, those next to the truth come first; logits of these are kept."""


@dataclass(frozen=True)
class UpdateConfig:
    """Settings of an update.

    Attributes:
        train: how the weights are optimised.
        checkpoints: how many states, evenly spaced, the last one the result, are left of an update.
        replay_share: what is kept may take this share of the bytes seen so far.
        former_share: share of a replayed example's loss that is measured against the former head's outputs.
        kept_weight: of the squared error of logits that were kept, for DER++.
        ewc: strength of the pull of EWC.
        minutes: an update ends after these at the latest, with what it has by then.
    """

    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=600))
    checkpoints: int = 6
    replay_share: float = 0.05
    former_share: float = 0.5
    kept_weight: float = 0.5
    ewc: float = 1e4
    minutes: float = math.inf


@dataclass(frozen=True)
class Experience:
    """New episodes of one task.

    Attributes:
        dataset: what they teach.
        kind: a new task, a known one in a changed scene, or decisions that an operator corrected.
        weight: of their losses, such as more than 1 for corrections.
    """

    dataset: Dataset
    kind: Kind = "task"
    weight: float = 1.0

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.dataset.task

    @property
    def outcome(self) -> str:
        """As what its examples are kept."""
        return "corrected" if self.kind == "correction" else "solved"


@dataclass(frozen=True, eq=False)
class Updated:
    """What an update gives.

    Attributes:
        head: as it is now.
        buffer: what is kept now.
        snapshots: weights of the head while it was learning, as `SharedHead.load` takes them; the last are its own.
    """

    head: SharedHead
    buffer: Buffer
    snapshots: Sequence[Mapping[str, Tensor]]


def update(
    head: SharedHead,
    buffer: Buffer,
    experience: Sequence[Experience],
    method: Method,
    config: UpdateConfig,
    *,
    state: Path,
    budget: int,
    everything: Sequence[Dataset] = (),
    tasks_in_all: int = 1,
    resume: bool = False,
    threads: int = 2,
    report: Report | None = None,
    save_every_s: float = 20.0,
    on_save: Callable[[], None] | None = None,
) -> Updated:
    """Learn from new experience; the head and the buffer that are given stay as they are.

    Args:
        head: what is known.
        buffer: what is kept of earlier experience.
        experience: what is new; of several tasks each is as likely in a batch.
        method: how.
        config: settings.
        state: folder for what `resume` needs.
        budget: bytes that the new buffer may take.
        everything: all earlier data, for a method that keeps it.
        tasks_in_all: how many tasks the head will know in the end, for PackNet's shares.
        resume: go on from `state`.
        threads: that compute gradients; the result is the same for any.
        report: progress.
        save_every_s: how often `state` is written.
        on_save: called after `state` was written; may run on any thread.

    Raises:
        BadInput: `state` belongs to other data or settings, or what to learn from cannot be used.
        RunFailed: a loss is not finite.
    """
    for each in experience:
        require_finite(each.dataset)
    former, head = head, head.copy()
    for each in experience:
        settings = TaskSettings.of(each.dataset)
        if each.task in head.tasks:
            head.know_more(each.task, settings)
        else:
            head.add(each.task, settings, _most_alike(former, each.dataset, config.train))
    old = _replayed(former, buffer, everything, method, config.train)
    steps = config.train.steps
    at = sorted({max(1, round(steps * i / config.checkpoints)) for i in range(1, config.checkpoints)})
    fingerprint = _fingerprint(former, buffer, experience, everything, method, config, budget)
    trained = {each.task for each in experience} | {task for task, _, _ in old}
    for stage in STAGES:
        head.stage(stage).train_only(trained)

    def make(stage: Stage, workers: ThreadPoolExecutor) -> SharedTrainer:
        return SharedTrainer(
            stage,
            head.stage(stage),
            _draw(stage, head, former, experience, old, method, config),
            config.train,
            fingerprint,
            workers=workers,
            snapshots={step: _snapshot(state, stage, step) for step in at},
            guard=_guard(stage, head, method, config, tasks_in_all),
        )

    averages = train_stages(
        make,
        steps,
        state=state,
        resume=resume,
        threads=threads,
        report=report,
        save_every_s=save_every_s,
        on_save=on_save,
        limit_s=60 * config.minutes,
    )
    head.load(averages)
    there = [step for step in at if all(_snapshot(state, stage, step).is_file() for stage in STAGES)]
    snapshots: list[Mapping[str, Tensor]] = [_read_snapshot(state, step) for step in there]
    if method.guards == "ewc":
        for each in experience:
            _remember_fisher(head, each.dataset, config.train)
    elif method.guards == "packnet":
        remember_packnet(head)
    kept = _keep(head, buffer, experience, method, config.train, budget)
    return Updated(head, kept, [*snapshots, averages])


def policy_of(head: SharedHead, task: str, method: Method, training: Mapping[str, Any]) -> Checkpoint:
    """A task's policy, with the weights that it may use."""
    return head.checkpoint(task, training, packed_trunk(head, task) if method.guards == "packnet" else None)


Replayed = list[tuple[str, list[Item], np.ndarray[Any, np.dtype[np.float64]]]]
"""Of each earlier task: its name, examples, and how likely each is drawn."""


def _replayed(
    head: SharedHead, buffer: Buffer, everything: Sequence[Dataset], method: Method, config: TrainConfig
) -> Replayed:
    if method.keeps == "everything":
        found = [(d.task, [Item(example, d.task) for example in d.examples]) for d in everything]
        return [(task, items, np.full(len(items), 1 / len(items))) for task, items in found]
    by_task: dict[str, list[Item]] = {}
    for kept in buffer.kept if method.keeps != "nothing" else ():
        by_task.setdefault(kept.item.task, []).append(kept.item)
    replayed: Replayed = []
    for task, items in by_task.items():
        weights = np.ones(len(items))
        if method.keeps == "stratified":
            worse = [loss_on(head, task, item.example, item.seed, config) - item.loss for item in items]
            weights += np.maximum(worse, 0)
        replayed.append((task, items, weights / weights.sum()))
    return replayed


def _draw(
    stage: Stage,
    head: SharedHead,
    former: SharedHead,
    experience: Sequence[Experience],
    old: Replayed,
    method: Method,
    config: UpdateConfig,
) -> Draw:
    net, teacher = head.stage(stage), former.stage(stage)

    def new(rng: np.random.Generator) -> dict[str, Tensor]:
        each = experience[int(rng.integers(len(experience)))]
        example = each.dataset.examples[int(rng.integers(len(each.dataset)))]
        losses = label_losses(_outputs(net, head, each.task, example, config.train, rng)[1])
        return {name: each.weight * loss for name, loss in losses.items()}

    def replayed(logits: bool, rng: np.random.Generator) -> dict[str, Tensor]:
        task, items, likely = old[int(rng.integers(len(old)))]
        item = items[int(rng.choice(len(items), p=likely))]
        if logits and item.logits:
            view = np.random.default_rng([item.seed])
            said = _outputs(net, head, task, item.example, config.train, view)[1]
            return {
                name: config.kept_weight * _squared_error(_part(output.logits[0]), item.logits[name])
                for name, output in said.items()
            }
        samples, said = _outputs(net, head, task, item.example, config.train, rng)
        losses = label_losses(said)
        if method.distils != "former":
            return losses
        with torch.no_grad():
            before = stage_outputs(teacher.view(task), samples)
        share = config.former_share
        return {
            name: (1 - share) * loss + share * cross_entropy(said[name].logits, _probability(before[name].logits))
            for name, loss in losses.items()
        }

    def draw(step: int, number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if not old or number % 2 == 0:
            return new(rng)
        return replayed(method.distils == "kept" and number % 4 == 1, rng)

    return draw


def _outputs(
    net: SharedStage, head: SharedHead, task: str, example: Example, config: TrainConfig, rng: np.random.Generator
) -> tuple[Any, dict[str, Output]]:
    """What a stage is shown of an example of a task, and what it says."""
    view = net.view(task)
    samples = stage_samples(view, [example], head.tasks[task].normalisation, config, rng)
    return samples, stage_outputs(view, samples)


def _probability(logits: Tensor) -> Tensor:
    return logits.flatten(1).softmax(1).view_as(logits)


def _part(logits: Tensor) -> Tensor:
    """What is kept of logits of one example: of the fine stage's the right place, and turns next to the truth."""
    return logits[0, :KEPT_TURNS] if logits.ndim == 4 else logits


def _squared_error(logits: Tensor, kept: np.ndarray[Any, np.dtype[np.float16]]) -> Tensor:
    """Mean over all cells; a constant that is added to all logits says nothing and does not count."""
    target = torch.from_numpy(kept.astype(np.float32))
    difference = logits - target
    return (difference - difference.mean()).square().mean()


def _guard(stage: Stage, head: SharedHead, method: Method, config: UpdateConfig, tasks_in_all: int) -> Guard | None:
    net = head.stage(stage)
    if method.guards == "ewc":
        prefix = f"{stage}."
        memory = {n.removeprefix(prefix): v for n, v in head.memory.items() if n.startswith(prefix)}
        return Ewc(net, memory, config.ewc)
    if method.guards == "packnet":
        remaining = max(1, tasks_in_all - len(head.tasks) + 1)
        return PackNet(net, owners(head, stage), 1 / remaining, round(PRUNED_AFTER * config.train.steps))
    return None


def _remember_fisher(head: SharedHead, dataset: Dataset, config: TrainConfig) -> None:
    """The diagonal of the Fisher information of the trunk, from squared gradients of single augmented examples."""
    for stage in STAGES:
        net = head.stage(stage)
        parameters = net.shared_parameters()
        fisher = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for number in range(FISHER_EXAMPLES):
            rng = np.random.default_rng([config.seed, STAGES.index(stage), number])
            example = dataset.examples[int(rng.integers(len(dataset)))]
            losses = label_losses(_outputs(net, head, dataset.task, example, config, rng)[1])
            total = torch.stack(list(losses.values())).sum()
            gradients = torch.autograd.grad(total, list(parameters.values()), materialize_grads=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                fisher[name] += gradient.square() / FISHER_EXAMPLES
        remember_ewc(head.memory, stage, net, fisher)


@torch.no_grad()
def loss_on(head: SharedHead, task: str, example: Example, seed: int, config: TrainConfig) -> float:
    """Nats of both stages on the one view of an example that a seed gives."""
    total = 0.0
    for stage in STAGES:
        rng = np.random.default_rng([seed])
        losses = label_losses(_outputs(head.stage(stage), head, task, example, config, rng)[1])
        total += sum(float(loss) for loss in losses.values())
    return total


@torch.no_grad()
def _most_alike(head: SharedHead, dataset: Dataset, config: TrainConfig) -> str | None:
    """The known task whose policy does best on a few examples of a new one, if any."""
    some = dataset.examples[:: max(1, len(dataset) // ALIKE_EXAMPLES)][:ALIKE_EXAMPLES]
    known = [task for task, settings in head.tasks.items() if settings.primitive == dataset.primitive]
    total = {task: sum(loss_on(head, task, e, i, config) for i, e in enumerate(some)) for task in known}
    return min(total, key=lambda task: total[task]) if total else None


@torch.no_grad()
def _keep(
    head: SharedHead,
    buffer: Buffer,
    experience: Sequence[Experience],
    method: Method,
    config: TrainConfig,
    budget: int,
) -> Buffer:
    if method.keeps not in ("reservoir", "stratified"):
        return Buffer()
    items: list[Item] = []
    for each in experience:
        for number, example in enumerate(each.dataset.examples):
            logits: dict[str, np.ndarray[Any, np.dtype[np.float16]]] = {}
            if method.distils == "kept":
                for stage in STAGES:
                    rng = np.random.default_rng([number])
                    said = _outputs(head.stage(stage), head, each.task, example, config, rng)[1]
                    logits |= {n: _part(o.logits[0]).numpy().astype(np.float16) for n, o in said.items()}
            loss = loss_on(head, each.task, example, number, config)
            items.append(Item(example, each.task, each.outcome, 0.0, round(loss, 3), number, logits))
    if method.keeps == "reservoir":
        return reservoir(buffer, items, budget, config.seed)
    return stratified(buffer, items, budget)


def _snapshot(state: Path, stage: str, step: int) -> Path:
    return state / f"{stage}-{step}.safetensors"


def _read_snapshot(state: Path, step: int) -> dict[str, Tensor]:
    return {
        f"{stage}.{name}": value for stage in STAGES for name, value in load_file(_snapshot(state, stage, step)).items()
    }


def _fingerprint(
    head: SharedHead,
    buffer: Buffer,
    experience: Sequence[Experience],
    everything: Sequence[Dataset],
    method: Method,
    config: UpdateConfig,
    budget: int,
) -> str:
    digest = hashlib.sha256()
    settings = {**asdict(config), "minutes": None}
    new = [[each.dataset.digest(), each.kind, each.weight] for each in experience]
    old = [dataset.digest() for dataset in everything]
    text = [RECIPE, asdict(method), settings, head.config.to_dict(), new, old, budget]
    digest.update(json.dumps(text, sort_keys=True).encode())
    for name, value in sorted(head.weights().items()):
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    for kept in buffer.kept:
        digest.update(kept.data)
    return digest.hexdigest()

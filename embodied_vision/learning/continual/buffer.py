"""What is kept of all experience for replay: one file of examples, never larger than its budget.

Bytes are those of the file. Two ways to choose what stays: `stratified`, equal shares for the strata (task and
outcome), and within one what is unlike the others and what the policy finds hard; and `reservoir`, evenly at random,
as experience replay has it (Vitter, 1985; Chaudhry et al., 2019).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.learning.continual import items
from embodied_vision.learning.continual.items import Item
from embodied_vision.learning.dataset import Example
from embodied_vision.policies import maps
from embodied_vision.types import Workspace

THUMBNAIL = 16
"""Map cells per cell of what two examples are compared by."""


@dataclass(frozen=True, eq=False)
class Kept:
    """An item with the bytes that it takes."""

    item: Item
    data: bytes

    @classmethod
    def of(cls, item: Item) -> Kept:
        """Encode an item."""
        return cls(item, items.encode(item))


@dataclass
class Buffer:
    """Examples for replay.

    Attributes:
        kept: what is in it; those of a stratum in the order in which they would be missed, the first the most.
    """

    kept: list[Kept] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return sum(len(each.data) for each in self.kept)

    def save(self, path: Path) -> None:
        """Write the file, on disk when this returns, in one rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{path.name}")
        with open(staging, "wb") as file:
            file.writelines(each.data for each in self.kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)

    @classmethod
    def read(cls, path: Path, workspace: Workspace) -> Buffer:
        """Read what `save` wrote; examples come as they were kept, not as they were seen.

        Raises:
            BadInput: the file is missing or damaged.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}); learn the last task again") from error
        kept, at = [], 0
        while at < len(data):
            size = items.length(data, at)
            part = data[at : at + size]
            kept.append(Kept(items.decode(part, workspace), part))
            at += size
        return cls(kept)

    def strata(self) -> dict[tuple[str, str], list[Kept]]:
        """What is kept by task and outcome, each in its order."""
        found: dict[tuple[str, str], list[Kept]] = {}
        for each in self.kept:
            found.setdefault((each.item.task, each.item.outcome), []).append(each)
        return found


def describe(example: Example) -> NDArray[np.float32]:
    """A coarse thumbnail of what is seen and done, whose distances tell how much two examples differ."""
    scene = example.scene
    pooled = maps.pool(maps.stack_geometry(scene), THUMBNAIL).numpy()
    cells = np.concatenate([example.segment.anchor, example.place]) / scene.valid.shape[0]
    turn = [np.cos(example.yaw_rad * example.fold), np.sin(example.yaw_rad * example.fold)]
    return np.concatenate([pooled.ravel() / np.sqrt(pooled[0].size), 3 * cells, turn]).astype(np.float32)


def stratified(old: Buffer, new: Sequence[Item], budget: int) -> Buffer:
    """Fill a budget with equal shares for all strata; what a stratum does not need goes to the others.

    New items are ordered greedily: next comes the one with the largest product of its distance to those before it and
    of its loss over the mean loss, plus one. Old ones keep their order and leave from its end.

    Args:
        old: what is kept; its strata may grow by new items, which then come after.
        new: what could be kept, of any strata.
        budget: bytes.
    """
    strata = old.strata()
    for key in sorted({(item.task, item.outcome) for item in new}):
        candidates = [item for item in new if (item.task, item.outcome) == key]
        before = strata.get(key, [])
        fresh = [Kept.of(item) for item in _ordered(candidates, [each.item.example for each in before])]
        strata[key] = _interleaved(before, fresh)
    return Buffer([each for part in _fitting(list(strata.values()), budget) for each in part])


def _ordered(candidates: Sequence[Item], known: Sequence[Example]) -> list[Item]:
    """Items by how much they would be missed, the first the most, with their novelty."""
    points = np.stack([describe(item.example) for item in candidates])
    there = [describe(example) for example in known]
    losses = np.array([item.loss for item in candidates])
    weight = 1 + losses / max(float(losses.mean()), 1e-9)
    start = np.stack(there) if there else points.mean(0, keepdims=True)
    nearest = np.linalg.norm(points[:, None] - start[None], axis=2).min(1)
    order: list[Item] = []
    left = np.ones(len(candidates), bool)
    while left.any():
        best = int(np.where(left, nearest * weight, -1.0).argmax())
        order.append(replace(candidates[best], novelty=round(float(nearest[best]), 3)))
        left[best] = False
        nearest = np.minimum(nearest, np.linalg.norm(points - points[best], axis=1))
    return order


def _interleaved(first: Sequence[Kept], second: Sequence[Kept]) -> list[Kept]:
    both: list[Kept] = []
    for i in range(max(len(first), len(second))):
        both += [*first[i : i + 1], *second[i : i + 1]]
    return both


def _fitting(strata: Sequence[Sequence[Kept]], budget: int) -> list[list[Kept]]:
    """One more of each stratum in turn, the stratum with the fewest bytes first, as long as there is room."""
    chosen: list[list[Kept]] = [[] for _ in strata]
    sizes, left, open_ = [0] * len(strata), budget, set(range(len(strata)))
    while open_:
        i = min(open_, key=lambda k: (sizes[k], k))
        if len(chosen[i]) == len(strata[i]):
            open_.remove(i)
            continue
        size = len(strata[i][len(chosen[i])].data)
        if size > left:
            open_.remove(i)
            continue
        chosen[i].append(strata[i][len(chosen[i])])
        sizes[i] += size
        left -= size
    return chosen


def reservoir(old: Buffer, new: Sequence[Item], budget: int, seed: int) -> Buffer:
    """Fill a budget evenly at random: every example ever seen has the same chance, by a lot that its source draws."""

    def lot(each: Kept) -> str:
        return hashlib.sha256(f"{seed}/{each.item.task}/{each.item.example.source}".encode()).hexdigest()

    chosen, left = [], budget
    for each in sorted([*old.kept, *(Kept.of(item) for item in new)], key=lot):
        if len(each.data) > left:
            break  # to go on with smaller ones would prefer what has few bytes
        chosen.append(each)
        left -= len(each.data)
    return Buffer(chosen)

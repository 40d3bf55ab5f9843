"""Lines of results/results.jsonl: the figures of an evaluation with what they are the figures of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from embodied_vision.learning.seeds import Split, scene_seed


def result_line(
    figures: Mapping[str, Any], manifest: Mapping[str, Any], *, git_commit: str, command: str
) -> dict[str, Any]:
    """Figures and their provenance, JSON-ready.

    Args:
        figures: of `evaluate.summarise`.
        manifest: of the checkpoint; what its `training` section does not know is None.
        git_commit: of the code that evaluated.
        command: the command line that evaluated.
    """
    training = manifest["training"]
    return {
        **figures,
        "checkpoint_id": manifest["checkpoint_id"],
        "demos": training.get("demos"),
        "train_seed": training.get("seed"),
        "train_minutes": training.get("minutes"),
        "train_cpu_minutes": training.get("cpu_minutes"),
        "train_command": training.get("command"),
        "encoder": manifest["encoder_id"],
        "git_commit": git_commit,
        "command": command,
    }


def newest(lines: Iterable[Mapping[str, Any]], split: Split, scenes: int) -> dict[str, dict[str, Any]]:
    """The newest line of every cell, by its name, among those of the first `scenes` scenes of a split.

    Args:
        lines: oldest first; those that belong to no cell are left out.
    """
    first = scene_seed(split, 0)
    seeds = [first, first + scenes - 1]
    return {
        line["cell"]: dict(line)
        for line in lines
        if "cell" in line and line["split"] == split and line["scenes"] == scenes and line["seeds"] == seeds
    }

"""docs/results.md: what was measured beside what is published, from results/results.jsonl and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from embodied_vision.errors import BadInput
from embodied_vision.learning import json_lines
from embodied_vision.learning.cells import AS_DEFINED, NO_ENCODER, Cell, Declaration
from embodied_vision.learning.crossed import Crossed, crossed
from embodied_vision.learning.results import newest

PRESETS = ("none", "mild", "strong")
LEAST_GAIN = 0.1
"""By how much features are to help where appearance decides."""
CEILING = "grasp_ceiling"
"""Name of the bench of what a single grasp can reach."""


@dataclass(frozen=True)
class GraspGoal:
    """When grasping is good enough.

    Attributes:
        goal: scenes in which the first grasp lifts, %.
        of_ceiling: or that as a share of the scenes in which one of many sampled grasps lifts.
        attempts: labelled grasps that the policy may have learnt from.
    """

    goal: float
    of_ceiling: float
    attempts: int

    def met(self, line: Mapping[str, Any], of_ceiling: float | None) -> bool:
        """Whether an evaluation meets it."""
        enough = line["solved_share"] >= self.goal or (of_ceiling is not None and of_ceiling >= self.of_ceiling)
        return bool(enough and line["attempts"] <= self.attempts)


@dataclass(frozen=True)
class Published:
    """Figures of the literature, × 100, and the goals that follow from them.

    Attributes:
        columns: name and source of each publication.
        demos: numbers of demonstrations that figures are given for.
        figures: task → one list a publication, one figure a number of demonstrations.
        goals: task → one goal a number of demonstrations.
        tolerance: a goal is met when the upper bound of the interval reaches the goal less this.
        grasping: goals of the first grasp in bins of unseen objects.
    """

    columns: Sequence[Mapping[str, str]]
    demos: Sequence[int]
    figures: Mapping[str, Sequence[Sequence[float]]]
    goals: Mapping[str, Sequence[float]]
    tolerance: float
    grasping: GraspGoal

    def met(self, line: Mapping[str, Any], goal: float) -> bool:
        """Whether a result meets a goal."""
        return float(line["ci_high"]) >= goal - self.tolerance


def read_published(path: Path) -> Published:
    """Published figures from a YAML file such as results/published.yaml.

    Raises:
        BadInput: it cannot be read or is incomplete.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        tasks = content["tasks"]
        return Published(
            columns=content["columns"],
            demos=content["demos"],
            figures={task: entry["published"] for task, entry in tasks.items()},
            goals={task: entry["goal"] for task, entry in tasks.items()},
            tolerance=float(content["tolerance"]),
            grasping=GraspGoal(**content["grasping"]),
        )
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); run in the checkout or name the file") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is incomplete ({error!r}); write it like results/published.yaml") from error


def results_page(declared: Declaration, results: Path, published: Published, grasps: Path) -> str:
    """The page in Markdown; the same results give the same page.

    Args:
        declared: the cells; those without a result are shown without.
        results: file of JSON lines.
        published: what to put beside them.
        grasps: file of JSON lines with evaluations of grasp policies, and what a single grasp can reach.

    Raises:
        BadInput: a file of results cannot be read.
    """
    lines = newest(json_lines.read(results), "test", declared.scenes)
    measured = [(cell, lines[cell.name]) for cell in declared.cells if cell.name in lines]
    source = files("embodied_vision.learning").joinpath("results.md.j2").read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(source).render(
        declared=declared,
        published=published,
        rows=_main_rows(declared, lines, published),
        features=_feature_rows(declared, lines),
        gains=_gain_rows(declared, lines),
        least_gain=LEAST_GAIN,
        robustness=_preset_rows(declared, lines),
        seeds=_seed_rows(declared, lines),
        grasps=_grasp_rows(json_lines.read(grasps), declared.scenes, published.grasping),
        presets=PRESETS,
        notes=[(cell.name, declared.notes[cell.name]) for cell in declared.cells if cell.name in declared.notes],
        measured=measured,
    )


def _main_rows(
    declared: Declaration, lines: Mapping[str, Mapping[str, Any]], published: Published
) -> list[dict[str, Any]]:
    """One row for each task and number of demonstrations: the cells under the usual settings."""
    rows = []
    names = {cell.name for cell in declared.cells}
    for task, goals in published.goals.items():
        for column, demos in enumerate(published.demos):
            name = f"{task}/{demos}"
            if name not in names:
                continue
            line, goal = lines.get(name), goals[column]
            rows.append(
                {
                    "task": task,
                    "demos": demos,
                    "name": name,
                    "line": line,
                    "published": [figures[column] for figures in published.figures[task]],
                    "goal": goal,
                    "met": line is not None and published.met(line, goal),
                }
            )
    return rows


def _feature_rows(declared: Declaration, lines: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Cells that differ in the encoder alone, side by side."""
    return [
        {
            "name": f"{features.training.task}, {features.training.demos}",
            "with": lines.get(features.name),
            "without": lines.get(plain.name),
        }
        for features, plain in _with_and_without(declared)
        if features.preset == PRESETS[0] and features.training.preset == AS_DEFINED
    ]


@dataclass(frozen=True)
class Gain:
    """What features are worth in a task when policies are trained and measured on randomised scenes.

    Attributes:
        task, demos, preset: which cells.
        why: the reason why the task depends on appearance, empty where it does not.
        seeds: of the training runs that are measured with and without features.
        declared: number of training runs of each that are to be measured.
        figures: None as long as no pair is measured.
    """

    task: str
    demos: int
    preset: str
    why: str
    seeds: Sequence[int]
    declared: int
    figures: Crossed | None

    @property
    def verdict(self) -> str:
        """Where appearance decides: whether features help enough; elsewhere: whether they do harm."""
        if self.figures is None:
            return ""
        difference = self.figures.difference
        if self.why:
            return "yes" if difference.value >= LEAST_GAIN and difference.low > 0 else "no"
        return "no worse" if difference.high >= 0 else "worse"


def _gain_rows(declared: Declaration, lines: Mapping[str, Mapping[str, Any]]) -> list[Gain]:
    """Cells that were trained under randomisation and differ in the encoder alone, their training runs together."""
    groups: dict[Any, list[tuple[Cell, Cell]]] = {}
    for features, plain in _with_and_without(declared):
        if features.training.preset != AS_DEFINED:
            groups.setdefault((replace(features.training, seed=0), features.preset), []).append((features, plain))
    rows = []
    for (training, preset), pairs in groups.items():
        found = [
            (features.training.seed, lines[features.name]["rewards"], lines[plain.name]["rewards"])
            for features, plain in pairs
            if features.name in lines and plain.name in lines
        ]
        rows.append(
            Gain(
                task=training.task,
                demos=training.demos,
                preset=preset,
                why=declared.appearance.get(training.task, ""),
                seeds=[seed for seed, _, _ in found],
                declared=len(pairs),
                figures=crossed([a for _, a, _ in found], [b for _, _, b in found]) if found else None,
            )
        )
    return rows


def _preset_rows(declared: Declaration, lines: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Policies that are measured under every preset."""
    by_policy: dict[Any, dict[str, Cell]] = {}
    for cell in declared.cells:
        by_policy.setdefault(cell.training, {})[cell.preset] = cell
    rows = []
    for training, cells in by_policy.items():
        if not set(PRESETS) <= set(cells):
            continue
        found = {preset: lines.get(cells[preset].name) for preset in PRESETS}
        usual = found[PRESETS[0]]
        ratios = {
            preset: line["score"] / usual["score"] if line and usual and usual["score"] else None
            for preset, line in found.items()
        }
        rows.append({"training": training, "lines": found, "ratios": ratios})
    return sorted(rows, key=lambda row: (row["training"].task, row["training"].encoder == NO_ENCODER))


def _seed_rows(declared: Declaration, lines: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Cells that differ in the seed of the training alone, where there are several."""
    groups: dict[Any, list[Cell]] = {}
    for cell in declared.cells:
        groups.setdefault((replace(cell.training, seed=0), cell.preset), []).append(cell)
    return [
        {"name": cells[0].name, "runs": [(cell.training.seed, lines.get(cell.name)) for cell in cells]}
        for cells in groups.values()
        if len(cells) > 1
    ]


def _grasp_rows(lines: Iterable[Mapping[str, Any]], scenes: int, goal: GraspGoal) -> list[dict[str, Any]]:
    """The newest evaluation for each number of objects in the bin, with the ceiling of the same scenes."""
    measured: dict[int, Mapping[str, Any]] = {}
    ceilings: dict[int, Mapping[str, Any]] = {}
    for line in lines:
        if line["split"] == "test" and line["scenes"] == scenes:
            (ceilings if line.get("bench") == CEILING else measured)[line["in_bin"]] = line
    rows = []
    for in_bin, line in sorted(measured.items()):
        ceiling = ceilings.get(in_bin)
        share = line["solved_share"] / ceiling["solved_share"] if ceiling and ceiling["solved_share"] else None
        rows.append({"line": line, "ceiling": ceiling, "share": share, "met": goal.met(line, share)})
    return rows


def _with_and_without(declared: Declaration) -> list[tuple[Cell, Cell]]:
    def rest(cell: Cell) -> tuple[Any, ...]:
        training = cell.training
        return training.task, training.demos, training.seed, training.options, training.preset, cell.preset

    plain = {rest(cell): cell for cell in declared.cells if cell.training.encoder == NO_ENCODER}
    return [
        (cell, plain[rest(cell)])
        for cell in declared.cells
        if cell.training.encoder != NO_ENCODER and rest(cell) in plain
    ]

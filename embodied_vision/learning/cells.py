"""The cells of the results' table, as `results/cells.yaml` declares them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from embodied_vision.errors import BadInput

NO_ENCODER = "none"
AS_DEFINED = "none"
"""The preset of the domain randomisation that leaves scenes as their tasks define them."""
_AXES = {
    "tasks": None,
    "demos": None,
    "encoders": "encoder",
    "seeds": "seed",
    "presets": "preset",
    "train_presets": "train_preset",
}
"""Lists of a group → the default that stands in for each."""


@dataclass(frozen=True)
class Training:
    """What decides a training run.

    Attributes:
        task: name of the task.
        demos: number of demonstrations.
        encoder: name or folder of the encoder, `none` for none.
        seed: of the training.
        options: further options of `embodied-vision train`, name and values; several values repeat the option.
        preset: of the domain randomisation of the demonstrations.
    """

    task: str
    demos: int
    encoder: str
    seed: int
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    preset: str = AS_DEFINED

    @property
    def folder(self) -> str:
        """Name of a folder that no other training shares."""
        decides = asdict(self)
        if self.preset == AS_DEFINED:
            del decides["preset"]  # as folders were named before there were others
        digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:8]
        return f"{self.task}-{self.demos}-{digest}"


@dataclass(frozen=True)
class Cell:
    """A policy and the scenes that it is measured on.

    Attributes:
        name: TASK/DEMOS[/trained-PRESET][/encoder-NAME][/seed-N][@PRESET]; what is as usual is left out.
        training: of the policy.
        preset: of the domain randomisation of the scenes.
    """

    name: str
    training: Training
    preset: str


@dataclass(frozen=True)
class Declaration:
    """All cells, in their order, and what holds for each of them.

    Attributes:
        cells: by distinct names.
        scenes: number of test scenes of a cell.
        renderer: who draws demonstrations and scenes.
        notes: cell's name → what is to be said about it.
        appearance: task that cannot be done without seeing what things look like → why.
    """

    cells: Sequence[Cell]
    scenes: int
    renderer: str
    notes: Mapping[str, str]
    appearance: Mapping[str, str] = field(default_factory=dict)

    def choose(self, patterns: Sequence[str]) -> list[Cell]:
        """The cells whose names match one of the patterns, in which `*` stands for anything; all without patterns.

        Raises:
            BadInput: a pattern matches none.
        """
        for pattern in patterns:
            if not any(fnmatchcase(cell.name, pattern) for cell in self.cells):
                raise BadInput(f"no cell is called {pattern!r}; see `embodied-vision results run --list`")
        return [c for c in self.cells if not patterns or any(fnmatchcase(c.name, pattern) for pattern in patterns)]


def read_declaration(path: Path) -> Declaration:
    """The cells that a YAML file declares; `results/cells.yaml` says how.

    Raises:
        BadInput: it cannot be read, or what it declares is incomplete or contradictory.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults: Mapping[str, Any] = content["defaults"]
        cells: dict[str, Cell] = {}
        for group in content["groups"]:
            for cell in _group(group, defaults):
                if cells.setdefault(cell.name, cell) != cell:
                    raise BadInput(f"{path} declares cell {cell.name} twice, with different options; leave one out")
        notes, appearance = (
            {str(name): str(text) for name, text in (content.get(key) or {}).items()} for key in ("notes", "appearance")
        )
        declared = Declaration(
            list(cells.values()), int(content["scenes"]), str(content["renderer"]), notes, appearance
        )
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); run in the checkout or name the file") from error
    except BadInput:
        raise
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} declares no cells ({error!r}); write it like results/cells.yaml") from error
    unknown = sorted(set(notes) - set(cells))
    if unknown:
        raise BadInput(f"{path} has a note on {unknown[0]!r}, which is no cell; correct its name")
    untried = sorted(set(appearance) - {cell.training.task for cell in cells.values()})
    if untried:
        raise BadInput(f"{path} has {untried[0]!r} under appearance, which is the task of no cell; correct its name")
    return declared


def _group(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Cell]:
    unknown = sorted(set(group) - set(_AXES) - {"options"})
    if unknown:
        raise ValueError(f"{unknown[0]!r} of a group is none of {[*_AXES, 'options']}")
    defaults = {"train_preset": AS_DEFINED, **defaults}
    values = [group[axis] if usual is None else group.get(axis, [defaults[usual]]) for axis, usual in _AXES.items()]
    given = {**defaults["options"], **group.get("options", {})}
    options = tuple((name, _values(given[name])) for name in sorted(given))
    cells = []
    for task, demos, encoder, seed, preset, trained in product(*values):
        name = f"{task}/{demos}"
        name += f"/trained-{trained}" if trained != defaults["train_preset"] else ""
        name += f"/encoder-{encoder}" if encoder != defaults["encoder"] else ""
        name += f"/seed-{seed}" if seed != defaults["seed"] else ""
        name += f"@{preset}" if preset != defaults["preset"] else ""
        training = Training(str(task), int(demos), str(encoder), int(seed), options, str(trained))
        cells.append(Cell(name, training, str(preset)))
    return cells


def _values(given: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in (given if isinstance(given, list) else [given]))

"""Cells are declared once and have names that say what differs from the usual."""

from __future__ import annotations

from pathlib import Path

import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning.cells import Declaration, Training, read_declaration

ROOT = Path(__file__).parents[2]
HEAD = """
scenes: 100
renderer: software
defaults: {encoder: default, seed: 0, preset: none, options: {steps: 600}}
groups:
"""


def declared(tmp_path: Path, groups: str) -> Declaration:
    (tmp_path / "cells.yaml").write_text(HEAD + groups)
    return read_declaration(tmp_path / "cells.yaml")


def test_a_group_is_a_product_and_a_cell_is_there_once(tmp_path: Path) -> None:
    found = declared(
        tmp_path,
        """
  - {tasks: [a, b], demos: [10]}
  - {tasks: [a], demos: [10], encoders: [default, none], presets: [none, mild], seeds: [0, 1]}
""",
    )
    assert [cell.name for cell in found.cells] == [
        "a/10",
        "b/10",
        "a/10@mild",
        "a/10/seed-1",
        "a/10/seed-1@mild",
        "a/10/encoder-none",
        "a/10/encoder-none@mild",
        "a/10/encoder-none/seed-1",
        "a/10/encoder-none/seed-1@mild",
    ]
    assert [cell.name for cell in found.choose(["b/*", "a/10", "*seed-1@mild"])] == [
        "a/10",
        "b/10",
        "a/10/seed-1@mild",
        "a/10/encoder-none/seed-1@mild",
    ]


def test_trainings_that_differ_have_folders_of_their_own(tmp_path: Path) -> None:
    found = declared(
        tmp_path,
        """
  - {tasks: [a], demos: [10], presets: [none, mild], encoders: [default, none], seeds: [0, 1]}
  - {tasks: [a], demos: [100], options: {steps: 900, set: [x=1, y=2]}}
""",
    )
    assert len({cell.training for cell in found.cells}) == len({cell.training.folder for cell in found.cells}) == 5
    assert found.cells[-1].training.options == (("set", ("x=1", "y=2")), ("steps", ("900",)))
    other = declared(tmp_path, "  - {tasks: [a], demos: [10], options: {steps: 601}}")
    assert other.cells[0].name == found.cells[0].name
    assert other.cells[0].training.folder != found.cells[0].training.folder


def test_demonstrations_under_a_preset_are_another_training(tmp_path: Path) -> None:
    found = declared(
        tmp_path,
        """
  - {tasks: [a], demos: [10], presets: [strong]}
  - {tasks: [a], demos: [10], presets: [strong], train_presets: [strong], encoders: [default, none]}
appearance: {a: colors}
""",
    )
    assert [cell.name for cell in found.cells] == [
        "a/10@strong",
        "a/10/trained-strong@strong",
        "a/10/trained-strong/encoder-none@strong",
    ]
    assert [cell.training.preset for cell in found.cells] == ["none", "strong", "strong"]
    assert len({cell.training.folder for cell in found.cells}) == 3
    assert found.appearance == {"a": "colors"}


def test_folders_are_named_as_they_were_before_there_were_presets() -> None:
    assert Training("block-insertion", 10, "default", 0).folder == "block-insertion-10-626ee694"


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ("  - {tasks: [a]}", "declares no cells .*demos"),
        ("  - {tasks: [a], demos: [10], preset: [mild]}", "'preset' of a group is none of"),
        (
            "  - {tasks: [a], demos: [10]}\n  - {tasks: [a], demos: [10], options: {steps: 1}}",
            "declares cell a/10 twice",
        ),
        ("  - {tasks: [a], demos: [10]}\nnotes: {a/1: short}", "a note on 'a/1', which is no cell"),
        ("  - {tasks: [a], demos: [10]}\nappearance: {b: colors}", "'b' under appearance, which is the task of no"),
        ("  - [", "declares no cells"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path: Path, groups: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        declared(tmp_path, groups)


def test_an_unknown_cell_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no cell is called 'b/\*'"):
        declared(tmp_path, "  - {tasks: [a], demos: [10]}").choose(["b/*"])


def test_what_must_be_shown_is_declared() -> None:
    """All ten tasks at 10 demonstrations, five at 1 and 100, two under every preset with and without features; all
    and at least three that depend on appearance trained under `strong` with and without features."""
    found = read_declaration(ROOT / "results" / "cells.yaml")
    names = {cell.name for cell in found.cells}
    assert len(found.appearance) >= 3
    for task in {name.removesuffix("/10") for name in names if name.endswith("/10")} | set(found.appearance):
        assert {f"{task}/10/trained-strong{encoder}@strong" for encoder in ("", "/encoder-none")} <= names
    assert len({name for name in names if name.endswith("/10")}) == 10
    assert len({name for name in names if name.endswith("/100")}) >= 5
    assert {n.removesuffix("/1") for n in names if n.endswith("/1")} == {
        n.removesuffix("/100") for n in names if n.endswith("/100")
    }
    for task in ("block-insertion", "place-red-in-green"):
        for encoder in ("", "/encoder-none"):
            assert {f"{task}/10{encoder}{preset}" for preset in ("", "@mild", "@strong")} <= names

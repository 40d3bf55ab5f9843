"""The page of results says what the file of results says, good or bad."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.cli.results import CELLS, GRASPS, PAGE, PUBLISHED, RESULTS
from embodied_vision.learning import json_lines
from embodied_vision.learning.cells import read_declaration
from embodied_vision.learning.results_table import read_published, results_page

ROOT = Path(__file__).parents[2]
DECLARATION = """
scenes: 100
renderer: software
defaults: {encoder: default, seed: 0, preset: none, options: {}}
groups:
  - {tasks: [align-box-corner, manipulating-rope], demos: [10]}
  - {tasks: [manipulating-rope], demos: [10], seeds: [0, 1]}
  - {tasks: [align-box-corner], demos: [10], encoders: [default, none], presets: [none, mild, strong]}
  - tasks: [manipulating-rope]
    demos: [10]
    seeds: [0, 1]
    encoders: [default, none]
    train_presets: [strong]
    presets: [strong]
  - {tasks: [align-box-corner], demos: [10], encoders: [default, none], train_presets: [strong], presets: [strong]}
appearance: {manipulating-rope: Knots.}
notes: {align-box-corner/10: Boxes of one cell's width were missed.}
"""


def line(cell: str, score: float, high: float, **more: Any) -> dict[str, Any]:
    return {
        "cell": cell,
        "split": "test",
        "scenes": 100,
        "seeds": [2_000_000, 2_000_099],
        "score": score,
        "ci_low": score - 1,
        "ci_high": high,
        "solved": 90,
        "solved_low": 82.56,
        "solved_high": 94.48,
        "train_minutes": 12.5,
        "train_cpu_minutes": 20.25,
        "checkpoint_id": "0123456789abcdef",
        "renderer": "software",
        "git_commit": "abc",
        "command": "embodied-vision evaluate",
    } | more


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Makes the page for lines of results."""

    def make(*lines: dict[str, Any], grasped: Sequence[dict[str, Any]] = ()) -> str:
        (tmp_path / "cells.yaml").write_text(DECLARATION)
        for each in lines:
            json_lines.append(tmp_path / "results.jsonl", each)
        grasps = tmp_path / "grasps.jsonl"
        for each in grasped:
            json_lines.append(grasps, each)
        declared = read_declaration(tmp_path / "cells.yaml")
        return results_page(declared, tmp_path / "results.jsonl", read_published(ROOT / PUBLISHED), grasps)

    return make


def rows(page: str, start: str) -> list[str]:
    return [row for row in page.splitlines() if row.startswith(start)]


def test_the_page_in_the_docs_is_up_to_date() -> None:
    declared, published = read_declaration(ROOT / CELLS), read_published(ROOT / PUBLISHED)
    assert (ROOT / PAGE).read_text(encoding="utf-8") == results_page(declared, ROOT / RESULTS, published, ROOT / GRASPS)


def test_a_goal_is_met_when_the_upper_bound_comes_within_half_a_point(page: Any) -> None:
    """The goals are 99 and 93."""
    text = page(line("align-box-corner/10", 97.0, 98.5), line("manipulating-rope/10", 90.0, 92.49))
    (met,) = rows(text, "| align-box-corner | 10 ")
    (missed,) = rows(text, "| manipulating-rope | 10 ")
    assert "| 97.0 (96.0 to 98.5) | 90 of 100 (82.6 to 94.5 %) | 12.5 (20.25) | 85 | 99 | 91 | 99 | yes |" in met
    assert "| 73.2 | 85.0 | 87.0 | 93 | no |" in missed
    assert "Boxes of one cell's width were missed." in text


def test_the_newest_whole_test_counts(page: Any) -> None:
    text = page(
        line("align-box-corner/10", 50.0, 60.0),
        line("align-box-corner/10", 80.0, 85.0),
        line("align-box-corner/10", 99.0, 99.0, split="validation", seeds=[1_000_000, 1_000_099]),
        line("align-box-corner/10", 98.0, 98.0, scenes=2, seeds=[2_000_000, 2_000_001]),
        line("align-box-corner/10", 97.0, 97.0, seeds=[2_000_100, 2_000_199]),
    )
    assert "| 80.0 (79.0 to 85.0) |" in rows(text, "| align-box-corner | 10 ")[0]


def test_what_was_not_measured_says_so(page: Any) -> None:
    assert "| 10 | not measured yet |" in rows(page(), "| manipulating-rope")[0]


def test_features_and_presets_stand_side_by_side(page: Any) -> None:
    text = page(
        line("align-box-corner/10", 96.0, 97.0),
        line("align-box-corner/10@mild", 90.0, 92.0),
        line("align-box-corner/10@strong", 72.0, 75.0),
        line("align-box-corner/10/encoder-none", 80.0, 82.0),
    )
    (features,) = rows(text, "| align-box-corner, 10 | 96.0")
    assert "| 96.0 (95.0 to 97.0) | 80.0 (79.0 to 82.0) |" in features
    (presets,) = rows(text, "| align-box-corner, 10 | with |")
    assert "96.0 (95.0 to 97.0) | 90.0 (89.0 to 92.0) | 0.938 | 72.0 (71.0 to 75.0) | 0.750 |" in presets
    (without,) = rows(text, "| align-box-corner, 10 | without |")
    assert "80.0 (79.0 to 82.0) | not measured yet |  | not measured yet |  |" in without


def test_gains_under_randomisation_are_paired_over_runs_and_scenes(page: Any) -> None:
    def run(cell: str, *rewards: float) -> dict[str, Any]:
        return line(f"{cell}@strong", 100 * sum(rewards) / len(rewards), 100.0, rewards=list(rewards))

    text = page(
        run("manipulating-rope/10/trained-strong", *[1.0] * 50),
        run("manipulating-rope/10/trained-strong/encoder-none", *[1.0, 0.0] * 25),
        run("manipulating-rope/10/trained-strong/seed-1", *[0.0] * 50),
        run("align-box-corner/10/trained-strong", *[0.5] * 50),
        run("align-box-corner/10/trained-strong/encoder-none", *[0.8] * 50),
    )
    gains = {row.split(",")[0]: row for row in rows(text, "| ") if ", 10 | strong | " in row}
    worth = gains["| manipulating-rope"]
    assert "| yes | 0 of 2 | 100.0 | 50.0 | +50.0 (+" in worth
    assert worth.endswith("| yes |")
    assert gains["| align-box-corner"].endswith("| no | 0 | 50.0 | 80.0 | -30.0 (-30.0 to -30.0) | worse |")
    assert "- **manipulating-rope**: Knots." in text


def test_gains_that_were_not_measured_say_so(page: Any) -> None:
    assert "| manipulating-rope, 10 | strong | yes | not measured yet | | | |  |" in page()


def test_other_training_seeds_are_shown(page: Any) -> None:
    text = page(line("manipulating-rope/10", 90.0, 92.0), line("manipulating-rope/10/seed-1", 80.0, 83.0))
    assert rows(text, "| manipulating-rope/10 |") == [
        "| manipulating-rope/10 | 0: 90.0 (89.0 to 92.0); 1: 80.0 (79.0 to 83.0) |"
    ]


def test_grasps_stand_beside_what_one_grasp_can_reach(page: Any) -> None:
    def grasped(in_bin: int, solved: int, **more: Any) -> dict[str, Any]:
        return line("", solved, solved) | {
            "in_bin": in_bin,
            "solved": solved,
            "solved_share": float(solved),
            "attempts": 20_000,
            **more,
        }

    text = page(
        grasped=[
            grasped(1, 50),
            grasped(1, 80),
            grasped(1, 82, bench="grasp_ceiling"),
            grasped(1, 99, split="validation"),
            grasped(2, 90, attempts=20_001),
            grasped(5, 77),
            grasped(5, 82, bench="grasp_ceiling"),
            grasped(9, 90),
        ]
    )
    ends = {in_bin: rows(text, f"| {in_bin} | ")[0].split(" | ")[-4:] for in_bin in (1, 2, 5, 9)}
    assert ends[1] == ["0.976", "20000", "12.5 (20.25)", "yes |"]
    assert ends[5] == ["0.939", "20000", "12.5 (20.25)", "no |"]
    assert ends[2][1:] == ["20001", "12.5 (20.25)", "no |"]
    assert ends[9][1:] == ["20000", "12.5 (20.25)", "yes |"]
    assert "| 80 of 100 (82.6 to 94.5 %) | 82 of 100 (82.6 to 94.5 %) |" in rows(text, "| 1 | ")[0]

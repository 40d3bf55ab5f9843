"""`results` tells how far the cells are, and whether the page is up to date."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from policies.stubs import TINY, random_checkpoint

from embodied_vision.cli.main import app
from embodied_vision.cli.results import CELLS, PUBLISHED
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import RunFailed
from embodied_vision.learning.cells import read_declaration
from embodied_vision.policies import checkpoint as checkpoints
from tests.command_line import prints

ROOT = Path(__file__).parents[2]
run = partial(prints, app, "results")


def test_a_page_that_is_out_of_date_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    files = ["--cells", ROOT / CELLS, "--results", tmp_path / "none.jsonl", "--published", ROOT / PUBLISHED]
    with pytest.raises(RunFailed, match=r"page\.md is out of date; run `embodied-vision results table`"):
        run("table", "--check", *files, "--output", page)
    run("table", *files, "--output", page)
    run("table", "--check", *files, "--output", page)
    page.write_text(page.read_text(encoding="utf-8").replace("not measured yet", "100.0", 1), encoding="utf-8")
    with pytest.raises(RunFailed, match="is out of date"):
        run("table", "--check", *files, "--output", page)


def test_the_list_knows_what_is_trained(tmp_path: Path) -> None:
    encoder_id = load_encoder("default").encoder_id
    trained, _ = read_declaration(ROOT / CELLS).choose(["block-insertion/10", "towers-of-hanoi/10"])
    checkpoints.save(
        random_checkpoint(encoder_id, config=TINY), tmp_path / "policies" / trained.training.folder / "checkpoint"
    )
    names = ["--cell", "block-insertion/10", "--cell", "towers-of-hanoi/10"]
    told = run("run", "--list", "--json", "--cells", ROOT / CELLS, "--work", tmp_path, *names)
    assert {line["cell"]: line["state"] for line in map(json.loads, told.splitlines())} == {
        "block-insertion/10": "trained",
        "towers-of-hanoi/10": "to be trained",
    }

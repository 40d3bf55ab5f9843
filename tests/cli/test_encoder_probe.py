"""`embodied-vision encoder probe` in its smallest form, and again from what it kept."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from embodied_vision import locks
from embodied_vision.cli.encoder import app
from embodied_vision.encoders.probes import ABOUT
from embodied_vision.errors import BadInput, RunFailed
from tests.command_line import fails, prints

_run = partial(prints, app, "probe")


def test_the_table_is_made_and_features_are_kept(tmp_path: Path) -> None:
    asked = ("--run", tmp_path / "run", "--task", "block-insertion", "--scenes", 2, "--threads", 1)
    asked += ("--corruption", "jpeg", "--severity", 3)
    out = _run("default", *asked, "--json", "--report", tmp_path / "page")
    found = json.loads(out.strip().splitlines()[-1])
    assert list(found["encoders"]) == ["default", "random twin", "raw RGB", "raw RGB-D"]
    assert set(found["kinds"]) == {"block", "fixture", "robot", "table"}
    assert len(found["rows"]) == 4 * 2 * 3
    assert set(found["rows"][0]["figures"]) == set(ABOUT)
    assert (tmp_path / "page" / "index.html").is_file()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.npy")}
    text = _run("default", *asked, "--markdown")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.npy")} == kept
    assert "| default | linear | " in text


def test_a_second_probe_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with locks.exclusive(tmp_path / "lock", "first"):
        error = fails(app, "probe", "--run", tmp_path)
    assert isinstance(error, RunFailed)
    assert "another probe works in" in str(error)


def test_an_unknown_corruption_is_named(tmp_path: Path) -> None:
    error = fails(app, "probe", "--run", tmp_path, "--corruption", "snow")
    assert isinstance(error, BadInput)
    assert "corruption 'snow' is unknown; choose of fog, low light, blur, noise, jpeg, or none" in str(error)

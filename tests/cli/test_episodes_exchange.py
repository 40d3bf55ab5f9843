"""`embodied-vision episodes export` and `import`."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest
from episodes.exchange import bags
from episodes.exchange.rich import assert_equal, write_rich
from episodes.samples import write_episode

from embodied_vision.cli.episodes import app
from embodied_vision.episodes import EpisodeStore
from embodied_vision.errors import BadInput
from tests.command_line import call, fails

run, error = partial(call, app), partial(fails, app)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EpisodeStore:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # do not wait for the disk
    store = EpisodeStore(tmp_path / "store")
    write_episode(store, frames=2, solved=True)
    write_episode(store, frames=2, solved=False, task="stacking")
    write_rich(store, frames=3)
    return store


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mcap", []),
        ("out", ["--format", "mcap"]),
        ("out", ["--format", "rosbag2"]),
        ("out", ["--format", "rosbag2", "--storage", "sqlite3"]),
        ("out.hdf5", []),
        ("out", ["--format", "lerobot"]),
    ],
)
def test_out_and_in_again(store: EpisodeStore, tmp_path: Path, name: str, options: list[str]) -> None:
    one = store.ids()[2]
    result = run("export", store.path, tmp_path / name, one[:-1], *options, "--json")
    assert result.exit_code == 0, result.output
    exported = json.loads(result.stdout)
    assert exported["exported"] == [one]
    result = run("import", tmp_path / name, tmp_path / "other", "--json")
    assert result.exit_code == 0, result.output
    imported = json.loads(result.stdout)
    assert imported["format"] == exported["format"]
    (episode_id,) = imported["imported"]
    if imported["format"] in ("mcap", "rosbag2"):
        assert_equal(store.open(one), EpisodeStore(tmp_path / "other").open(episode_id))


def test_filters_choose_what_is_exported(store: EpisodeStore, tmp_path: Path) -> None:
    ids = store.ids()
    for options, wanted in (
        (["--task", "stacking"], [ids[1]]),
        (["--solved"], [ids[0]]),
        (["--tag", "keep"], [ids[2]]),
    ):
        target = tmp_path / "-".join(options)
        result = run("export", store.path, target, "--format", "mcap", "--json", *options)
        assert json.loads(result.stdout)["exported"] == wanted
        assert [path.name for path in target.iterdir()] == [f"{wanted[0]}.mcap"]
    assert "3 episodes exported" in run("export", store.path, tmp_path / "all", "--format", "rosbag2").stdout
    assert "3 episodes imported" in run("import", tmp_path / "all", tmp_path / "other").stdout


def test_a_recording_of_others(store: EpisodeStore, tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "bag", bags.typical(2))
    topics = bags.write_map(tmp_path / "topics.yaml", bags.TYPICAL_MAP.replace("task: stacking", ""))
    result = run("import", bag, tmp_path / "other", "--topics", topics, "--task", "typed", "--json")
    assert result.exit_code == 0, result.output
    (episode_id,) = json.loads(result.stdout)["imported"]
    assert EpisodeStore(tmp_path / "other").open(episode_id).task == "typed"


def test_an_error_tells_what_was_imported_before(store: EpisodeStore, tmp_path: Path) -> None:
    run("export", store.path, tmp_path / "out", "--format", "mcap")
    last = sorted((tmp_path / "out").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-100])
    result = run("import", tmp_path / "out", tmp_path / "other", "--json")
    assert isinstance(result.exception, BadInput)
    told = json.loads(result.stdout)
    assert last.name in told["error"]
    assert told["imported"] == EpisodeStore(tmp_path / "other").ids()
    assert len(told["imported"]) == 2
    assert EpisodeStore(tmp_path / "other").staging_ids() == []


def test_what_cannot_be_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert "--format" in str(error("export", store.path, target))
    assert "unknown" in str(error("export", store.path, target, "--format", "avi"))
    assert "rosbag2 alone" in str(error("export", store.path, tmp_path / "o.mcap", "--storage", "sqlite3"))
    assert "give a folder" in str(error("export", store.path, tmp_path / "o.mcap"))
    assert "no episodes that meet" in str(error("export", store.path, target, "--format", "mcap", "--tag", "x"))
    assert "no episode store" in str(error("export", tmp_path / "none", target, "--format", "mcap"))
    target.mkdir()
    assert "never overwritten" in str(error("export", store.path, target, "--format", "mcap"))
    assert "does not exist" in str(error("import", tmp_path / "none", tmp_path / "other"))
    assert "--format" in str(error("import", target, tmp_path / "other"))
    assert "holds none" in str(error("import", target, tmp_path / "other", "--format", "rosbag2"))
    wrong = error("import", target, tmp_path / "other", "--format", "mcap", "--calibration", target)
    assert "give --topics" in str(wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]

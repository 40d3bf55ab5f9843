"""`train` ends in a checkpoint that says where it comes from, and resumes to the same one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policies.stubs import frame
from typer.testing import CliRunner

from embodied_vision import geometry
from embodied_vision.cli.main import app
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.types import PickPlace


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    """A store with one demonstration."""
    shot = frame(3)
    writer = EpisodeWriter(
        EpisodeStore(tmp_path / "demos"),
        task="block-insertion",
        robot="panda_suction",
        cameras=[shot.camera],
        attributes={"seed": 3},
    )
    action = PickPlace(
        geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4), stamp_ns=shot.stamp_ns
    )
    writer.append_decision(action, [shot])
    writer.close({"reward": 1.0, "solved": True})
    return tmp_path / "demos"


def test_training_ends_in_a_checkpoint_with_its_provenance_and_resumes_to_the_same(demos: Path, tmp_path: Path) -> None:
    arguments = ["train", "--task", "block-insertion", "--episodes", str(demos), "--output", str(tmp_path / "run")]
    arguments += ["--encoder", "none", "--steps", "1", "--batch", "1", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    figures = json.loads(done.stdout)
    assert (figures["demos"], figures["steps"]) == (1, 1)
    manifest = checkpoints.read_manifest(tmp_path / "run" / "checkpoint")
    assert manifest["checkpoint_id"] == figures["checkpoint_id"]
    assert manifest["training"]["scene_seeds"] == [3]
    assert "torch" in manifest["training"]["versions"]
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    again = CliRunner().invoke(app, [*arguments, "--resume"], catch_exceptions=False)
    assert json.loads(again.stdout)["checkpoint_id"] == figures["checkpoint_id"]


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="embodied-vision collect"):
        CliRunner().invoke(
            app,
            ["train", "--task", "block-insertion", "--episodes", str(tmp_path / "no"), "--output", str(tmp_path)],
            catch_exceptions=False,
        )


def test_evaluating_a_missing_checkpoint_names_its_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no policy checkpoint"):
        CliRunner().invoke(
            app,
            ["evaluate", "--task", "block-insertion", "--checkpoint", str(tmp_path / "no"), "--scenes", "1"],
            catch_exceptions=False,
        )


def test_learning_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--store"):
        CliRunner().invoke(app, ["learn", "--policies", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(BadInput, match="no episode store"):
        CliRunner().invoke(
            app, ["learn", "--policies", str(tmp_path), "--store", str(tmp_path / "no")], catch_exceptions=False
        )

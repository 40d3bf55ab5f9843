"""From labelled grasps to a policy, its figures, and grasps that it proposes for the next round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from policies.grasp_world import random_checkpoint
from typer.testing import CliRunner

from embodied_vision.cli.main import app
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.evaluate import split_seeds
from embodied_vision.learning.grasp_dataset import load_grasps
from embodied_vision.learning.grasp_evaluate import GraspConditions, evaluate_grasps
from embodied_vision.policies import grasp_checkpoint
from embodied_vision.policies.grasp_maps import BIN
from embodied_vision_sim.grasp_labelling import label

CHECKPOINT = Path("run") / "checkpoint"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a few labelled grasps, and a policy that hardly learnt from them."""
    folder = tmp_path_factory.mktemp("grasps")
    list(label(folder / "store", 3, grasps=4, image_size=256))
    list(label(folder / "store", 1, grasps=4, image_size=64, split="validation"))
    arguments = ["grasp", "train", "--episodes", folder / "store", "--output", folder / "run", "--steps", "2", "--json"]
    arguments += ["--set", "train.batch=4"]
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["attempts"], figures["scenes"]) == (12, 3)
    assert list((folder / "run" / "tensorboard").iterdir())
    return folder


def test_grasps_of_validation_scenes_teach_nothing(folder: Path) -> None:
    store = EpisodeStore(folder / "store")
    dataset = load_grasps(store, "grasp-diverse", None, BIN)
    assert len(dataset.scenes) == 3
    assert all(len(scene.views) == 2 for scene in dataset.scenes)  # as seen, and at half the resolution
    assert dataset.lift_m() == pytest.approx(0.24)
    assert load_grasps(store, "grasp-diverse", None, BIN, 5).attempts == 5
    episode = next(iter(store.select("grasp-diverse")))
    scene = next(scene for scene in dataset.scenes if scene.episode_id == episode.id)
    poses = [decision.action.pick for decision in episode.decisions]
    np.testing.assert_allclose(scene.heights_m, [pose[2, 3] for pose in poses])
    np.testing.assert_array_equal(scene.success, [decision.info["success"] for decision in episode.decisions])


def test_figures_do_not_depend_on_the_number_of_workers(folder: Path) -> None:
    conditions, seeds = GraspConditions(in_bin=1), split_seeds("validation", 2)
    one = evaluate_grasps(folder / CHECKPOINT, seeds, conditions)
    two = evaluate_grasps(folder / CHECKPOINT, seeds, conditions, workers=2)
    for a, b in zip(one, two, strict=True):
        assert (a.seed, a.solved, a.steps, a.refused) == (b.seed, b.solved, b.steps, b.refused)
        assert a.actions[0]["pick"] == b.actions[0]["pick"]
    with pytest.raises(BadInput, match="no scene"):
        evaluate_grasps(folder / CHECKPOINT, [], conditions)


def test_the_command_line_records_what_it_measured(folder: Path) -> None:
    arguments = ["grasp", "evaluate", "--checkpoint", folder / CHECKPOINT, "--split", "validation", "--scenes", "1"]
    arguments += ["--in-bin", "2", "--record", "--append", folder / "figures.jsonl", "--json"]
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["scenes"] == 1
    assert figures["solved"] in (0, 1)
    assert figures["in_bin"] == 2
    line = json.loads((folder / "figures.jsonl").read_text())
    recorded = grasp_checkpoint.load(folder / CHECKPOINT)
    assert line["checkpoint_id"] == recorded.checkpoint_id
    assert recorded.measured["validation, 2 in the bin"]["solved"] == figures["solved"]
    assert f"{figures['solved']} of 1" in (folder / CHECKPOINT / "card.md").read_text()


def test_a_policy_proposes_the_next_grasps_to_label(folder: Path, tmp_path: Path) -> None:
    policy = folder / CHECKPOINT
    (result,) = label(tmp_path / "next", 1, grasps=4, seed_offset=9, image_size=64, in_bin=2, policy=policy)
    assert result.grasps == 4
    episode = EpisodeStore(tmp_path / "next").open(str(result.episode_id))
    assert [decision.info["kind"] for decision in episode.decisions] == ["best", "best", "drawn", "drawn"]
    assert episode.attributes["proposed_by"] == grasp_checkpoint.load(policy).checkpoint_id
    assert len(episode.attributes["numbers"]) == 2


def test_a_policy_that_finds_nothing_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grasp_checkpoint.save(random_checkpoint(), tmp_path / "policy")
    monkeypatch.setattr("embodied_vision.policies.grasp_policy.LEAST_REACH_M", 1.0)
    (result,) = evaluate_grasps(tmp_path / "policy", split_seeds("validation", 1), GraspConditions(in_bin=1))
    assert not result.solved
    assert "no_grasp" in result.refused[0]

"""The grasp head learns what lifts, goes on where it stopped, and names what it cannot learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import grasp_world

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.grasp_configuration import GraspRunConfig, GraspTrainConfig, Variation
from embodied_vision.learning.grasp_dataset import Attempts, GraspDataset, load_grasps
from embodied_vision.learning.grasp_train import roc_area, train_grasps
from embodied_vision.policies.grasp_maps import BIN
from embodied_vision.policies.grasp_network import GraspNet
from embodied_vision.policies.grasp_policy import GraspPolicy
from embodied_vision.policies.maps import Normalisation

DEPTHS = (0.015, 0.03, 0.045)


@pytest.fixture(scope="module")
def bars() -> GraspDataset:
    return grasp_world.dataset(40)


def test_it_learns_to_close_across_a_bar(bars: GraspDataset, tmp_path: Path) -> None:
    config = GraspRunConfig(GraspTrainConfig(steps=120, batch=16, ema=0.95, held_out=0.2))
    checkpoint = train_grasps(bars, None, tmp_path, config)
    assert checkpoint.training["checked"]["auc"] > 0.9
    assert checkpoint.training["attempts"] == 480
    assert checkpoint.lift_m == grasp_world.LIFT_M
    policy = GraspPolicy.load(tmp_path / "checkpoint", None)
    misses = []
    for yaw in (0.2, 1.1, 2.0, 2.8):
        at = grasp_world.MIDDLE + np.array([0.03, -0.04])
        (action,) = policy.proposals(policy.judge_scene(grasp_world.bar(at, yaw)), 1)
        misses.append(np.linalg.norm(action.pick[:2, 3] - at))
        closing, length = action.pick[:2, 1], np.array([np.cos(yaw), np.sin(yaw)])
        assert abs(closing @ length) < 0.5
    assert np.median(misses) < 0.02


def test_resuming_gives_the_same_weights(bars: GraspDataset, tmp_path: Path) -> None:
    config = GraspRunConfig(GraspTrainConfig(steps=4, batch=4))

    class Interrupted(Exception):
        pass

    def interrupt(step: int, loss: float) -> None:
        if step == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_grasps(bars, None, tmp_path / "resumed", config, report=interrupt, save_every_s=0)
    resumed = train_grasps(bars, None, tmp_path / "resumed", config, resume=True)
    whole = train_grasps(bars, None, tmp_path / "whole", config)
    assert resumed.checkpoint_id == whole.checkpoint_id
    with pytest.raises(BadInput, match="other grasps or settings"):
        train_grasps(bars, None, tmp_path / "resumed", config.assigned("train.seed=1"), resume=True)
    with pytest.raises(BadInput, match="nothing to resume"):
        train_grasps(bars, None, tmp_path / "new", config, resume=True)


def test_successes_and_failures_are_drawn_equally_often(bars: GraspDataset) -> None:
    attempts = Attempts(bars, Normalisation.identity(0), DEPTHS, 0.008)
    drawn = attempts.draw(64, np.random.default_rng(0))
    assert attempts.success[drawn].mean() == 0.5


def test_variation_leaves_what_is_unseen_and_the_label(bars: GraspDataset) -> None:
    scene = bars.scenes[0]
    scene.views[0].valid[:40], scene.views[0].height[:40], scene.views[0].color[:40] = False, 0, 0
    attempts = Attempts(replace(bars, scenes=(scene,)), Normalisation.identity(0), DEPTHS, 0.008)
    net = GraspNet.seeded(grasp_world.TINY, 0)
    indices = np.arange(len(attempts))
    one = attempts.batch(net, indices, (Variation(), np.random.default_rng(1)))
    assert (one.views[:, :4][(one.views[:, 4:5] == 0).expand(-1, 4, -1, -1)] == 0).all()
    np.testing.assert_array_equal(one.success.numpy() > 0, scene.success)
    other = attempts.batch(net, indices, (Variation(), np.random.default_rng(2)))
    assert not torch.equal(one.views, other.views)
    assert torch.equal(attempts.batch(net, indices).views, attempts.batch(net, indices).views)


def test_area_under_the_curve_counts_pairs() -> None:
    success = np.array([True, True, False, False])
    assert roc_area(np.array([3.0, 2.0, 1.0, 0.0]), success) == 1.0
    assert roc_area(np.array([0.0, 1.0, 2.0, 3.0]), success) == 0.0
    assert roc_area(np.array([3.0, 1.0, 2.0, 1.0]), success) == pytest.approx(2.5 / 4)
    assert roc_area(np.array([1.0, 2.0]), np.array([True, True])) == 0.5


def test_a_store_without_labelled_grasps_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no labelled grasps"):
        load_grasps(EpisodeStore(tmp_path / "empty"), "grasp-diverse", None, BIN)


def test_settings_survive_a_file_and_bad_ones_are_named(tmp_path: Path) -> None:
    changed = GraspRunConfig().assigned("train.steps=7").assigned("network.depths_m=[0.01, 0.02]")
    (tmp_path / "grasp.yaml").write_text(changed.to_yaml())
    assert GraspRunConfig.read(tmp_path / "grasp.yaml") == changed
    assert changed.network.depths_m == (0.01, 0.02)
    for bad, told in (
        ("train.held_out=0", "held_out is 0"),
        ("train.batch=1", "batch is 1"),
        ("network.crop=44", "crop is 44"),
        ("network.widths=[6]", "widths are"),
        ("variation.gain=-1", "gain is -1"),
    ):
        with pytest.raises(BadInput, match=told):
            GraspRunConfig().assigned(bad)

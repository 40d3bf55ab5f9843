"""Each objective by itself: what makes its loss small, and what it must not change."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embodied_vision.encoders.compact import Architecture, initialised
from embodied_vision.encoders.ema import decay_at, follow
from embodied_vision.encoders.masked import CELL_PX, patches, statistics_kept
from embodied_vision.encoders.pretrain import Pretraining, PretrainSettings
from embodied_vision.encoders.self_distillation import CLUSTERS, SelfDistillation, evenly_assigned
from embodied_vision.errors import EncoderError

from .conftest import MakeSets

SMALL = Architecture(stem=6, fine=8, middle=12, coarse=16, blocks=(1, 1, 1), dimension=12)
QUICK = PretrainSettings(steps=4, pairs=2, crop_px=48, points=32)


def test_the_average_follows_faster_at_first() -> None:
    average, source = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        average.weight.fill_(0.0)
        source.weight.fill_(1.0)
    follow(average, source, 0.75)
    assert average.weight.item() == pytest.approx(0.25)
    decays = [decay_at(step, 0.99) for step in range(2000)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_patches_know_neither_brightness_nor_contrast() -> None:
    crops = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    told = patches(crops)
    assert told.shape == (1, 4, 4, 192)
    torch.testing.assert_close(patches(crops + 0.4), told, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(patches(crops * 1.5), told, atol=0.02, rtol=0.02)
    assert patches(torch.full((1, 3, 32, 32), 0.3)).abs().max() < 1e-4  # a plain patch has nothing to tell


def test_painted_crops_leave_the_batch_norms_alone() -> None:
    network = initialised(SMALL, 0).train()
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    with statistics_kept(network):
        network(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())
    network(torch.randn(2, 3, 32, 32))
    assert not all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())


def test_clusters_are_used_alike_and_collapse_is_undone() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(400, 8, generator=generator) * 0.4
    logits[:, 0] += 1.0  # every point likes the first cluster best
    assigned = evenly_assigned(logits, iterations=50)
    torch.testing.assert_close(assigned.sum(1), torch.ones(400))
    torch.testing.assert_close(assigned.sum(0), torch.full((8,), 50.0), rtol=0.02, atol=0.5)


@pytest.mark.parametrize("name", ["masked", "self-distillation"])
def test_an_objective_alone_needs_no_poses_and_learns(make_sets: MakeSets, name: str) -> None:
    blind = [replace(s, frames=tuple(replace(f, depth=np.zeros_like(f.depth)) for f in s.frames)) for s in make_sets(6)]
    settings = replace(QUICK, steps=20, objectives={name: 1.0}, poses=False)
    losses = [figures[name] for figures in Pretraining(settings, blind, SMALL).advance()]
    assert np.mean(losses[-5:]) < 0.97 * np.mean(losses[:5]), losses


def test_self_distillation_does_not_end_in_uniform_assignments() -> None:
    """Points that can be told apart in both views come to have clusters of their own, also after noise at first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = SelfDistillation(12)
        optimiser = torch.optim.AdamW(objective.head.parameters(), lr=3e-3)
        points = torch.randn(300, 12)
        for step in range(80):
            noise = 3.0 if step < 30 else 0.3
            views = tuple(points + noise * torch.randn(300, 12) for _ in range(2))
            loss, figures = objective(SimpleNamespace(sampled=[views], averaged=[views]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            objective.follow(decay_at(step, 0.99))
    assert float(loss.detach()) < np.log(CLUSTERS) - 0.5
    assert figures["clusters_in_use"] > 100


def test_hidden_patches_cannot_be_seen(make_sets: MakeSets) -> None:
    """What is painted over has no part in the features: the mask objective reads no leak."""
    run = Pretraining(replace(QUICK, objectives={"masked": 1.0}), make_sets(1), SMALL)
    masked = run.objectives["masked"]
    crops = torch.rand(1, 3, 48, 48)
    changed = crops.clone()
    changed[:, :, CELL_PX : 2 * CELL_PX, CELL_PX : 2 * CELL_PX] = 0.9
    hidden = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    hidden[0, 0, 1, 1] = True
    assert torch.equal(masked.painted(crops, hidden), masked.painted(changed, hidden))
    assert not torch.equal(masked.painted(crops, ~hidden), masked.painted(changed, ~hidden))


def test_what_cannot_work_is_refused_with_a_remedy(make_sets: MakeSets) -> None:
    sets = make_sets(1)
    with pytest.raises(EncoderError, match="describe needs depth and camera poses; leave it out, or --no-poses"):
        Pretraining(replace(QUICK, poses=False), sets, SMALL)
    with pytest.raises(EncoderError, match="it takes `encoder distill`"):
        Pretraining(replace(QUICK, objectives={"teacher": 1.0}), sets, SMALL)
    with pytest.raises(EncoderError, match="'jigsaw' is unknown here: there are describe, masked, match"):
        Pretraining(replace(QUICK, objectives={"jigsaw": 1.0}), sets, SMALL)
    with pytest.raises(EncoderError, match="weight nan; give a number above 0"):
        Pretraining(replace(QUICK, objectives={"match": float("nan")}), sets, SMALL)
    with pytest.raises(EncoderError, match="appearance 'wild' is unknown; use mild, strong"):
        Pretraining(replace(QUICK, appearance="wild"), sets, SMALL)
    with pytest.raises(EncoderError, match="no objective"):
        Pretraining(replace(QUICK, objectives={}), sets, SMALL)

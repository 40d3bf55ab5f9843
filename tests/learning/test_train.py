"""Training learns where things go, is exactly repeatable, and goes on exactly where it stopped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import synthetic

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning.dataset import Dataset, to_example
from embodied_vision.learning.train import TrainConfig, train
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.policies.policy import Policy
from embodied_vision.types import Workspace

TINY = NetworkConfig(features=2, coarse_widths=(8, 8), embedding=4, fine_widths=(8, 8), fine_channels=3)
SMALL = NetworkConfig(coarse_widths=(16, 24), embedding=4, fine_widths=(16,), fine_channels=4)


def dataset(count: int, features: int = 0, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    examples = [to_example(*synthetic.insertion(rng, features)) for _ in range(count)]
    return Dataset(examples, [f"episode-{seed}"], "block-insertion", "")


def run(data: Dataset, steps: int, **options: object) -> dict[str, torch.Tensor]:
    network = PolicyNetwork.seeded(TINY, 0)
    config = TrainConfig(steps=steps, batch=2, tried=6)
    return train(data, network, data.normalisation(), config, **options)  # type: ignore[arg-type]


class Stop(Exception):
    """Ends a run as a signal would."""


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_run_ends_in_the_same_weights_bit_for_bit_as_do_one_and_three_threads(tmp_path: Path) -> None:
    data = dataset(3, features=2)
    whole = run(data, 6, threads=3)

    def interrupt(stage: str, step: int, _: object) -> None:
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        run(data, 6, threads=2, state=tmp_path, save_every_s=0.0, report=interrupt)
    resumed = run(data, 6, threads=1, state=tmp_path, resume=True)
    assert same(whole, resumed)


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    data = dataset(2, features=2)
    run(data, 1, state=tmp_path)
    with pytest.raises(BadInput, match="other demonstrations or settings"):
        run(data, 2, state=tmp_path, resume=True)
    with pytest.raises(BadInput, match="nothing to resume"):
        run(data, 1, state=tmp_path / "elsewhere", resume=True)


def test_a_time_limit_ends_training_early() -> None:
    steps: list[int] = []
    run(dataset(2, features=2), 500, threads=1, limit_s=0.0, report=lambda _, step, __: steps.append(step))
    assert steps == []


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_a_loss_that_is_not_finite_ends_both_stages(stage: str) -> None:
    data = dataset(1, features=2)
    network = PolicyNetwork.seeded(TINY, 0)
    head = network.coarse.trunk.head if stage == "coarse" else network.fine.key_net.head
    with torch.no_grad():
        head.bias[:] = math.nan
    with pytest.raises(RunFailed, match=f"{stage} stage is nan at step 0"):
        train(data, network, data.normalisation(), TrainConfig(steps=100_000, batch=2, tried=6))


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    data = dataset(1, features=2)
    run(data, 1, state=tmp_path)
    (tmp_path / "fine.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BadInput, match=r"fine.safetensors is damaged"):
        run(data, 1, state=tmp_path, resume=True)


def test_training_leaves_the_number_of_threads_as_it_was() -> None:
    torch.set_num_threads(2)
    try:
        run(dataset(1, features=2), 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_few_steps_on_a_few_scenes_insert_the_block_on_unseen_ones() -> None:
    """One color for the block, one for the fixture: what takes minutes in simulation takes seconds here."""
    data = dataset(12)
    network = PolicyNetwork.seeded(SMALL, 0)
    weights = train(data, network, data.normalisation(), TrainConfig(steps=90, batch=2, tried=8, ema=0.95))
    checkpoint = Checkpoint("block-insertion", "", Workspace(), SMALL, data.normalisation(), weights=weights)
    policy = Policy(checkpoint, None)
    rng = np.random.default_rng(77)
    right = 0
    for _ in range(8):
        scene, action = synthetic.insertion(rng)
        truth, found = to_example(scene, action), policy.explain_scene(scene)
        near = np.linalg.norm(found.place - truth.place) * 0.004 < 0.01
        turned = abs(math.remainder(found.yaw_rad - truth.yaw_rad, 2 * math.pi)) < math.radians(15)
        right += bool(found.segment.mask.any() and near and turned)
    assert right >= 6

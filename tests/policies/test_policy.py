"""A policy decides the same each time, and refuses what it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies import decoding
from embodied_vision.policies.policy import Policy
from embodied_vision.types import RGBD, Features
from policies import synthetic
from policies.stubs import TINY, StubEncoder, frame, random_checkpoint


def test_same_frames_same_decision_bit_for_bit_after_a_round_trip(tmp_path: Path) -> None:
    encoder, shot = StubEncoder(), frame()
    checkpoint = random_checkpoint()
    checkpoints.save(checkpoint, tmp_path / "policy")
    features = [encoder.encode(shot.color, shot.stamp_ns)]
    actions = [Policy(checkpoint, encoder).decide([shot], features)]
    loaded = Policy.load(tmp_path / "policy", encoder)
    actions += [loaded.decide([shot], features) for _ in range(3)]
    for action in actions[1:]:
        assert action.pick.tobytes() == actions[0].pick.tobytes()
        assert action.place.tobytes() == actions[0].place.tobytes()
        assert action.scores == actions[0].scores
    assert loaded.checkpoint_id == checkpoint.checkpoint_id
    assert actions[0].is_finite()
    assert actions[0].pick.dtype == np.float64
    assert actions[0].stamp_ns == 1234


def test_features_with_nan_are_refused() -> None:
    encoder, shot = StubEncoder(), frame()
    features = encoder.encode(shot.color, shot.stamp_ns)
    features.grid[4, 5, 1] = np.nan
    with pytest.raises(BadInput, match="non-finite"):
        Policy(random_checkpoint(), encoder).decide([shot], [features])


def test_features_of_another_encoder_are_refused() -> None:
    encoder, shot = StubEncoder(), frame()
    made = encoder.encode(shot.color, shot.stamp_ns)
    other = Features(made.grid, made.stride, "stub-2", made.artefact_id, made.stamp_ns)
    with pytest.raises(BadInput, match=r"stub-2.*stub-1"):
        Policy(random_checkpoint(), encoder).decide([shot], [other])


def test_missing_features_are_refused() -> None:
    with pytest.raises(BadInput, match="0 feature channels"):
        Policy(random_checkpoint(), StubEncoder()).decide([frame()], [])


def test_blind_camera_is_refused() -> None:
    shot = frame()
    blind = RGBD(shot.color, np.zeros_like(shot.depth), shot.camera, shot.stamp_ns)
    with pytest.raises(BadInput, match="no camera sees"):
        Policy(random_checkpoint(), StubEncoder()).decide([blind], [StubEncoder().encode(shot.color, 1234)])


def test_checkpoint_of_another_encoder_names_both() -> None:
    with pytest.raises(CheckpointError, match=r"dino-7.*stub-1"):
        Policy(random_checkpoint(encoder_id="dino-7"), StubEncoder())


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no policy checkpoint"):
        Policy.load(tmp_path / "nothing", StubEncoder())


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_let_go_off_the_map(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fine stage never learnt what lies beyond the edge; whatever it says there, the guard would refuse it."""
    policy, rng = Policy(random_checkpoint("", 0, config=TINY), None), torch.Generator().manual_seed(seed)
    rows, columns = (size // TINY.coarse_pool - 1 for size in policy.workspace.shape)
    corners = [np.array(corner) for corner in ((0, 0), (0, columns), (rows, 0), (rows, columns))]
    monkeypatch.setattr(decoding, "modes", lambda *_: corners)

    def anything(kernels: torch.Tensor, keys: torch.Tensor, *, alone: bool) -> torch.Tensor:
        shape = (1, keys.shape[1], kernels.shape[1], TINY.window, TINY.window)
        return 50 * torch.randn(shape, generator=rng)

    monkeypatch.setattr(policy._network.fine, "scores", anything)
    scene, _ = synthetic.insertion(np.random.default_rng(seed))
    x, y = policy.explain_scene(scene).action.place[:2, 3]
    assert policy.workspace.x[0] <= x <= policy.workspace.x[1]
    assert policy.workspace.y[0] <= y <= policy.workspace.y[1]

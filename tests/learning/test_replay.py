"""Deciding again on a log: identical for the policy that acted, different for another, plain where it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from embodied_vision import geometry
from embodied_vision.cli.replay import command
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import EpisodeError, RunFailed
from embodied_vision.learning.replay import replay_decisions
from embodied_vision.policies.policy import Policy
from tests.nodes.samples import camera, frame, write_encoder, write_policy


@pytest.fixture
def encoder(tmp_path: Path) -> CompactEncoder:
    return write_encoder(tmp_path / "encoder")


@pytest.fixture
def policy(tmp_path: Path, encoder: CompactEncoder) -> Policy:
    write_policy(tmp_path / "policy", encoder.encoder_id)
    return Policy.load(tmp_path / "policy", encoder)


def log(tmp_path: Path, policy: Policy, encoder: CompactEncoder, nudge_m: float = 0.0, **info: Any) -> EpisodeStore:
    """A store with an episode of two decisions of this policy, the second with its place pose nudged."""
    store = EpisodeStore(tmp_path / "store")
    writer = EpisodeWriter(store, task="block-insertion", robot="r", cameras=[camera()])
    for index in range(2):
        seen = frame(index, 10**9 * (index + 1))
        action = policy.decide([seen], [encoder.encode(seen.color, seen.stamp_ns)])
        place = action.place.copy()
        place[0, 3] += nudge_m * index
        names = {"checkpoint_id": policy.checkpoint_id, "encoder_id": encoder.encoder_id, "threads": 1}
        details = {**names, "artefact_id": encoder.artefact_id, "encoder_threads": 1, **info}
        writer.append_decision(replace(action, place=place), [seen], details)
    writer.close({"reward": 0.0, "solved": False})
    return store


def test_the_same_policy_decides_the_same_bit_for_bit(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    episode = log(tmp_path, policy, encoder).open(EpisodeStore(tmp_path / "store").ids()[0])
    comparisons = list(replay_decisions(episode, policy, encoder))
    assert [c.identical for c in comparisons] == [True, True]
    assert not any(c.is_fault for c in comparisons)


def test_a_last_bit_of_difference_is_a_fault(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    store = log(tmp_path, policy, encoder, nudge_m=1e-15)
    first, second = replay_decisions(store.open(store.ids()[0]), policy, encoder)
    assert not first.is_fault
    assert second.is_fault
    assert second.place_mm == pytest.approx(1e-12, abs=1e-12)


def test_another_checkpoint_may_differ(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    store = log(tmp_path, policy, encoder)
    write_policy(tmp_path / "other", encoder.encoder_id, seed=11)
    comparisons = list(replay_decisions(store.open(store.ids()[0]), Policy.load(tmp_path / "other", encoder), encoder))
    assert not any(c.same_ids or c.is_fault for c in comparisons)


def test_missing_frames_are_named(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    store = log(tmp_path, policy, encoder, frames_missing=[["camera", 5]])
    comparison = next(iter(replay_decisions(store.open(store.ids()[0]), policy, encoder)))
    assert "camera" in comparison.error
    assert comparison.is_fault


def test_an_episode_without_decisions_is_refused(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    store = EpisodeStore(tmp_path / "store")
    writer = EpisodeWriter(store, task="t", robot="r", cameras=[camera()])
    episode = store.open(writer.close({"reward": 0.0}))
    with pytest.raises(EpisodeError, match="no decisions"):
        list(replay_decisions(episode, policy, encoder))


@pytest.mark.parametrize(("nudge_m", "faults"), [(0.0, 0), (0.002, 1)])
def test_on_the_command_line(
    tmp_path: Path, policy: Policy, encoder: CompactEncoder, nudge_m: float, faults: int
) -> None:
    import typer

    store = log(tmp_path, policy, encoder, nudge_m)
    app = typer.Typer()
    app.command()(command)
    arguments = ["latest", "--store", str(store.path), "--policy", str(tmp_path / "policy")]
    result = CliRunner().invoke(app, [*arguments, "--encoder", str(tmp_path / "encoder"), "--json"])
    summary = json.loads(result.stdout.splitlines()[0])
    assert (summary["decisions"], summary["identical"], summary["faults"]) == (2, 2 - faults, faults)
    assert summary["comparisons"][1]["place_mm"] == pytest.approx(1000 * nudge_m, abs=1e-6)
    assert isinstance(result.exception, RunFailed) == bool(faults)


def test_poses_are_compared_not_only_their_positions(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    store = EpisodeStore(tmp_path / "store")
    writer = EpisodeWriter(store, task="t", robot="r", cameras=[camera()])
    seen = frame()
    action = policy.decide([seen], [encoder.encode(seen.color, seen.stamp_ns)])
    x, y, z = action.pick[:3, 3]
    turned = geometry.tool_down(x, y, z, geometry.yaw_of(action.pick) + 0.1)
    writer.append_decision(replace(action, pick=turned), [seen])
    episode = store.open(writer.close({"reward": 0.0}))
    (comparison,) = replay_decisions(episode, policy, encoder)
    assert not comparison.identical
    assert comparison.pick_deg == pytest.approx(5.73, abs=0.01)
    assert comparison.pick_mm == pytest.approx(0.0, abs=1e-9)

"""Deciding again on a log: identical for the policy that acted, different for another, plain where it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from embodied_vision import geometry
from embodied_vision.cli.replay import command
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EpisodeError, RunFailed
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


def several(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> EpisodeStore:
    """Two episodes of two decisions, one of them elsewhere by 30 mm, and one without any."""
    store = EpisodeStore(tmp_path / "store")
    log(tmp_path, policy, encoder)
    log(tmp_path, policy, encoder, nudge_m=0.03, checkpoint_id="former")
    EpisodeWriter(store, task="teleoperation", robot="r", cameras=[camera()]).close({"reward": 0.0})
    return store


def run(*arguments: str) -> Any:
    import typer

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_a_report_of_several_episodes(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    store = several(tmp_path, policy, encoder)
    folder = tmp_path / "report"
    policies = ["--policy", str(tmp_path / "policy"), "--encoder", str(tmp_path / "encoder")]
    result = run("--all", "--store", str(store.path), *policies, "--report", str(folder), "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["decisions"], summary["identical"], summary["faults"]) == (4, 3, 0)
    assert summary["differences"]["place_mm"]["greatest"] == pytest.approx(30.0)
    assert summary["differences"]["place_mm"]["median"] == 0.0
    assert [entry["episode"] for entry in summary["episodes"]] == store.ids()[:2]

    figures = json.loads((folder / "figures.json").read_text())
    assert [entry["identical"] for entry in figures["results"]] == [True, True, True, False]
    page = (folder / "index.html").read_text()
    assert "3 of 4" in page
    assert page.count('class="same"') == 4, "a histogram of each difference"
    pictures = sorted((folder / "decisions").iterdir())
    assert [picture.name for picture in pictures] == [f"{store.ids()[1]}-1-camera.jpg"]
    assert f'src="decisions/{pictures[0].name}"' in page
    seen = frame(1, 2 * 10**9)
    assert Image.open(pictures[0]).size == (seen.camera.width, seen.camera.height)


def test_a_report_shows_what_did_not_come_about(tmp_path: Path, policy: Policy, encoder: CompactEncoder) -> None:
    store = log(tmp_path, policy, encoder, frames_missing=[["camera", 5]])
    policies = ["--policy", str(tmp_path / "policy"), "--encoder", str(tmp_path / "encoder")]
    result = run("latest", "--store", str(store.path), *policies, "--report", str(tmp_path / "report"))
    assert isinstance(result.exception, RunFailed)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "no decision came about: the frames" in page
    assert json.loads((tmp_path / "report" / "figures.json").read_text())["undecided"] == 2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "give one episode"),
        (["latest", "--all"], "give one episode"),
        (["--all"], "--all is for --policy"),
        (["latest", "--report", "x"], "give a checkpoint"),
        (["latest", "--task", "t"], "choose among --all"),
        (["--all", "--policy", "p", "--task", "nothing"], "no episodes that meet the conditions"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, arguments: list[str], match: str) -> None:
    store = EpisodeStore(tmp_path / "store")
    EpisodeWriter(store, task="teleoperation", robot="r", cameras=[camera()]).close({"reward": 0.0})
    result = run("--store", str(store.path), *arguments)
    assert isinstance(result.exception, BadInput)
    assert match in str(result.exception)

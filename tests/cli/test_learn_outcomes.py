"""`learn outcomes`, `learn drift` and `episodes correct`, from the command line to the files and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embodied_vision.cli import drift, outcomes
from embodied_vision.cli.main import app
from embodied_vision.episodes.corrections import corrections
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import EmbodiedVisionError
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from tests.block_world import TASK, WORKSPACE, Cell, PatchEncoder


def run(*arguments: object, code: int = 0) -> str:
    """What a verb prints, or the words of the error with which it ends."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    error = result.exception
    if isinstance(error, EmbodiedVisionError):
        assert error.exit_code == code, error
        return str(error)
    assert result.exit_code == code, (result.output, error)
    return result.stdout


@pytest.fixture(autouse=True)
def _eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (outcomes, drift):
        monkeypatch.setattr(module, "load_encoder", lambda _: PatchEncoder())


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(EpisodeStore(tmp_path / "store"))


def test_a_classifier_is_trained_measured_and_labels_a_real_cells_episodes(cell: Cell, tmp_path: Path) -> None:
    for split in (0, 1_000_000, 2_000_000):
        for index in range(8 if split == 0 else 4):
            cell.episode(list(cell.rng.uniform(size=6) < 0.5), seed=split + index)
    store, folder = str(cell.store.path), tmp_path / "judge"
    trained = json.loads(
        run("learn", "outcomes", "train", "--task", TASK, "--store", store, "--output", folder, "--steps", 20, "--json")
    )
    assert trained["learnt_from"] >= 20
    assert trained["measured"]["outcomes"] >= 20
    picture = tmp_path / "reliability.png"
    arguments = ("--classifier", folder, "--store", store, "--record", "--plot", picture)
    measured = json.loads(run("learn", "outcomes", "evaluate", *arguments, "--json"))
    assert measured["accuracy"] == trained["measured"]["accuracy"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "manifest.json").read_text())["measured"]["auc"] == measured["auc"]
    assert "expected calibration error" in run(
        "learn", "outcomes", "evaluate", "--classifier", folder, "--store", store
    )

    real = Cell(EpisodeStore(tmp_path / "real"))
    ids = [real.episode([True], reward=False), real.episode([False, True], reward=False)]
    arguments = ("--classifier", folder, "--store", real.store.path)
    labelled = json.loads(run("learn", "outcomes", "label", *arguments, "--json"))
    assert [row["id"] for row in labelled["episodes"]] == ids
    assert all("judged" in real.store.open(each).outcome for each in ids)
    assert json.loads(run("learn", "outcomes", "label", *arguments, "--json"))["episodes"] == []
    run("learn", "outcomes", "label", *arguments, ids[0])


def test_what_cannot_be_trained_on_is_said(cell: Cell, tmp_path: Path) -> None:
    arguments = ("learn", "outcomes", "train", "--task", TASK, "--output", tmp_path / "judge", "--store")
    assert "no episode store" in run(*arguments, tmp_path / "nowhere", code=2)
    cell.episode([True])
    assert "known outcomes" in run(*arguments, cell.store.path, code=2)
    assert not (tmp_path / "judge").exists()
    assert "manifest.json is missing" in run(
        "learn", "outcomes", "label", "--classifier", tmp_path, "--store", cell.store.path, code=2
    )


def test_drift_is_reported_with_the_episodes_that_show_it(cell: Cell, tmp_path: Path) -> None:
    ids = [cell.episode([True]) for _ in range(16)]
    config = NetworkConfig(features=4)
    policy = Checkpoint(
        TASK,
        "patches-1",
        WORKSPACE,
        config,
        Normalisation.identity(4),
        weights=PolicyNetwork.seeded(config, 0).state_dict(),
        training={"episodes": ids},
    )
    folder, store = tmp_path / "policy", str(cell.store.path)
    checkpoints.save(policy, folder)
    seen = ("learn", "drift", "--checkpoint", folder, "--store", store)
    assert "learn drift fit" in run(*seen, code=2)
    shipped = ("learn", "drift", "fit", "--checkpoint", "block-insertion", "--store", store)
    assert "--known" in run(*shipped, code=2)
    run("learn", "drift", "fit", "--checkpoint", folder, "--store", store)
    assert (tmp_path / "policy.known" / "manifest.json").is_file()
    assert "no alarm" in run(*seen, "--all")
    dim = [cell.episode([True], light=0.5) for _ in range(6)]
    found = json.loads(run(*seen, "--all", "--patience", 10, "--plot", tmp_path / "drift.png", "--json"))
    assert (found["episodes"], found["decisions"]) == (6, 6)
    assert {alarm["channel"] for alarm in found["alarms"]} == {"scene"}
    assert set(found["alarms"][0]["episodes"]) <= set(dim)
    assert f"episodes show {store} {found['alarms'][0]['episodes'][-1]}" in run(*seen, "--all", "--patience", 10)
    assert json.loads(run(*seen, "--json"))["episodes"] == 0  # none is of this policy
    assert "false alarms" in run("learn", "drift", "check", "--streams", 1, "--length", 20, "--episodes", 20)


def test_a_decision_is_corrected_by_number_and_by_id(cell: Cell, tmp_path: Path) -> None:
    episode_id = cell.episode([True, False])
    verb = ("episodes", "correct", cell.store.path, "latest")
    assert "none of the 2 decisions" in run(*verb)
    assert "give its number" in run(*verb, "--pick=0.5,0,0", code=2)
    assert "no decision '3'" in run(*verb, "3", "--pick=0.5,0,0", code=2)
    kept = json.loads(run(*verb, "2", "--pick=0.5,0.1,0", "--place=0.45,-0.2,90,0.05", "--by", "Ada", "--json"))
    assert kept["decision"] == 2
    run(*verb, kept["decision_id"], "--place=0.45,-0.25,90,0.05", "--by", "Bob")
    found = corrections(cell.store.open(episode_id))
    assert list(found) == [1]
    assert (found[1].who, found[1].place[1, 3]) == ("Bob", -0.25)
    assert "decision 2: by Bob" in run(*verb)
    run(*verb, "1", "--page", tmp_path / "page.html")
    assert "structuredClone" in (tmp_path / "page.html").read_text()

"""`train` ends in a checkpoint that says where it comes from, and resumes to the same one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies.stubs import StubEncoder, frame
from typer.testing import CliRunner

from embodied_vision import locks
from embodied_vision.cli.main import app
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, CheckpointError, RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.learning.configuration import RunConfig, TrainConfig
from embodied_vision.learning.stage import learning_rate
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.types import Features, PickPlace


def train(demos: Path, output: Path, *more: str, encoder: str = "none") -> dict[str, Any]:
    """Figures of a run that must succeed."""
    arguments = ["train", "--task", "block-insertion", "--episodes", str(demos), "--output", str(output), "--json"]
    done = CliRunner().invoke(app, [*arguments, "--encoder", encoder, *more], catch_exceptions=False)
    assert done.exit_code == 0
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def test_training_ends_in_a_checkpoint_with_its_provenance_and_resumes_to_the_same(demos: Path, tmp_path: Path) -> None:
    figures = train(demos, tmp_path / "run", "--steps", "1", "--batch", "1")
    assert (figures["demos"], figures["examples"], figures["steps"]) == (1, 1, 1)
    manifest = checkpoints.read_manifest(tmp_path / "run" / "checkpoint")
    assert manifest["checkpoint_id"] == figures["checkpoint_id"]
    assert manifest["training"]["scene_seeds"] == [3]
    assert "torch" in manifest["training"]["versions"]
    again = train(demos, tmp_path / "run", "--steps", "1", "--batch", "1", "--resume")
    assert again["checkpoint_id"] == figures["checkpoint_id"]


def test_options_override_the_file_and_all_settings_are_in_the_manifest(
    demos: Path, tiny: Path, tmp_path: Path
) -> None:
    options = ["--config", str(tiny), "--steps", "1", "--set", "train.ema=0.5", "--set", "network.fine_channels=2"]
    train(demos, tmp_path / "run", *options, "--device", "cpu")
    manifest = checkpoints.read_manifest(tmp_path / "run" / "checkpoint")
    training, network = manifest["training"], manifest["network"]
    assert (training["steps"], training["batch"], training["ema"], training["clip"]) == (1, 2, 0.5, TrainConfig().clip)
    assert (training["device"], training["processes"]) == ("cpu", 1)
    assert (network["coarse_widths"], network["fine_channels"]) == ([8, 8], 2)


def test_the_printed_configuration_is_a_file_with_all_defaults(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["train", "--print-config"], catch_exceptions=False)
    assert printed.exit_code == 0
    path = tmp_path / "default.yaml"
    path.write_text(printed.stdout, encoding="utf-8")
    assert RunConfig.read(path) == RunConfig()


def test_a_second_run_does_not_encode_again(
    demos: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Counting(StubEncoder):
        def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
            calls.append(stamp_ns)
            return super().encode(color, stamp_ns)

    monkeypatch.setattr("embodied_vision.cli.train.load_encoder", lambda name: Counting())
    first = train(demos, tmp_path / "one", "--config", str(tiny), encoder="stub")
    assert (len(calls), first["encoder"]) == (1, StubEncoder.encoder_id)
    second = train(demos, tmp_path / "two", "--config", str(tiny), encoder="stub")
    assert len(calls) == 1
    assert second["checkpoint_id"] == first["checkpoint_id"]


def test_tensorboard_is_told_losses_rate_speed_settings_and_what_is_shown(
    demos: Path, tiny: Path, tmp_path: Path
) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(demos, tmp_path / "run", "--config", str(tiny), "--steps", "20", "--batch", "1")
    events = event_accumulator.EventAccumulator(
        str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0}
    ).Reload()
    losses, stages = ("loss/pick", "loss/place", "loss/fine"), ("coarse", "fine")
    assert set(events.Tags()["scalars"]) == {
        *losses,
        *(f"{name}/{stage}" for name in ("learning_rate", "examples_per_s") for stage in stages),
    }
    rates = [(event.step, event.value) for event in events.Scalars("learning_rate/fine")]
    config = TrainConfig(steps=20)
    assert rates == [(step, pytest.approx(learning_rate(config, step - 1))) for step in (10, 20)]
    assert all(event.value > 0 for event in events.Scalars("examples_per_s/coarse"))
    text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "steps: 20" in text
    assert [event.step for event in events.Images("shown")] == [1, *range(2, 21, 2)]


def test_features_that_are_not_finite_are_refused_with_the_demonstration_they_belong_to(
    demos: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(StubEncoder):
        encoder_id = "broken"

        def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
            features = super().encode(color, stamp_ns)
            features.grid[:, :, 1] = np.nan
            return features

    monkeypatch.setattr("embodied_vision.cli.train.load_encoder", lambda name: Broken())
    episode = EpisodeStore(demos).ids()[0]
    with pytest.raises(BadInput, match=f"encoder features of demonstration {episode}/0 are not finite"):
        train(demos, tmp_path / "run", "--config", str(tiny), encoder="broken")


def test_a_store_without_a_demonstration_of_the_task_says_what_it_holds(demos: Path, tmp_path: Path) -> None:
    arguments = ["train", "--task", "towers-of-hanoi", "--output", str(tmp_path / "run"), "--episodes"]
    with pytest.raises(BadInput, match=r"'towers-of-hanoi'.*holds 1 of block-insertion.*embodied-vision collect"):
        CliRunner().invoke(app, [*arguments, str(demos)], catch_exceptions=False)
    (tmp_path / "empty" / "episodes").mkdir(parents=True)
    with pytest.raises(BadInput, match="holds no episode"):
        CliRunner().invoke(app, [*arguments, str(tmp_path / "empty")], catch_exceptions=False)


def test_two_runs_do_not_write_to_one_folder(demos: Path, tiny: Path, tmp_path: Path) -> None:
    with locks.exclusive(tmp_path / "run" / "state" / "lock", "held by this test"):
        with pytest.raises(RunFailed, match="another training run writes to"):
            train(demos, tmp_path / "run", "--config", str(tiny))


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


def test_refused_decisions_are_left_out_and_the_user_is_told(demos: Path, tiny: Path, tmp_path: Path) -> None:
    store = EpisodeStore(demos)
    shot = frame(3)
    actions = [PickPlace(tool_down(0.5, 0.1, 0.05), tool_down(0.45, y, 0.06), stamp_ns=5) for y in (-0.2, 0.2)]
    begun = {DECISIONS_BEGUN: [actions[1].decision_id]}
    with EpisodeWriter(
        store, task="block-insertion", robot="panda_suction", cameras=[shot.camera], attributes=begun
    ) as writer:
        for action in actions:
            writer.append_decision(action, [shot])
        writer.close({"reward": 1.0, "solved": True})
    arguments = ["train", "--task", "block-insertion", "--episodes", str(demos), "--output", str(tmp_path / "run")]
    arguments += ["--encoder", "none", "--config", str(tiny)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "left out: 1 decision that the arm refused or never began" in done.output
    training = checkpoints.read_manifest(tmp_path / "run" / "checkpoint")["training"]
    assert (training["demos"], training["examples"], training["left_out"]) == (2, 2, 1)

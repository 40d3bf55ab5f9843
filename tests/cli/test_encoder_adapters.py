"""`encoder pretrain` and `encoder distill` with a backbone: a low-rank adapter of it, from logged frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from embodied_vision.cli.encoder import app
from embodied_vision.encoders import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.types import RGBD, Camera
from tests.command_line import fails, figures


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A small random DINOv2 as the hub holds it."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=70, patch_size=14)).save_pretrained(
        tmp_path / "backbone"
    )
    about = {"size": {"height": 70, "width": 70}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (tmp_path / "backbone" / "preprocessor_config.json").write_text(json.dumps(about))
    return tmp_path / "backbone"


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    """A store with an episode of one frame."""
    camera = Camera("c", 128, 96, np.array([(120, 0, 64), (0, 120, 48), (0, 0, 1.0)]), np.eye(4))
    color = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    with EpisodeWriter(EpisodeStore(tmp_path / "store"), task="t", robot="r", cameras=[camera], attributes={}) as log:
        log.append_frame(RGBD(color, np.full((96, 128), 0.5, np.float32), camera, 0))
        log.close({"reward": 0.0, "solved": False})
    return tmp_path / "store"


def test_an_adapter_is_trained_resumed_written_and_loaded(backbone: Path, episodes: Path, tmp_path: Path) -> None:
    output = tmp_path / "adapter"
    where = ("--episodes", episodes, "--run", tmp_path / "run", "--output", output, "--threads", 1)
    what = ("--backbone", f"{backbone}+size=70x126", "--adapter-rank", 2, "--objective", "masked", "--no-poses")
    out = figures(app, "pretrain", *where, *what, "--steps", 2, "--json")
    encoder = load_encoder(output)
    assert out["encoder_id"] == encoder.encoder_id != load_encoder(f"{backbone}+size=70x126").encoder_id
    assert figures(app, "info", output, "--json")["grid_of_424x240"] == [5, 9]
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["rank"] == 2
    assert manifest["base"]["options"] == {"size": "70x126"}
    assert manifest["training"]["settings"]["learning_rate"] == 1e-3
    assert manifest["training"]["settings"]["crop_px"] == 154
    assert "Updates of rank 2 for 12 linear layers" in (output / "card.md").read_text()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    again = figures(app, "pretrain", *where, *what, "--steps", 2, "--json", "--resume")
    assert again["encoder_id"] == out["encoder_id"]
    less = ("--backbone", backbone, *what[2:], "--steps", 2, "--resume")
    assert "belongs to a run with backbone dinov2-" in str(fails(app, "pretrain", *where, *less))


def test_a_teachers_features_go_into_an_adapter(backbone: Path, episodes: Path, tmp_path: Path) -> None:
    output = tmp_path / "adapter"
    where = ("--episodes", episodes, "--run", tmp_path / "run", "--output", output, "--threads", 1)
    out = figures(app, "distill", "default", *where, "--backbone", backbone, "--steps", 1, "--no-poses", "--json")
    assert out["encoder_id"] == load_encoder(output).encoder_id
    assert json.loads((output / "manifest.json").read_text())["training"]["teacher"]["name"] == "default"


def test_options_that_do_not_go_together_are_refused(backbone: Path, tmp_path: Path) -> None:
    run = ("--run", tmp_path / "run", "--output", tmp_path / "adapter")
    assert "give --backbone NAME" in str(fails(app, "pretrain", *run, "--adapter-rank", 4))
    error = fails(app, "pretrain", *run, "--backbone", backbone, "--dimension", 8)
    assert "--dimension 8 is of the compact network" in str(error)
    assert "takes no low-rank adapter" in str(fails(app, "pretrain", *run, "--backbone", "default"))
    assert not (tmp_path / "run").exists()

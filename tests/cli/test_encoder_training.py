"""`encoder distill`, `encoder stability` and what `encoder pretrain` shares with them, in their smallest form."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.cli.encoder import app
from embodied_vision.cli.encoder_frames import logged_frames
from embodied_vision.cli.encoder_training import weights_of_objectives
from embodied_vision.encoders import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EncoderError, RunFailed
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.locks import exclusive
from embodied_vision.types import RGBD, Camera
from tests.command_line import fails, prints

SMALL = ("--task", "block-insertion", "--scenes", 1, "--views", 1, "--threads", 1, "--probe-scenes", 0, "--steps", 2)


_run, _fails = partial(prints, app), partial(fails, app)


def test_distill_keeps_the_teachers_features_and_writes_an_encoder(tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "student"
    wanted = ("distill", "default", "--run", run, "--output", output, *SMALL, "--look", "none", "--look", "strong")
    more = ("--objective", "teacher", "--objective", "match=0.5", "--appearance", "strong", "--dimension", 8)
    out = json.loads(_run(*wanted, *more, "--json").strip().splitlines()[-1])
    student, teacher = load_encoder(output), load_encoder()
    assert out["encoder_id"] == student.encoder_id
    assert student.dimension == 8
    manifest = json.loads((output / "manifest.json").read_text())
    training = manifest["training"]
    assert training["teacher"] == {"name": "default", "encoder_id": teacher.encoder_id}
    assert training["settings"]["objectives"] == {"teacher": 1.0, "match": 0.5}
    assert training["frames"]["looks"] == ["none", "strong"]
    kept = run / "teacher" / teacher.encoder_id / "000000.safetensors"
    before = kept.stat().st_mtime_ns
    card = (output / "card.md").read_text()
    assert f"The teacher was `default` (`{teacher.encoder_id}`)" in card

    again = json.loads(_run(*wanted, *more, "--json", "--resume").strip().splitlines()[-1])
    assert again["encoder_id"] == student.encoder_id
    assert kept.stat().st_mtime_ns == before

    with exclusive(run / "lock", "busy"):
        error = _fails(*wanted, *more, "--resume")
    assert isinstance(error, RunFailed)
    assert "another training works in" in str(error)
    error = _fails(*wanted, "--resume", "--objective", "match")
    assert "no weight for the teacher" in str(error)
    error = _fails("pretrain", *wanted[2:], "--resume", "--objective", "teacher")
    assert "it takes `encoder distill`" in str(error)


def test_stability_compares_encoders_on_two_looks(tmp_path: Path) -> None:
    arguments = ("stability", "default", "--run", tmp_path, "--scenes", 2, "--threads", 1)
    figures = json.loads(_run(*arguments, "--json").strip().splitlines()[-1])
    assert set(figures) == {"default", "mean color"}
    assert figures["default"]["scenes"] == 2
    assert figures["default"]["cosine"] > figures["mean color"]["cosine"]
    assert "found within 15 mm" in _run(*arguments)


def _log(store: EpisodeStore, **attributes: object) -> str:
    camera = Camera("c", 64, 48, np.array([(60, 0, 32), (0, 60, 24), (0, 0, 1.0)]), np.eye(4))
    frame = RGBD(np.full((48, 64, 3), 99, np.uint8), np.full((48, 64), 0.5, np.float32), camera, 0)
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], attributes=attributes) as log:
        log.append_frame(frame)
        log.close({"reward": 0.0, "solved": False})
    return list(store.ids())[-1]


def test_logged_frames_leave_out_what_is_measured_on_and_what_is_damaged(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    real, damaged = _log(store), _log(store)
    train = _log(store, seed=scene_seed("train", 3))
    for split in ("validation", "test"):
        _log(store, seed=scene_seed(split, 3))  # type: ignore[arg-type]
    (store.path / "episodes" / damaged / "data.zarr" / "zarr.json").write_text("{")
    frames = logged_frames(tmp_path / "frames", store.path)
    assert frames.source["episodes"] == [real, train]
    assert len(frames) == 2
    assert len(logged_frames(tmp_path / "frames", store.path)) == 2

    output = tmp_path / "encoder"
    where = ("--episodes", store.path, "--run", tmp_path / "run", "--output", output)
    _run("pretrain", *where, "--steps", 1, "--threads", 1, "--objective", "masked", "--no-poses")
    card = (output / "card.md").read_text()
    assert "from frames of 2 logged episodes, named in the manifest" in card
    assert "- masked, weight 1:" in card
    assert json.loads((output / "manifest.json").read_text())["training"]["frames"]["episodes"] == [real, train]


def test_a_store_that_may_not_teach_is_refused(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    _log(store, seed=scene_seed("test", 3))
    with pytest.raises(EncoderError, match="validation and test scenes never teach"):
        logged_frames(tmp_path / "frames", store.path)


def test_weights_are_read_or_refused() -> None:
    assert weights_of_objectives([], {"match": 1.0}) == {"match": 1.0}
    assert weights_of_objectives(["masked=0.3", "match"], {"describe": 1.0}) == {"masked": 0.3, "match": 1.0}
    for text, words in (("masked=much", "NAME=WEIGHT"), ("masked=0", "above 0"), ("masked=nan", "above 0")):
        with pytest.raises(BadInput, match=words):
            weights_of_objectives([text], {})
    with pytest.raises(BadInput, match="given twice"):
        weights_of_objectives(["match", "match=2"], {})

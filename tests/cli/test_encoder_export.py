"""`encoder export` and `encoder bench` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from episodes.samples import write_episode
from typer.testing import CliRunner

from embodied_vision.cli.encoder import app
from embodied_vision.encoders import load_encoder
from embodied_vision.encoders.exported import ExportedEncoder
from embodied_vision.encoders.runtimes import CACHE_VARIABLE
from embodied_vision.episodes import EpisodeStore
from embodied_vision.errors import BadInput, EncoderError, RunFailed


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def test_the_shipped_encoder_is_exported_and_described(tmp_path: Path) -> None:
    out, run = tmp_path / "out", CliRunner()
    done = run.invoke(
        app, ["export", "default", "--output", str(out), "--image-size", "48x32", "--threads", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["encoder_id"] == load_encoder().encoder_id
    assert {name: row["exported"] for name, row in told["runtimes"].items()} == {"onnxruntime": True, "openvino": True}
    loaded = load_encoder(out)
    assert isinstance(loaded, ExportedEncoder)
    about = json.loads(run.invoke(app, ["info", str(out), "--json"]).stdout)
    assert about["grid_of_48x32"] == [4, 6]
    assert about["artefact_id"] == loaded.artefact_id
    bench = ["bench", str(out), "--image-size", "48x32", "--threads", "1", "--seconds", "0.1", "--json", "--budget-ms"]
    found = json.loads(run.invoke(app, [*bench, "1000"]).stdout)
    assert {trial["setting"] for trial in found["trials"]} == {"onnxruntime", "openvino"}
    assert found["best"]["cosine"] > 0.9999
    assert found["use"] == [f"--encoder {out}+runtime={found['best']['setting']}"]
    none = run.invoke(app, [*bench, "0.0001"])
    assert isinstance(none.exception, RunFailed)
    assert "the quickest takes" in str(none.exception)
    again = run.invoke(app, ["export", str(out), "--output", str(tmp_path / "twice")])
    assert isinstance(again.exception, EncoderError)
    assert "exported already" in str(again.exception)


def test_runtimes_are_compared_on_logged_images(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    write_episode(store, frames=3)
    out, run = tmp_path / "out", CliRunner()
    command = ["export", "default", "--output", str(out), "--threads", "1", "--store", str(tmp_path / "store")]
    assert run.invoke(app, [*command, "--image-size", "16x12"]).exit_code == 0
    assert json.loads((out / "manifest.json").read_text())["images"]["count"] == 1
    wrong = run.invoke(app, [*command, "--image-size", "640x480"])
    assert isinstance(wrong.exception, BadInput)
    assert "no image of 640x480" in str(wrong.exception)
    for region, words in (("no", "region 'no' is not understood"), ("5:6,5:6,5:6", "see nothing of the workspace")):
        refused = run.invoke(app, [*command, "--image-size", "16x12", "--region", region])
        assert isinstance(refused.exception, BadInput)
        assert words in str(refused.exception)
    alone = run.invoke(app, ["export", "default", "--output", str(out), "--region", "yes"])
    assert "give the --store" in str(alone.exception)


def test_an_image_size_that_is_none_is_refused(tmp_path: Path) -> None:
    for size in ("640", "0x480", "640 x 480", "-1x4"):
        done = CliRunner().invoke(app, ["export", "default", "--output", str(tmp_path / "out"), "--image-size", size])
        assert isinstance(done.exception, BadInput), size
        assert not (tmp_path / "out").exists()


def test_an_encoder_is_timed_with_every_runtime() -> None:
    command = ["bench", "default", "--image-size", "48x32", "--seconds", "0.1", "--threads", "1", "--json"]
    told = json.loads(CliRunner().invoke(app, command).stdout)
    assert {name.split("-")[0] for name in told["ms"]} == {"torch", "onnxruntime", "openvino"}
    assert all(0 < row["median"] <= row["p95"] for row in told["ms"].values())

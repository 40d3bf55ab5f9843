"""An exported encoder computes what torch does, or is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embodied_vision.encoders import export as export_module
from embodied_vision.encoders import exported as exported_module
from embodied_vision.encoders import load_encoder
from embodied_vision.encoders import runtimes as runtimes_module
from embodied_vision.encoders.compact import CompactEncoder, normalise, pad
from embodied_vision.encoders.export import MODEL, SAMPLE, Parity, export, parity, sample_images
from embodied_vision.encoders.exported import ExportedEncoder
from embodied_vision.encoders.front import PaddedFront, ResizedFront, front_from_dict
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.processor import Preprocessing
from embodied_vision.encoders.runtimes import CACHE_VARIABLE, choose_runtime, installed, open_runtime
from embodied_vision.errors import EncoderError

from .test_huggingface import FAMILIES

SIZE = (56, 72)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes_module, "TRIAL_S", 0.01)
    return tmp_path / "cache" / "runtimes.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported compact encoder of random weights."""
    target = tmp_path_factory.mktemp("exported") / "encoder"
    export(CompactEncoder.random(3), target, sample_images(SIZE), threads=1, source="random 3")
    return target


def test_both_runtimes_are_here() -> None:
    assert installed() == ("onnxruntime", "openvino")


def test_preparing_in_numpy_is_that_of_training_bit_for_bit() -> None:
    front = CompactEncoder.random(0).front
    for size in ((8, 8), (16, 16), (33, 57), (48, 80)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        expected = pad(normalise(torch.from_numpy(image).permute(2, 0, 1)[None])).numpy()
        assert front.prepare(image).pixels.tobytes() == expected.tobytes()
        assert front.prepare(image).grid == (-(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_exported_encoder_is_the_same_encoder(folder: Path, runtime: str) -> None:
    ours, theirs = CompactEncoder.random(3), load_encoder(f"{folder}+runtime={runtime}")
    assert isinstance(theirs, ExportedEncoder)
    assert (theirs.encoder_id, theirs.dimension) == (ours.encoder_id, ours.dimension)
    assert theirs.artefact_id.startswith(f"{runtime}-")
    assert theirs.artefact_id.endswith("-float32")
    for image in sample_images(SIZE, 3, seed=9):
        one, other = ours.encode(image, 5), theirs.encode(image, 5)
        assert parity(other.grid, one.grid).exact
        assert (other.stride, other.stamp_ns, other.grid.shape) == (one.stride, 5, one.grid.shape)
        assert other.grid.tobytes() == theirs.encode(image).grid.tobytes()
    first = theirs.encode(sample_images(SIZE, 1)[0]).grid
    kept = first.copy()
    theirs.encode(sample_images(SIZE, 1, seed=4)[0])
    np.testing.assert_array_equal(first, kept, err_msg="a later image must not change features that were given out")


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_of_backbones_is_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, processor = FAMILIES[name][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(processor))
    encoder = HuggingFaceEncoder(str(tmp_path / "model"))
    found = export(encoder, tmp_path / "exported", sample_images((48, 80), 2), threads=1)
    assert set(found) == set(installed())
    assert all(measured.exact for measured in found.values()), found
    loaded = ExportedEncoder.load(tmp_path / "exported")
    image = sample_images((48, 80), 1, seed=5)[0]
    np.testing.assert_allclose(loaded.encode(image).grid, encoder.encode(image).grid, rtol=1e-3, atol=1e-4)
    assert loaded.encoder_id == encoder.encoder_id
    other = sample_images((40, 64), 1)[0]
    if encoder.front.any_image:
        assert loaded.encode(other).stride == encoder.encode(other).stride
    else:
        with pytest.raises(EncoderError, match="exported for 80x48"):
            loaded.encode(other)


def test_an_image_of_another_size_is_refused(folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"image of 80x80 px.*exported for 72x56.*--image-size"):
        ExportedEncoder.load(folder).encode(np.zeros((80, 80, 3), np.uint8))
    with pytest.raises(EncoderError, match="float64"):
        ExportedEncoder.load(folder).encode(np.zeros((*SIZE, 3)))  # type: ignore[arg-type]


class Off:
    """A runtime that is a little off."""

    def __init__(self, model: Path, threads: int, by: float = 0.02) -> None:
        self._inner = open_runtime("onnxruntime", model, threads)
        self.artefact_id, self._by = "off-1", by

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        out = self._inner.run(pixels)
        out[0, 0, 0, 0] += self._by
        return out


def test_a_runtime_that_differs_is_left_out_and_without_another_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_(name: str, model: Path, threads: int) -> Any:
        return Off(model, threads) if name == "openvino" else open_runtime(name, model, threads)

    monkeypatch.setattr(export_module, "open_runtime", open_)
    found = export(CompactEncoder.random(3), tmp_path / "one", sample_images(SIZE), threads=1)
    assert (found["onnxruntime"].exact, found["openvino"].exact) == (True, False)
    assert list(json.loads((tmp_path / "one" / "manifest.json").read_text())["runtimes"]) == ["onnxruntime"]
    monkeypatch.setattr(export_module, "installed", lambda: ("openvino",))
    with pytest.raises(EncoderError, match=r"nothing is written: openvino: least cosine 0\.9"):
        export(CompactEncoder.random(3), tmp_path / "two", sample_images(SIZE), threads=1)
    assert not (tmp_path / "two").exists()


def test_a_runtime_that_computes_something_else_on_this_machine_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported_module, "open_runtime", lambda _name, model, threads: Off(model, threads))
    with pytest.raises(EncoderError, match="does not compute here what torch did"):
        ExportedEncoder.load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_no_agreement(value: float) -> None:
    features = np.ones((1, 2, 2, 4), np.float32)
    assert parity(features, features).exact
    bad = features.copy()
    bad[0, 1, 1, 2] = value
    assert not parity(bad, features).exact
    assert not parity(features[:, :1], features).exact
    assert not Parity(float("nan"), 0.0).exact


@pytest.mark.parametrize("file", [MODEL, SAMPLE, "manifest.json"])
def test_damage_is_found(folder: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        (copy / path.name).write_bytes(data[: len(data) // 2] if path.name == file else data)
    with pytest.raises(EncoderError, match=f"{file}.*(damaged|JSON)"):
        load_encoder(copy)


def test_features_that_do_not_belong_to_the_network_are_found(folder: Path, tmp_path: Path) -> None:
    """Every checksum right: a model of other weights."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    sample = load_file(copy / SAMPLE)
    save_file({**sample, "features": sample["features"] + np.float32(0.1)}, copy / SAMPLE)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sha256"][SAMPLE] = hashlib.sha256((copy / SAMPLE).read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EncoderError, match="does not compute here what torch did"):
        load_encoder(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "other"}, "encoder of kind"),
        ({"image_size": "large"}, "no exported encoder"),
        ({"front": {"kind": "other"}}, "no preprocessing that is known"),
        ({"front": {"kind": "padded", "stride_px": 8}}, "no preprocessing that is known"),
        ({"sha256": {}}, "damaged"),
        ({"runtimes": {"tensorrt": {}}}, "tensorrt, of which none is installed"),
        ({"runtimes": {}}, "none is installed"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(folder: Path, tmp_path: Path, change: Any, words: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(EncoderError, match=words):
        load_encoder(copy)


def test_an_unknown_or_missing_runtime_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match="auto, onnxruntime, openvino"):
        load_encoder(f"{folder}+runtime=tensorrt")
    monkeypatch.setattr(runtimes_module, "installed", lambda: ("onnxruntime",))
    with pytest.raises(EncoderError, match=r"not installed.*embodied-vision\[openvino\]"):
        load_encoder(f"{folder}+runtime=openvino")


def test_images_must_be_there_and_of_one_size(tmp_path: Path) -> None:
    encoder = CompactEncoder.random(0)
    for images in ([], [*sample_images((16, 16), 1), *sample_images((16, 24), 1)]):
        with pytest.raises(EncoderError, match="one size"):
            export(encoder, tmp_path / "out", images)


def test_fronts_come_back_from_json() -> None:
    resized = ResizedFront(Preprocessing((28, 28), 0, 3, 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)), 14)
    for front in (resized, PaddedFront(8, 16, 1 / 255, 0.5, 0.25)):
        assert front_from_dict(json.loads(json.dumps(front.to_dict())), "x") == front


class Timed:
    def __init__(self, name: str, seconds: float) -> None:
        self.artefact_id, self._seconds, self.runs = name, seconds, 0

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        import time

        time.sleep(self._seconds)
        self.runs += 1
        return pixels


def test_the_fastest_runtime_is_chosen_once_and_remembered(memory: Path) -> None:
    pixels = np.zeros((1, 3, 2, 2), np.float32)
    slow, fast = Timed("a-1", 0.02), Timed("b-1", 0.001)
    assert choose_runtime([slow, fast], pixels, "key") is fast
    tried = slow.runs
    assert choose_runtime([slow, fast], pixels, "key") is fast
    assert slow.runs == tried, "the second time nothing is tried"
    memory.write_text("{ not json")
    assert choose_runtime([slow, fast], pixels, "key") is fast
    assert slow.runs > tried
    assert choose_runtime([slow], pixels, "key") is slow


def test_a_choice_that_cannot_be_kept_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    slow, fast = Timed("a-1", 0.02), Timed("b-1", 0.001)
    assert choose_runtime([slow, fast], np.zeros((1, 3, 2, 2), np.float32), "key") is fast


def test_an_export_replaces_a_former_one(tmp_path: Path) -> None:
    for seed in (1, 2):
        encoder = CompactEncoder.random(seed)
        export(encoder, tmp_path / "out", sample_images((16, 16), 1), threads=1)
        assert ExportedEncoder.load(tmp_path / "out").encoder_id == encoder.encoder_id
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("cache",)] == ["out"]


SIGNAL_AFTERWARDS = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
from embodied_vision.encoders.runtimes import open_runtime

faulthandler.enable()  # gives the main thread a stack for signals, as pytest does
model = Path(sys.argv[1])
first, second = (open_runtime("openvino", model, 1) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_runtimes_were_let_go(folder: Path) -> None:
    """With several cores OpenVINO leaves the thread a stack for signals that is not there any more."""
    run = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTERWARDS, str(folder / MODEL)], capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stdout) == (0, "handled\n"), run.stderr

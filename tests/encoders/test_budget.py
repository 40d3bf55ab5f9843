"""The nearest setting within a budget of time is found, and settings that cannot be it are not tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied_vision.encoders import budget as budget_module
from embodied_vision.encoders.budget import Search, Trial, Views, times_ms
from embodied_vision.encoders.export import sample_images
from embodied_vision.encoders.front import ResizedFront
from embodied_vision.encoders.processor import Preprocessing
from embodied_vision.encoders.region import Region
from embodied_vision.encoders.runtimes import Setting
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import look_at
from embodied_vision.types import Camera, Features, Workspace


class Averages:
    """Means of patches, as a network: time goes with the pixels, merging costs accuracy."""

    artefact_id, dimension, drops_tokens = "torch", 3, True

    def __init__(self, name: str) -> None:
        self.encoder_id = name
        side = int(name.split("+size=")[1].split("x")[0]) if "+size=" in name else 112
        processing = Preprocessing((side, side), 0, 2, 1 / 255, (0.4,) * 3, (0.2,) * 3)
        self.front = ResizedFront(processing, 14)

    def graph(self, pixels: torch.Tensor, keep: Any = None, merge: int | None = None) -> torch.Tensor:
        side = pixels.shape[2] // 14
        weight = torch.eye(3)
        share = 1.0 if keep is None else len(keep) / side**2
        for _ in range(round(5 * side * share) - (merge or 0)):
            weight = weight @ torch.eye(3)
        grid = pixels.reshape(3, side, 14, side, 14).mean((2, 4)).permute(1, 2, 0)[None] @ weight
        grid = grid + 0.02 * (merge or 0)
        if keep is not None:
            out = torch.zeros(side * side, 3)
            out[keep] = grid.reshape(-1, 3)[keep]
            grid = out.reshape(1, side, side, 3)
        return grid

    def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
        prepared = self.front.prepare(color)
        grid = self.graph(torch.from_numpy(prepared.pixels))[0].numpy()
        return Features(grid, prepared.stride, self.encoder_id, self.artefact_id, stamp_ns)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exports in the order in which they were tried; each takes as long as it says."""
    tried: list[str] = []

    def export_(self: Search, trial: Trial, report: Any) -> list[float]:
        assert trial.setting is not None
        tried.append(trial.encoder + trial.setting.variant)
        side = int(trial.encoder.split("x")[-1]) if "+size=" in trial.encoder else 112
        share = (side / 112) ** 2 * (0.5 if trial.setting.region else 1.0) * (1 - 0.02 * trial.setting.merge)
        times = []
        for runtime, factor, less in (("openvino", 1.0, 0.0), ("openvino-int8", 0.6, 0.01)):
            setting = Setting(runtime, trial.setting.merge, trial.setting.region)
            ms = 100 * share * factor
            self.trials.append(Trial(trial.encoder, setting, trial.cosine - less, trial.least - less, ms, ms))
            times.append(ms)
        return times

    monkeypatch.setattr(Search, "_export", export_)
    monkeypatch.setattr(budget_module, "times_ms", lambda _call, _seconds: (200.0, 210.0))
    return tried


def search(budget_ms: float, views: Views | None = None) -> Search:
    made = Search("vit", Averages, views or Views(sample_images((64, 64), 1)), budget_ms=budget_ms, threads=1)  # type: ignore[arg-type]
    made.run()
    return made


def test_the_exact_runtime_is_taken_where_it_fits(exported: list[str]) -> None:
    found = search(120.0)
    assert found.best is not None
    assert (found.best.encoder, found.best.setting) == ("vit", Setting("openvino"))
    assert exported == ["vit"], "nothing that is left can be nearer"


def test_with_less_time_the_nearest_that_fits_is_taken(exported: list[str]) -> None:
    found = search(62.0)
    assert found.best is not None
    assert found.best.median_ms is not None
    assert found.best.median_ms <= 62
    others = [trial for trial in found.trials if trial.median_ms is not None and trial.median_ms <= 62]
    assert found.best.cosine == max(trial.cosine for trial in others)
    for trial in found.trials:
        assert trial.median_ms is not None or (trial.expected_ms or 0) > 62
    assert not search(0.01).best


def test_of_equally_near_settings_one_that_needs_no_gate_is_taken(exported: list[str]) -> None:
    found = search(120.0)
    found.trials += [Trial("vit", Setting("openvino-bfloat16"), 0.99999, 0.9999, 10.0, 11.0)]
    assert found.best is not None
    assert found.best.setting == Setting("openvino")


def test_with_a_region_its_patches_count_alone(exported: list[str]) -> None:
    K = np.array([[60.0, 0, 31.5], [0, 60.0, 31.5], [0, 0, 1]])
    seen = Camera("camera", 64, 64, K, look_at((0.5, 0.001, 0.6), (0.5, 0, 0)))
    region = Region(Workspace(x=(0.4, 0.6), y=(-0.1, 0.1), z=(-0.01, 0.05)), 0.0)
    found = search(62.0, Views(sample_images((64, 64), 1), [seen], region))
    assert found.best is not None
    assert found.best.setting is not None
    assert found.best.setting.region
    assert found.best.cosine == pytest.approx(1.0, abs=1e-4), "these patches are those of the whole image"
    away = Camera("away", 64, 64, K, look_at((0.5, 0.001, 0.6), (0.5, 0, 2)))
    with pytest.raises(EncoderError, match="no patch of these images belongs to the workspace"):
        search(60.0, Views(sample_images((64, 64), 1), [away], region))


def test_smaller_inputs_are_compared_at_the_same_places(exported: list[str]) -> None:
    found = search(1e-3)
    by_size = {trial.encoder: trial.cosine for trial in found.trials if trial.setting and not trial.setting.variant}
    assert len(by_size) == 5
    assert min(by_size.values()) > 0.3
    assert by_size["vit"] > by_size["vit+size=56x56"]


def test_a_call_is_timed_some_times() -> None:
    calls: list[int] = []
    median, p95 = times_ms(lambda: calls.append(1), 0.0)
    assert len(calls) == 6
    assert 0 <= median <= p95


def test_of_an_artefact_its_own_settings_are_compared(tmp_path: Path) -> None:
    from embodied_vision.encoders import load_encoder
    from embodied_vision.encoders.compact import CompactEncoder
    from embodied_vision.encoders.export import export

    export(CompactEncoder.random(1), tmp_path / "out", sample_images((32, 48), 1), threads=1)
    found = Search(
        str(tmp_path / "out"), load_encoder, Views(sample_images((32, 48), 2)), budget_ms=1e4, threads=1, seconds=0.01
    )
    found.run()
    assert {trial.setting.name for trial in found.trials if trial.setting} == {"onnxruntime", "openvino"}
    assert found.best is not None
    assert found.best.cosine > 0.9999

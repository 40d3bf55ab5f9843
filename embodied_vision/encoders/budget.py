"""The setting of an encoder that gives the best features within a budget of time, found by measuring here.

Sizes of the input, merged tokens and the workspace's region are computed with torch first: that tells how near their
features are to those of the encoder as it was named, and how much there is to compute. Then the nearest ones which may
fit are exported and timed with every runtime, until none that is left can be nearer than the best that fits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.export import export
from embodied_vision.encoders.exported import ExportedEncoder
from embodied_vision.encoders.region import (
    Region,
    TorchNetwork,
    computed,
    encode_seen,
    partial_features,
    prepare_seen,
)
from embodied_vision.encoders.runtimes import EXACT, REDUCED, Setting, installed, read_setting
from embodied_vision.errors import EncoderError
from embodied_vision.geometry import sample_grid
from embodied_vision.types import Camera, Features, FloatArray

SIZES = (1.0, 0.875, 0.75, 0.625, 0.5)
"""Shares of the input's sides, rounded to whole patches."""
MERGE = (4, 8, 12, 16)
HOPE = 1.3
"""A setting whose time is expected to be up to so many budgets is tried."""


@dataclass(frozen=True)
class Trial:
    """A setting and what was measured.

    Attributes:
        encoder: name with options; its own id where these differ from the name that was asked for.
        setting: of its artefact; None for torch.
        cosine: mean over the patches that count, to the encoder as it was named.
        least: the least of them.
        median_ms, p95_ms: of an encoding; None where it was not timed.
        expected_ms: from the number of operations, where it was not timed.
    """

    encoder: str
    setting: Setting | None
    cosine: float
    least: float
    median_ms: float | None = None
    p95_ms: float | None = None
    expected_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "setting": "torch" if self.setting is None else self.setting.name}

    @property
    def rank(self) -> float:
        """Cosine, where settings that are as near as makes no difference are equal."""
        return round(self.cosine, 4)

    @property
    def exact(self) -> bool:
        """Whether nothing has to be gated."""
        return self.setting is None or self.setting.exact

    def fits(self, budget_ms: float) -> bool:
        """Whether it was timed and half of its encodings take no longer."""
        return self.median_ms is not None and self.median_ms <= budget_ms


def times_ms(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median and 95th percentile of a call, ms; five calls at least."""
    call()
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < 5:
        before = time.perf_counter()
        call()
        times.append((time.perf_counter() - before) * 1e3)
    return float(np.median(times)), float(np.percentile(times, 95))


@dataclass(frozen=True, eq=False)
class Views:
    """What settings are compared on.

    Attributes:
        images: uint8 (H, W, 3), of one size.
        cameras: of the images; empty where they are not known.
        region: of which the patches count; None for all.
    """

    images: Sequence[NDArray[np.uint8]]
    cameras: Sequence[Camera] = ()
    region: Region | None = None

    def camera(self, index: int) -> Camera | None:
        """Of an image."""
        return self.cameras[index] if self.cameras else None

    def points(self, features: Sequence[Features]) -> list[FloatArray]:
        """By image, the middles (N, 2) in px of the patches that count, as u, v."""
        out: list[FloatArray] = []
        for index, one in enumerate(features):
            grid = (one.grid.shape[0], one.grid.shape[1])
            camera = self.camera(index)
            counts = np.ones(grid, bool)
            if self.region is not None and camera is not None:
                counts = self.region.patches(camera, grid, one.stride)
            rows, columns = np.nonzero(counts)
            out.append(np.stack([(columns + 0.5) * one.stride[1] - 0.5, (rows + 0.5) * one.stride[0] - 0.5], 1))
        return out


class Search:
    """Looks for the best setting of one encoder.

    Attributes:
        trials: all that was measured so far.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[str], Encoder],
        views: Views,
        *,
        budget_ms: float,
        threads: int,
        seconds: float = 1.0,
        merge: Sequence[int] = MERGE,
    ) -> None:
        """
        Args:
            name: of the encoder, options included.
            load: from such a name to an encoder.
            views: images that it is meant for.
            budget_ms: that an encoding may take.
            threads: of the runtimes.
            seconds: how long each is timed.
            merge: numbers of tokens merged a block that are tried.
        """
        self._name, self._load, self._views, self._threads = name, load, views, threads
        self._budget, self._seconds, self._merge = budget_ms, seconds, tuple(merge)
        self._encoder = load(name)
        if not isinstance(self._encoder, ExportedEncoder | TorchNetwork):
            raise EncoderError(
                f"{name} is more than a network; give the encoder without tile, dense, region and reuse, and --region "
                "for the workspace's patches"
            )
        self._reference = self._encode(self._encoder)
        self._points = views.points(self._reference)
        self._wanted = [sample_grid(one, at) for one, at in zip(self._reference, self._points, strict=True)]
        if not sum(len(at) for at in self._points):
            raise EncoderError("no patch of these images belongs to the workspace; give images of cameras that see it")
        self.trials: list[Trial] = []

    @property
    def best(self) -> Trial | None:
        """Of those that fit, the one whose features are nearest; None where none fits."""
        fitting = [trial for trial in self.trials if trial.fits(self._budget)]
        return max(fitting, key=lambda trial: (trial.rank, trial.exact, -(trial.median_ms or 0.0)), default=None)

    def run(self, report: Callable[[str], None] = lambda _: None) -> None:
        """Fill `trials`; `report` is told what is tried."""
        if isinstance(self._encoder, ExportedEncoder):
            self._time_folder(Path(self._name.split("+", 1)[0]), self._name, None, report)
            return
        report(self._name)
        self._time(self._encoder, Trial(self._name, None, 1.0, 1.0))
        exact = self.trials[-1].median_ms or 0.0
        quickest = min([exact, *self._export(Trial(self._name, Setting(EXACT[0]), 1.0, 1.0), report)])
        if self.best is not None and self.best.rank == 1.0:
            return
        planned = sorted(self._planned(report), key=lambda one: -one[0].cosine)
        own = next(one for one in planned if one[0].encoder == self._name and _plain(one[0]))
        planned.remove(own)
        for trial, flop in planned:
            best = self.best
            if best is not None and trial.rank <= best.rank:
                break
            expected = quickest * flop / own[1]
            if expected > HOPE * self._budget:
                self.trials.append(replace(trial, expected_ms=expected))
            else:
                self._export(trial, report)

    def _encode(self, encoder: Encoder) -> list[Features]:
        each = enumerate(self._views.images)
        return [encode_seen(encoder, image, self._views.camera(index)) for index, image in each]

    def _compare(self, features: Sequence[Features]) -> tuple[float, float]:
        """Mean and least cosine to the reference."""
        cosines = []
        for one, at, wanted in zip(features, self._points, self._wanted, strict=True):
            if not len(at):
                continue
            values = sample_grid(one, at).astype(np.float64)
            lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(wanted.astype(np.float64), axis=1)
            cosines.append((values * wanted).sum(1) / np.maximum(lengths, 1e-30))
        every = np.concatenate(cosines)
        return float(every.mean()), float(every.min())

    def _planned(self, report: Callable[[str], None]) -> Iterator[tuple[Trial, int]]:
        """Every setting with torch, not timed, and the operations of an encoding."""
        for name in self._sizes():
            encoder: Any = self._encoder if name == self._name else self._load(name)
            drops = getattr(encoder, "drops_tokens", False)
            for merge in (0, *(self._merge if drops else ())):
                for region in (False, True) if self._views.region is not None else (False,):
                    setting = Setting(EXACT[0], merge, region)
                    report(f"{name}{setting.variant} with torch")
                    with FlopCounterMode(display=False) as counter:
                        features = [self._torch(encoder, index, setting) for index in range(len(self._views.images))]
                    yield Trial(name, setting, *self._compare(features)), counter.get_total_flops()

    def _torch(self, encoder: Any, index: int, setting: Setting) -> Features:
        """Features of an image with torch."""
        image, camera = self._views.images[index], self._views.camera(index)
        merge = setting.merge or None
        if setting.region and self._views.region is not None and camera is not None:
            prepared, wanted = prepare_seen(encoder.front, self._views.region, image, camera)
            grid = partial_features(encoder, prepared.pixels, wanted, merge)
        else:
            prepared = encoder.front.prepare(image)
            rows, columns = prepared.grid
            grid = np.ascontiguousarray(computed(encoder, prepared.pixels, merge=merge)[0, :rows, :columns])
        return Features(grid, prepared.stride, encoder.encoder_id, encoder.artefact_id, 0)

    def _sizes(self) -> list[str]:
        """Names of the encoder with smaller inputs; its own alone where the input follows the image."""
        front = getattr(self._encoder, "front", None)
        if front is None or not front.any_image or "+size=" in self._name:
            return [self._name]
        size, patch = front.prepare(self._views.images[0]).pixels.shape[2:], front.multiple_px
        smaller = [tuple(max(1, round(side * share / patch)) * patch for side in size) for share in SIZES[1:]]
        names = [f"{self._name}+size={rows}x{columns}" for rows, columns in dict.fromkeys(smaller)]
        return [self._name, *names]

    def _export(self, trial: Trial, report: Callable[[str], None]) -> list[float]:
        """Export a setting and time it with every runtime; the times."""
        assert trial.setting is not None
        before = len(self.trials)
        with tempfile.TemporaryDirectory(prefix="encoder-budget-") as scratch:
            report(f"{trial.encoder}{trial.setting.variant}: exporting")
            encoder: Any = self._load(trial.encoder)
            merge = (trial.setting.merge,) if trial.setting.merge else ()
            region = self._views.region if trial.setting.region else None
            try:
                export(
                    encoder,
                    Path(scratch) / "exported",
                    self._views.images,
                    threads=self._threads,
                    reduced=True,
                    merge=merge,
                    region=region,
                    cameras=self._views.cameras if region is not None else (),
                )
            except EncoderError as error:
                report(f"torch alone: {error}")
                return []
            self._time_folder(Path(scratch) / "exported", trial.encoder, trial.setting.variant, report)
        return [done.median_ms for done in self.trials[before:] if done.median_ms is not None]

    def _time_folder(self, folder: Path, name: str, variant: str | None, report: Callable[[str], None]) -> None:
        """Time the settings that an artefact holds; of one variant, or all."""
        for setting in settings_of(folder):
            if variant is not None and setting.variant != variant:
                continue
            if setting.region and not self._views.cameras:
                report(f"{setting.name} needs images of known cameras: not timed")
                continue
            report(f"{name}: {setting.name}")
            try:
                encoder = ExportedEncoder.load(folder, setting.name, trial=True)
            except EncoderError as error:
                report(str(error))
                continue
            self._time(encoder, Trial(name, setting, *self._compare(self._encode(encoder))))

    def _time(self, encoder: Encoder, trial: Trial) -> None:
        image, camera = self._views.images[0], self._views.camera(0)
        median, p95 = times_ms(lambda: encode_seen(encoder, image, camera), self._seconds)
        self.trials.append(replace(trial, median_ms=median, p95_ms=p95))


def settings_of(folder: Path) -> list[Setting]:
    """The settings that an artefact holds and that can be opened here, the exact ones first.

    Raises:
        EncoderError: it is no artefact.
    """
    from embodied_vision.encoders.artefact import MANIFEST, read_manifest

    manifest = read_manifest(folder)
    try:
        names = [*manifest["runtimes"], *manifest["reduced"]]
    except (KeyError, TypeError) as error:
        raise EncoderError(f"{folder / MANIFEST} is no exported encoder ({error!r}); export it again") from error
    found = [read_setting(str(name)) for name in names]
    return [one for one in found if REDUCED.get(one.runtime, (one.runtime, ""))[0] in installed()]


def _plain(trial: Trial) -> bool:
    return trial.setting is not None and not trial.setting.variant

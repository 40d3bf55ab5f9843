"""What can be read out of an encoder's dense features, clean and after corruptions of the picture.

Read-outs are fitted on clean frames of some scenes and measured on clean and on corrupted frames of other scenes:
linear ones in closed form, and votes of the nearest neighbours. Every encoder is asked at the same points. Intervals
are bootstrapped over held-out scenes, differences of encoders over the same draws of scenes.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.correspondence import ViewSource
from embodied_vision.encoders.corruptions import corrupted
from embodied_vision.encoders.probe import Figure
from embodied_vision.encoders.probe_points import PURE, Points, points_of
from embodied_vision.encoders.raw import RawPixels
from embodied_vision.encoders.readouts import Neighbours, balanced_ridge, ridge, ridge_left_out, vote
from embodied_vision.errors import BadInput, EncoderError
from embodied_vision.geometry import sample_grid
from embodied_vision.types import RGBD, Features, FloatArray

ABOUT = {
    "segmentation": "mean IoU over kinds of things, patch by patch",
    "depth": "R² of the depth of patches",
    "identity": "balanced accuracy over kinds of things, from the mean of a thing's patches",
    "position": "R² of where in its thing a patch lies, across the line of sight",
    "turn": "R² of cosine and sine of the yaw of L-shapes, from 3 × 3 points over each",
}
"""What is read out, each at best 1; position and turn are the pose."""
LINEAR, NEAREST = "linear", "nearest"
READOUTS = (LINEAR, NEAREST)
CLEAN, MEAN = "clean", "mean"
"""Names of conditions: no corruption, and the mean over all of them."""

Sums = dict[str, FloatArray]
Describe = Callable[[RGBD, NDArray[np.uint8]], Features]


@dataclass(frozen=True)
class Condition:
    """What was done to the pictures.

    Attributes:
        corruption: one of `CORRUPTIONS`, or `CLEAN`.
        severity: 1 to 5; 0 for clean ones.
    """

    corruption: str = CLEAN
    severity: int = 0


@dataclass(frozen=True)
class Probed:
    """A set of features to probe.

    Attributes:
        encoder_id: what names them in the cache.
        describe: features of a frame whose color was replaced.
    """

    encoder_id: str
    describe: Describe

    @classmethod
    def of(cls, encoder: Encoder) -> Probed:
        """Of an encoder, which sees color alone."""
        return cls(encoder.encoder_id, lambda frame, color: encoder.encode(color, frame.stamp_ns))

    @classmethod
    def raw(cls, *, depth: bool) -> Probed:
        """Of the pixels themselves."""
        pixels = RawPixels(depth=depth)
        return cls(pixels.encoder_id, pixels.describe)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        encoder: its name.
        readout: one of `READOUTS`.
        condition: of the held-out frames.
        figures: by the names in `ABOUT`; NaN where nothing in the held-out frames tells.
        gains: of the first encoder over this one, the same way; none for itself.
    """

    encoder: str
    readout: str
    condition: Condition
    figures: Mapping[str, Figure]
    gains: Mapping[str, Figure] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; None where a figure could not be measured."""
        return {
            "encoder": self.encoder,
            "readout": self.readout,
            "corruption": self.condition.corruption,
            "severity": self.condition.severity,
            "figures": {name: _json(figure) for name, figure in self.figures.items()},
            "gains_of_first": {name: _json(figure) for name, figure in self.gains.items()},
        }


def _json(figure: Figure) -> dict[str, float] | None:
    """None for what could not be measured: JSON knows no NaN."""
    return figure.to_dict() if np.isfinite(figure.value) else None


@dataclass(frozen=True)
class ProbeTable:
    """What was found.

    Attributes:
        rows: every encoder, read-out and condition; conditions named `mean` are means over all corruptions.
        encoder_ids: by name.
        kinds: kinds of things told apart.
        scenes: numbers of scenes that read-outs were fitted and measured on.
        things: the same of things.
    """

    rows: Sequence[Row]
    encoder_ids: Mapping[str, str]
    kinds: Sequence[str]
    scenes: tuple[int, int]
    things: tuple[int, int]

    def row(self, encoder: str, readout: str, condition: Condition) -> Row:
        """One line; KeyError when there is none."""
        for row in self.rows:
            if (row.encoder, row.readout, row.condition) == (encoder, readout, condition):
                return row
        raise KeyError((encoder, readout, condition))

    def conditions(self) -> list[Condition]:
        """All of them, clean first, means last."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "about": ABOUT,
            "encoders": dict(self.encoder_ids),
            "kinds": list(self.kinds),
            "fitted_on": {"scenes": self.scenes[0], "things": self.things[0]},
            "measured_on": {"scenes": self.scenes[1], "things": self.things[1]},
            "rows": [row.to_dict() for row in self.rows],
        }


def conditions_of(corruptions: Sequence[str], severities: Sequence[int]) -> list[Condition]:
    """Clean, then every corruption in every severity."""
    return [Condition(), *(Condition(name, severity) for name in corruptions for severity in severities)]


class FeatureCache:
    """Features of points on disk, one file for each encoder, frames and condition; may be deleted at any time.

    Args:
        folder: of the files.
        about: JSON description of the frames and of the points in them.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        self._about = json.dumps(about, sort_keys=True)

    def get(self, encoder_id: str, condition: Condition, make: Callable[[], FloatArray]) -> FloatArray:
        """The features (N, D), made now when they are not there or cannot be read."""
        text = json.dumps([self._about, encoder_id, condition.corruption, condition.severity])
        path = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npy"
        try:
            return np.load(path, allow_pickle=False).astype(np.float64)
        except (OSError, ValueError, EOFError):
            pass
        made = make().astype(np.float32)
        self._folder.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{uuid.uuid4().hex}.npy")
        try:
            np.save(staging, made)
            os.replace(staging, path)
        except OSError as error:
            staging.unlink(missing_ok=True)
            raise EncoderError(f"features cannot be kept in {self._folder} ({error}); make room there") from error
        return made.astype(np.float64)


def features_at(
    points: Points, sets: ViewSource, probed: Probed, condition: Condition, tick: Callable[[], None]
) -> FloatArray:
    """Features (N, D) at all points.

    Raises:
        EncoderError: some are not finite.
    """
    found = []
    scene, frames = -1, sets[0].frames
    for number, looked in enumerate(points.looked):
        if looked.scene != scene:
            scene, frames = looked.scene, sets[looked.scene].frames  # read from disk once
        frame = frames[looked.frame]
        color = frame.color
        if condition.severity:
            color = corrupted(frame, condition.corruption, condition.severity, number)
        found.append(sample_grid(probed.describe(frame, color), looked.pixels))
        tick()
    features: FloatArray = np.concatenate(found)
    if not np.isfinite(features).all():
        raise EncoderError(
            f"encoder {probed.encoder_id} gives non-finite features under {condition}; check its weights and runtime"
        )
    return features


def _pooled(points: Points, features: FloatArray) -> FloatArray:
    """Mean features (M, D) of the patches of each thing."""
    return np.array([features[points.patches[a:b]].mean(0) for a, b in points.things])


def _shape(points: Points, features: FloatArray) -> FloatArray:
    """Features (M, 9·D) of the grid over each thing."""
    return features[points.thing_grid].reshape(len(points.things), -1)


class Readout:
    """Read-outs of one kind, fitted on clean features.

    Args:
        kind: one of `READOUTS`.
        points, features: of the scenes to fit on.
        kinds: kinds of things to tell apart, all that the points show.
        seed: of the samples among which neighbours are looked for.
    """

    def __init__(self, kind: str, points: Points, features: FloatArray, kinds: Sequence[str], seed: int) -> None:
        self._kinds = list(kinds)
        index = {name: i for i, name in enumerate(self._kinds)}
        drawn = features[points.drawn]
        known = np.isfinite(points.patch_offset_m).all(1)
        classify, regress = (_linear_kinds, _linear) if kind == LINEAR else (_nearest_kinds, _nearest)
        labels = np.array([index[str(name)] for name in points.drawn_kind], np.int64)
        self._segmentation = classify(drawn, labels, len(kinds), seed)
        self._depth = regress(drawn, points.drawn_depth_m[:, None], seed)
        things = np.array([index[str(name)] for name in points.thing_kind], np.int64)
        self._identity = classify(_pooled(points, features), things, len(kinds), seed)
        self._position = regress(features[points.patches[known]], points.patch_offset_m[known], seed)
        shapes, turned = _shape(points, features), np.isfinite(points.thing_turn).all(1)
        few = _linear_few if kind == LINEAR else _nearest
        self._turn = {
            str(name): few(shapes[chosen], points.thing_turn[chosen], seed)
            for name in np.unique(points.thing_kind[turned])
            if (chosen := turned & (points.thing_kind == name)).sum() > 1
        }

    def sums(self, points: Points, features: FloatArray, scenes: int) -> Sums:
        """Sums (scenes, …) from which each figure follows, for any draw of scenes."""
        index = {name: i for i, name in enumerate(self._kinds)}
        count = len(self._kinds)
        known = np.isin(points.drawn_kind, self._kinds)
        truth = np.array([index[str(name)] for name in points.drawn_kind[known]], np.int64)
        found = self._segmentation(features[points.drawn[known]])
        sums = {"segmentation": _confusion(truth, found, points.drawn_scene[known], (scenes, count))}
        depth = self._depth(features[points.drawn])
        sums["depth"] = _moments(points.drawn_depth_m[:, None], depth, points.drawn_scene, scenes)
        known = np.isin(points.thing_kind, self._kinds)
        truth = np.array([index[str(name)] for name in points.thing_kind[known]], np.int64)
        found = self._identity(_pooled(points, features)[known])
        sums["identity"] = _confusion(truth, found, points.thing_scene[known], (scenes, count))
        seen = np.isfinite(points.patch_offset_m).all(1)
        offset = self._position(features[points.patches[seen]])
        sums["position"] = _moments(points.patch_offset_m[seen], offset, points.patch_scene[seen], scenes)
        shapes, turned = _shape(points, features), np.isfinite(points.thing_turn).all(1)
        sums["turn"] = np.zeros((scenes, 2, 4))
        for name, read in self._turn.items():
            chosen = turned & (points.thing_kind == name)
            if chosen.any():
                sums["turn"] += _moments(
                    points.thing_turn[chosen], read(shapes[chosen]), points.thing_scene[chosen], scenes
                )
        return sums


_Classify = Callable[[FloatArray], NDArray[np.int64]]
_Regress = Callable[[FloatArray], FloatArray]


def _linear_kinds(x: FloatArray, kind: NDArray[np.int64], kinds: int, seed: int) -> _Classify:
    slope, bias = balanced_ridge(x, kind, kinds)
    bias[np.bincount(kind, minlength=kinds) == 0] = -np.inf  # never seen this way
    return lambda held: (held @ slope + bias).argmax(1)


def _nearest_kinds(x: FloatArray, kind: NDArray[np.int64], kinds: int, seed: int) -> _Classify:
    bank = Neighbours(x, seed)
    return lambda held: vote(kind, bank.of(held), kinds)


def _linear(x: FloatArray, y: FloatArray, seed: int) -> _Regress:
    slope, bias = ridge(x, y)
    return lambda held: held @ slope + bias


def _linear_few(x: FloatArray, y: FloatArray, seed: int) -> _Regress:
    slope, bias = ridge_left_out(x, y)
    return lambda held: held @ slope + bias


def _nearest(x: FloatArray, y: FloatArray, seed: int) -> _Regress:
    bank = Neighbours(x, seed)
    return lambda held: y[bank.of(held)].mean(1)


def _confusion(
    truth: NDArray[np.int64], found: NDArray[np.int64], scene: NDArray[np.int64], shape: tuple[int, int]
) -> FloatArray:
    """(scenes, K, K): how many of each true kind were named what; `shape` is (scenes, K)."""
    counts = np.zeros((shape[0], shape[1], shape[1]))
    np.add.at(counts, (scene, truth, found), 1)
    return counts


def _moments(truth: FloatArray, found: FloatArray, scene: NDArray[np.int64], scenes: int) -> FloatArray:
    """(scenes, K, 4): number, sum and sum of squares of the truth, and squared error."""
    sums = np.zeros((scenes, truth.shape[1], 4))
    np.add.at(sums, scene, np.stack([np.ones_like(truth), truth, truth**2, (truth - found) ** 2], axis=-1))
    return sums


def mean_iou(counts: FloatArray) -> FloatArray:
    """Mean over the kinds that are there of intersection over union (Everingham et al., 2010), of counts (…, K, K)."""
    right = np.einsum("...kk->...k", counts)
    there = counts.sum(-1)
    union = there + counts.sum(-2) - right
    return _mean_where(right / np.maximum(union, 1), there > 0)


def balanced_accuracy(counts: FloatArray) -> FloatArray:
    """Mean over the kinds that are there of the share that is named right, of counts (…, K, K)."""
    there = counts.sum(-1)
    return _mean_where(np.einsum("...kk->...k", counts) / np.maximum(there, 1), there > 0)


def explained(sums: FloatArray) -> FloatArray:
    """R², of sums (…, K, 4) as `_moments` gives them; NaN where there is nothing to explain."""
    number, first, second, error = np.moveaxis(sums, -1, 0)
    spread = (second - first**2 / np.maximum(number, 1)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(spread > 1e-12, 1 - error.sum(-1) / spread, np.nan))


def _mean_where(values: FloatArray, there: NDArray[np.bool_]) -> FloatArray:
    return np.asarray((values * there).sum(-1) / np.maximum(there.sum(-1), 1))


_MEASURES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "segmentation": mean_iou,
    "depth": explained,
    "identity": balanced_accuracy,
    "position": explained,
    "turn": explained,
}


def _draws(sums: Sums, weights: FloatArray) -> dict[str, FloatArray]:
    """By figure its value for each of the weights (B, scenes) of scenes, the first of which are all one."""
    return {name: measure(np.tensordot(weights, sums[name], axes=1)) for name, measure in _MEASURES.items()}


def _figure(draws: FloatArray) -> Figure:
    known = draws[1:][np.isfinite(draws[1:])]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Figure(float(draws[0]), float(low), float(high))


def probe_encoders(
    encoders: Mapping[str, Probed],
    fit: ViewSource,
    held_out: ViewSource,
    *,
    conditions: Sequence[Condition],
    caches: tuple[FeatureCache, FeatureCache],
    seed: int = 0,
    resamples: int = 1000,
    tick: Callable[[str, Condition, int], None] = lambda name, condition, frames: None,
) -> ProbeTable:
    """Probe encoders on the same points of the same frames.

    Args:
        encoders: by name; gains are those of the first.
        fit, held_out: labelled scenes to fit read-outs on and to measure them on.
        conditions: of the held-out frames.
        caches: of features of the two.
        seed: of points, neighbours and draws of scenes.
        resamples: draws of scenes.
        tick: called with encoder, condition and number of frames, as these are encoded or found in the cache.

    Raises:
        EncoderError: frames have no labels, or features are not finite.
        BadInput: no encoder, or no thing is seen.
    """
    if not encoders:
        raise BadInput("no encoder to probe; name one")
    fitted, held = points_of(fit, seed), points_of(held_out, seed + 1)
    for name, points in (("fit", fitted), ("held-out", held)):
        if not len(points.things):
            raise BadInput(f"no thing fills {PURE:.0%} of a patch in the {name} frames; give more scenes")
    kinds = sorted({str(kind) for kind in [*fitted.drawn_kind, *fitted.thing_kind]})
    scenes = len(held_out)
    draws = np.random.default_rng(seed).integers(scenes, size=(resamples, scenes))
    weights = np.stack([np.ones(scenes), *(np.bincount(draw, minlength=scenes) for draw in draws)]).astype(float)
    values: dict[tuple[str, str, Condition], dict[str, FloatArray]] = {}
    for name, probed in encoders.items():
        features = _features(caches[0], fitted, fit, name, probed, Condition(), tick)
        readouts = {kind: Readout(kind, fitted, features, kinds, seed) for kind in READOUTS}
        for condition in conditions:
            features = _features(caches[1], held, held_out, name, probed, condition, tick)
            for kind, readout in readouts.items():
                values[name, kind, condition] = _draws(readout.sums(held, features, scenes), weights)
    severities = sorted({c.severity for c in conditions if c.severity})
    for name, kind in ((name, kind) for name in encoders for kind in READOUTS):
        for severity in severities:
            alike = [values[name, kind, c] for c in conditions if c.severity == severity]
            values[name, kind, Condition(MEAN, severity)] = {
                figure: np.mean([each[figure] for each in alike], axis=0) for figure in ABOUT
            }
    first = next(iter(encoders))
    order = [*conditions, *(Condition(MEAN, severity) for severity in severities)]
    rows = []
    for name, kind, condition in ((n, k, c) for n in encoders for k in READOUTS for c in order):
        own = values[name, kind, condition]
        gains = {} if name == first else {f: _figure(values[first, kind, condition][f] - own[f]) for f in ABOUT}
        rows.append(Row(name, kind, condition, {f: _figure(own[f]) for f in ABOUT}, gains))
    ids = {name: probed.encoder_id for name, probed in encoders.items()}
    return ProbeTable(rows, ids, kinds, (len(fit), scenes), (len(fitted.things), len(held.things)))


def _features(
    cache: FeatureCache,
    points: Points,
    sets: ViewSource,
    name: str,
    probed: Probed,
    condition: Condition,
    tick: Callable[[str, Condition, int], None],
) -> FloatArray:
    """From the cache, or made now."""
    made = 0

    def ticked() -> None:
        nonlocal made
        made += 1
        tick(name, condition, 1)

    features = cache.get(probed.encoder_id, condition, lambda: features_at(points, sets, probed, condition, ticked))
    tick(name, condition, len(points.looked) - made)
    return features

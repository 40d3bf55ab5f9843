"""The probes measure what they say, on features whose content is known, and keep what was encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embodied_vision.encoders.probe_page import markdown, write_page
from embodied_vision.encoders.probe_points import points_of
from embodied_vision.encoders.probes import (
    ABOUT,
    LINEAR,
    MEAN,
    NEAREST,
    Condition,
    FeatureCache,
    Probed,
    ProbeTable,
    conditions_of,
    features_at,
    mean_iou,
    probe_encoders,
)
from embodied_vision.encoders.raw import RawPixels
from embodied_vision.encoders.views import ViewCache, ViewSet
from embodied_vision.errors import BadInput, EncoderError
from embodied_vision.types import RGBD, Features

from .conftest import MakeSets, make_view_set

Probe = Callable[..., ProbeTable]


@pytest.fixture(scope="module")
def sets(make_sets: MakeSets) -> tuple[list[ViewSet], list[ViewSet]]:
    """To fit on and held out; the red block is an L-shape by name, and turned like the base."""

    def posed(views: ViewSet) -> ViewSet:
        names = {body: name.replace("red block", "block") for body, name in views.names.items()}
        return replace(views, names=names, poses={body: np.eye(4) for body in names})

    return [posed(v) for v in make_sets(6)], [posed(v) for v in make_sets(6, first=50)]


@pytest.fixture
def probe(sets: tuple[list[ViewSet], list[ViewSet]], tmp_path: Path) -> Probe:
    """Probes encoders on the two sets, with features kept in `tmp_path`."""

    def run(encoders: dict[str, Probed], *conditions: Condition, **more: object) -> ProbeTable:
        caches = (FeatureCache(tmp_path, {"frames": "fit"}), FeatureCache(tmp_path, {"frames": "held out"}))
        wanted = conditions or (Condition(),)
        return probe_encoders(encoders, *sets, conditions=wanted, caches=caches, resamples=20, **more)  # type: ignore[arg-type]

    return run


class Oracle:
    """Features that hold what is asked for, found by the frame that they are asked about."""

    def __init__(self, sets: list[ViewSet]) -> None:
        self._bodies = {
            f.color.tobytes(): b for views in sets for f, b in zip(views.frames, views.bodies or (), strict=True)
        }
        self.asked = 0

    def __call__(self, frame: RGBD, color: NDArray[np.uint8]) -> Features:
        self.asked += 1
        bodies = self._bodies[frame.color.tobytes()]
        rows, columns = bodies.shape[0] // 8, bodies.shape[1] // 8
        tiles = bodies.reshape(rows, 8, columns, 8)
        shares = np.stack([(tiles == k).mean((1, 3)) for k in range(4)], axis=-1)
        most = shares.argmax(-1)
        depth = frame.depth[4::8, 4::8]
        middles = np.array(
            [np.argwhere(bodies == k).mean(0)[::-1] if (bodies == k).any() else (0, 0) for k in range(4)]
        )
        v, u = np.mgrid[:rows, :columns] * 8 + 3.5
        focal = frame.camera.K[[0, 1], [0, 1]]
        offset = (middles[most] - np.stack([u, v], axis=-1)) * frame.depth[3::8, 3::8, None] / focal
        right = frame.camera.T_base_camera[:3, 0]
        yaw = -np.arctan2(right[1], right[0])
        turn = np.broadcast_to([np.cos(yaw), np.sin(yaw)], (rows, columns, 2))
        grid = np.concatenate([np.eye(4)[most], depth[..., None], offset, turn], axis=-1).astype(np.float32)
        return Features(grid, (8.0, 8.0), "oracle", "test", 0)


def noise(frame: RGBD, color: NDArray[np.uint8]) -> Features:
    rng = np.random.default_rng(int(frame.color.sum()))
    return Features(rng.normal(size=(12, 16, 4)).astype(np.float32), (8.0, 8.0), "noise", "test", 0)


def test_perfect_features_reach_one_and_noise_reaches_nothing(
    probe: Probe, sets: tuple[list[ViewSet], list[ViewSet]]
) -> None:
    oracle = Oracle([*sets[0], *sets[1]])
    table = probe({"oracle": Probed("oracle", oracle), "noise": Probed("noise", noise)})
    assert table.kinds == ["block", "blue block", "green block", "table"]
    best, worst = (table.row(name, LINEAR, Condition()).figures for name in ("oracle", "noise"))
    for name in ABOUT:
        assert best[name].value > 0.97, name
        assert best[name].low <= best[name].value <= best[name].high
    assert worst["segmentation"].value < 0.4
    assert worst["identity"].value < 0.6
    assert max(worst[name].value for name in ("depth", "position", "turn")) < 0.1
    near = table.row("oracle", NEAREST, Condition()).figures
    assert near["segmentation"].value > 0.9
    assert near["identity"].value > 0.95
    gain = table.row("noise", LINEAR, Condition()).gains["identity"]
    assert gain.value == pytest.approx(best["identity"].value - worst["identity"].value)
    assert not table.row("oracle", LINEAR, Condition()).gains


def test_corrupted_pictures_are_what_encoders_are_given(probe: Probe) -> None:
    conditions = conditions_of(["noise", "jpeg"], [5])
    table = probe({"raw RGB": Probed.raw(depth=False), "raw RGB-D": Probed.raw(depth=True)}, *conditions)
    shares = {c: table.row("raw RGB", LINEAR, c).figures["segmentation"].value for c in table.conditions()}
    assert shares[Condition("noise", 5)] < shares[Condition()] - 0.05
    assert shares[Condition(MEAN, 5)] == pytest.approx(
        (shares[Condition("noise", 5)] + shares[Condition("jpeg", 5)]) / 2
    )
    assert table.row("raw RGB-D", LINEAR, Condition("noise", 5)).figures["depth"].value > 0.99
    assert table.row("raw RGB", LINEAR, Condition()).figures["depth"].value < 0.9


def test_nothing_is_encoded_twice_and_what_cannot_be_read_is_made_again(
    probe: Probe, sets: tuple[list[ViewSet], list[ViewSet]], tmp_path: Path
) -> None:
    oracle = Oracle([*sets[0], *sets[1]])
    ticks: list[int] = []
    tick = {"tick": lambda name, condition, frames: ticks.append(frames)}
    first = probe({"oracle": Probed("oracle", oracle)}, **tick)
    asked = oracle.asked
    frames = sum(len(views.frames) for part in sets for views in part)
    assert asked == frames == sum(ticks)
    again = probe({"oracle": Probed("oracle", oracle)}, **tick)
    assert (again.to_dict(), oracle.asked, sum(ticks)) == (first.to_dict(), asked, 2 * frames)
    one, _ = sorted(tmp_path.glob("*.npy"))
    one.write_bytes(one.read_bytes()[:100])
    mended = probe({"oracle": Probed("oracle", oracle)})
    assert mended.to_dict() == first.to_dict()
    assert oracle.asked == asked + frames / 2
    probe({"other": Probed("other", oracle)})
    assert oracle.asked == asked + 1.5 * frames


def test_features_that_are_not_finite_are_refused(sets: tuple[list[ViewSet], list[ViewSet]]) -> None:
    def broken(frame: RGBD, color: NDArray[np.uint8]) -> Features:
        return Features(np.full((12, 16, 4), np.nan, np.float32), (8.0, 8.0), "broken", "test", 0)

    with pytest.raises(EncoderError, match="broken gives non-finite features"):
        features_at(points_of(sets[0], 0), sets[0], Probed("broken", broken), Condition(), lambda: None)


def test_frames_without_labels_or_poses_are_refused(sets: tuple[list[ViewSet], list[ViewSet]]) -> None:
    for lacking in (replace(sets[0][0], bodies=None), replace(sets[0][0], poses={})):
        with pytest.raises(EncoderError, match="probe on simulated scenes"):
            points_of([lacking], 0)


def test_poses_come_back_from_disk(sets: tuple[list[ViewSet], list[ViewSet]], tmp_path: Path) -> None:
    cache = ViewCache(tmp_path, {})
    cache.append(sets[0][0])
    assert {k: v.tolist() for k, v in cache[0].poses.items()} == {k: v.tolist() for k, v in sets[0][0].poses.items()}


def test_what_no_frame_tells_is_left_open(sets: tuple[list[ViewSet], list[ViewSet]], tmp_path: Path) -> None:
    """No L-shapes: their turn is neither good nor bad."""
    plain = [[replace(v, names={b: n.replace("block", "box") for b, n in v.names.items()}) for v in s] for s in sets]
    caches = (FeatureCache(tmp_path, {"frames": 1}), FeatureCache(tmp_path, {"frames": 2}))
    conditions = conditions_of(["jpeg"], [3])
    raw = {"raw": Probed.raw(depth=False)}
    table = probe_encoders(raw, *plain, conditions=conditions, caches=caches, resamples=5)
    row = table.row("raw", LINEAR, Condition())
    assert row.to_dict()["figures"]["turn"] is None
    assert row.to_dict()["figures"]["depth"] is not None
    assert markdown(table).count("– |") == 4
    write_page(tmp_path, table, "")


def test_no_encoder_is_told() -> None:
    cache = FeatureCache(Path("nowhere"), {})
    with pytest.raises(BadInput, match="no encoder to probe"):
        probe_encoders({}, [], [], conditions=[], caches=(cache, cache))


def test_intersection_over_union_counts_kinds_alike() -> None:
    counts = np.array([[8.0, 2.0, 0.0], [0.0, 10.0, 0.0], [0.0, 0.0, 0.0]])
    assert mean_iou(counts) == pytest.approx((8 / 10 + 10 / 12) / 2)


def test_raw_pixels_keep_where_colors_are() -> None:
    depth = np.arange(16 * 24, dtype=np.float32).reshape(16, 24) / 100
    color = np.zeros((16, 24, 3), np.uint8)
    color[0:2, 8:10] = (255, 51, 0)
    camera = replace(make_view_set(0).frames[0].camera, width=24, height=16)
    frame = RGBD(color, depth, camera, 0)
    features = RawPixels(depth=True).describe(frame, color)
    assert features.grid.shape == (2, 3, 64)
    np.testing.assert_allclose(features.grid[0, 1, :3], (1, 0.2, 0))
    assert features.grid[..., :48].sum() == pytest.approx(1.2)
    np.testing.assert_allclose(features.grid[0, 0, 48], depth[:2, :2].mean())
    np.testing.assert_allclose(features.grid[1, 2, 63], depth[14:, 22:].mean())


def test_the_page_and_the_tables_show_every_encoder(probe: Probe, tmp_path: Path) -> None:
    conditions = conditions_of(["jpeg"], [3])
    table = probe({"raw <RGB>": Probed.raw(depth=False), "noise": Probed("noise", noise)}, *conditions)
    text = markdown(table)
    assert "| raw <RGB> | linear | " in text
    assert "| raw <RGB> less noise | nearest | +" in text
    assert "**Mean over jpeg; severity 3.**" in text
    write_page(tmp_path / "page", table, "embodied-vision encoder probe")
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<svg") == len(ABOUT)
    assert "raw &lt;RGB&gt;" in page
    assert (tmp_path / "page" / "figures.json").is_file()

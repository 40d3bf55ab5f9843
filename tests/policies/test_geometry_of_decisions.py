"""Signs, half cells and heights: each of these wrong would still train, and never place."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision import geometry
from embodied_vision.errors import BadInput
from embodied_vision.learning import augment
from embodied_vision.learning.dataset import Example, to_example
from embodied_vision.policies import decoding, maps
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import TURNS_AT_ONCE, FineNet, NetworkConfig, correlate
from embodied_vision.policies.segments import climb, place_support, segment_at
from policies import synthetic

CONFIG = NetworkConfig()
PLAIN = Normalisation.identity(0)


def example(seed: int) -> Example:
    return to_example(*synthetic.insertion(np.random.default_rng(seed)))


class Template(FineNet):
    """Correlates plain silhouettes instead of learnt features: its peak is the right answer by construction."""

    def forward(self, query_views: torch.Tensor, key_views: torch.Tensor) -> torch.Tensor:
        kernels = query_views[:, :, -1]  # the object's cells
        red, green = key_views[:, :, 0], key_views[:, :, 1]
        green = (green - red).clamp_min(0) - 0.3 * (red > green)
        return correlate(kernels[:, :, None], green[:, :, None])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_labels_agree_with_matching_silhouettes_however_scene_and_crops_are_turned(seed: int) -> None:
    """Object and fixture have one shape, so where their silhouettes match best must be what the label says."""
    rng = np.random.default_rng(seed)
    one = augment.mirrored(example(seed)) if seed % 2 else example(seed)
    sample = augment.fine_sample(one, CONFIG, CONFIG.bins, rng)
    query, key = augment.fine_views(Template(CONFIG), sample)
    scores = Template(CONFIG)(query[None], key[None])[0]
    order = np.argsort(np.mod(sample.angles_rad - sample.angles_rad[0], 2 * math.pi))
    right, *wrong = sample.label.numpy()
    assert not np.any(wrong)
    label_place, label_yaw, _ = decoding.place_and_yaw(np.log(right[order].astype(float) + 1e-30))
    assert scores[0].max() > scores[1:].max(), "nothing fits at the wrong places"
    sharp = scores[0].numpy()[order].astype(float)
    r, i, j = np.unravel_index(int(sharp.argmax()), sharp.shape)
    slack = 0.05 * 0.1 / one.scene.workspace.cell  # the fixture is larger by 5 % of 10 cm on every side
    assert np.hypot(i - label_place[0], j - label_place[1]) < math.hypot(slack, slack)
    turn = math.remainder(2 * math.pi * r / CONFIG.bins - label_yaw, 2 * math.pi)
    assert abs(turn) <= math.radians(10)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_coarse_labels_stay_on_object_and_fixture(seed: int) -> None:
    sample = augment.coarse_sample(example(seed), PLAIN, CONFIG, np.random.default_rng(seed))
    red, green = sample.pooled[0] - sample.pooled[1], sample.pooled[1] - sample.pooled[0]
    assert float((sample.pick * (red > 0.3)).sum()) > 0.95
    assert float((sample.place * (green > 0.3)).sum()) > 0.5
    for label in (sample.pick, sample.picked, sample.place):
        assert float(label.sum()) == pytest.approx(1, abs=1e-4)


def test_a_mirror_image_is_the_mirrored_world() -> None:
    """What the mirror shows of an action is the action that is right in the mirrored scene."""
    one = example(3)
    seen = augment.mirrored(one)
    assert np.array_equal(seen.scene.color[:, ::-1], one.scene.color)
    place_xy = geometry.cell_to_xy(one.place, one.scene.workspace)
    seen_xy = geometry.cell_to_xy(seen.place, one.scene.workspace)
    assert seen_xy == pytest.approx([place_xy[0], -place_xy[1]])
    assert seen.yaw_rad == -one.yaw_rad
    i, j = np.floor(seen.segment.anchor + 0.5).astype(int)
    assert abs(float(seen.scene.height[i, j]) - one.segment.top_m) < 0.005
    again = augment.mirrored(seen)
    assert np.array_equal(again.scene.height, one.scene.height)
    assert again.place == pytest.approx(one.place)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_what_has_no_turn_is_seen_along_the_axes_of_its_place(seed: int) -> None:
    """A drag's object and place lie towards each other in the views as they do in the scene, turned by one angle."""
    scene, action = synthetic.insertion(np.random.default_rng(seed))
    one = to_example(scene, replace(action, primitive="drag"))
    assert one.yaw_rad == 0
    assert not one.segment.mask.any()
    views = []
    for mark in (one.segment.anchor + np.array([0.0, 10.0]), one.place):
        scene.height[:] = 0.0
        i, j = np.floor(mark + 0.5).astype(int)
        scene.height[i - 1 : i + 2, j - 1 : j + 2] = 0.1
        sample = augment.fine_sample(one, CONFIG, CONFIG.bins, np.random.default_rng(seed))
        views.append(augment.fine_views(FineNet(CONFIG), sample))
    assert sample.label.shape == (1 + augment.WRONG_PLACES, 1, CONFIG.window, CONFIG.window)
    query, keys = views[0][0], views[1][1]
    seen, label = keys[0, 3].numpy().astype(float), sample.label[0, 0].numpy()
    beyond = (CONFIG.key - CONFIG.window) / 2  # of the window on every side
    for axis, label_axis in zip(np.indices(seen.shape), np.indices(label.shape), strict=True):
        assert (seen * axis).sum() / seen.sum() - beyond == pytest.approx((label * label_axis).sum(), abs=0.75)
    beside = query[0, 3].numpy().astype(float)
    row, column = ((beside * axis).sum() / beside.sum() - (CONFIG.query - 1) / 2 for axis in np.indices(beside.shape))
    c, s = math.cos(sample.key_angle_rad), math.sin(sample.key_angle_rad)
    assert [row, column] == pytest.approx([10 * s, 10 * c], abs=0.75)  # R(−β) takes the scene into the view


def test_the_fft_correlates_where_kernels_lie_wholly_within_keys() -> None:
    kernels, keys = torch.randn(2, TURNS_AT_ONCE + 2, 4, 7, 7), torch.randn(2, 5, 4, 11, 11)
    slow = torch.stack(
        [
            torch.stack([torch.nn.functional.conv2d(k[None], q)[0] for k in ks])
            for q, ks in zip(kernels, keys, strict=True)
        ]
    )
    assert torch.allclose(correlate(kernels, keys), slow, atol=1e-4)


class Marked(torch.nn.Module):
    """Finds a place wherever the first channel says so, and nothing that correlates."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nothing = torch.zeros(len(x), CONFIG.fine_channels, *x.shape[2:])
        return torch.cat([x[:, :1], nothing], 1)


@pytest.mark.parametrize("offset", [(0, 0), (3, -5), (-16, 16)])
def test_what_marks_a_place_by_itself_counts_where_it_is_and_for_what_has_no_turn(offset: tuple[int, int]) -> None:
    net = FineNet(CONFIG)
    net.key_net = Marked()  # type: ignore[assignment]
    key = torch.zeros(1, 2, 5, CONFIG.key, CONFIG.key)
    i, j = (CONFIG.key // 2 - 1 + part for part in offset)
    key[0, 1, 0, i : i + 2, j : j + 2] = 1  # about the corner of four cells, the middle of an even crop
    query = torch.rand(1, 3, 6, CONFIG.query, CONFIG.query)
    assert not net(query, key).any()
    other, here = net(query[:, :1], key)[0, :, 0]
    assert here.shape == (CONFIG.window, CONFIG.window)
    assert not other.any()
    middle = (CONFIG.window - 1) // 2
    assert np.unravel_index(int(here.argmax()), here.shape) == (middle + offset[0], middle + offset[1])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_wrong_places_show_something_and_never_the_right_one(seed: int) -> None:
    one, rng = example(seed), np.random.default_rng(seed)
    wrong = np.concatenate([augment._wrong_places(one, CONFIG, rng) for _ in range(20)])
    assert np.linalg.norm(wrong - one.place, axis=1).min() > CONFIG.window
    drawn = augment._eye_catching(one, rng, 200)
    shape = np.array(one.scene.valid.shape)
    assert ((drawn >= -0.5) & (drawn <= shape - 0.5)).all()
    things = np.argwhere(one.scene.height > 0)
    gaps = np.linalg.norm(drawn[:, None] - things[None], axis=-1).min(1)
    assert (gaps < 2 * augment.EYE_CELLS).mean() > 0.8


def test_climbing_ends_on_the_nearest_bead() -> None:
    scene = synthetic.empty_scene()
    for row in (60, 64):
        scene.height[row : row + 2, 100:102] = 0.01
    assert climb(scene, np.array([59.0, 99.2])) == pytest.approx([60.5, 100.5])
    assert climb(scene, np.array([66.2, 101.0])) == pytest.approx([64.5, 100.5])
    assert climb(scene, np.array([20.0, 20.0])) == pytest.approx([20.0, 20.0], abs=0.5)


@settings(max_examples=15, deadline=None)
@given(st.floats(-math.pi, math.pi), st.floats(-0.1, 0.1), st.floats(-0.3, 0.3))
def test_a_pick_anywhere_on_the_object_teaches_the_same_place(yaw: float, dx: float, dy: float) -> None:
    scene = synthetic.empty_scene()
    own = synthetic.paint(scene, np.array([0.5 + dx, dy]), yaw, 0.04, synthetic.RED)
    cells = np.argwhere(own)
    goal, turn = np.array([0.5, 0.0]), 0.7
    c, s = math.cos(turn), math.sin(turn)
    places = []
    for pick in geometry.cell_to_xy(cells[:: len(cells) // 5], scene.workspace):
        put = goal + np.array([[c, -s], [s, c]]) @ (pick - [0.5 + dx, dy])
        action = synthetic.PickPlace(
            pick=geometry.tool_down(*pick, 0.04, -turn / 2), place=geometry.tool_down(*put, 0.06, turn / 2)
        )
        one = to_example(scene, action)
        assert one.yaw_rad == pytest.approx(turn)
        assert one.release_m == pytest.approx(0.02, abs=1e-6)
        places.append(one.place)
    assert np.ptp(places, axis=0).max() < 1e-6


def test_turning_shows_the_content_turned_by_the_opposite_angle() -> None:
    patch = torch.zeros(1, 41, 41)
    patch[0, 20 + 8, 20] = 1.0  # 8 cells along x
    views = maps.turn(patch, np.array([20.0, 20.0]), np.array([0.0, -math.pi / 2]), 33)
    assert np.unravel_index(int(views[0, 0].argmax()), (33, 33)) == (16 + 8, 16)
    assert np.unravel_index(int(views[1, 0].argmax()), (33, 33)) == (16, 16 + 8)  # +90° about z: x to y


def test_pooling_counts_only_seen_cells() -> None:
    stack = torch.zeros(5, 4, 4)
    stack[:, 0, 0] = torch.tensor([0.5, 0.2, 0.1, 0.8, 1.0])
    pooled = maps.pool(stack, 2)
    assert pooled[:, 0, 0].tolist() == pytest.approx([0.5, 0.2, 0.1, 0.8, 0.25])
    assert float(pooled[:, 1, 1].abs().sum()) == 0


def test_features_are_pooled_and_then_normalised_as_if_it_were_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    scene = synthetic.empty_scene()
    valid = rng.uniform(size=scene.valid.shape) < 0.3
    features = rng.normal(size=(*valid.shape, 3)).astype(np.float32) * valid[..., None]
    scene = replace(scene, valid=valid, features=features)
    normalisation = Normalisation(np.array([1.0, -2.0, 0.5], np.float32), np.array([2.0, 0.5, 1.0], np.float32))
    slow = maps.pool(maps.stack_scene(scene, normalisation), 4)
    assert torch.allclose(maps.pool_scene(scene, normalisation, 4), slow, atol=1e-5)


def test_a_map_that_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(BadInput, match="the map has 4 x 6 cells, both must be multiples of 4; choose a workspace"):
        maps.pool(torch.zeros(5, 4, 6), 2)


def test_the_logarithm_of_a_probability_is_read_between_its_cells() -> None:
    probability = np.exp(np.add.outer(np.arange(4.0), 2 * np.arange(5.0)) - 20)
    cells = np.array([[0.0, 0.0], [1.5, 2.25], [3.0, 4.0], [-1.0, 9.0]])
    expected = [-20.0, -14.0, -9.0, -12.0]
    assert decoding.log_between(probability, cells, 1e-30) == pytest.approx(expected)
    assert decoding.log_between(np.zeros((2, 2)), cells[:1]) == pytest.approx([np.log(1e-9)])


def test_peak_is_exact_for_a_blob_between_cells() -> None:
    blob = augment._blob(np.array([7.3, 9.8]), (17, 17), 0.8).numpy().astype(float)
    assert decoding.peak(blob, 3) == pytest.approx([7.3, 9.8], abs=0.02)


@pytest.mark.parametrize("yaw_deg", [-179.0, -90.0, -3.0, 0.0, 44.0, 178.0])
def test_yaw_between_bins_is_decoded_across_the_wrap(yaw_deg: float) -> None:
    exact = math.radians(yaw_deg) / (2 * math.pi / 36)
    away = np.remainder(np.arange(36) - exact + 18, 36) - 18
    blob = augment._blob(np.array([8.0, 8.0]), (17, 17), 0.8).numpy()
    logits = -0.5 * (away / 0.6)[:, None, None] ** 2 + np.log(blob + 1e-9)
    _, yaw, _ = decoding.place_and_yaw(logits.astype(float))
    assert abs(math.remainder(yaw - math.radians(yaw_deg), 2 * math.pi)) < math.radians(0.3)


def test_a_place_whose_yaw_does_not_matter_is_found_over_all_yaws() -> None:
    logits = np.full((36, 17, 17), -20.0)
    logits[:, 4, 6] = 0.0  # 36 weak votes
    logits[3, 12, 12] = 2.0  # one strong vote elsewhere
    place, _, _ = decoding.place_and_yaw(logits)
    assert place == pytest.approx([4, 6], abs=0.01)


def test_segment_keeps_to_its_color_and_height() -> None:
    scene = synthetic.empty_scene()
    own = synthetic.paint(scene, np.array([0.5, 0.0]), 0.3, 0.04, synthetic.RED)
    synthetic.paint(scene, np.array([0.5, 0.105]), 0.3, 0.04, synthetic.BLUE)
    own &= scene.color[..., 0] == synthetic.RED[0]
    segment = segment_at(scene, np.argwhere(own)[40].astype(float))
    assert (segment.mask == own).all()
    assert segment.top_m == pytest.approx(0.04)
    assert segment.support_m == pytest.approx(0.0)
    i, j = np.floor(segment.grasp + 0.5).astype(int)
    assert own[i - 1 : i + 2, j - 1 : j + 2].all()


def test_a_pick_on_the_table_stands_for_itself() -> None:
    segment = segment_at(synthetic.empty_scene(), np.array([60.2, 100.7]))
    assert not segment.mask.any()
    assert segment.anchor == pytest.approx([60.2, 100.7])


def test_an_object_at_the_edge_of_the_map_is_an_object() -> None:
    scene = synthetic.empty_scene()
    own = synthetic.paint(scene, np.array([0.26, 0.1]), 0.0, 0.04, synthetic.RED)
    assert (segment_at(scene, np.argwhere(own)[0].astype(float)).mask == own).all()


def test_support_under_a_place_ignores_walls_and_hidden_cells() -> None:
    scene = synthetic.empty_scene()
    synthetic.paint(scene, np.array([0.5, -0.2]), 0.0, 0.03, synthetic.GREEN, 1.25)  # walls 3 cm high …
    floor = synthetic.paint(scene, np.array([0.5, -0.2]), 0.0, 0.005, synthetic.GREEN, 1.04)  # … around a floor
    hidden = floor & (np.arange(scene.valid.shape[0])[:, None] < 60)
    scene.valid[hidden], scene.height[hidden] = False, 0.0
    own = synthetic.paint(scene, np.array([0.5, 0.2]), 0.0, 0.04, synthetic.RED)
    segment = segment_at(scene, np.argwhere(own)[9].astype(float))
    place = geometry.xy_to_cell([0.5, -0.2], scene.workspace) + segment.anchor
    place -= geometry.xy_to_cell([0.5, 0.2], scene.workspace)
    assert place_support(scene, segment, place, 0.0) == pytest.approx(0.005)

"""Objects taken elsewhere: the picture changes, what is to be done does not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from policies import synthetic

from embodied_vision import geometry
from embodied_vision.learning.dataset import Example, beside_each_other, to_example
from embodied_vision.learning.relocate import NEAR_CELLS, SHADOW_CELLS, relocated
from embodied_vision.policies.maps import rotation
from embodied_vision.policies.segments import segment_at
from embodied_vision.types import PickPlace, Scene


def example(seed: int) -> Example:
    return to_example(*synthetic.insertion(np.random.default_rng(seed)))


def footprint(one: Example) -> NDArray[np.float64]:
    """Cells (N, 2) that the object covers once it is placed."""
    return one.place + (np.argwhere(one.segment.mask) - one.segment.anchor) @ rotation(one.yaw_rad).T


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_moved_object_is_placed_as_before(seed: int) -> None:
    one = example(seed)
    moved = relocated(one, one.segment, np.random.default_rng(seed))
    assert np.linalg.norm(moved.segment.anchor - one.segment.anchor) > 1
    assert np.array_equal(moved.place, one.place)
    before, after = footprint(one), footprint(moved)
    apart = np.linalg.norm(before[:, None] - after[None], axis=-1)
    assert max(apart.min(0).max(), apart.min(1).max()) < 1.5, "the yaw makes up for the turn"
    found = segment_at(moved.scene, moved.segment.grasp)
    assert np.linalg.norm(found.anchor - moved.segment.anchor) < 1.0
    overlap = found.mask & moved.segment.mask
    assert overlap.sum() > 0.9 * found.mask.sum()
    assert abs(found.top_m - one.segment.top_m) < 0.002


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_where_it_stood_is_table_and_all_else_is_as_it_was(seed: int) -> None:
    one = example(seed)
    moved = relocated(one, one.segment, np.random.default_rng(seed))
    left = one.segment.mask & ~moved.segment.mask
    assert np.abs(moved.scene.height[left] - one.segment.support_m).max() < 0.004
    far = np.ones_like(one.segment.mask)
    for segment in (one.segment, moved.segment):
        i, j = np.indices(far.shape)
        reach = np.linalg.norm(np.argwhere(segment.mask) - segment.anchor, axis=1).max() + 16
        far &= np.hypot(i - segment.anchor[0], j - segment.anchor[1]) > reach
    assert np.array_equal(moved.scene.color[far], one.scene.color[far])
    assert np.array_equal(moved.scene.height[far], one.scene.height[far])


def test_it_is_put_near_a_point_where_there_is_room() -> None:
    one = example(5)
    size = np.linalg.norm(np.argwhere(one.segment.mask) - one.segment.anchor, axis=1).max()
    corners = np.array([[30.0, 30.0], [30.0, 225.0], [97.0, 30.0], [97.0, 225.0]])
    apart = [min(np.linalg.norm(corner - point) for point in (one.segment.anchor, one.place)) for corner in corners]
    empty = corners[int(np.argmax(apart))]
    for seed in range(10):
        moved = relocated(one, one.segment, np.random.default_rng(seed), near=empty)
        assert np.abs(moved.segment.anchor - empty).max() < NEAR_CELLS + size + 2 * SHADOW_CELLS


def test_a_waiting_object_leaves_the_picked_one_alone() -> None:
    one = example(2)
    other = replace(one.segment)
    waiting = replace(one, segment=replace(one.segment, mask=np.zeros_like(one.segment.mask)), waiting=[other])
    moved = relocated(waiting, other, np.random.default_rng(0))
    assert moved.segment is waiting.segment
    assert moved.yaw_rad == waiting.yaw_rad
    assert not moved.waiting
    assert not np.array_equal(moved.scene.height, waiting.scene.height)


def test_without_room_the_example_stays_as_it_is() -> None:
    one = example(1)
    bumpy = np.where(one.segment.mask, one.scene.height, one.scene.height + np.indices(one.scene.valid.shape)[0] % 2)
    full = replace(one, scene=replace(one.scene, height=bumpy.astype(np.float32)))
    assert relocated(full, full.segment, np.random.default_rng(0)) is full


def test_features_go_with_the_object() -> None:
    one = example(4)
    factor = 4
    inside = one.segment.mask.reshape(one.segment.mask.shape[0] // factor, factor, -1, factor).mean((1, 3))
    pooled = np.stack([inside, 1 - inside], -1).astype(np.float16)
    moved = relocated(replace(one, pooled_features=pooled), one.segment, np.random.default_rng(3))
    assert moved.pooled_features is not None
    there = moved.segment.mask.reshape(*inside.shape[:1], factor, -1, factor).mean((1, 3))
    assert moved.pooled_features[there > 0.9][:, 0].mean() > 0.7
    assert moved.pooled_features[(inside > 0.9) & (there == 0)][:, 0].max(initial=0) < 0.5
    assert math.isclose(float(moved.pooled_features[..., 0].sum()), float(pooled[..., 0].sum()), rel_tol=0.4)


def test_what_is_picked_later_waits_as_long_as_it_lies_where_it_will_be_picked() -> None:
    """Two blocks: the second waits while the first is placed, unless somebody moves it in between."""
    first, second, spot = np.array([0.35, -0.25]), np.array([0.6, 0.1]), np.array([0.4, 0.3])
    before, after, moved = (synthetic.empty_scene() for _ in range(3))
    red = synthetic.paint(before, first, 0.3, 0.04, synthetic.RED)
    synthetic.paint(after, spot, 0.3, 0.04, synthetic.RED)
    _, blue, turned = (
        synthetic.paint(scene, second, yaw, 0.04, synthetic.BLUE)
        for scene, yaw in ((before, 1.0), (after, 1.0), (moved, 1.7))
    )

    def taken(scene: Scene, block: NDArray[np.bool_]) -> Example:
        pick = geometry.cell_to_xy(np.argwhere(block)[5], scene.workspace)
        return to_example(scene, PickPlace(geometry.tool_down(*pick, 0.04), geometry.tool_down(*spot, 0.08)))

    now, later = beside_each_other([taken(before, red), taken(after, blue)])
    assert [list(segment.anchor) for segment in now.waiting] == [list(later.segment.anchor)]
    assert not later.waiting, "what has been placed is not waiting"
    now, later = beside_each_other([taken(before, red), taken(moved, turned)])
    assert later.segment.mask.any()
    assert not now.waiting

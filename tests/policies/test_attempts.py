"""What was picked in vain is picked less; what came off, or changed anything, is not held against it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodied_vision import geometry
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.policy import IN_VAIN, Explanation, Policy
from embodied_vision.policies.segments import segment_at
from embodied_vision.types import Scene
from policies import synthetic
from policies.stubs import StubEncoder, random_checkpoint

HERE, THERE, GOAL = (np.array([0.40, y]) for y in (-0.2, 0.0, 0.25))


def table(*blocks: np.ndarray) -> Scene:
    """Red blocks on a table."""
    scene = synthetic.empty_scene(6)
    for block in blocks:
        synthetic.paint(scene, block, 0.3, synthetic.BLOCK_TOP_M, synthetic.RED)
    return scene


def picking(scene: Scene, xy: np.ndarray) -> Explanation:
    """The decision to take what lies at a point to `GOAL`."""
    made = Policy(random_checkpoint(), StubEncoder()).explain_scene(scene)
    # The middle of the L lies in its notch, so the seed is taken on its arm.
    segment = segment_at(scene, geometry.xy_to_cell(xy - 0.03, scene.workspace))
    assert segment.mask.any()
    return replace(made, segment=segment, place=geometry.xy_to_cell(GOAL, scene.workspace), yaw_rad=0.5)


def test_what_still_stands_was_picked_in_vain() -> None:
    scene = table(HERE, THERE)
    attempts = Attempts()
    assert attempts.failed(scene) == ()
    made = picking(scene, HERE)
    attempts.note(made)
    (point,) = attempts.failed(scene)
    assert point == pytest.approx(geometry.cell_to_xy(made.segment.anchor, scene.workspace))
    attempts.note(made)
    assert attempts.failed(scene) == (point, point)


@pytest.mark.parametrize("after", [table(THERE), table(THERE, GOAL), table(HERE, THERE, GOAL)])
def test_what_was_taken_or_came_to_the_place_was_not(after: Scene) -> None:
    """The last: another one arrived where the first one was taken."""
    attempts = Attempts()
    attempts.note(picking(table(HERE, THERE), HERE))
    assert attempts.failed(after) == ()
    assert attempts.failed(table(HERE, THERE)) == (), "it is forgotten"


def test_noise_and_holes_change_nothing_and_a_blind_camera_proves_nothing() -> None:
    scene, rng = table(HERE, THERE), np.random.default_rng(0)
    attempts = Attempts()
    attempts.note(picking(scene, HERE))
    noisy = (scene.height + rng.normal(0, 0.003, scene.height.shape)).astype(np.float32)
    assert len(attempts.failed(replace(scene, height=noisy, valid=rng.uniform(size=noisy.shape) < 0.5))) == 1
    assert attempts.failed(replace(scene, valid=np.zeros_like(scene.valid))) == ()


def test_the_policy_picks_it_less_and_says_so() -> None:
    scene = table(HERE, THERE)
    policy = Policy(random_checkpoint(), StubEncoder())
    before = policy.explain_scene(scene)
    assert before.failed == ()
    xy = tuple(geometry.cell_to_xy(before.segment.grasp, scene.workspace).tolist())
    after = policy.explain_scene(scene, Attempts([xy]))
    assert after.failed == (xy,)
    ratio = after.pick_probability / before.pick_probability
    assert sorted(np.unique(ratio.round(6)).tolist()) == pytest.approx([IN_VAIN, 1.0])
    cell = np.floor((before.segment.grasp + 0.5) / policy.checkpoint.config.coarse_pool).astype(int)
    assert ratio[tuple(cell)] == pytest.approx(IN_VAIN)


def test_where_pushes_go_the_same_way_twice_nothing_is_in_vain() -> None:
    scene = table(HERE, THERE)
    policy = Policy(replace(random_checkpoint(), primitive="push", tip_m=(0.02, 0.02)), StubEncoder())
    assert policy.explain_scene(scene, Attempts([(0.4, 0.0)])).failed == ()


def test_what_was_never_seen_was_picked_in_vain() -> None:
    scene = table(THERE)
    hole = geometry.xy_to_cell(HERE, scene.workspace)
    i, j = np.round(hole).astype(int)
    scene.valid[i - 3 : i + 4, j - 3 : j + 4] = False
    made = replace(picking(scene, THERE), segment=segment_at(scene, hole))
    assert not made.segment.mask.any()
    attempts = Attempts()
    attempts.note(made)
    assert len(attempts.failed(scene)) == 1
    scene.height[tuple(np.round(made.place).astype(int))] += 0.02
    assert attempts.failed(scene) == ()

"""What is likeliest to be picked in the hollow of an object is the object."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.policies.policy import Policy
from embodied_vision.types import Scene
from policies import synthetic
from policies.stubs import StubEncoder, random_checkpoint

TOP_M = 0.02


def cup(*, seen_inside: bool) -> Scene:
    """A square ring of cells whose hollow is wider than a coarse cell."""
    scene = synthetic.empty_scene(0)
    scene.height[40:56, 40:56] = TOP_M
    scene.color[40:56, 40:56] = synthetic.RED
    scene.height[44:52, 44:52] = 0
    scene.color[44:52, 44:52] = scene.color[0, 0]
    scene.valid[44:52, 44:52] = seen_inside
    return scene


@pytest.mark.parametrize("seen_inside", [True, False])
def test_the_hollow_of_an_object_stands_for_it(seen_inside: bool) -> None:
    scene, policy = cup(seen_inside=seen_inside), Policy(random_checkpoint(), StubEncoder())
    factor = policy.checkpoint.config.coarse_pool
    probability = np.full([edge // factor for edge in scene.valid.shape], 1e-9)
    probability[11:13, 11:13] = [[0.5, 0.2], [0.1, 0.1]]
    probability[10, 11] = 0.05
    segment = policy._object(scene, probability)
    assert segment.mask.sum() == 16**2 - 8**2
    assert segment.top_m == pytest.approx(TOP_M)


def test_an_empty_table_is_picked_where_that_is_likeliest() -> None:
    scene, policy = synthetic.empty_scene(0), Policy(random_checkpoint(), StubEncoder())
    factor = policy.checkpoint.config.coarse_pool
    probability = np.full([edge // factor for edge in scene.valid.shape], 1e-9)
    probability[11, 12] = 1.0
    segment = policy._object(scene, probability)
    assert not segment.mask.any()
    np.testing.assert_allclose(segment.anchor, [11.5 * factor - 0.5, 12.5 * factor - 0.5])

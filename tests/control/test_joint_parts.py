"""Joint states in one message or many, in any order, with others' joints among them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embodied_vision.control.joint_parts import JointParts
from embodied_vision.errors import BadInput

NAMES = ("a", "b", "c")
STEP_NS = 10_000_000


def test_a_whole_message_is_a_set_whatever_its_order() -> None:
    joints = JointParts(NAMES).add(["c", "finger", "a", "b"], [3.0, 9.0, 1.0, 2.0], [0.3, 0.9, 0.1, 0.2], 5)
    assert joints is not None
    assert (joints.positions.tolist(), joints.velocities.tolist(), joints.stamp_ns) == ([1, 2, 3], [0.1, 0.2, 0.3], 5)


def test_parts_make_a_set_when_the_last_has_come_and_it_is_as_old_as_its_oldest() -> None:
    parts = JointParts(NAMES)
    assert parts.add(["b"], [2.0], [0.0], 3) is None
    assert parts.add(["finger"], [9.0], [0.0], 9) is None
    assert parts.wanted == ["a", "c"]
    joints = parts.add(["a", "c"], [1.0, 3.0], [0.0, 0.0], 7)
    assert joints is not None
    assert (joints.positions.tolist(), joints.stamp_ns) == ([1, 2, 3], 3)
    assert parts.wanted == list(NAMES)


def test_a_joint_that_comes_no_more_ends_the_sets() -> None:
    parts = JointParts(NAMES)
    assert parts.add(NAMES, [1, 2, 3], [], 0) is not None
    assert [parts.add(["a", "b"], [1, 2], [], stamp) for stamp in range(1, 50)] == [None] * 49
    assert parts.wanted == ["c"]


@pytest.mark.parametrize("velocities", [[], [math.nan] * 3])
def test_velocities_follow_from_positions_where_none_are_sent(velocities: list[float]) -> None:
    parts = JointParts(NAMES)
    first = parts.add(NAMES, [1.0, 2.0, 3.0], velocities, 0)
    second = parts.add(NAMES, [1.01, 2.0, 2.98], velocities, STEP_NS)
    assert first is not None
    assert second is not None
    assert first.velocities.tolist() == [0, 0, 0]
    np.testing.assert_allclose(second.velocities, [1.0, 0.0, -2.0], atol=1e-9)


def test_positions_that_are_not_finite_come_through_for_the_guard_to_refuse() -> None:
    joints = JointParts(NAMES).add(NAMES, [1.0, math.nan, 3.0], [0.0, 0.0, 0.0], 0)
    assert joints is not None
    assert np.isnan(joints.positions).tolist() == [False, True, False]


@pytest.mark.parametrize(("positions", "velocities"), [([1.0, 2.0], []), ([1.0, 2.0, 3.0], [0.0])])
def test_messages_of_unequal_lengths_are_refused(positions: list[float], velocities: list[float]) -> None:
    with pytest.raises(BadInput, match="names 3 joints"):
        JointParts(NAMES).add(NAMES, positions, velocities, 0)

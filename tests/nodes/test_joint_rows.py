"""Joint states in parts become rows of all joints, and nothing that was measured is left out."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from embodied_vision.errors import BadInput
from embodied_vision.nodes.joint_rows import HELD_NS, JointRows


def state(**positions: float) -> JointState:
    return JointState(name=list(positions), position=list(positions.values()))


def taken(rows: JointRows, stamp_ns: int, **positions: float) -> list[tuple[int, list[float]]]:
    return [(stamp, row.tolist()) for stamp, row in rows.add(state(**positions), stamp_ns)]


def test_whole_messages_are_rows_at_once_in_the_order_of_the_first() -> None:
    rows = JointRows(["position"], "joint_states")
    assert taken(rows, 1, a=1, b=2) == [(1, [1, 2])]
    assert taken(rows, 2, b=4, a=3) == [(2, [3, 4])]
    assert rows.names == ["a", "b"]


def test_parts_of_one_stamp_are_one_row_wherever_one_begins_to_listen() -> None:
    rows = JointRows(["position"], "joint_states")
    for part in ({"b": -1.0}, {"c": 7.0}):  # the end of a round
        taken(rows, 1, **part)
    seen = [
        row
        for stamp in (2, 3)
        for part in ({"a": stamp}, {"b": -stamp}, {"c": 7})
        for row in taken(rows, stamp, **part)
    ]
    assert rows.names == ["b", "c", "a"]
    assert seen == [(1, [-1, 7]), (2, [-2, 7, 2]), (3, [-3, 7, 3])]


def test_a_slow_gripper_does_not_thin_the_arm_out() -> None:
    rows = JointRows(["position"], "joint_states")
    taken(rows, 0, finger=9)
    seen = [row for stamp in range(1, 11) for row in taken(rows, stamp, a=float(stamp))]
    assert [stamp for stamp, _ in seen] == list(range(1, 10)), "the last waits for what comes next"
    assert seen[4] == (5, [9, 5])


def test_a_joint_that_comes_no_more_is_not_held_for_ever() -> None:
    rows = JointRows(["position"], "joint_states")
    taken(rows, 0, a=1, b=2)
    taken(rows, HELD_NS, a=3)
    assert taken(rows, HELD_NS + 1, a=4) == [(HELD_NS, [3, 2])]
    ((_, row),) = rows.add(state(a=5), HELD_NS + 2)
    np.testing.assert_array_equal(row, [4, np.nan])


def test_arrays_come_one_after_the_other_and_those_left_out_are_nan() -> None:
    rows = JointRows(["position", "velocity"], "joint_states")
    ((_, row),) = rows.add(JointState(name=["a", "b"], position=[1.0, 2.0]), 1)
    np.testing.assert_array_equal(row, [1, 2, np.nan, np.nan])
    with pytest.raises(BadInput, match="names 2 joints, 1 of velocity"):
        rows.add(JointState(name=["a", "b"], position=[1.0, 2.0], velocity=[1.0]), 2)
    assert rows.add(JointState(), 3) == []

"""The preview goes where the arm would go, and finds the place of a refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodied_vision.control.motion import plan
from embodied_vision.control.preview import Preview
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace

MODEL = RobotModel.load("panda_suction")
ACTION = PickPlace(tool_down(0.5, -0.2, 0.05), tool_down(0.5, 0.2, 0.05), stamp_ns=10**18)


def _box(x: float, y: float, z: float, edge: float = 0.1) -> KeepOut:
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return KeepOut("post", pose, np.full(3, edge))


def test_the_path_is_that_of_the_motion() -> None:
    found = Preview(MODEL).of(ACTION, MODEL.home)
    motion = plan(MODEL, MODEL.home, ACTION)
    assert found.refusal is None
    assert [part.name for part in found.path] == [segment.name for segment in motion.segments]
    for part, segment in zip(found.path, motion.segments, strict=True):
        ends = [MODEL.forward(segment.trajectory.positions[i])[:3, 3] for i in (0, -1)]
        assert part.points[[0, -1]] == pytest.approx(np.array(ends), abs=1e-9)
    for before, after in zip(found.path, found.path[1:], strict=False):
        assert before.points[-1] == pytest.approx(after.points[0], abs=1e-6)
    down = {part.name: part.points[-1] for part in found.path}
    assert down["descend_pick"] == pytest.approx(ACTION.pick[:3, 3], abs=1e-3)
    assert down["descend_place"] == pytest.approx(ACTION.place[:3, 3], abs=1e-3)


def test_a_keep_out_on_the_way_is_found_where_the_tip_is_then() -> None:
    box = _box(0.5, 0.0, 0.2)
    found = Preview(MODEL, keep_out=[box]).of(ACTION, MODEL.home)
    assert found.refusal is not None
    assert found.refusal.rule == "keep_out"
    assert found.path[-1].name == "transfer", "the path ends with the segment that is refused"
    assert found.place is not None
    assert np.abs(found.place - box.pose[:3, 3]).max() < 0.2
    assert np.abs(found.path[-1].points - found.place).max(axis=1).min() < 0.05
    assert np.linalg.norm(found.place - found.path[-1].points[0]) > 0.02, "on the way, not where it began"


@pytest.mark.parametrize(
    ("action", "rule", "place"),
    [
        (replace(ACTION, pick=tool_down(0.9, 0.0, 0.1)), "workspace", (0.9, 0.0, 0.1)),
        (replace(ACTION, place=tool_down(0.4, 0.6, 0.1)), "workspace", (0.4, 0.6, 0.1)),
        (replace(ACTION, place=tool_down(0.75, 0.5, 0.1)), "unreachable", (0.75, 0.5, 0.1)),
    ],
)
def test_a_pose_that_is_refused_is_the_place(action: PickPlace, rule: str, place: tuple[float, float, float]) -> None:
    found = Preview(MODEL).of(action, MODEL.home)
    assert found.refusal is not None
    assert found.refusal.rule == rule
    assert found.place is not None
    assert found.place[:2] == pytest.approx(place[:2], abs=1e-3)
    assert found.path == ()


def test_what_is_no_number_has_no_place() -> None:
    broken = ACTION.pick.copy()
    broken[0, 3] = np.nan
    found = Preview(MODEL).of(replace(ACTION, pick=broken), MODEL.home)
    assert found.refusal is not None
    assert (found.refusal.rule, found.place, found.path) == ("non_finite", None, ())
    unknown = Preview(MODEL).of(replace(ACTION, primitive="dance"), MODEL.home)  # type: ignore[arg-type]
    assert unknown.refusal is not None
    assert unknown.refusal.rule == "unknown"


def test_older_decisions_are_looked_at_as_well() -> None:
    preview = Preview(MODEL)
    assert preview.of(ACTION, MODEL.home).refusal is None
    assert preview.of(replace(ACTION, stamp_ns=1), MODEL.home).refusal is None

"""The frozen types: JSON forms keep every bit, ids sort by time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision.geometry import tool_down
from embodied_vision.types import Camera, PickPlace, Workspace, new_id


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-3, 3), st.integers(0, 2**62))
def test_a_decision_survives_json_bit_for_bit(x: float, y: float, yaw: float, stamp: int) -> None:
    action = PickPlace(tool_down(x, y, 0.1), tool_down(y, x, 0.2, yaw), scores={"pick": x}, stamp_ns=stamp)
    again = PickPlace.from_dict(json.loads(json.dumps(action.to_dict())))
    assert np.array_equal(again.pick, action.pick)
    assert np.array_equal(again.place, action.place)
    assert again.to_dict() == action.to_dict()


def test_non_finite_decisions_are_seen() -> None:
    pose = tool_down(0.5, 0, 0.1)
    assert PickPlace(pose, pose).is_finite()
    broken = pose.copy()
    broken[0, 3] = np.nan
    assert not PickPlace(pose, broken).is_finite()
    assert not PickPlace(pose, pose, scores={"pick": float("inf")}).is_finite()


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(200)]
    assert len(set(ids)) == len(ids)
    milliseconds = [int(i.replace("-", "")[:12], 16) for i in ids]
    assert milliseconds == sorted(milliseconds)
    assert all(i[14] == "7" for i in ids)


def test_camera_and_workspace_survive_json() -> None:
    camera = Camera("wrist", 4, 3, np.eye(3), np.eye(4))
    again = Camera.from_dict(json.loads(json.dumps(camera.to_dict())))
    assert again.name == "wrist"
    assert np.array_equal(again.K, camera.K)
    assert Workspace.from_dict(json.loads(json.dumps(Workspace().to_dict()))) == Workspace()


def test_a_camera_without_calibration_is_named() -> None:
    with pytest.raises(BadInput, match="lacks the field 'K'"):
        Camera.from_dict({"name": "c", "width": 1, "height": 1})
    with pytest.raises(BadInput, match="non-finite"):
        Camera("c", 1, 1, np.full((3, 3), np.nan), np.eye(4))

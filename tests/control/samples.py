"""Decisions and positions to test with."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from embodied_vision.control.motion import Motion, plan_pick_place
from embodied_vision.control.robot import RobotModel
from embodied_vision.geometry import tool_down
from embodied_vision.types import FloatArray, PickPlace, Workspace

WORKSPACE = Workspace()
MODEL = RobotModel.load()
NEAR, FAR = 0.31, 0.77
"""Where the Panda's tool works, held straight down: 4 cm beyond `reach_m`, where scenes are made."""


def within_reach(x: float, y: float) -> bool:
    return NEAR <= np.hypot(x, y) <= FAR


@st.composite
def tool_poses(draw: st.DrawFn) -> FloatArray:
    """Tool-down poses in the workspace that the arm is made to reach, at any yaw."""
    x, y = draw(st.tuples(st.floats(*WORKSPACE.x), st.floats(*WORKSPACE.y)).filter(lambda point: within_reach(*point)))
    return tool_down(x, y, draw(st.floats(0.005, 0.2)), draw(st.floats(-np.pi, np.pi)))


@st.composite
def actions(draw: st.DrawFn) -> PickPlace:
    return PickPlace(pick=draw(tool_poses()), place=draw(tool_poses()))


def example_motion() -> Motion:
    action = PickPlace(pick=tool_down(0.5, -0.3, 0.02, 0.4), place=tool_down(0.45, 0.25, 0.06, -1.5))
    return plan_pick_place(MODEL, MODEL.home, action)

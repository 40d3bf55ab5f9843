"""The shipped arm, loaded once."""

from __future__ import annotations

import pytest

from embodied_vision.control.robot import RobotModel


@pytest.fixture(scope="session")
def model() -> RobotModel:
    return RobotModel.load()

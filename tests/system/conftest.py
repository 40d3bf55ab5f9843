"""Fixtures of the system tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import official


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with launch, launch_ros and ros2cli."""
    folder = tmp_path_factory.mktemp("ros2_tools")
    official.install(folder)
    return folder

"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import official
from tests.system.rig import Rig


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failure is shown with what the processes of its graph have logged."""
    report = yield
    if report.failed:
        report.sections += [(f"graph {rig.cell.run_dir.name}", rig.account()) for rig in Rig.running]
    return report


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with launch, launch_ros and ros2cli."""
    folder = tmp_path_factory.mktemp("ros2_tools")
    official.install(folder)
    return folder

"""The official ROS 2 command line tools, for the tests that use them.

Their wheels, built from the official sources, are looked for in ../shared/ros2_tools beside the checkout or in the
folder that EMBODIED_VISION_ROS2_TOOLS names. They go into a folder of the tests' own: the product does not need them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = Path(os.environ.get("EMBODIED_VISION_ROS2_TOOLS") or ROOT.parent / "shared" / "ros2_tools")
DEPENDENCIES = ("osrf-pycommon", "argcomplete", "psutil", "packaging", "pyyaml", "lark")
ROS2 = (sys.executable, "-c", "import sys; sys.argv[0] = 'ros2'; from ros2cli.cli import main; sys.exit(main())")
NEEDED = pytest.mark.skipif(
    not list(WHEELS.glob("ros2cli-*.whl")),
    reason=f"no wheels of the official tools in {WHEELS}; name their folder in EMBODIED_VISION_ROS2_TOOLS",
)


def install(folder: Path) -> None:
    """Put launch, launch_ros and ros2cli into a folder for PYTHONPATH."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([*pip, *DEPENDENCIES], check=True, timeout=300)
    subprocess.run([*pip, "--upgrade", "--no-deps", *map(str, WHEELS.glob("*.whl"))], check=True, timeout=300)


def ros2(environment: Mapping[str, str], *arguments: str, timeout_s: float = 60.0, errors: bool = True) -> str:
    """What a command says, on both its outputs or without what it says of errors, where Fast DDS may say something."""
    done = subprocess.run(
        [*ROS2, *arguments], env=dict(environment), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return done.stdout + done.stderr if errors else done.stdout


def ros2_again(environment: Mapping[str, str], *arguments: str) -> str:
    """What a command says, nothing if it says nothing for long: to be asked again.

    The tools call a service once and wait for ever: an answer given before the client was discovered is lost.
    """
    try:
        return ros2(environment, *arguments, timeout_s=20.0)
    except subprocess.TimeoutExpired:
        return ""


def ros2_says(wanted: str, environment: Mapping[str, str], *arguments: str, timeout_s: float = 60.0) -> str:
    """Ask until the answer holds what is wanted: the tools know a node only once it was discovered."""
    deadline = time.monotonic() + timeout_s
    while wanted not in (said := ros2_again(environment, *arguments)):
        assert time.monotonic() < deadline, f"no {wanted!r} in the answer of ros2 {' '.join(arguments)}: {said}"
    return said


class Started:
    """A command of the tools that goes on, `with Started(environment, log, "launch", FILE) as launch:`.

    Attributes:
        log: file with what it says.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*ROS2, *arguments],
                env=dict(environment),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal, which `ros2 run` does not pass on
        try:
            self.process.wait(60.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def until_state(self, environment: Mapping[str, str], node: str, state: str, timeout_s: float = 120.0) -> None:
        """Wait until a node is in a state, while the command runs."""
        deadline = time.monotonic() + timeout_s
        while state not in ros2_again(environment, "lifecycle", "get", node):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said

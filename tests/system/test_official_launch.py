"""The launch file and the graph under the official ROS 2 tools.

Their wheels, built from the official sources, are looked for in ../shared/ros2_tools beside the checkout or in the
folder that EMBODIED_VISION_ROS2_TOOLS names. They go into a folder of this test's own: the product does not need them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from tests.nodes.samples import write_encoder, write_policy

ROOT = Path(__file__).parents[2]
WHEELS = Path(os.environ.get("EMBODIED_VISION_ROS2_TOOLS") or ROOT.parent / "shared" / "ros2_tools")
DEPENDENCIES = ("osrf-pycommon", "argcomplete", "psutil", "packaging", "pyyaml", "lark")
NODES = ("arm", "cell", "encoder", "policy", "recorder", "task")
ROS2 = "import sys; sys.argv[0] = 'ros2'; from ros2cli.cli import main; sys.exit(main())"
START_S = 120.0

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not list(WHEELS.glob("ros2cli-*.whl")),
        reason=f"no wheels of the official tools in {WHEELS}; name their folder in EMBODIED_VISION_ROS2_TOOLS",
    ),
]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with launch, launch_ros and ros2cli."""
    folder = tmp_path_factory.mktemp("ros2_tools")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([*pip, *DEPENDENCIES], check=True, timeout=300)
    subprocess.run([*pip, "--upgrade", "--no-deps", *map(str, WHEELS.glob("*.whl"))], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def environment(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A ROS domain of this test's own, as a user of the tools sets it up."""
    with hold_free_domain() as lock:
        folder = tmp_path_factory.mktemp("run")
        variables = dict(process_environment(folder, lock.domain).variables)
        del variables["FASTDDS_DEFAULT_PROFILES_FILE"]  # the launch file sets it
        variables |= {"PYTHONPATH": f"{tools}{os.pathsep}{ROOT}", "AMENT_PREFIX_PATH": sys.prefix}
        yield variables
        ros2(variables, "daemon", "stop")


def ros2(environment: Mapping[str, str], *arguments: str, timeout_s: float = 60.0) -> str:
    command = [sys.executable, "-c", ROS2, *arguments]
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return done.stdout + done.stderr


def ros2_says(wanted: str, environment: Mapping[str, str], *arguments: str, timeout_s: float = 60.0) -> str:
    """Ask until the answer holds what is wanted: the tools know a node only once it was discovered."""
    deadline = time.monotonic() + timeout_s
    while wanted not in (said := ros2(environment, *arguments)):
        assert time.monotonic() < deadline, f"no {wanted!r} in the answer of ros2 {' '.join(arguments)}: {said}"
    return said


@pytest.fixture(scope="module")
def cell(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`ros2 launch launch/cell.launch.py` in namespace `left` with all nodes active; its output."""
    folder = tmp_path_factory.mktemp("cell")
    encoder = write_encoder(folder / "encoder")
    write_policy(folder / "policy", encoder.encoder_id)
    parameters = {
        f"/**/{node}": {"ros__parameters": {"encoder": str(folder / "encoder")}} for node in ("encoder", "policy")
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))
    command = [sys.executable, "-c", ROS2, "launch", str(ROOT / "launch" / "cell.launch.py")]
    command += ["namespace:=left", "use_respawn:=true"]
    command += [f"params_file:={folder / 'params.yaml'}", f"checkpoint:={folder / 'policy'}"]
    command += [f"store:={folder / 'episodes'}"]
    log = folder / "launch.log"
    with log.open("wb") as file:
        launch = subprocess.Popen(command, env=dict(environment), stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_S
        while "active [3]" not in ros2(environment, "lifecycle", "get", "/left/policy"):
            assert launch.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield log
    finally:
        launch.send_signal(signal.SIGINT)
        try:
            launch.wait(60.0)
        except subprocess.TimeoutExpired:
            launch.kill()
            launch.wait()
    assert "escalating" not in log.read_text(), "every node ends by itself on SIGINT"


@pytest.mark.usefixtures("cell")
def test_every_node_is_seen_and_active(environment: Mapping[str, str]) -> None:
    for name in NODES:
        ros2_says(f"/left/{name}", environment, "lifecycle", "nodes")
        ros2_says("active [3]", environment, "lifecycle", "get", f"/left/{name}")


@pytest.mark.usefixtures("cell")
def test_lifecycle_list_offers_deactivate_for_an_active_node(environment: Mapping[str, str]) -> None:
    ros2_says("deactivate [4]", environment, "lifecycle", "list", "/left/encoder")


@pytest.mark.usefixtures("cell")
def test_images_come_at_the_camera_s_rate(environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-c", ROS2, "topic", "hz", "/left/camera/color/image_raw"]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True) as hz:
        assert hz.stdout is not None
        rates = [re.search(r"average rate: ([\d.]+)", hz.stdout.readline()) for _ in range(8)]
        hz.send_signal(signal.SIGINT)
    measured = [float(rate.group(1)) for rate in rates if rate]
    assert measured, "no images"
    assert 3.0 < measured[-1] < 16.0  # 15 where the machine has nothing else to do


@pytest.mark.usefixtures("cell")
def test_parameters_are_described(environment: Mapping[str, str]) -> None:
    said = ros2_says("Type: string", environment, "param", "describe", "/left/policy", "checkpoint")
    assert "checkpoint, its folder" in said
    ros2_says("Min value: 0.1", environment, "param", "describe", "/left/policy", "timeout")


def test_an_arm_that_dies_comes_back_stopped(environment: Mapping[str, str], cell: Path) -> None:
    ros2_says("False", environment, "param", "get", "/left/arm", "start_stopped")
    pids = re.findall(r"\[arm-\d+\]: process started with pid \[(\d+)\]", cell.read_text())
    os.kill(int(pids[-1]), signal.SIGKILL)
    ros2_says("True", environment, "param", "get", "/left/arm", "start_stopped", timeout_s=START_S)


def test_the_launch_files_list_their_arguments(environment: Mapping[str, str]) -> None:
    for file in ("cell.launch.py", "camera.launch.py"):
        said = ros2(environment, "launch", str(ROOT / "launch" / file), "--show-args")
        for argument in ("namespace", "use_sim_time", "params_file", "autostart", "use_respawn", "log_level", "store"):
            assert f"'{argument}'" in said

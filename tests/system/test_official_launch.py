"""The launch files and the graph under the official ROS 2 tools."""

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

from embodied_vision.launching.arguments import COMMON, LAUNCHABLE
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from tests.nodes.samples import write_encoder, write_policy
from tests.system.official import NEEDED, ROOT, ROS2, Started, ros2, ros2_says

NODES = ("arm", "cell", "encoder", "policy", "recorder", "task")
START_S = 120.0

pytestmark = [pytest.mark.system, pytest.mark.together, NEEDED]


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


@pytest.fixture(scope="module")
def cell(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """`ros2 launch launch/cell.launch.py` in namespace `left` with all nodes active."""
    folder = tmp_path_factory.mktemp("cell")
    encoder = write_encoder(folder / "encoder")
    write_policy(folder / "policy", encoder.encoder_id)
    parameters = {
        f"/**/{node}": {"ros__parameters": {"encoder": str(folder / "encoder")}} for node in ("encoder", "policy")
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))
    arguments = ["launch", str(ROOT / "launch" / "cell.launch.py"), "namespace:=left", f"store:={folder / 'episodes'}"]
    arguments += [f"params_file:={folder / 'params.yaml'}", f"policy:={folder / 'policy'}"]
    with Started(environment, folder / "launch.log", *arguments) as launch:
        launch.until_state(environment, "/left/task", "active [3]")
        yield launch
    assert "escalating" not in launch.said, "every node ends by itself on SIGINT"


@pytest.mark.usefixtures("cell")
def test_every_node_is_seen_and_active(environment: Mapping[str, str]) -> None:
    for name in NODES:
        ros2_says(f"/left/{name}", environment, "lifecycle", "nodes")
        ros2_says("active [3]", environment, "lifecycle", "get", f"/left/{name}")


@pytest.mark.usefixtures("cell")
def test_lifecycle_lists_and_makes_transitions(environment: Mapping[str, str]) -> None:
    ros2_says("deactivate [4]", environment, "lifecycle", "list", "/left/encoder")
    for transition, state in (("deactivate", "inactive [2]"), ("activate", "active [3]")):
        assert "Transitioning successful" in ros2(environment, "lifecycle", "set", "/left/encoder", transition)
        assert state in ros2(environment, "lifecycle", "get", "/left/encoder")


@pytest.mark.usefixtures("cell")
def test_topics_are_listed_described_and_shown(environment: Mapping[str, str]) -> None:
    said = ros2_says("/left/features", environment, "topic", "list", "-t")
    assert "/left/camera/color/image_raw [sensor_msgs/msg/Image]" in said
    assert "/left/health [diagnostic_msgs/msg/DiagnosticStatus]" in said
    said = ros2_says("Subscription count", environment, "topic", "info", "-v", "/left/joint_states")
    assert "Node name: cell" in said
    assert "Node name: arm" in said
    said = ros2_says("position", environment, "topic", "echo", "--once", "/left/joint_states")
    assert "panda_joint1" in said
    whose = "any('/left/encoder: camera/color' in status.name for status in m.status)"
    ros2_says("/left/encoder: camera/color", environment, "topic", "echo", "--once", "--filter", whose, "/diagnostics")


@pytest.mark.usefixtures("cell")
def test_images_come_at_the_camera_s_rate(environment: Mapping[str, str]) -> None:
    command = [*ROS2, "topic", "hz", "/left/camera/color/image_raw"]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True) as hz:
        assert hz.stdout is not None
        rates = [re.search(r"average rate: ([\d.]+)", hz.stdout.readline()) for _ in range(8)]
        hz.send_signal(signal.SIGINT)
    measured = [float(rate.group(1)) for rate in rates if rate]
    assert measured, "no images"
    assert 3.0 < measured[-1] < 16.0  # 15 where the machine has nothing else to do


@pytest.mark.usefixtures("cell")
def test_parameters_are_listed_described_read_and_set(environment: Mapping[str, str], tmp_path: Path) -> None:
    said = ros2_says("Type: string", environment, "param", "describe", "/left/policy", "checkpoint")
    assert "or the whole path of a folder or pointer" in said
    ros2_says("Min value: 0.1", environment, "param", "describe", "/left/policy", "timeout")
    listed = ros2_says("moving_rate", environment, "param", "list", "/left/encoder")
    assert "stream_timeout" in listed
    assert "Set parameter successful" in ros2(environment, "param", "set", "/left/encoder", "moving_rate", "4.0")
    assert "4.0" in ros2(environment, "param", "get", "/left/encoder", "moving_rate")
    for value, reason in (("-1.0", "out of range"), (".nan", "out of range"), ("fast", "Wrong parameter type")):
        assert reason in ros2(environment, "param", "set", "/left/encoder", "moving_rate", value)
    assert "read-only" in ros2(environment, "param", "set", "/left/encoder", "threads", "2").lower()
    assert "4.0" in ros2(environment, "param", "get", "/left/encoder", "moving_rate"), (
        "what was refused changed nothing"
    )
    # Under a node's own name the tool sends the values, does not find them again, and dies before they may have gone.
    (tmp_path / "load.yaml").write_text("/**:\n  ros__parameters:\n    moving_rate: 3.0\n")
    ros2_says("moving_rate successful", environment, "param", "load", "/left/encoder", str(tmp_path / "load.yaml"))
    ros2_says("moving_rate", environment, "param", "dump", "/left/encoder")
    dumped = yaml.safe_load(ros2(environment, "param", "dump", "/left/encoder", errors=False))
    assert dumped["/left/encoder"]["ros__parameters"]["moving_rate"] == 3.0


def test_an_arm_that_dies_comes_back_stopped(environment: Mapping[str, str], cell: Started) -> None:
    ros2_says("False", environment, "param", "get", "/left/arm", "start_stopped")
    os.kill(int(pids(cell)["arm"]), signal.SIGKILL)
    ros2_says("True", environment, "param", "get", "/left/arm", "start_stopped", timeout_s=START_S)


def pids(launch: Started) -> dict[str, int]:
    """Name of a process → its id, as ros2 launch tells."""
    found = re.findall(r"\[([\w+]+)-\d+\]: process started with pid \[(\d+)\]", launch.said)
    return {name: int(pid) for name, pid in found}


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_nodes_that_wait_for_a_manager_share_a_process_and_die_with_a_launch_that_is_killed(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    arguments = ("namespace:=waiting", "autostart:=false", "use_composition:=true")
    with Started(
        environment, tmp_path / "log", "launch", str(ROOT / "launch" / "cell.launch.py"), *arguments
    ) as launch:
        for node in ("encoder", "policy", "arm"):
            launch.until_state(environment, f"/waiting/{node}", "unconfigured [1]")
        started = pids(launch)
        assert set(started) == {"cell", "encoder+policy", "arm", "recorder", "task", "monitor"}
        assert all(lives(pid) for pid in started.values())
        launch.process.kill()
        launch.process.wait()
        deadline = time.monotonic() + 5.0
        while any(lives(pid) for pid in started.values()):
            assert time.monotonic() < deadline, {name: pid for name, pid in started.items() if lives(pid)}
            time.sleep(0.05)


def test_a_wrong_parameter_stops_the_launch_with_its_place(environment: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("/**/arm:\n  ros__parameters:\n    sped: 0.5\n")
    file = str(ROOT / "launch" / "cell.launch.py")
    for argument, wanted in (
        (f"params_file:={tmp_path / 'params.yaml'}", "params.yaml:3: /**/arm: sped: node 'arm' has no such parameter"),
        ("scenes:=0", "scenes must lie between 1 and"),
        ("log_level:=loud", "log_level"),
    ):
        said = ros2(environment, "launch", file, argument)
        assert wanted in said
        assert "process started" not in said


def test_the_launch_files_list_the_arguments_of_the_one_description(environment: Mapping[str, str]) -> None:
    for name, graph in LAUNCHABLE.items():
        said = ros2(environment, "launch", str(ROOT / "launch" / f"{name}.launch.py"), "--show-args")
        listed = re.findall(r"^    '(\w+)':", said, re.MULTILINE)
        assert listed == [argument.name for argument in (*COMMON, *graph.arguments)]

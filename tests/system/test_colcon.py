"""The package as colcon lays it out, in a folder, used by the official tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from embodied_vision.nodes.classes import CLASSES
from tests.nodes.samples import write_encoder
from tests.system.official import NEEDED, ROOT, Started, ros2, ros2_says

pytestmark = [pytest.mark.system, pytest.mark.together, NEEDED]
PARTS = ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "README.md")
FOLDERS = ("resource", "launch", "config", "checkpoints", "embodied_vision", "sim")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `colcon build` makes of the package: colcon's Python task runs these three commands of setup.py."""
    folder = tmp_path_factory.mktemp("colcon")
    source, build, install = folder / "source", folder / "build", folder / "install"
    for path in (source, build):
        path.mkdir()
    for name in PARTS:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "embodied_vision_sim").symlink_to("sim")
    setup = [sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "--egg-base", str(build)]
    setup += ["build", "--build-base", str(build / "build"), "install", "--prefix", str(install)]
    setup += ["--single-version-externally-managed", "--record", str(build / "install.log")]
    subprocess.run(setup, cwd=source, check=True, timeout=120)
    return install


def modules(prefix: Path) -> Path:
    return next(prefix.glob("lib/python3*/site-packages"))


@pytest.fixture(scope="module")
def environment(prefix: Path, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A terminal in which the workspace is sourced."""
    with hold_free_domain() as lock:
        variables = dict(process_environment(tmp_path_factory.mktemp("run"), lock.domain).variables)
        variables["PYTHONPATH"] = f"{modules(prefix)}{os.pathsep}{tools}"
        variables["AMENT_PREFIX_PATH"] = f"{prefix}{os.pathsep}{sys.prefix}"
        yield variables
        ros2(variables, "daemon", "stop")


def test_everything_lies_where_ros_looks_for_it(prefix: Path) -> None:
    share = prefix / "share" / "embodied_vision"
    assert (prefix / "share" / "ament_index" / "resource_index" / "packages" / "embodied_vision").is_file()
    assert (share / "package.xml").is_file()
    assert {path.name for path in (share / "launch").iterdir()} == {
        p.name for p in (ROOT / "launch").glob("*.launch.py")
    }
    assert {path.name for path in (share / "config").iterdir()} == {p.name for p in (ROOT / "config").iterdir()}
    for node in CLASSES:
        executable = prefix / "lib" / "embodied_vision" / f"{node}_node"
        assert os.access(executable, os.X_OK), node
    for data in ("config/cell.yaml", "launching/parameters.json", "checkpoints/encoder/manifest.json"):
        assert (modules(prefix) / "embodied_vision" / data).is_file(), data


def test_the_tools_find_package_executables_and_launch_files(prefix: Path, environment: Mapping[str, str]) -> None:
    assert ros2(environment, "pkg", "prefix", "embodied_vision").strip() == str(prefix)
    listed = ros2(environment, "pkg", "executables", "embodied_vision")
    assert {f"embodied_vision {node}_node" for node in CLASSES} <= set(listed.splitlines())
    assert "'source'" in ros2(environment, "launch", "embodied_vision", "camera.launch.py", "--show-args")


def test_a_node_started_by_ros2_run_is_the_installed_one(
    prefix: Path, environment: Mapping[str, str], tmp_path: Path
) -> None:
    write_encoder(tmp_path / "encoder")
    arguments = ("embodied_vision", "encoder_node", "--ros-args", "-p", f"encoder:={tmp_path / 'encoder'}")
    with Started(environment, tmp_path / "log", "run", *arguments) as run:
        run.until_state(environment, "/encoder", "active [3]")
        (child,) = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
        maps = Path(f"/proc/{child}/cmdline").read_bytes().decode()
        assert str(prefix / "lib" / "embodied_vision" / "encoder_node") in maps
    said = subprocess.run(
        [sys.executable, "-c", "import embodied_vision; print(embodied_vision.__file__)"],
        env=dict(environment),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(prefix) in said.stdout


def test_a_launch_file_of_ones_own_names_package_and_executable(environment: Mapping[str, str], tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    (tmp_path / "own.launch.py").write_text(
        f"""
from launch import LaunchDescription
from launch_ros.actions import Node

def generate_launch_description():
    values = [{{"encoder": {str(tmp_path / "encoder")!r}}}]
    node = Node(
        package="embodied_vision", executable="encoder_node", name="eye", namespace="own", parameters=values
    )
    return LaunchDescription([node])
"""
    )
    with Started(environment, tmp_path / "log", "launch", str(tmp_path / "own.launch.py")) as launch:
        launch.until_state(environment, "/own/eye", "active [3]")
        ros2_says(str(tmp_path / "encoder"), environment, "param", "get", "/own/eye", "encoder")

"""The doctor before a graph of real processes, each with its fault: it finds all of them and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from embodied_vision.calibration import write_cameras
from embodied_vision.control.robot import RobotModel
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.expected import Expected, expected
from embodied_vision.doctor.graph import check_graph
from embodied_vision.doctor.observation import Observation
from embodied_vision.doctor.report import Run, _look, run_at
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from embodied_vision.launching.graph import write_parameters
from tests.doctor.driver import camera

MODEL = RobotModel.load()
HOME = dict(zip(MODEL.joint_names, MODEL.home.tolist(), strict=True))
FAULTS: dict[str, dict[str, Any]] = {
    "good": {},
    "slow": {"rate": 1.0},
    "early": {"stamp_offset_s": 3600.0},
    "late": {"stamp_offset_s": -3600.0},
    "zoomed": {"K_scale": 1.1},
    "loose": {"depth_frame": "depth_optical_frame"},
    "bayer": {"encoding": "bayer_rggb8"},
}
LISTEN_S, BRIEFLY_S = 4.0, 2.0


def run_dir(folder: Path, domain: int, cameras: list[str]) -> Path:
    """A folder as `launch` leaves it, for a graph whose arm uses these cameras."""
    folder.mkdir(exist_ok=True)
    made = process_environment(folder, domain)
    (folder / "environment.sh").write_text(made.exports(), encoding="utf-8")
    calibration = folder / "cameras.yaml"
    write_cameras(tuple(camera(name) for name in cameras), calibration)
    values: dict[str, dict[str, Any]] = {
        "policy": {"calibration": str(calibration)},
        "arm": {"cameras": cameras, "camera_timeout": 0.5, "joint_state_timeout": 0.5},
        "encoder": {"cameras": cameras},
    }
    write_parameters(folder / "overrides.yaml", {f"/**/{node}": each for node, each in values.items()})
    return folder


def visit(run: Run, listen_s: float) -> tuple[Observation, Expected]:
    """Listen to a graph."""
    wanted = expected(run.params_files, run.namespace)
    seen = _look(run, wanted, listen_s)
    assert isinstance(seen, Observation), seen
    return seen, wanted.updated(seen.parameters)


def judged(run: Run, listen_s: float = LISTEN_S) -> dict[str, Check]:
    return {check.name: check for check in check_graph(*visit(run, listen_s))}


def drive(run: Run, asked: dict[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.doctor.driver", json.dumps(asked)],
        env=dict(process_environment(Path(run.params_files[0]).parent, run.domain).variables),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("up")
    return process


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Check]]:
    """What is said of cameras with faults, a wanted one that is not there, and an arm that lost one of its joints."""
    folder = tmp_path_factory.mktemp("run")
    with hold_free_domain() as lock:
        run = run_at(run_dir(folder, lock.domain, [*FAULTS, "unplugged"]))
        joints = {**HOME, MODEL.joint_names[2]: None}
        driver = drive(run, {"cameras": FAULTS, "joints": joints, "commanders": 2})
        try:
            yield judged(run)
        finally:
            driver.kill()
            driver.wait()


def test_a_camera_without_faults_passes_every_check(found: dict[str, Check]) -> None:
    mine = [check for name, check in found.items() if name.startswith("camera good")]
    assert len(mine) == 7
    assert [check for check in mine if not check.ok] == []
    assert "64x48" in found["camera good depth registered to color"].value
    assert found["stamps of good/color/image_raw"].ok


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("camera slow color", "Hz", "raise its rate"),
        ("camera unplugged color", "nobody publishes unplugged/color/image_raw", "start the driver"),
        ("camera zoomed calibration", "intrinsics differ from camera_info's by", "calibrate again"),
        ("camera loose depth registered to color", "'depth_optical_frame'", "aligned_depth_to_color"),
        ("camera bayer color encoding", "bayer_rggb8", "pixel format"),
        ("stamps of early/color/image_raw", "in the future", "stamp with the system's clock"),
        ("stamps of late/color/image_raw", "old at best", "stamp with the system's clock"),
        ("joint names", f"[{MODEL.joint_names[2]!r}] have no finite position", "look at the driver"),
        ("publishers of arm/joint_trajectory", "/commander_0", "end all but one"),
    ],
)
def test_a_fault_is_found_with_its_remedy(found: dict[str, Check], name: str, value: str, remedy: str) -> None:
    check = found[name]
    assert not check.ok
    assert value in check.value
    assert remedy in check.remedy


def test_nothing_else_is_found_fault_with(found: dict[str, Check]) -> None:
    wrong = {name for name, check in found.items() if not check.ok}
    expected_wrong = {f"camera slow {part}" for part in ("color", "depth", "camera_info")}
    expected_wrong |= {f"camera unplugged {part}" for part in ("color", "depth", "camera_info")}
    ends = ("color/image_raw", "aligned_depth_to_color/image_raw", "color/camera_info")
    expected_wrong |= {f"stamps of {name}/{end}" for name in ("early", "late") for end in ends}
    expected_wrong |= {"camera zoomed calibration", "camera loose depth registered to color"}
    expected_wrong |= {"camera bayer color encoding", "joint names", "publishers of arm/joint_trajectory"}
    assert wrong == expected_wrong


def test_the_stamps_tell_by_how_much_the_clocks_differ(found: dict[str, Check]) -> None:
    ahead_s = float(found["stamps of early/color/image_raw"].value.split()[0])
    assert 3598.0 < ahead_s <= 3600.0


def test_compressed_images_and_joints_are_judged_where_the_nodes_read_them(tmp_path: Path) -> None:
    with hold_free_domain() as lock:
        folder = run_dir(tmp_path, lock.domain, ["camera"])
        values = yaml.safe_load((folder / "overrides.yaml").read_text(encoding="utf-8"))
        for node in ("encoder", "policy"):
            values[f"/**/{node}"]["ros__parameters"] |= {"image_transport": "compressed"}
        values["/**/policy"]["ros__parameters"]["depth_image_transport"] = "compressedDepth"
        (folder / "overrides.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        run = run_at(folder)
        driver = drive(run, {"cameras": {"camera": {"compressed": True}}, "joints": HOME})
        try:
            found = judged(run, BRIEFLY_S)
        finally:
            driver.kill()
            driver.wait()
    assert [check for check in found.values() if not check.ok] == []
    assert found["camera camera color encoding"].value == "rgb8; jpeg compressed bgr8, 64x48"
    assert "all 7 joints" in found["joint names"].value
    assert "100% of the stamps" in found["camera camera depth registered to color"].value


def test_a_domain_without_anybody_is_no_fault(tmp_path: Path) -> None:
    with hold_free_domain() as lock:
        run = run_at(run_dir(tmp_path, lock.domain, ["camera"]))
        check = _look(run, expected(run.params_files), 1.0)
    assert isinstance(check, Check)
    assert check.ok
    assert f"nobody in ROS domain {lock.domain}" in check.value

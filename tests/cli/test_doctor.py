"""`embodied-vision doctor`: it finds what is wrong and says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer

from embodied_vision.cli import doctor
from embodied_vision.doctor.check import Check
from tests.command_line import call

app = typer.Typer()
app.command()(doctor.command)
run = partial(call, app)


def test_json_holds_every_check_and_a_failed_one_sets_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Check("python", True, "3.11.7"), Check("disk", False, "0 GB free", "free 2 GB")]
    monkeypatch.setattr(doctor, "checks", lambda *_: iter(found))
    result = run("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["checks"][1] == {
        "name": "disk",
        "ok": False,
        "value": "0 GB free",
        "remedy": "free 2 GB",
    }
    assert "free 2 GB" in run().stdout
    monkeypatch.setattr(doctor, "checks", lambda *_: iter(found[:1]))
    assert run().exit_code == 0


def test_a_folder_of_no_run_or_a_wrong_parameter_file_is_bad_input(tmp_path: Path) -> None:
    assert main("doctor", "--run", str(tmp_path)).returncode == 2
    (tmp_path / "wrong.yaml").write_text("- 1\n", encoding="utf-8")
    done = main("doctor", "--params-file", str(tmp_path / "wrong.yaml"))
    assert done.returncode == 2
    assert "wrong.yaml" in done.stderr
    (tmp_path / "typo.yaml").write_text("/**/arm: {ros__parameters: {camera_timeot: 0.3}}\n", encoding="utf-8")
    done = main("doctor", "--params-file", str(tmp_path / "typo.yaml"))
    assert done.returncode == 2
    assert "camera_timeout" in done.stderr


def main(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embodied_vision.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.system
def test_the_machine_that_runs_the_tests_passes_the_checks_of_ros_and_transport() -> None:
    checks = {check["name"]: check for check in json.loads(run("--json").stdout)["checks"]}
    names = ("python", "rclpy", "middleware", "Fast DDS profile", "shared memory", "pybullet", "checkpoint encoder")
    for name in (*names, "who may speak", "calibration", "robot", "encoder default", "policy block-insertion"):
        assert checks[name]["ok"], checks[name]
    for size in ("424x240", "640x480"):
        assert checks[f"images {size} between two processes"]["value"].startswith("30 of 30")

"""`embodied-vision doctor`: it finds what is wrong and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from embodied_vision.cli import doctor
from embodied_vision.encoders.artefact import write_artefact
from embodied_vision.launching import checkup
from embodied_vision.launching.checkup import Check
from embodied_vision.policies.checkpoint import FORMAT

app = typer.Typer()
app.command()(doctor.command)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_json_holds_every_check_and_a_failed_one_sets_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Check("python", True, "3.11.7"), Check("disk", False, "0 GB free", "free 2 GB")]
    monkeypatch.setattr(doctor, "checks", lambda: iter(found))
    result = run("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["checks"][1] == {
        "name": "disk",
        "ok": False,
        "value": "0 GB free",
        "remedy": "free 2 GB",
    }
    assert "free 2 GB" in run().stdout
    monkeypatch.setattr(doctor, "checks", lambda: iter(found[:1]))
    assert run().exit_code == 0


def packages(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> dict[str, Check]:
    monkeypatch.setattr(checkup.metadata, "requires", lambda _: list(requirements))
    return {check.name: check for check in checkup._packages()}


def test_packages_that_are_missing_or_old_are_told_from_extras_that_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    found = packages(
        monkeypatch,
        "numpy>=1.26",
        "typer>=999",
        "no-such-thing>=2",
        'no-such-simulator>=1; extra == "sim"',
        'pytest; extra == "dev"',
    )
    assert {name: check.ok for name, check in found.items()} == {
        "package numpy": True,
        "package typer": False,
        "package no-such-thing": False,
        "package no-such-simulator": True,
    }
    assert "999 or newer" in found["package typer"].remedy
    assert "embodied_vision[sim]" in found["package no-such-simulator"].remedy


def test_a_full_shared_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup.shared_memory, "free_bytes", lambda: 1 << 20)
    check = checkup._shared_memory()
    assert not check.ok
    assert "--shm-size" in check.remedy


def test_a_damaged_checkpoint_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "block-insertion"
    write_artefact(folder, {}, {"format": FORMAT}, "# card\n")
    (folder / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(checkup, "PACKAGE", tmp_path)
    check = {c.name: c for c in checkup._checkpoints()}["checkpoint block-insertion"]
    assert not check.ok
    assert "model.safetensors is damaged" in check.value
    assert check.remedy


def test_every_checkpoint_that_ships_is_whole() -> None:
    checks = {check.name: check for check in checkup._checkpoints()}
    assert {"checkpoint encoder", "checkpoint block-insertion", "checkpoint grasp-diverse"} <= set(checks)
    assert [check for check in checks.values() if not check.ok] == []


@pytest.mark.system
def test_the_machine_that_runs_the_tests_passes_the_checks_of_ros_and_transport() -> None:
    checks = {check["name"]: check for check in json.loads(run("--json").stdout)["checks"]}
    for name in ("python", "rclpy", "Fast DDS profile", "shared memory", "pybullet", "checkpoint encoder"):
        assert checks[name]["ok"], checks[name]
    for size in ("424x240", "640x480"):
        assert checks[f"images {size} between two processes"]["value"].startswith("30 of 30")

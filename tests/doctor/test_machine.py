"""What is installed and set on this machine: each thing that can be missing is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from embodied_vision.doctor import machine
from embodied_vision.doctor.check import Check
from embodied_vision.encoders.artefact import write_artefact
from embodied_vision.launching.environment import PROFILE, Environment, process_environment
from embodied_vision.policies.checkpoint import FORMAT


def packages(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> dict[str, Check]:
    monkeypatch.setattr(machine.metadata, "requires", lambda _: list(requirements))
    return {check.name: check for check in machine._packages()}


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
    monkeypatch.setattr(machine.shared_memory, "free_bytes", lambda: 1 << 20)
    check = machine._shared_memory()
    assert not check.ok
    assert "--shm-size" in check.remedy


def profile(path: Path | str) -> Check:
    return machine._profile(Environment({"FASTDDS_DEFAULT_PROFILES_FILE": str(path)}, ()))


def test_a_profile_that_is_missing_or_none_is_found(tmp_path: Path) -> None:
    assert "is missing" in profile(tmp_path / "none.xml").value
    (tmp_path / "text.xml").write_text("no xml", encoding="utf-8")
    assert "is no profile" in profile(tmp_path / "text.xml").value
    unset = machine._profile(Environment({}, ()))
    for check in (profile(tmp_path / "none.xml"), profile(tmp_path / "text.xml"), unset):
        assert not check.ok
        assert str(PROFILE) in check.remedy


def test_a_profile_whose_segments_do_not_fit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert profile(PROFILE).ok
    monkeypatch.setattr(machine.shared_memory, "free_bytes", lambda: 1 << 20)
    check = profile(PROFILE)
    assert not check.ok
    assert "--shm-size" in check.remedy


def test_without_rclpy_the_rest_is_looked_at_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "rclpy"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('no ROS here')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {check.name: check for check in machine.check_transport(process_environment(tmp_path, 41))}
    assert not found["rclpy"].ok
    assert "no ROS here" in found["rclpy"].value
    assert "pip install" in found["rclpy"].remedy
    assert {"shared memory", "stale shared memory", "pybullet"} <= set(found)
    assert not any(name.startswith("images") for name in found)


def test_a_middleware_that_is_not_installed_is_found(tmp_path: Path) -> None:
    variables = dict(process_environment(tmp_path, 41).variables)
    check = machine._middleware(Environment({**variables, "RMW_IMPLEMENTATION": "rmw_none_cpp"}, ()))
    assert not check.ok
    assert "RMW_IMPLEMENTATION" in check.remedy


def test_a_damaged_checkpoint_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "block-insertion"
    write_artefact(folder, {}, {"format": FORMAT}, "# card\n")
    (folder / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(machine, "PACKAGE", tmp_path)
    check = {c.name: c for c in machine._checkpoints()}["checkpoint block-insertion"]
    assert not check.ok
    assert "model.safetensors is damaged" in check.value
    assert check.remedy


def test_every_checkpoint_that_ships_is_whole() -> None:
    checks = {check.name: check for check in machine._checkpoints()}
    assert {"checkpoint encoder", "checkpoint block-insertion", "checkpoint grasp-diverse"} <= set(checks)
    assert [check for check in checks.values() if not check.ok] == []


def test_a_process_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RUN_S", 0.2)
    ok, value = machine._run("import time; time.sleep(60)", Environment({"PATH": sys.prefix}, ()))
    assert not ok
    assert "no answer within 0.2 s" in value


@pytest.mark.parametrize(
    ("variables", "ok", "words"),
    [
        ({}, True, "discovery LOCALHOST, DDS Security off"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, True, "anybody on that network can command the arm"),
        ({"ROS_STATIC_PEERS": "10.0.0.1"}, True, "anybody on that network can command the arm"),
        ({"ROS_SECURITY_ENABLE": "1"}, False, "would run unprotected"),
        ({"ROS_SECURITY_ENABLE": "true"}, False, "set it to Enforce"),
        ({"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}, True, "DDS Security enforced"),
    ],
)
def test_it_is_said_who_may_speak(variables: dict[str, str], ok: bool, words: str) -> None:
    check = machine.check_protection(variables)
    assert check.ok is ok
    assert words in f"{check.value} {check.remedy}"

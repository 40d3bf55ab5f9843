"""Protection that is asked for is enforced, or nothing starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.errors import BadInput
from embodied_vision.launching import security
from embodied_vision.launching.environment import process_environment
from embodied_vision.launching.graph import CAMERA, GraphConfig
from embodied_vision.launching.security import enclave_arguments, enclave_of, require_enforced, secure

ASKED = {"ROS_SECURITY_ENABLE": "true"}


def keystore(folder: Path, *enclaves: str) -> dict[str, str]:
    for enclave in enclaves:
        (folder / "enclaves" / enclave.strip("/")).mkdir(parents=True)
    return {**ASKED, "ROS_SECURITY_KEYSTORE": str(folder)}


def test_nothing_is_changed_where_nobody_asks() -> None:
    for variables in ({}, {"ROS_SECURITY_ENABLE": "false"}, {"ROS_SECURITY_KEYSTORE": "/keys"}):
        assert secure(variables, "", ["arm"]) == (variables, [])
        require_enforced(variables)


@pytest.mark.parametrize("value", ["True", "1", "yes", "TRUE"])
def test_a_yes_that_ros_takes_for_a_no_is_refused(value: str) -> None:
    for refuse in (lambda v: secure(v, "", ["arm"]), require_enforced):
        with pytest.raises(BadInput, match="would run unprotected"):
            refuse({"ROS_SECURITY_ENABLE": value})


def test_a_node_refuses_protection_that_is_not_enforced() -> None:
    require_enforced({**ASKED, "ROS_SECURITY_STRATEGY": "Enforce"})
    for strategy in ({}, {"ROS_SECURITY_STRATEGY": "Permissive"}):
        with pytest.raises(BadInput, match="set it to Enforce"):
            require_enforced({**ASKED, **strategy})


def test_an_enclave_alone_asks_for_protection_and_wants_a_keystore(tmp_path: Path) -> None:
    for variables in ({}, {"ROS_SECURITY_KEYSTORE": str(tmp_path / "none")}):
        with pytest.raises(BadInput, match="create_keystore"):
            secure(variables, "/cell", ["arm"])


def test_every_process_needs_its_enclave(tmp_path: Path) -> None:
    variables = keystore(tmp_path, "/cell/arm")
    with pytest.raises(BadInput, match="no enclave /cell/encoder_policy, /cell/monitor"):
        secure(variables, "cell", ["arm", "encoder+policy", "monitor"])


def test_what_can_protect_runs_under_enforcement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(security, "_probe", lambda _variables, enclave: tried.append(enclave))
    variables = {**keystore(tmp_path, "/cell/arm"), "ROS_SECURITY_STRATEGY": "Permissive"}
    made, notes = secure(variables, "/cell", ["arm"])
    assert made["ROS_SECURITY_STRATEGY"] == "Enforce"
    assert "instead of Permissive" in notes[0]
    assert tried == ["/cell/arm"]
    monkeypatch.setenv("ROS_SECURITY_ENCLAVE_OVERRIDE", "/all")
    with pytest.raises(BadInput, match="no enclave /all"):
        secure({**variables, "ROS_SECURITY_ENCLAVE_OVERRIDE": "/all"}, "/cell", ["arm"])


def test_processes_get_enclaves_below_the_graphs() -> None:
    assert enclave_arguments("", "arm") == []
    assert enclave_arguments("/cell/", "arm") == ["--enclave", "/cell/arm"]
    assert enclave_of("a/b", "encoder+policy") == "/a/b/encoder_policy"


def test_a_middleware_that_cannot_protect_is_refused_with_its_own_words(tmp_path: Path) -> None:
    """The Fast DDS of the wheels has no DDS Security; where it had, it would miss the keys of this empty enclave."""
    pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")
    variables = {**process_environment(tmp_path, 41).variables, **keystore(tmp_path / "keys", "/cell/arm")}
    with pytest.raises(BadInput, match=r"(?i)/cell/arm does not start: .*secur.*Nothing was started"):
        secure(variables, "/cell", ["arm"])


def test_launch_starts_nothing_then(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")
    keys = keystore(tmp_path / "keys", *(f"/cell/{n}" for n in ("camera", "encoder", "recorder", "monitor")))
    command = [sys.executable, "-m", "embodied_vision.cli.main", "launch", "camera", "--source", str(tmp_path)]
    command += ["--enclave", "/cell", "--run-dir", str(tmp_path / "run")]
    environment = {**process_environment(tmp_path, 41).variables, **keys}
    environment.pop("ROS_DOMAIN_ID")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "Nothing was started" in done.stderr.replace("\n", " ")
    assert not list((tmp_path / "run" / "logs").glob("*.log"))


@pytest.mark.parametrize("asked", [{"ROS_SECURITY_ENABLE": "True"}, ASKED])
def test_a_node_by_hand_never_runs_unprotected_unasked(tmp_path: Path, asked: dict[str, str]) -> None:
    pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")
    variables = {**process_environment(tmp_path, 41).variables, **asked}
    command = [sys.executable, "-m", "embodied_vision.nodes.task"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "ROS_SECURITY_ENABLE" in done.stderr


def test_terminals_that_join_get_an_enclave_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_probe", lambda *_: None)
    base = keystore(tmp_path / "keys", "/cell/arm")
    made = process_environment(tmp_path, 41, base=base).secured("/cell", ["arm"])
    assert "ROS_SECURITY_ENCLAVE_OVERRIDE" not in made.variables  # it would win over the processes' own
    assert made.joined["ROS_SECURITY_ENCLAVE_OVERRIDE"] == "/cell/tools"
    exports = made.exports()
    for line in (
        "ROS_SECURITY_ENABLE=true",
        "STRATEGY=Enforce",
        "ENCLAVE_OVERRIDE=/cell/tools",
        str(tmp_path / "keys"),
    ):
        assert line in exports


@pytest.mark.parametrize("options", [{"discovery": "subnet"}, {"discovery": "system_default"}, {"peers": ("gpu",)}])
def test_a_graph_for_other_machines_needs_a_domain_that_they_know(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="--domain-id"):
        GraphConfig(CAMERA, tmp_path, **options)
    GraphConfig(CAMERA, tmp_path, domain=7, **options)


def test_every_process_of_a_graph_runs_in_its_enclave(tmp_path: Path) -> None:
    config = GraphConfig(CAMERA, tmp_path, enclave="/cell")
    for process in config.processes:
        command = config.command(process, tmp_path / "overrides.yaml", respawned=False)
        assert command[command.index("--enclave") + 1] == f"/cell/{process.name}"
        assert command.index("--enclave") > command.index("--ros-args")

"""What the processes of a run see of the user's environment."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.errors import BadInput
from embodied_vision.launching import environment
from embodied_vision.launching.domain import DOMAIN_GAIN, PORT_BASE, hold_free_domain
from embodied_vision.launching.environment import PROFILE, process_environment, segment_bytes

SOURCED = {
    "PATH": "/usr/bin",
    "PYTHONPATH": "/opt/ros/jazzy/lib/python3.12/site-packages:/home/me/ws/install/lib:/home/me/tools",
    "LD_LIBRARY_PATH": f"/opt/ros/jazzy/lib:{sys.prefix}/lib",
    "AMENT_PREFIX_PATH": "/home/me/ws/install:/opt/ros/jazzy",
    "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp",
    "ROS_DISTRO": "jazzy",
    "ROS_DOMAIN_ID": "7",
    "ROS_STATIC_PEERS": "10.0.0.1",
}


@pytest.fixture(autouse=True)
def _roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "free_bytes", lambda: 1 << 34)


def test_a_sourced_ros_is_cleared_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "rclpy_is_ours", lambda: True)
    made = process_environment(tmp_path, 41, base=SOURCED)
    assert made.variables["PYTHONPATH"] == "/home/me/tools"
    assert made.variables["LD_LIBRARY_PATH"] == f"{sys.prefix}/lib"
    assert not {"AMENT_PREFIX_PATH", "RMW_IMPLEMENTATION", "ROS_DISTRO", "ROS_STATIC_PEERS"} & set(made.variables)
    said = "\n".join(made.notes)
    for name in ("PYTHONPATH", "AMENT_PREFIX_PATH", "RMW_IMPLEMENTATION", "ROS_STATIC_PEERS", "ROS_DOMAIN_ID=41"):
        assert name in said


def test_an_installed_ros_stays_when_it_is_the_one_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "rclpy_is_ours", lambda: False)
    made = process_environment(tmp_path, 7, isolated=False, base=SOURCED)
    kept = {name: value for name, value in made.variables.items() if name in SOURCED}
    assert kept == SOURCED
    assert "the Fast DDS profile has no effect" in "\n".join(made.notes)


def test_every_process_gets_domain_range_profile_logs_and_threads(tmp_path: Path) -> None:
    made = process_environment(tmp_path, 41, base={"OMP_NUM_THREADS": "2"}).variables
    assert made["ROS_DOMAIN_ID"] == "41"
    assert made["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert made["FASTDDS_DEFAULT_PROFILES_FILE"] == str(tmp_path / "fastdds.xml")
    assert Path(made["ROS_LOG_DIR"]).is_relative_to(tmp_path)
    assert (made["OMP_NUM_THREADS"], made["MKL_NUM_THREADS"]) == ("2", "1")


def test_a_profile_of_the_user_is_kept_and_reported(tmp_path: Path) -> None:
    mine = tmp_path / "mine.xml"
    mine.write_text(PROFILE.read_text(encoding="utf-8"), encoding="utf-8")
    made = process_environment(tmp_path, 41, base={"FASTRTPS_DEFAULT_PROFILES_FILE": str(mine)})
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in made.variables
    assert f"{mine} was kept" in made.notes[-1]


@pytest.mark.parametrize("name", environment.PROFILE_VARIABLES)
def test_a_profile_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    """Fast DDS takes its stock profile then, without a word."""
    with pytest.raises(BadInput, match=f"unset {name}"):
        process_environment(tmp_path, 41, base={name: str(tmp_path / "gone" / "fastdds.xml")})
    assert process_environment(tmp_path, 41, base={name: ""}).variables["FASTDDS_DEFAULT_PROFILES_FILE"]


def test_discovery_settings_stay_when_the_user_chose_the_domain(tmp_path: Path) -> None:
    base = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_STATIC_PEERS": "10.0.0.1"}
    made = process_environment(tmp_path, 41, isolated=False, base=base).variables
    assert (made["ROS_AUTOMATIC_DISCOVERY_RANGE"], made["ROS_STATIC_PEERS"]) == ("SUBNET", "10.0.0.1")


def loopback_alone(made: environment.Environment) -> bool:
    profile = ET.parse(made.variables["FASTDDS_DEFAULT_PROFILES_FILE"])
    return [e.text for e in profile.findall(".//{*}interfaceWhiteList/{*}address")] == ["127.0.0.1"]


def test_a_graph_of_this_machine_has_sockets_on_the_loopback_alone(tmp_path: Path) -> None:
    assert loopback_alone(process_environment(tmp_path, 41, base={}))
    assert loopback_alone(process_environment(tmp_path, 41, isolated=False, base={}))
    assert loopback_alone(
        process_environment(tmp_path, 41, discovery="localhost", base={"ROS_STATIC_PEERS": "10.0.0.1"})
    )


@pytest.mark.parametrize(
    ("options", "base", "reach", "peers"),
    [
        ({"discovery": "subnet"}, {}, "SUBNET", None),
        ({"discovery": "subnet"}, {"ROS_STATIC_PEERS": "10.0.0.1", "ROS_LOCALHOST_ONLY": "1"}, "SUBNET", "10.0.0.1"),
        ({"discovery": "system_default"}, {"ROS_DISCOVERY_SERVER": "10.0.0.1:11811"}, "SYSTEM_DEFAULT", None),
        ({"peers": ["10.0.0.2", "gpu"]}, {}, "LOCALHOST", "10.0.0.2;gpu"),
        ({"discovery": "localhost", "peers": ["gpu"]}, {"ROS_STATIC_PEERS": "10.0.0.1"}, "LOCALHOST", "gpu"),
    ],
)
def test_a_graph_that_others_may_join_says_so(
    tmp_path: Path, options: dict[str, Any], base: dict[str, str], reach: str, peers: str | None
) -> None:
    made = process_environment(tmp_path, 41, base=base, **options)
    assert made.variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == reach
    assert made.variables.get("ROS_STATIC_PEERS") == peers
    assert "ROS_LOCALHOST_ONLY" not in made.variables
    assert made.variables["FASTDDS_DEFAULT_PROFILES_FILE"] == str(PROFILE)
    assert "nodes on other machines can join" in "\n".join(made.notes)
    assert f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach}" in made.exports()


def test_an_unknown_discovery_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="localhost, subnet"):
        process_environment(tmp_path, 41, discovery="off", base={})


def test_segments_shrink_to_fit_a_small_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "free_bytes", lambda: 64 << 20)
    made = process_environment(tmp_path, 41, base={})
    text = ET.parse(made.variables["FASTDDS_DEFAULT_PROFILES_FILE"]).findtext(".//{*}segment_size")
    assert text is not None
    assert 640 * 480 * 3 < int(text) <= (64 << 20) // 12
    assert "--shm-size" in made.notes[-1]


def test_without_shared_memory_the_profile_leaves_udp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "free_bytes", lambda: 0)
    made = process_environment(tmp_path, 41, base={})
    profile = ET.parse(made.variables["FASTDDS_DEFAULT_PROFILES_FILE"])
    assert [e.text for e in profile.findall(".//{*}userTransports/{*}transport_id")] == ["udp"]


def test_all_segments_together_fit() -> None:
    assert segment_bytes(1 << 34, 64 << 20) == 64 << 20
    assert 12 * segment_bytes(256 << 20, 64 << 20) < 256 << 20
    assert segment_bytes(4 << 20, 64 << 20) == 0


NODE = "import rclpy, sys; rclpy.init(); node = rclpy.create_node('x'); print('up', flush=True); sys.stdin.read()"


def addresses(domain: int) -> set[str]:
    """Local addresses of the UDP sockets on a domain's ports."""
    low = PORT_BASE + DOMAIN_GAIN * domain
    rows = [line.split()[1].split(":") for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return {address for address, port in rows if low <= int(port, 16) < low + DOMAIN_GAIN}


@pytest.mark.parametrize(("discovery", "wanted"), [("localhost", {"0100007F"}), ("subnet", {"00000000"})])
def test_what_a_node_listens_on(tmp_path: Path, discovery: str, wanted: set[str]) -> None:
    pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")
    with hold_free_domain() as lock:
        made = process_environment(tmp_path, lock.domain, discovery=discovery)
        command = [sys.executable, "-c", NODE]
        with subprocess.Popen(
            command, env=dict(made.variables), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as node:
            assert node.stdout is not None
            assert node.stdout.readline() == "up\n"
            assert wanted <= addresses(lock.domain)
            if discovery == "localhost":
                assert addresses(lock.domain) == wanted
            node.kill()

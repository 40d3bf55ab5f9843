"""The recorder beside a contract that is broken and a disk that fails: it says so, and the graph hears it."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import WrenchStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from embodied_vision.episodes.contract import contract_from
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import RunFailed
from embodied_vision.nodes import conversions, qos
from tests.nodes.conftest import Graph, until
from tests.nodes.test_recorder import Announcer, write_images

CONTRACT = {
    "cameras": {"camera": {"color": "camera/color/image_raw", "depth": "camera/aligned_depth_to_color/image_raw"}},
    "streams": {
        "arm/joints": {
            "topic": "joint_states",
            "type": "sensor_msgs/msg/JointState",
            "fields": ["position", "effort"],
            "units": ["rad", "Nm"],
        },
        "wrench": {
            "topic": "ft/wrench",
            "type": "geometry_msgs/msg/WrenchStamped",
            "fields": ["wrench.force", "wrench.torque.z"],
            "frame": "tool0",
        },
        "currents": {"topic": "currents", "type": "std_msgs/msg/Float64MultiArray", "fields": ["data"]},
        "missing": {
            "topic": "none",
            "type": "std_msgs/msg/Float64",
            "fields": ["data"],
            "required": True,
            "max_gap": 0.3,
        },
    },
}


class Health:
    """What a node says of itself on /diagnostics."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._name = name
        self.said: list[tuple[bytes, str]] = []
        graph.subscribe(DiagnosticArray, "/diagnostics", self._hear, qos.DIAGNOSTICS)

    def _hear(self, message: DiagnosticArray) -> None:
        self.said += [(status.level, status.message) for status in message.status if status.hardware_id == self._name]

    def wait(self, level: bytes, *parts: str) -> str:
        """The first message of this level that holds all parts."""

        def found() -> list[str]:
            return [text for kind, text in self.said if kind == level and all(part in text for part in parts)]

        until(found, what=lambda: f"{self._name} says {parts}, it said {self.said[-3:]}")
        return found()[0]


def wrench(stamp_ns: int, frame_id: str, *numbers: float) -> WrenchStamped:
    message = WrenchStamped()
    message.header.stamp, message.header.frame_id = conversions.ns_to_stamp(stamp_ns), frame_id
    force = message.wrench.force
    force.x, force.y, force.z, message.wrench.torque.z = numbers
    return message


def test_streams_of_a_contract_are_logged_and_what_breaks_it_is_told_and_noted(graph: Graph) -> None:
    store, contract = EpisodeStore(graph.run_dir / "store"), graph.run_dir / "contract.yaml"
    contract.write_text(yaml.safe_dump(CONTRACT, sort_keys=False))
    health = Health(graph, "recorder")
    recorder = graph.start("recorder", store=str(store.path), contract=str(contract), min_free_mb=0)
    announcer = Announcer(graph)
    joints = graph.publisher(JointState, "joint_states")
    forces = graph.publisher(WrenchStamped, "ft/wrench")
    currents = graph.publisher(Float64MultiArray, "currents")
    episode_id = announcer.start()
    joints.publish(JointState(name=["b", "a"], position=[1.0, 2.0]))
    joints.publish(JointState(name=["a", "b"], position=[3.0, 4.0], effort=[0.3, 0.4]))
    forces.publish(wrench(5, "tool0", 1.0, 2.0, 3.0, 4.0))
    forces.publish(wrench(6, "base", 5.0, 6.0, 7.0, 8.0))
    currents.publish(Float64MultiArray(data=[0.1, 0.2]))
    before = time.time_ns()
    currents.publish(Float64MultiArray(data=[0.3]))
    currents.publish(Float64MultiArray(data=[0.5, 0.6]))
    health.wait(DiagnosticStatus.WARN, "'currents'", "1 numbers after 2")
    health.wait(DiagnosticStatus.ERROR, "streams/missing", "the contract requires it")
    status = graph.wait("recorder/status", lambda s: len(s["contract_violations"]) >= 2, recorder)
    assert {v["source"] for v in status["contract_violations"]} >= {"streams/missing", "streams/wrench"}
    announcer.end(reward=0.0, solved=False)
    graph.wait("recorder/status", lambda s: s["last_episode"] == episode_id)

    episode = store.open(episode_id)
    assert verify(store)[0].ok
    assert contract_from(episode.attributes["contract"], "episode") == contract_from(CONTRACT, "test")
    assert episode.attributes["joint_names"] == ["b", "a"]
    rows = episode.stream("arm/joints")[1]
    assert rows[1].tolist() == [4.0, 3.0, 0.4, 0.3]
    assert rows[0].tolist()[:2] == [1.0, 2.0]
    assert str(rows[0].tolist()[2:]) == "[nan, nan]", "what the driver left out"
    stamps, values = episode.stream("wrench")
    assert (stamps.tolist(), values.tolist()) == ([5, 6], [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    stamps, values = episode.stream("currents")
    assert values.tolist() == [[0.1, 0.2], [0.5, 0.6]]
    assert abs(int(stamps[1]) - before) < 10**9, "stamped when it was sent"
    violations = {(v["source"], v["violation"]): v for v in episode.attributes["contract_violations"]}
    assert violations["streams/wrench", "frame"]["worst"] == "base"
    assert violations["streams/missing", "missing"]["count"] == 1
    assert graph.end(recorder) == 0


def test_a_contract_that_cannot_be_used_ends_the_node_with_its_key(graph: Graph) -> None:
    contract = graph.run_dir / "contract.yaml"
    broken: dict[str, Any] = {"streams": {"wrench": {**CONTRACT["streams"]["wrench"], "fields": ["wrench.forces"]}}}
    contract.write_text(yaml.safe_dump(broken))
    recorder = graph.start("recorder", wait=False, store=str(graph.run_dir / "store"), contract=str(contract))
    assert recorder.wait(30.0)
    assert recorder.exit_code() == 2
    assert "streams.wrench.fields[0]: 'wrench.forces' does not exist" in recorder.last_lines(30)


def test_a_disk_that_takes_no_more_ends_the_recorder_which_says_why(graph: Graph) -> None:
    store = EpisodeStore(graph.run_dir / "store")
    write_images(graph.run_dir / "images", 2)
    health = Health(graph, "recorder")
    recorder = graph.start("recorder", store=str(store.path))

    graph.client.set_parameters("recorder", {"min_free_mb": 10_000_000})
    with pytest.raises(RunFailed, match=rf"{store.path} has \d+ MB left, episodes need 10000000 MB"):
        graph.client.trigger("recorder/start")
    health.wait(DiagnosticStatus.ERROR, str(store.path), "MB left")
    assert store.staging_ids() == []
    free_mb = graph.wait("recorder/status", lambda s: True)["free_mb"]
    graph.client.set_parameters("recorder", {"min_free_mb": free_mb * 2 // 3})
    health.wait(DiagnosticStatus.WARN, str(store.path), "MB left")
    graph.client.set_parameters("recorder", {"min_free_mb": 0})

    episode_id = graph.client.trigger("recorder/start")
    graph.start("camera", source=str(graph.run_dir / "images"), rate=20.0)
    logged = graph.wait("recorder/status", lambda s: s["episode_frames_logged"] >= 5)["episode_frames_logged"]
    size = (store.staging_path / episode_id / "journal").stat().st_size
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (size + 20_000, size + 20_000))
    message = health.wait(DiagnosticStatus.ERROR, "the episode cannot be logged", str(store.path))
    assert "File too large" in message
    assert "free space" in message
    assert recorder.wait(30.0)
    assert recorder.exit_code() == 1

    again = graph.start("recorder", store=str(store.path))
    assert store.ids() == [episode_id], "the next recorder brings back what was logged"
    assert len(store.open(episode_id).frames("camera")) >= logged
    assert all(report.ok for report in verify(store))
    assert graph.end(again) == 0


def test_a_store_that_is_moved_away_while_it_is_written_ends_the_recorder(graph: Graph) -> None:
    store = EpisodeStore(graph.run_dir / "store")
    health = Health(graph, "recorder")
    recorder = graph.start("recorder", store=str(store.path), min_free_mb=0)
    episode_id = graph.client.trigger("recorder/start")
    health.wait(DiagnosticStatus.OK, "logging")
    store.path.rename(graph.run_dir / "moved")
    health.wait(DiagnosticStatus.ERROR, "was taken away or replaced", str(store.path))
    assert recorder.wait(30.0)
    assert recorder.exit_code() == 1
    assert EpisodeStore(graph.run_dir / "moved").staging_ids() == [episode_id]

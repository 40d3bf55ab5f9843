"""The markers node draws the surroundings for who comes late, plans that the arm began, refusals where they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseArray
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from embodied_vision.control.robot import RobotModel
from embodied_vision.geometry import tool_down
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import joint_state_message, pick_place_to_poses, to_json
from embodied_vision.types import PickPlace
from tests.nodes.conftest import Graph, until

visualization = pytest.importorskip("visualization_msgs.msg", reason="visualization_msgs is not installed")
Marker, MarkerArray = visualization.Marker, visualization.MarkerArray

pytestmark = [pytest.mark.system, pytest.mark.together]
MODEL = RobotModel.load("panda_suction")
POST = {"name": "post", "position": [0.5, 0.0, 0.2], "size": [0.1, 0.12, 0.14]}


class Viewer:
    """What RViz would show, and an arm that says what it is told to say."""

    def __init__(self, graph: Graph, surroundings: Path) -> None:
        self.shown: dict[tuple[str, int], Any] = {}
        self.pictures = 0
        graph.subscribe(MarkerArray, "arm/markers", self._take, qos.STATUS)
        graph.start("markers", surroundings=str(surroundings), refusal_lifetime=12.5)
        self._graph = graph
        self._joints = graph.publisher(JointState, "joint_states")
        self._decisions = graph.publisher(String, "policy/decision", qos.DECISION)
        self._poses = graph.publisher(PoseArray, "pick_place", qos.DECISION)
        self._status = graph.publisher(String, "arm/status", qos.STATUS)

    def _take(self, message: Any) -> None:
        for marker in message.markers:
            assert marker.header.frame_id == "base"
            if marker.action == Marker.DELETE:
                self.shown.pop((marker.ns, marker.id), None)
            else:
                self.shown[marker.ns, marker.id] = marker
        self.pictures += 1

    def names(self) -> set[str]:
        return {namespace for namespace, _ in self.shown}

    def rest(self) -> None:
        zero = np.zeros(len(MODEL.home))
        self._joints.publish(joint_state_message(MODEL.joint_names, MODEL.home, zero, time.time_ns()))

    def decide(self, pick: Any, place: Any, named: bool = True) -> str:
        """A decision; returns what the arm calls it."""
        self.rest()
        time.sleep(0.2)  # the order of messages on different topics is nobody's
        action = PickPlace(pick, place, stamp_ns=time.time_ns())
        if named:
            self._decisions.publish(to_json(action.to_dict()))
        self._poses.publish(pick_place_to_poses(action))
        time.sleep(0.2)
        return action.decision_id if named else ""

    def say(self, **status: Any) -> None:
        before = self.pictures
        self._status.publish(to_json(status))
        until(lambda: self.pictures > before, what="a new picture")


@pytest.fixture(scope="module")
def viewer(shared_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Viewer:
    path = tmp_path_factory.mktemp("around") / "surroundings.yaml"
    path.write_text(yaml.safe_dump({"keep_out": [POST], "workspace": {"x": [0.3, 0.7]}}))
    made = Viewer(shared_graph, path)
    until(lambda: made.shown, what="the surroundings")
    return made


def _xyz(point: Any) -> list[float]:
    return [point.x, point.y, point.z]


def test_surroundings_are_there_for_who_comes_late(viewer: Viewer, shared_graph: Graph) -> None:
    late: list[Any] = []
    shared_graph.subscribe(MarkerArray, "arm/markers", late.append, qos.STATUS)
    until(lambda: late, what="the latched picture")
    shown = {marker.ns: marker for marker in late[0].markers}
    assert set(shown) == {"workspace", "keep_out", "keep_out_name"}
    box = shown["keep_out"]
    assert (box.type, _xyz(box.pose.position), _xyz(box.scale)) == (Marker.CUBE, POST["position"], POST["size"])
    assert shown["keep_out_name"].text == "post"
    edges = shown["workspace"]
    assert (edges.type, len(edges.points)) == (Marker.LINE_LIST, 24)
    assert {point.x for point in edges.points} == {0.3, 0.7}
    for one, other in zip(edges.points[::2], edges.points[1::2], strict=True):
        assert np.count_nonzero(np.subtract(_xyz(one), _xyz(other))) == 1, "edges, no diagonals"


@pytest.mark.parametrize("named", [True, False])
def test_a_plan_is_shown_while_the_arm_moves(viewer: Viewer, named: bool) -> None:
    pick, place = tool_down(0.4, -0.2, 0.05, 0.3), tool_down(0.4, -0.3, 0.06)
    name = viewer.decide(pick, place, named)
    viewer.say(decision_id=name, state="moving", refused="", reason="", segment="approach")
    assert viewer.names() == {"workspace", "keep_out", "keep_out_name", "plan", "pose", "pose_name"}
    points = np.array([_xyz(point) for point in viewer.shown["plan", 0].points])
    assert points[0] == pytest.approx(MODEL.forward(MODEL.home)[:3, 3], abs=1e-6)
    for pose in (pick, place):
        assert np.linalg.norm(points - pose[:3, 3], axis=1).min() < 2e-3
    assert len(viewer.shown["plan", 0].colors) == len(points)
    tail, head = viewer.shown["pose", 0].points
    assert _xyz(head) == pytest.approx(pick[:3, 3].tolist(), abs=1e-6)
    assert tail.z > head.z, "the arrow points where the tool does"
    viewer.say(decision_id=name, state="idle", refused="", reason="", done=True)
    assert "plan" not in viewer.names()


def test_a_refusal_is_shown_where_it_is(viewer: Viewer) -> None:
    name = viewer.decide(tool_down(0.5, -0.2, 0.05), tool_down(0.5, 0.2, 0.05))
    reason = "keep_out: distance of tip to post at 0.400 s is 0.0000 m, limit at least 0.0050 m; choose another"
    viewer.say(decision_id=name, state="idle", refused="keep_out", reason=reason)
    sphere, text = viewer.shown["refusal", 0], viewer.shown["refusal_text", 0]
    assert np.abs(np.subtract(_xyz(sphere.pose.position), POST["position"])).max() < 0.2
    assert text.text.startswith("keep_out\ndistance of tip")
    assert (sphere.color.r > 0.8, sphere.color.g < 0.2) == (True, True)
    assert (sphere.lifetime.sec, sphere.lifetime.nanosec) == (12, 500_000_000)
    outside = tool_down(0.9, 0.1, 0.05)
    name = viewer.decide(outside, tool_down(0.5, 0.2, 0.05))
    viewer.say(decision_id=name, state="idle", refused="workspace", reason="workspace: x of the pick pose is 0.9")
    assert _xyz(viewer.shown["refusal", 0].pose.position) == pytest.approx(outside[:3, 3].tolist(), abs=1e-6)
    viewer.say(decision_id="home", state="idle", refused="lost", reason="lost: camera is silent")
    assert "refusal" not in viewer.names(), "it has no place"
    assert viewer.shown["refusal_text", 0].text == "lost\ncamera is silent"


def test_nonsense_does_not_end_the_node(viewer: Viewer, shared_graph: Graph) -> None:
    viewer._decisions.publish(String(data="{}"))
    viewer._decisions.publish(String(data="no json"))
    viewer._poses.publish(PoseArray())
    broken = joint_state_message(MODEL.joint_names, np.full(7, np.nan), np.zeros(7), time.time_ns())
    viewer._joints.publish(broken)
    time.sleep(0.2)
    viewer.say(decision_id="", state="idle", refused="not_a_pose", reason="not_a_pose: two poses are expected")
    assert viewer.shown["refusal_text", 0].text.startswith("not_a_pose")
    assert all(process.exit_code() is None for process in shared_graph.processes)


def test_without_visualization_msgs_the_node_lives_and_says_so(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "visualization_msgs").mkdir()
    (tmp_path / "visualization_msgs" / "__init__.py").write_text("raise ImportError('taken away')\n")
    paths = f"{tmp_path}:{graph.variables.get('PYTHONPATH', '')}".rstrip(":")
    graph.variables = {**graph.variables, "PYTHONPATH": paths}
    process = graph.start("markers")
    until(lambda: "pip install ros-visualization-msgs" in process.last_lines(30), what="the remedy")
    assert graph.end(process) == 0

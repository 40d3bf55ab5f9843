"""What the arm is about to do, may not do and was refused, as markers for RViz and Foxglove."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, PoseArray
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import ColorRGBA, String

from embodied_vision.control.joint_parts import JointParts
from embodied_vision.control.motion import MotionSettings
from embodied_vision.control.preview import PathPart, Preview
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.surroundings import KeepOut, Surroundings, read_surroundings
from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    BASE_FRAME,
    from_json,
    ns_to_stamp,
    poses_to_pick_place,
    stamp_to_ns,
)
from embodied_vision.nodes.lifecycle import OK, WARN, ManagedNode
from embodied_vision.nodes.running import run
from embodied_vision.types import FloatArray, PickPlace, Workspace

try:
    from visualization_msgs.msg import Marker, MarkerArray
except ImportError as error:
    MISSING: str | None = (
        f"visualization_msgs cannot be imported ({error}); pip install ros-visualization-msgs, or apt-get install "
        "ros-$ROS_DISTRO-visualization-msgs where ROS is installed"
    )
else:
    MISSING = None

RGBA = tuple[float, float, float, float]
GREEN: RGBA = (0.1, 0.7, 0.3, 1.0)
ORANGE: RGBA = (1.0, 0.55, 0.0, 1.0)
BLUE: RGBA = (0.2, 0.45, 0.9, 1.0)
RED: RGBA = (0.9, 0.1, 0.1, 1.0)
GREY: RGBA = (0.6, 0.6, 0.6, 0.8)
GLASS: RGBA = (0.9, 0.1, 0.1, 0.3)
CARRYING = ("lift_pick", "raise", "drag", "transfer", "descend_place", "push", "lift_grasp")
"""Segments in which something is moved; they are drawn in green."""
ARROW_M = 0.08
"""Length of the arrows, which end at the tool's tip."""
DECISIONS = 8
"""So many decisions are kept until the arm says what became of them."""
NOWHERE = (0.3, 0.0, 0.7)
"""In the base frame, m, where the words of a refusal stand that has no place."""
_EDGES = [(a, b) for a in range(8) for b in range(a) if (a ^ b) in (1, 2, 4)]


class MarkersNode(ManagedNode):
    """Draws; it plans and checks each decision for itself, so that the arm node has nothing to do with pictures."""

    HANDLES_IMAGES = False

    def __init__(self) -> None:
        super().__init__("markers")
        self.param("robot", "panda_suction", "shipped robot by name, or the path of its YAML", read_only=True)
        self.param("surroundings", "", "YAML with workspace and keep-out boxes; empty: none", read_only=True)
        self.param("clearance", 0.19, "height of the tip above the base at which the arm travels, m", (0.0, 1.0))
        self.param("approach", 0.08, "length of the straight way down to a pose, m", (0.0, 0.5))
        self.param(
            "refusal_lifetime", 30.0, "how long a refusal is shown, s; 0: until the next decision", (0.0, 3600.0)
        )
        self._publisher = None if MISSING else self.create_publisher(MarkerArray, "arm/markers", qos.STATUS)
        self._preview: Preview | None = None
        self._surroundings = Surroundings()
        self._parts = JointParts([])
        self._q: NDArray[np.float64] | None = None
        self._stamped: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._asked: OrderedDict[str, tuple[PoseArray, NDArray[np.float64] | None]] = OrderedDict()
        self._drawn: tuple[str, str] = ("", "")
        self._shown: dict[tuple[str, int], Any] = {}

    def setup(self) -> None:
        if MISSING:
            self.get_logger().warning(f"nothing is drawn: {MISSING}")
            self.health(WARN, MISSING)
            return
        model = RobotModel.load(self.value("robot"))
        self._surroundings = around = read_surroundings(self.value("surroundings"))
        settings = MotionSettings(clearance_m=self.value("clearance"), approach_m=self.value("approach"))
        self._preview = Preview(model, around.workspace, around.keep_out, settings)
        self._parts = JointParts(model.joint_names)

    def start(self) -> None:
        if self._preview is None:
            return
        self.subscribe_sensor(JointState, "joint_states", self._on_joints, silent_s=float("inf"))
        self.subscribe(String, "policy/decision", qos.DECISION, self._on_decision)
        self.subscribe(PoseArray, "pick_place", qos.DECISION, self._on_pick_place)
        self.subscribe(String, "arm/status", qos.STATUS, self._on_status)
        self._show([])
        self.health(OK, "drawing on arm/markers")

    def teardown(self) -> None:
        self._preview = None

    # ---- what is heard

    def _on_joints(self, message: JointState) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        joints = self._parts.add(message.name, message.position, message.velocity, stamp_ns)
        if joints is not None and np.isfinite(joints.positions).all():
            self._q = joints.positions

    def _on_decision(self, message: String) -> None:
        decision = from_json(message, "policy/decision")
        try:
            self._stamped[int(decision["stamp_ns"])] = decision
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"policy/decision has no stamp_ns ({error!r}); who publishes it?") from error
        _forget_old(self._stamped)

    def _on_pick_place(self, message: PoseArray) -> None:
        """Keep where the arm stood when it was asked: it may move by the time that it says it does."""
        self._asked[str(stamp_to_ns(message.header.stamp))] = (message, self._q)
        _forget_old(self._asked)

    def _on_status(self, message: String) -> None:
        """Draw what the arm has begun or refused, and take the plan away when it is over."""
        status = from_json(message, "arm/status")
        name, state, refused = (str(status.get(key, "")) for key in ("decision_id", "state", "refused"))
        what = (name, "moving" if state in ("moving", "paused") else refused)
        if what == self._drawn:
            return
        self._drawn = what
        action, q = self._action(name)
        if not what[1]:
            self._show([])
        elif action is not None:
            self._draw(action, q, str(status.get("reason", "")) if refused else "")
        elif refused:
            self._show(_refusal(str(status.get("reason", "")), None, self._lifetime))

    def _action(self, name: str) -> tuple[PickPlace | None, NDArray[np.float64] | None]:
        """The decision of a name and where the arm stood; the newest where the arm was given none."""
        for stamp, (poses, q) in reversed(self._asked.items()):
            decision = self._stamped.get(int(stamp))
            if name in ("", None if decision is None else str(decision.get("decision_id"))):
                try:
                    return poses_to_pick_place(poses, decision), q
                except (BadInput, KeyError, TypeError):
                    return None, None
        return None, None

    # ---- what is drawn

    @property
    def _lifetime(self) -> float:
        return float(self.value("refusal_lifetime"))

    def _draw(self, action: PickPlace, q: NDArray[np.float64] | None, refused: str) -> None:
        assert self._preview is not None
        markers = _poses(action) if action.is_finite() else []
        found = None if q is None else self._preview.of(action, q)
        if found is not None:
            markers += _path(found.path)
        if refused:
            markers += _refusal(refused, None if found is None else found.place, self._lifetime)
        self._show(markers)

    def _show(self, markers: Sequence[Any]) -> None:
        """Publish the whole picture, for who comes late, and take away what was shown before and is no more."""
        markers = [*_surroundings(self._surroundings), *markers]
        now = ns_to_stamp(self.now_ns())
        shown = {(marker.ns, marker.id): marker for marker in markers}
        gone = [_deleted(*key) for key in self._shown if key not in shown]
        self._shown = shown
        for marker in (*gone, *markers):
            marker.header.frame_id = BASE_FRAME
            marker.header.stamp = now
        if self._publisher is not None:
            self._publisher.publish(MarkerArray(markers=[*gone, *markers]))


def _forget_old(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > DECISIONS:
        kept.popitem(last=False)


def _marker(namespace: str, number: int, kind: int, color: RGBA, scale: Iterable[float]) -> Any:
    marker = Marker(ns=namespace, id=number, type=kind, action=Marker.ADD, color=_color(color))
    marker.scale.x, marker.scale.y, marker.scale.z = (float(value) for value in scale)
    marker.pose.orientation.w = 1.0
    return marker


def _deleted(namespace: str, number: int) -> Any:
    return Marker(ns=namespace, id=number, action=Marker.DELETE)


def _color(rgba: RGBA) -> ColorRGBA:
    r, g, b, a = rgba
    return ColorRGBA(r=r, g=g, b=b, a=a)


def _point(xyz: Iterable[float]) -> Point:
    x, y, z = (float(value) for value in xyz)
    return Point(x=x, y=y, z=z)


def _pose(T: FloatArray) -> Pose:
    message = Pose(position=_point(T[:3, 3]))
    turn = message.orientation
    turn.x, turn.y, turn.z, turn.w = (float(value) for value in pose_to_vector(T)[3:])
    return message


def _text(namespace: str, number: int, text: str, xyz: Iterable[float], color: RGBA) -> Any:
    marker = _marker(namespace, number, Marker.TEXT_VIEW_FACING, color, (0.0, 0.0, 0.03))
    marker.text = text
    marker.pose.position = _point(xyz)
    return marker


def _surroundings(around: Surroundings) -> list[Any]:
    boxes = [_keep_out(number, box) for number, box in enumerate(around.keep_out)]
    names = [
        _text("keep_out_name", number, box.name, box.pose[:3, 3] + (0.0, 0.0, box.size[2] / 2 + 0.03), RED)
        for number, box in enumerate(around.keep_out)
    ]
    return [_workspace(around.workspace or Workspace()), *boxes, *names]


def _workspace(workspace: Workspace) -> Any:
    marker = _marker("workspace", 0, Marker.LINE_LIST, GREY, (0.003, 0.0, 0.0))
    bounds = (workspace.x, workspace.y, workspace.z)
    corners = [[bounds[axis][number >> axis & 1] for axis in range(3)] for number in range(8)]
    marker.points = [_point(corners[end]) for edge in _EDGES for end in edge]
    return marker


def _keep_out(number: int, box: KeepOut) -> Any:
    marker = _marker("keep_out", number, Marker.CUBE, GLASS, box.size)
    marker.pose = _pose(box.pose)
    return marker


def _poses(action: PickPlace) -> list[Any]:
    """An arrow to the tip at pick and place, along the tool, and their names."""
    markers = []
    for number, (name, pose, color) in enumerate((("pick", action.pick, GREEN), ("place", action.place, ORANGE))):
        arrow = _marker("pose", number, Marker.ARROW, color, (0.008, 0.016, 0.02))
        tail: FloatArray = pose[:3, 3] - ARROW_M * pose[:3, 2]
        arrow.points = [_point(tail), _point(pose[:3, 3])]
        markers += [arrow, _text("pose_name", number, name, np.add(tail, (0.0, 0.0, 0.03)), color)]
    return markers


def _path(parts: Sequence[PathPart]) -> list[Any]:
    """The tip's way as one strip, green where something is carried or moved."""
    if not parts:
        return []
    marker = _marker("plan", 0, Marker.LINE_STRIP, BLUE, (0.004, 0.0, 0.0))
    for part in parts:
        marker.points += [_point(xyz) for xyz in part.points]
        marker.colors += [_color(GREEN if part.name in CARRYING else BLUE)] * len(part.points)
    return [marker]


def _refusal(reason: str, place: NDArray[np.float64] | None, lifetime_s: float) -> list[Any]:
    """The rule in words, and a red sphere where it is broken."""
    rule, _, rest = reason.partition(": ")
    above = np.array(NOWHERE) if place is None else np.add(place, (0.0, 0.0, 0.08))
    markers = [_text("refusal_text", 0, f"{rule}\n{rest}".strip(), above, RED)]
    if place is not None:
        sphere = _marker("refusal", 0, Marker.SPHERE, RED, (0.04, 0.04, 0.04))
        sphere.pose.position = _point(place)
        markers.append(sphere)
    seconds, fraction = divmod(lifetime_s, 1.0)
    for marker in markers:
        marker.lifetime = Duration(sec=int(seconds), nanosec=int(fraction * 1e9))
    return markers


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(MarkersNode))


if __name__ == "__main__":
    main()

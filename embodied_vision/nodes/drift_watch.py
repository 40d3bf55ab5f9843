"""Each decision beside what the policy knows, and a status of its own on /diagnostics when the scene leaves that."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import String

from embodied_vision.errors import BadInput
from embodied_vision.learning import drift_known
from embodied_vision.learning.drift import Alarm, Channel, Watch
from embodied_vision.learning.drift_known import Known, beside, describe_action, describe_scene, score_of
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json
from embodied_vision.nodes.lifecycle import OK, WARN, ManagedNode
from embodied_vision.policies.policy import Explanation

REMEMBERED_ALARMS = 20
QUIET_AFTER = 30
"""An alarm is told until so many decisions came without another one."""


class DriftWatch:
    """Told of each decision in the policy's thread; says nothing where nobody said what the policy knows."""

    def __init__(self, node: ManagedNode) -> None:
        """Declare the parameter on a node that is being made."""
        node.param(
            "known",
            "",
            "folder that `learn drift fit` wrote, or none; empty: CHECKPOINT.known, where it is there",
        )
        self._node = node
        self._known: Known | None = None
        self._watch: Watch | None = None
        self._alarms: deque[Alarm] = deque(maxlen=REMEMBERED_ALARMS)
        self._since = QUIET_AFTER
        self._number = 0
        self._episode = ""
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)

    def loaded(self, checkpoint: Path, checkpoint_id: str) -> None:
        """Another checkpoint is in use from now on."""
        self._known, self._watch, self._since = None, None, QUIET_AFTER
        self._alarms.clear()
        given = self._node.value("known")
        folder = Path(given).expanduser() if given else beside(checkpoint)
        if given == "none" or not (given or folder.is_dir()):
            return
        try:
            known = drift_known.load(folder)
            if known.checkpoint_id != checkpoint_id:
                raise BadInput(f"{folder} is about {known.checkpoint_id}, in use is {checkpoint_id}; fit it again")
            self._known, self._watch = known, Watch()
        except BadInput as error:
            self._node.get_logger().warning(f"drift is not watched: {error}")

    def hear_recorder(self, message: String) -> None:
        """The newest message on recorder/status."""
        self._episode = str(from_json(message, "recorder/status").get("episode", ""))

    def look(self, made: Explanation) -> None:
        """Compare a decision with what is known; may be called in any thread, one at a time."""
        known, watch = self._known, self._watch
        if known is None or watch is None:
            return
        try:
            values: dict[Channel, float] = {
                "scene": known.scenes.p_value(describe_scene(made.scene)),
                "action": known.actions.p_value(describe_action(made.action)),
                "score": score_of(made.action),
            }
        except BadInput as error:
            self._node.get_logger().warning(f"drift is not watched: {error}")
            self._known = None
            return
        self._number += 1
        self._since += 1
        source = f"{self._episode or 'not-logged'}/{made.action.decision_id}"
        if alarms := watch.update(values, source):
            self._alarms += alarms
            self._since = 0
            for alarm in alarms:
                self._node.get_logger().warning(f"{alarm.meaning}; see episodes {', '.join(alarm.episodes[-5:])}")
        self._node.post(lambda: self._tell(values))

    def _tell(self, values: dict[Channel, float]) -> None:
        told = self._alarms[-1] if self._since < QUIET_AFTER and self._alarms else None
        pairs = {f"{name}": f"{value:.4g}" for name, value in values.items()}
        if told is not None:
            pairs |= {"channel": told.channel, "episodes": " ".join(told.episodes)}
        status = DiagnosticStatus(
            level=OK if told is None else WARN,
            name=f"{self._node.get_fully_qualified_name()}: drift",
            message="as in training" if told is None else told.meaning,
            hardware_id=self._node.get_name(),
            values=[KeyValue(key=key, value=value) for key, value in pairs.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

"""The task node on a cell that no simulator knows: the cameras judge, an operator is asked, and every wait ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import rclpy
import torch
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_vision.errors import RunFailed
from embodied_vision.geometry import tool_down
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.learning import outcomes
from embodied_vision.learning.calibrated import Calibration
from embodied_vision.learning.outcomes import Classifier
from embodied_vision.learning.outcomes_network import OutcomeNetwork
from embodied_vision.nodes import conversions, qos
from embodied_vision.types import PickPlace, Workspace
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import ARCHITECTURE, frame, write_encoder

SEEN, HIDDEN = (0.5, 0.1), (5.0, 9.0)
"""Places on the map, of which the judge says success, and beyond it, of which it says nothing."""

NEEDS = ["policy", "arm"]
NEEDS_SIMULATED = [*NEEDS, "cell"]


def write_classifier(folder: Path, encoder_id: str) -> str:
    """An untrained judge that calls everything a success that it sees."""
    torch.manual_seed(0)
    classifier = Classifier(
        task="block-insertion",
        encoder_id=encoder_id,
        workspace=Workspace(),
        dimension=ARCHITECTURE.dimension,
        calibration=Calibration(scale=1e-3, shift=6.0),
        sure=0.9,
        weights=OutcomeNetwork(ARCHITECTURE.dimension).state_dict(),
    )
    return outcomes.save(classifier, folder)


class FakeCell:
    """Policy, arm and camera of a real cell. Whatever is decided is carried out at once.

    Attributes:
        places: where the next decisions lead; the last one is kept.
        failed: what the arm says of the next motion.
        events: all of episode/event.
    """

    def __init__(self, graph: Graph, needs: Sequence[str] = NEEDS) -> None:
        self.places: list[tuple[float, float]] = [SEEN]
        self.failed = ""
        self.events: list[dict[str, Any]] = []
        self._number = 0
        node = graph.client.node
        self._images = [
            (node.create_publisher(Image, f"camera/{name}/image_raw", qos.SENSOR), convert, part)
            for name, convert, part in (
                ("color", conversions.color_to_image, "color"),
                ("aligned_depth_to_color", conversions.depth_to_image, "depth"),
            )
        ]
        self._beats = {name: node.create_publisher(String, f"heartbeat/{name}", qos.HEARTBEAT) for name in needs}
        self._decision = node.create_publisher(String, "policy/decision", qos.DECISION)
        self._arm = node.create_publisher(String, "arm/status", qos.STATUS)
        node.create_service(Trigger, "policy/predict", self._predict)
        graph.subscribe(String, "episode/event", lambda m: self.events.append(json.loads(m.data)), qos.EVENT)
        self._say("", done=False)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _say(self, decision_id: str, *, done: bool, failed: str = "") -> None:
        status = {"state": "idle", "decision_id": decision_id, "done": done, "aborted": False, "refused": ""}
        sent = {"failed": failed, "reason": failed, "last_sent_ns": time.time_ns(), "lost": ""}
        self._arm.publish(conversions.to_json({**status, **sent}))

    def _predict(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._number += 1
        place = self.places.pop(0) if len(self.places) > 1 else self.places[0]
        failed, self.failed = self.failed, ""
        action = PickPlace(
            tool_down(0.5, 0.0, 0.04),
            tool_down(*place, 0.04),
            stamp_ns=time.time_ns(),
            decision_id=f"decision-{self._number}",
        )
        self._decision.publish(conversions.to_json(action.to_dict()))
        self._say(action.decision_id, done=not failed, failed=failed)
        response.success, response.message = True, action.decision_id
        return response

    def _work(self) -> None:
        one = frame()
        while not self._ended.wait(0.1):
            for name, beat in self._beats.items():
                beat.publish(conversions.to_json({"node": name, "state": "active"}))
            stamp_ns = time.time_ns()
            for publisher, convert, part in self._images:
                publisher.publish(convert(getattr(one, part), stamp_ns, "camera_optical_frame"))

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


class SimulatedCell(FakeCell):
    """As `embodied_vision_sim.node` is heard: it sets scenes up, and looks ahead for the outcome of a motion."""

    AHEAD_NS = 100_000_000

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, NEEDS_SIMULATED)
        self._node = rclpy.create_node("cell", context=graph.client.node.context)
        self._node.declare_parameters("", [("task", ""), ("seed", 0)])
        self._outcome = self._node.create_publisher(String, "outcome", qos.STATUS)
        self._node.create_service(Trigger, "~/reset", self._reset)
        self._executor = SingleThreadedExecutor(context=graph.client.node.context)
        self._executor.add_node(self._node)
        self._spinning = threading.Thread(target=self._executor.spin, daemon=True)
        self._spinning.start()

    def _judge(self, motions: int, stamp_ns: int) -> None:
        scene = {"task": "block-insertion", "seed": self._node.get_parameter("seed").value, "max_steps": 1}
        score = {"reward": float(motions), "solved": motions > 0, "motions": motions}
        self._outcome.publish(conversions.to_json({**scene, **score, "stamp_ns": stamp_ns}))

    def _reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._judge(0, time.time_ns())
        response.success = True
        return response

    def _predict(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        super()._predict(request, response)
        self._judge(1, time.time_ns() + self.AHEAD_NS)
        return response

    def close(self) -> None:
        super().close()
        self._executor.shutdown(timeout_sec=10.0)
        self._spinning.join()
        self._node.destroy_node()


class Work:
    """A task node at work, and what it says."""

    def __init__(self, graph: Graph, node: ManagedProcess, cell: FakeCell, classifier_id: str) -> None:
        self.graph, self.node, self.cell, self.classifier_id = graph, node, cell, classifier_id
        self._began_ns = 0

    def begin(self, **parameters: Any) -> None:
        usual = {"settle": 0.1, "verdict_timeout": 20.0, "operator_timeout": 60.0, "scenes": 1}
        self.graph.client.set_parameters("task", {**usual, **parameters})
        self.cell.events.clear()
        self._began_ns = time.time_ns()
        self.graph.client.trigger("task/run")

    def wait(self, accept: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What the node says of this run, once it is accepted."""
        return self.graph.wait("task/status", lambda s: s["stamp_ns"] > self._began_ns and accept(s), self.node)

    def asked(self, about: str) -> str:
        """What an operator is asked now."""
        return str(self.wait(lambda s: about in s["question"])["question"])

    def ended(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """How the run went, and the outcome of its last episode."""
        status = self.wait(lambda s: s["state"] in ("finished", "failed"))
        assert status["state"] == "finished", status
        until(lambda: self.cell.events and self.cell.events[-1]["event"] == "end", what="the episode's end")
        assert not any("seed" in event for event in self.cell.events)
        return status, self.cell.events[-1]["outcome"]


def judge_of(node: ManagedProcess) -> int:
    """The process that judges for a task node: its only child."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == node.pid:
                return int(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise AssertionError(f"process {node.pid} has no child")


@pytest.fixture(scope="module")
def work(shared_graph: Graph) -> Iterator[Work]:
    folder = shared_graph.run_dir
    encoder = write_encoder(folder / "encoder")
    classifier_id = write_classifier(folder / "judge", encoder.encoder_id)
    cell = FakeCell(shared_graph)
    settings = {"needs": NEEDS, "encoder": str(folder / "encoder"), "outcome_classifier": str(folder / "judge")}
    node = shared_graph.start("task", retries=0, **settings)
    yield Work(shared_graph, node, cell, classifier_id)
    cell.close()


def test_the_cameras_verdict_ends_the_scene_and_is_logged(work: Work) -> None:
    work.begin()
    status, outcome = work.ended()
    assert [(r["solved"], r["reward"], r["steps"]) for r in status["results"]] == [(True, 1.0, 1)]
    assert (outcome["solved"], outcome["reward"], outcome["source"]) == (True, 1.0, "cameras")
    assert outcome["probability"] == pytest.approx(0.9975, abs=1e-3)
    (said,) = outcome["judged"]["decisions"]
    assert (said["word"], said["probability"]) == ("success", outcome["probability"])
    assert outcome["judged"]["classifier"] == work.classifier_id
    with pytest.raises(RunFailed, match="nothing is asked"):
        work.graph.client.trigger("task/yes")


def test_an_operator_is_asked_where_the_cameras_do_not_tell_and_what_failed_is_tried_again(work: Work) -> None:
    work.cell.places, work.cell.failed = [HIDDEN, HIDDEN, SEEN], "dropped"
    work.begin()
    assert "only 0 % around pick or place are seen" in work.asked("did decision")
    assert "did decision" in work.graph.client.trigger("task/no")
    status, outcome = work.ended()
    assert [(r["solved"], r["steps"]) for r in status["results"]] == [(True, 2)]
    assert (outcome["source"], outcome["earned"]) == ("operator", [None, 0.0, None])
    assert [each["word"] for each in outcome["judged"]["decisions"]] == ["failure", "unsure", "success"]


def test_an_operator_who_says_nothing_leaves_the_outcome_unknown(work: Work) -> None:
    work.cell.places = [HIDDEN]
    work.begin(operator_timeout=0.3)
    status, outcome = work.ended()
    assert "nobody knows whether decision" in status["results"][0]["reason"]
    assert outcome["reason"] == status["results"][0]["reason"]
    assert "solved" not in outcome
    assert "reward" not in outcome


def test_a_judge_that_hangs_is_given_up_and_the_next_scene_is_begun_when_it_is_set_up(work: Work) -> None:
    os.kill(judge_of(work.node), signal.SIGSTOP)
    work.cell.places = [SEEN]
    work.begin(verdict_timeout=0.5, scenes=2)
    assert "no verdict came within 0.5 s" in work.asked("did decision")
    work.graph.client.trigger("task/yes")
    work.asked("is scene 2 set up")
    work.graph.client.set_parameters("task", {"verdict_timeout": 20.0})
    work.graph.client.trigger("task/yes")
    status, outcome = work.ended()
    assert [r["solved"] for r in status["results"]] == [True, True]
    assert outcome["source"] == "cameras", "another judge was started"


def test_a_scene_set_up_while_the_last_outcome_lies_ahead_is_begun_at_once(graph: Graph) -> None:
    cell = SimulatedCell(graph)
    try:
        node = graph.start("task", retries=0, needs=NEEDS_SIMULATED, scenes=3)
        began_s = time.monotonic()
        graph.client.trigger("task/run")
        status = graph.wait("task/status", lambda s: s["state"] in ("finished", "failed"), node)
        assert status["state"] == "finished", status
        assert [(r["solved"], r["reward"]) for r in status["results"]] == [(True, 1.0)] * 3
        assert time.monotonic() - began_s < 5.0
    finally:
        cell.close()


def test_what_cannot_judge_ends_the_node_or_the_run_with_a_plain_error(work: Work) -> None:
    graph = work.graph
    other = write_encoder(graph.run_dir / "other", seed=1)
    judge = str(graph.run_dir / "judge")
    faults = {
        "other_encoder": ({"encoder": str(graph.run_dir / "other"), "outcome_classifier": judge}, other.encoder_id),
        "no_judge": ({}, "outcome_classifier"),
    }
    nodes = {
        name: graph.start(name, "embodied_vision.nodes.task", wait=False, needs=NEEDS, **wrong)
        for name, (wrong, _) in faults.items()
    }
    graph.client.set_parameters("task", {"task": "towers-of-hanoi"})
    with pytest.raises(RunFailed, match="judges 'block-insertion', the task is 'towers-of-hanoi'"):
        graph.client.trigger("task/run")
    graph.client.set_parameters("task", {"task": "block-insertion"})
    for name, node in nodes.items():
        assert node.wait(60.0), name
        log = node.log.read_text()
        assert node.exit_code() == 2, log
        assert faults[name][1] in log, log
        assert "Traceback" not in log

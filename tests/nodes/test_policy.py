"""The policy node as a process: it decides on fresh frames, and says plainly why when it does not."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.errors import RunFailed
from embodied_vision.learning.promotion import Pointer
from embodied_vision.nodes import conversions, qos
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.policy import Policy
from embodied_vision.types import RGBD, Features
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import frame, write_encoder, write_policy


@dataclass
class Feeder:
    """Publishes frames with features, as cell and encoder do."""

    encoder: CompactEncoder
    publishers: dict[str, Any]

    def send(self, one: RGBD, change: Callable[[np.ndarray], np.ndarray] = lambda grid: grid) -> Features:
        name = "camera_optical_frame"
        made = self.encoder.encode(one.color, one.stamp_ns)
        features = Features(change(made.grid.copy()), made.stride, made.encoder_id, made.artefact_id, one.stamp_ns)
        self.publishers["color"].publish(conversions.color_to_image(one.color, one.stamp_ns, name))
        self.publishers["depth"].publish(conversions.depth_to_image(one.depth, one.stamp_ns, name))
        self.publishers["info"].publish(conversions.features_to_info(features, one.camera.K, name))
        self.publishers["features"].publish(conversions.features_to_image(features, name))
        return features


@dataclass
class Setup:
    """A policy node with an untrained checkpoint, and what it has published."""

    graph: Graph
    feeder: Feeder
    policy: Policy
    decisions: list[dict[str, Any]]
    poses: list[PoseArray]

    def announce(self, encoder_id: str) -> None:
        """Say that features come from this encoder."""
        info = {"encoder_id": encoder_id, "artefact_id": self.feeder.encoder.artefact_id, "threads": 1}
        self.feeder.publishers["encoder"].publish(conversions.to_json(info))

    def predict(self, change: Callable[[np.ndarray], np.ndarray] = lambda grid: grid) -> str:
        """Ask for a decision while frames keep coming, as they do in a cell."""
        ended = threading.Event()

        def feed() -> None:
            while not ended.wait(0.1):
                self.feeder.send(frame(stamp_ns=time.time_ns()), change)

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        try:
            return self.graph.client.trigger("policy/predict")
        finally:
            ended.set()
            thread.join()


@pytest.fixture(scope="module")
def started(shared_graph: Graph) -> Setup:
    graph = shared_graph
    encoder = write_encoder(graph.run_dir / "encoder")
    write_policy(graph.run_dir / "policy", encoder.encoder_id)
    node = graph.start(
        "policy",
        wait=False,
        encoder=str(graph.run_dir / "encoder"),
        checkpoint=str(graph.run_dir / "policy"),
    )
    decisions: list[dict[str, Any]] = []
    poses: list[PoseArray] = []
    graph.subscribe(String, "policy/decision", lambda m: decisions.append(json.loads(m.data)), qos.DECISION)
    graph.subscribe(PoseArray, "pick_place", poses.append, qos.DECISION)
    info = graph.client.node.create_publisher(String, "encoder/info", qos.STATUS)
    graph.ready(node)
    feeder = Feeder(
        encoder,
        {
            "color": graph.publisher(Image, "camera/color/image_raw"),
            "depth": graph.publisher(Image, "camera/aligned_depth_to_color/image_raw"),
            "features": graph.publisher(Image, "features"),
            "info": graph.publisher(CameraInfo, "features/camera_info"),
            "encoder": info,
        },
    )
    policy = Policy.load(graph.run_dir / "policy", encoder)
    return Setup(graph, feeder, policy, decisions, poses)


@pytest.fixture
def running(started: Setup) -> Setup:
    """The node as it came up."""
    started.announce(started.policy.encoder_id)
    started.graph.client.set_parameters(
        "policy", {"timeout": 20.0, "checkpoint": str(started.graph.run_dir / "policy")}
    )
    started.graph.client.trigger("policy/reload")
    started.decisions.clear()
    started.poses.clear()
    return started


def test_it_decides_as_the_policy_alone_does_and_only_on_fresh_frames(running: Setup) -> None:
    old = frame(seed=9, stamp_ns=time.time_ns())
    running.feeder.send(old)
    decision_id = running.predict()
    until(lambda: running.decisions and running.poses, what="the decision is published")
    decision = running.decisions[0]
    assert decision["decision_id"] == decision_id
    assert decision["stamp_ns"] > old.stamp_ns
    assert decision["checkpoint_id"] == running.policy.checkpoint_id
    assert decision["frames"] == [{"camera": "camera", "stamp_ns": decision["stamp_ns"]}]
    one = frame(stamp_ns=decision["stamp_ns"])
    alone = running.policy.decide([one], [running.feeder.encoder.encode(one.color, one.stamp_ns)])
    assert decision["pick"] == alone.pick.tolist()
    assert decision["place"] == alone.place.tolist()
    assert decision["scores"] == dict(alone.scores)
    back = conversions.poses_to_pick_place(running.poses[0], decision)
    np.testing.assert_allclose(back.pick, alone.pick, atol=1e-9)


def test_what_the_arm_tried_in_vain_is_told_and_can_be_decided_again(running: Setup) -> None:
    status = running.graph.publisher(String, "arm/status", qos.STATUS)
    running.predict()
    until(lambda: running.decisions, what="the first decision is published")
    assert running.decisions[0]["failed"] == []
    for state in ("moving", "idle"):
        status.publish(String(data=json.dumps({"state": state})))
        time.sleep(0.3)  # a latched topic keeps the newest message alone
    running.predict()
    until(lambda: len(running.decisions) == 2, what="the second decision is published")
    decision = running.decisions[1]
    assert len(decision["failed"]) == 1
    one = frame(stamp_ns=decision["stamp_ns"])
    features = [running.feeder.encoder.encode(one.color, one.stamp_ns)]
    alone = running.policy.decide([one], features, Attempts(decision["failed"]))
    assert decision["pick"] == alone.pick.tolist()
    assert decision["scores"] == dict(alone.scores)


def test_features_that_come_long_after_their_frame_find_it(running: Setup) -> None:
    """An encoder that needs a second and more, beside cameras at 30 Hz."""
    send, name = running.feeder.publishers, "camera_optical_frame"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.graph.client.trigger, "policy/predict")
        time.sleep(0.3)
        frames = []
        for _ in range(50):
            frames.append(frame(stamp_ns=time.time_ns()))
            send["color"].publish(conversions.color_to_image(frames[-1].color, frames[-1].stamp_ns, name))
            send["depth"].publish(conversions.depth_to_image(frames[-1].depth, frames[-1].stamp_ns, name))
            time.sleep(0.01)
        running.feeder.send(frames[0])
        answer.result()
    until(lambda: running.decisions, what="the decision is published")
    assert running.decisions[0]["stamp_ns"] == frames[0].stamp_ns


def test_non_finite_features_are_refused_and_the_next_good_ones_serve(running: Setup) -> None:
    def poison(grid: np.ndarray) -> np.ndarray:
        grid[3, 4, 1] = np.nan
        return grid

    with pytest.raises(RunFailed, match="1 non-finite"):
        running.predict(poison)
    assert running.decisions == []
    running.predict()
    until(lambda: running.decisions, what="the decision is published")


def test_features_of_another_encoder_are_refused(running: Setup) -> None:
    running.announce("stranger-1")
    with pytest.raises(RunFailed, match="stranger-1") as refusal:
        running.predict()
    assert running.policy.encoder_id in str(refusal.value)
    assert running.poses == []


def test_without_features_it_names_what_is_missing(running: Setup) -> None:
    running.graph.client.set_parameters("policy", {"timeout": 0.5})
    with pytest.raises(RunFailed, match="features of camera"):
        running.graph.client.trigger("policy/predict")


def test_reload_takes_a_new_checkpoint_and_keeps_the_old_one_when_it_cannot(running: Setup) -> None:
    graph, first = running.graph, running.policy.checkpoint_id
    damaged = graph.run_dir / "damaged"
    write_policy(damaged, running.policy.encoder_id)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    graph.client.set_parameters("policy", {"checkpoint": str(damaged)})
    with pytest.raises(RunFailed, match=f"damaged.*{first} stays"):
        graph.client.trigger("policy/reload")
    assert running.predict()
    until(lambda: running.decisions, what="the decision is published")
    assert running.decisions[-1]["checkpoint_id"] == first

    second = write_policy(graph.run_dir / "policy2", running.policy.encoder_id, seed=4)
    graph.client.set_parameters("policy", {"checkpoint": str(graph.run_dir / "policy2")})
    assert graph.client.trigger("policy/reload") == second
    assert graph.wait("policy/info", lambda i: i["checkpoint_id"] == second)
    running.predict()
    until(lambda: running.decisions[-1]["checkpoint_id"] == second, what="the new checkpoint decides")


def test_what_cannot_work_ends_the_node_with_a_plain_error(graph: Graph) -> None:
    encoder = write_encoder(graph.run_dir / "encoder")
    other = write_encoder(graph.run_dir / "other", seed=1)
    write_policy(graph.run_dir / "policy", encoder.encoder_id)
    right = {"encoder": str(graph.run_dir / "encoder"), "checkpoint": str(graph.run_dir / "policy")}
    nowhere = str(graph.run_dir / "nowhere")
    faults = {
        "other_encoder": ({"encoder": str(graph.run_dir / "other")}, (other.encoder_id, encoder.encoder_id)),
        "no_checkpoint": ({"checkpoint": nowhere}, (nowhere, "manifest.json")),
        "no_calibration": ({"calibration": nowhere}, (nowhere, "calibration")),
    }
    nodes = {
        name: graph.start(name, "embodied_vision.nodes.policy", wait=False, **{**right, **wrong})
        for name, (wrong, _) in faults.items()
    }
    for name, node in nodes.items():
        assert node.wait(60.0), name
        log = node.log.read_text()
        assert node.exit_code() == 2, log
        assert all(word in log for word in faults[name][1]), log
        assert "Traceback" not in log


def test_a_pointer_is_followed_before_the_next_decision(running: Setup) -> None:
    graph, pointer = running.graph, running.graph.run_dir / "current"
    second = write_policy(graph.run_dir / "policy2", running.policy.encoder_id, seed=4)
    pointer.symlink_to("policy")
    graph.client.set_parameters("policy", {"checkpoint": str(pointer)})
    assert graph.client.trigger("policy/reload") == running.policy.checkpoint_id
    (graph.run_dir / "next").symlink_to("policy2")
    (graph.run_dir / "next").replace(pointer)
    running.predict()
    until(lambda: running.decisions, what="the decision is published")
    assert running.decisions[0]["checkpoint_id"] == second


def test_a_promoted_policy_that_reads_another_encoder_is_refused_and_the_one_in_use_stays(running: Setup) -> None:
    graph, first = running.graph, running.policy.checkpoint_id
    eyes, pointer = graph.run_dir / "other-eyes", Pointer(graph.run_dir / "policies", "block-insertion")
    pointer.promote(pointer.add(checkpoints.load(graph.run_dir / "policy")).name, "start")
    graph.client.set_parameters("policy", {"checkpoint": str(pointer.folder / "current")})
    assert graph.client.trigger("policy/reload") == first
    other = write_encoder(eyes, seed=1)
    write_policy(graph.run_dir / "adapted", other.encoder_id)
    second = pointer.add(checkpoints.load(graph.run_dir / "adapted")).name
    pointer.promote(second, "better", encoder=str(eyes))
    running.predict()  # follows the pointer, and cannot
    with pytest.raises(RunFailed) as refusal:
        graph.client.trigger("policy/reload")
    for words in (second, other.encoder_id, running.policy.encoder_id, f"--encoder {eyes}", f"{first} stays in use"):
        assert words in str(refusal.value)
    running.predict()
    until(lambda: len(running.decisions) == 2, what="both decisions are published")
    assert [(d["checkpoint_id"], d["encoder_id"]) for d in running.decisions] == [
        (first, running.policy.encoder_id)
    ] * 2


def test_a_policy_that_was_taken_back_decides_no_more_though_the_former_one_reads_another_encoder(
    running: Setup,
) -> None:
    graph, own = running.graph, running.policy.checkpoint_id
    eyes, pointer = graph.run_dir / "former-eyes", Pointer(graph.run_dir / "policies", "block-insertion")
    other = write_encoder(eyes, seed=1)
    write_policy(graph.run_dir / "former", other.encoder_id)
    former = pointer.add(checkpoints.load(graph.run_dir / "former")).name
    pointer.promote(former, "start", encoder=str(eyes))
    pointer.promote(pointer.add(checkpoints.load(graph.run_dir / "policy")).name, "better")
    graph.client.set_parameters("policy", {"checkpoint": str(pointer.folder / "current")})
    assert graph.client.trigger("policy/reload") == own
    running.predict()
    pointer.rollback("it did worse")
    for _ in range(2):
        with pytest.raises(RunFailed) as refusal:
            running.predict()
        for words in (f"{own} was taken back", f"--encoder {eyes}"):
            assert words in str(refusal.value)
    assert len(running.decisions) == 1
    pointer.promote(own, "by hand, again")
    running.predict()
    until(lambda: len(running.decisions) == 2, what="a decision of what was promoted again")


def test_a_candidate_decides_in_the_shadow_and_only_logs(running: Setup) -> None:
    graph, candidate = running.graph, running.graph.run_dir / "candidate"
    shadow_id = write_policy(candidate, running.policy.encoder_id, seed=5)
    graph.client.set_parameters("policy", {"shadow": str(candidate)})
    graph.client.trigger("policy/reload")
    decision_id = running.predict()
    log = graph.run_dir / "candidate.shadow.jsonl"
    until(log.exists, what="the shadow is logged")
    graph.client.set_parameters("policy", {"shadow": ""})
    graph.client.trigger("policy/reload")
    (line,) = (json.loads(text) for text in log.read_text().splitlines())
    assert (line["decision_id"], line["shadow_id"]) == (decision_id, shadow_id)
    assert line["checkpoint_id"] == running.policy.checkpoint_id
    assert [d["checkpoint_id"] for d in running.decisions] == [running.policy.checkpoint_id]


def test_a_relative_path_is_refused_whatever_lies_where_the_node_was_started(running: Setup) -> None:
    graph, first = running.graph, running.policy.checkpoint_id
    relative = os.path.relpath(graph.run_dir / "policy")
    assert Path(relative).is_dir()
    graph.client.set_parameters("policy", {"checkpoint": relative})
    with pytest.raises(RunFailed, match=f"is a relative path.*give the whole path.*{first} stays"):
        graph.client.trigger("policy/reload")
    running.predict()
    until(lambda: running.decisions, what="the decision is published")
    assert running.decisions[0]["checkpoint_id"] == first

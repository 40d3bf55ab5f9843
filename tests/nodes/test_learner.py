"""The learner node as a process: alone with its store, and the policy node follows what is put to use."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from learning.work import TASK, log_episode
from policies.stubs import TINY, random_checkpoint
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.learning.promotion import Pointer
from embodied_vision.nodes import conversions, qos
from tests.nodes.conftest import Graph, until


class FakePolicy:
    """A policy node that reads the pointer; it takes up what is in use on ~/reload."""

    def __init__(self, graph: Graph, pointer: Pointer) -> None:
        self._pointer = pointer
        self.reloads = 0
        self._info = graph.publisher(String, "policy/info", qos.STATUS)
        graph.client.node.create_service(Trigger, "policy/reload", self._reload)
        self._announce()

    def _announce(self) -> None:
        self.checkpoint = self._pointer.current or ""
        path = str(self._pointer.path(self.checkpoint))
        info = {"checkpoint_id": self.checkpoint, "task": TASK, "path": path}
        self._info.publish(conversions.to_json(info))

    def _reload(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.reloads += 1
        self._announce()
        response.success, response.message = True, self.checkpoint
        return response


def test_the_policy_node_follows_the_pointer_whoever_moves_it(graph: Graph) -> None:
    pointer = Pointer(graph.run_dir / "policies", TASK)
    first, second = (pointer.add(random_checkpoint("", seed=seed, config=TINY)).name for seed in (1, 2))
    pointer.promote(first, "start")
    graph.start("learner", store=str(graph.run_dir / "store"), policies=str(graph.run_dir / "policies"))
    policy = FakePolicy(graph, pointer)
    pointer.promote(second, "better")
    until(lambda: policy.checkpoint == second, what="the promoted checkpoint is taken up")
    pointer.rollback("by hand")
    until(lambda: policy.checkpoint == first, what="the former checkpoint is taken up")
    assert policy.reloads == 2


def test_a_second_learner_is_refused_and_a_killed_one_is_followed_by_the_next(graph: Graph) -> None:
    folders: dict[str, Any] = {name: str(graph.run_dir / name) for name in ("store", "policies")}
    store = EpisodeStore(Path(folders["store"]))
    for _ in range(8):  # of which some are held out
        log_episode(store, task="towers-of-hanoi", policy_id="oracle")
    learner = graph.start("learner", poll=0.05, every=100, **folders)
    waiting = graph.wait("learner/status", lambda s: s["seen"] == {"towers-of-hanoi": 8})
    assert (waiting["state"], waiting["rounds"]) == ("watching", 0)

    second = graph.start("second", "embodied_vision.nodes.learner", wait=False, **folders)
    assert second.wait(30.0)
    assert second.exit_code() == 1
    assert "another learner watches" in second.last_lines()
    assert f"process {learner.pid} on" in second.last_lines()

    learner.send(signal.SIGKILL)
    assert learner.wait(10.0)
    graph.start("learner", poll=0.05, every=100, retry=60.0, **folders)
    graph.client.trigger("learner/learn")
    failed = graph.wait("learner/status", lambda s: s["state"] == "failed")
    assert "no checkpoint of 'towers-of-hanoi' to start from" in failed["error"]

"""The nodes under a lifecycle manager that asks as nav2's does, with its bond off; and two nodes in one process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from PIL import Image

from embodied_vision.errors import RunFailed
from embodied_vision.launching.graph import CAMERA, CELL, GraphConfig
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.nodes.client import GraphClient
from tests.nodes.samples import write_encoder, write_policy
from tests.system.rig import until

pytestmark = [pytest.mark.system, pytest.mark.together]
START_S = 90.0
SERVICE_TIMEOUT_S = 10.0


class Manager:
    """Does what nav2_lifecycle_manager does with `bond_timeout: 0.0`: services alone, one node after the other."""

    def __init__(self, client: GraphClient, nodes: Sequence[str]) -> None:
        self._client = client
        self.nodes = nodes

    def state(self, node: str) -> int:
        answer = self._client._call(GetState, f"{node}/get_state", GetState.Request(), SERVICE_TIMEOUT_S)
        return int(answer.current_state.id)

    def change(self, node: str, transition: int, wanted: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        answer = self._client._call(ChangeState, f"{node}/change_state", request, SERVICE_TIMEOUT_S)
        assert answer.success, f"{node} refused transition {transition}"
        assert self.state(node) == wanted

    def startup(self) -> None:
        for node in self.nodes:
            self.change(node, Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE)
        for node in self.nodes:
            self.change(node, Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)

    def reset(self) -> None:
        for node in reversed(self.nodes):
            self.change(node, Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE)
        for node in reversed(self.nodes):
            self.change(node, Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED)

    def shutdown(self) -> None:
        self.reset()
        for node in reversed(self.nodes):
            self.change(node, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, State.PRIMARY_STATE_FINALIZED)


@pytest.fixture
def surroundings() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((240, 320, 3), 60 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.usefixtures("surroundings")
def test_a_manager_brings_the_nodes_up_and_down_and_up_again_after_a_death(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    config = GraphConfig(
        CAMERA,
        tmp_path / "run",
        parameters={
            "camera": {"source": str(pictures(tmp_path / "pictures")), "resize": True},
            "encoder": {"encoder": str(tmp_path / "encoder")},
            "recorder": {"store": str(tmp_path / "store"), "robot": "none"},
        },
        autostart=False,
    )
    with Supervisor(config) as cell:
        os.environ.update(cell.environment.variables)
        cell.wait_there(START_S)
        assert set(cell.states.values()) == {"unconfigured"}
        with GraphClient(domain_id=cell.domain) as client:
            manager = Manager(client, ("recorder", "encoder", "camera"))
            client.watch("encoder/status")
            manager.startup()
            client.wait("encoder/status", lambda said: said["encoded"] > 3, 30.0)
            manager.reset()
            assert all(manager.state(node) == State.PRIMARY_STATE_UNCONFIGURED for node in manager.nodes)
            time.sleep(0.5)
            count = client.messages("encoder/status")[-1]["encoded"]
            time.sleep(1.0)
            assert client.messages("encoder/status")[-1]["encoded"] == count, "nothing goes on after a reset"
            manager.startup()
            cell.wait_active(30.0)

            cell.kill("encoder")
            until(lambda: "restarted" in [e.kind for e in cell.events if e.node == "encoder"], 30, "the restart")
            until(lambda: _there(manager, "encoder"), 30, "it answers")
            assert manager.state("encoder") == State.PRIMARY_STATE_UNCONFIGURED, "it waits for its manager"
            manager.change("encoder", Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE)
            manager.change("encoder", Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)
            cell.wait_active(10.0)

            manager.shutdown()
            assert set(cell.pids) == {"recorder", "encoder", "camera"}, "they end with their supervisor"
            assert cell.failure is None


def _there(manager: Manager, node: str) -> bool:
    try:
        return manager.state(node) > 0
    except RunFailed:
        return False


@pytest.mark.usefixtures("surroundings")
def test_encoder_and_policy_in_one_process_decide_and_come_back_together(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    write_policy(tmp_path / "policy", encoder.encoder_id)
    names = ("cell", "encoder", "policy")
    where = str(tmp_path / "encoder")
    parameters: Mapping[str, Mapping[str, Any]] = {
        "cell": {"camera_rate": 3.0},
        "encoder": {"encoder": where},
        "policy": {"encoder": where, "checkpoint": str(tmp_path / "policy"), "timeout": 20.0},
    }
    nodes = tuple(node for node in CELL if node.name in names)
    config = GraphConfig(nodes, tmp_path / "run", "left", parameters=parameters, use_composition=True)
    with Supervisor(config) as cell:
        os.environ.update(cell.environment.variables)
        cell.wait_active(START_S)
        pids = cell.pids
        assert pids["encoder"] == pids["policy"] != pids["cell"]
        with GraphClient("left", cell.domain) as client:
            client.trigger("cell/reset")
            assert client.trigger("policy/predict", 40.0), "features and frames meet in the policy"
            cell.kill("policy")
            restarted = [(node, "restarted") for node in ("encoder", "policy")]
            until(lambda: set(restarted) <= {(e.node, e.kind) for e in cell.events}, 30, "both are started again")
            cell.wait_active(START_S)
            assert cell.pids["encoder"] == cell.pids["policy"] != pids["policy"]
            assert client.trigger("policy/predict", 40.0)
        assert cell.failure is None

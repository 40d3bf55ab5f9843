"""Two cells in one ROS domain, told apart by their namespaces alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.graph import CELL, GraphConfig
from embodied_vision.launching.run_status import read_status
from embodied_vision.launching.supervisor import Supervisor
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from tests.system.rig import until

pytestmark = pytest.mark.system
START_S = 120.0
SIDES = ("left", "right")


def config(side: str, folder: Path, domain: int) -> GraphConfig:
    """Cell, arm and recorder; each side has a scene of its own."""
    return GraphConfig(
        tuple(node for node in CELL if node.name in ("cell", "arm", "recorder")),
        folder / side,
        side,
        parameters={
            "cell": {"camera_rate": 3.0, "seed": 2000000 + SIDES.index(side)},
            "arm": {"upstream": ["recorder"]},
            "recorder": {"store": str(folder / f"store_{side}")},
        },
        domain=domain,
    )


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Supervisor, GraphClient]]]:
    folder = tmp_path_factory.mktemp("cells")
    before = dict(os.environ)
    with hold_free_domain(range(60, 102)) as lock:
        domain = lock.domain
    with ExitStack() as stack:
        running = {side: stack.enter_context(Supervisor(config(side, folder, domain))) for side in SIDES}
        os.environ.update(running["left"].environment.variables)
        for cell in running.values():
            cell.wait_active(START_S)
        yield {side: (cell, stack.enter_context(GraphClient(side, domain))) for side, cell in running.items()}
    os.environ.clear()
    os.environ.update(before)


Cells = dict[str, tuple[Supervisor, GraphClient]]


def test_a_second_run_in_the_same_namespace_is_refused(cells: Cells, tmp_path: Path) -> None:
    domain = cells["left"][0].domain
    with (
        pytest.raises(BadInput, match="namespace /left is held by another"),
        Supervisor(config("left", tmp_path, domain)),
    ):
        pass


def test_each_records_its_own_scene_into_its_own_store(cells: Cells) -> None:
    for cell, client in cells.values():
        del cell
        client.trigger("cell/reset")
        client.trigger("recorder/start")
    time.sleep(3.0)
    colors = {}
    for side, (cell, client) in cells.items():
        client.trigger("recorder/stop")
        store = EpisodeStore(cell.run_dir.parent / f"store_{side}")
        until(lambda store=store: store.ids(), 20, "the episode")
        (episode,) = [store.open(name) for name in store.ids()]
        frames = episode.frames("camera")
        assert (np.diff(frames.stamps_ns) > 0.2e9).all(), "frames of one camera alone"
        colors[side] = frames.color(len(frames) - 1).astype(int)
    assert np.abs(colors["left"] - colors["right"]).max() > 50, "two scenes"


def test_a_stop_on_one_side_leaves_the_other_alone(cells: Cells) -> None:
    (_, left), (_, right) = cells["left"], cells["right"]
    for client in (left, right):
        client.watch("arm/status")
    left.trigger("arm/stop")
    left.wait("arm/status", lambda said: said["state"] == "stopped", 10.0)
    time.sleep(1.0)
    assert right.messages("arm/status")[-1]["state"] == "idle"
    left.trigger("arm/resume")
    left.wait("arm/status", lambda said: said["state"] == "idle", 10.0)


def test_a_death_on_one_side_is_no_event_of_the_other(cells: Cells) -> None:
    (left, left_client), (right, right_client) = cells["left"], cells["right"]
    healths: dict[str, DiagnosticStatus] = {}
    for side, client in (("left", left_client), ("right", right_client)):
        client.node.create_subscription(
            DiagnosticStatus, "health", lambda m, side=side: healths.__setitem__(side, m), qos.STATUS
        )
    until(lambda: len(healths) == 2 and all(h.level == b"\0" for h in healths.values()), 20, "both are well")
    assert {healths[side].name for side in SIDES} == {"/left/health", "/right/health"}
    until(lambda: read_status(left.run_dir).level == "ok", 10, "the file says so as well")
    before = len(right.events)
    left.kill("recorder")
    until(lambda: healths["left"].level != b"\0", 10, "the left one is not well")
    assert "recorder" in healths["left"].message
    assert healths["right"].level == b"\0"
    left.wait_active(START_S)
    until(lambda: healths["left"].level == b"\0", 20, "it is well again")
    assert right.events[before:] == (), "the right one noticed nothing"

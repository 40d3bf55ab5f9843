"""The whole cell at work while its processes die one after the other: it stops, comes back and loses no episode."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.launching.graph import CELL, PARAMETERS
from tests.system.rig import START_S, Rig, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
TASK = "block-insertion"
FIRST_SEED = 2_000_000
STANDS_S = 0.5
"""The arm must stand still so long after a node or the camera has gone."""

FAILS_S = 1.0
"""Time that a recorder may take to notice a full disk and to end."""

RECOVERY_S = 120.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("episodes")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Rig]:
    """A cell that works on one scene after the other until the end of the module."""
    parameters: dict[str, dict[str, Any]] = {
        "recorder": {"store": str(store)},
        "task": {"task": TASK, "first_seed": FIRST_SEED, "scenes": 100, "retries": 10},
    }
    options: dict[str, Any] = {"params_files": (PARAMETERS,), "restarts": 10}
    with Rig(tmp_path_factory.mktemp("cell"), CELL, parameters, **options) as rig:
        rig.cell.wait_active(START_S)
        rig.wait_joined()
        rig.client.watch("episode/event")
        rig.client.trigger("task/run")
        yield rig


def carries(rig: Rig) -> bool:
    """Whether the arm is on its way with an object or to one, not yet on the way home."""
    status = rig.status("arm/status")
    return status.get("state") == "moving" and rig.status("task/status").get("phase") == "executing"


def wait_at_work(rig: Rig) -> int:
    """Wait until the arm moves at speed in a fresh motion; how many scenes are through."""
    until(lambda: rig.status("task/status").get("phase") == "deciding", RECOVERY_S, "a decision")
    until(lambda: carries(rig), RECOVERY_S, "the arm to carry out a decision")
    rig.wait_moving()
    return int(rig.status("task/status")["through"])


def wait_goes_on(rig: Rig, through: int) -> None:
    """Wait until the scene that was interrupted has been done."""
    until(lambda: rig.status("task/status")["through"] > through, RECOVERY_S, "the scene to be done after all")


@pytest.mark.parametrize("victim", ["encoder", "policy", "recorder"])
def test_the_arm_stands_and_work_goes_on_after_a_node_is_killed(rig: Rig, victim: str) -> None:
    through = wait_at_work(rig)
    rig.cell.kill(victim)
    assert rig.still_after_s(time.time_ns()) <= STANDS_S
    rig.cell.wait_active(START_S)
    wait_goes_on(rig, through)
    kinds = [event.kind for event in rig.cell.events if event.node == victim]
    assert "restarted" in kinds


def test_the_arm_stands_and_work_goes_on_after_the_camera_falls_silent(rig: Rig) -> None:
    through = wait_at_work(rig)
    rig.client.set_parameters("cell", {"camera_enabled": False})
    assert rig.still_after_s(time.time_ns()) <= STANDS_S
    rig.client.set_parameters("cell", {"camera_enabled": True})
    wait_goes_on(rig, through)


def test_the_arm_stands_when_the_disk_takes_no_more_and_nothing_of_the_episode_is_lost(rig: Rig, store: Path) -> None:
    through = wait_at_work(rig)
    pid, before = rig.cell.pids["recorder"], rig.status("recorder/status")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, 1))  # the next write fails, as on a full disk
    assert rig.still_after_s(time.time_ns()) <= STANDS_S + FAILS_S
    until(lambda: "recorder" not in rig.cell.pids or rig.cell.pids["recorder"] != pid, 20, "the recorder to end")
    level, message = rig.health["recorder"]
    rig.cell.wait_active(START_S)
    wait_goes_on(rig, through)
    cut = EpisodeStore(store).open(before["episode"])
    assert cut.outcome["interrupted"] is True
    assert len(cut.frames("camera")) >= before["episode_frames_logged"]
    assert (level, "cannot be written" in message, str(store) in message) == (b"\x02", True, True), message


def test_an_arm_that_was_killed_stands_and_comes_back_stopped_until_it_is_released(rig: Rig) -> None:
    through = wait_at_work(rig)
    rig.cell.kill("arm")
    assert rig.still_after_s(time.time_ns()) <= STANDS_S
    rig.cell.wait_active(START_S)
    assert rig.wait_arm(lambda status: status["state"] == "stopped", 20)["state"] == "stopped"
    rig.client.trigger("arm/resume")
    wait_goes_on(rig, through)


def test_no_episode_was_lost_or_is_wrong(rig: Rig, store: Path) -> None:
    def begun() -> int:
        return sum(event["event"] == "start" for event in rig.client.messages("episode/event"))

    rig.client.trigger("task/cancel")
    until(lambda: rig.status("task/status")["state"] == "failed", 60, "the run to end")
    opened = EpisodeStore(store)
    until(lambda: len(opened.ids()) == begun() and not opened.staging_ids(), 30, "every episode to be in the store")
    assert all(report.ok for report in verify(opened))
    episodes = {episode_id: opened.open(episode_id) for episode_id in opened.ids()}
    results = rig.status("task/status")["results"]
    assert len(results) >= 5
    for result in results:
        episode = episodes[result["episode"]]
        assert episode.outcome["solved"] == result["solved"]
        assert [decision.action.decision_id for decision in episode.decisions] == list(result["decisions"])
        assert episode.attributes["seed"] == result["seed"]
    assert len(episodes) == begun(), "every episode that was begun is there, whole or marked as interrupted"
    finished = {result["episode"] for result in results}
    for episode_id, episode in episodes.items():
        if episode_id not in finished:
            assert episode.outcome.get("aborted") or episode.outcome.get("interrupted")

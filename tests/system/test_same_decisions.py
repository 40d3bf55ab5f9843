"""The shipped policy decides through ROS exactly as in the evaluation: same scenes, same frames, same actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.launching.graph import CELL, PARAMETERS
from embodied_vision.learning.evaluate import evaluate
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.paths import shipped
from embodied_vision.types import PickPlace
from tests.system.rig import START_S, Rig, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
TASK = "block-insertion"
SCENES = 3
SECONDS_A_SCENE = 40.0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the task node says of each scene, and under `first` its first logged decision."""
    store = tmp_path_factory.mktemp("episodes")
    parameters: dict[str, dict[str, Any]] = {
        "recorder": {"store": str(store)},
        "task": {"task": TASK, "first_seed": scene_seed("test", 0), "scenes": SCENES},
    }
    with Rig(tmp_path_factory.mktemp("cell"), CELL, parameters, params_files=(PARAMETERS,)) as rig:
        rig.cell.wait_active(START_S)
        rig.wait_joined()
        rig.client.trigger("task/run")
        ended = ("finished", "failed")
        until(lambda: rig.status("task/status")["state"] in ended, SECONDS_A_SCENE * SCENES, "the end of the run")
        assert rig.status("task/status")["state"] == "finished", rig.status("task/status")["error"]
        through = list(rig.status("task/status")["results"])
    return [{**result, "first": first_action(store, result["episode"])} for result in through]


def first_action(store: Path, episode_id: str) -> PickPlace:
    return EpisodeStore(store).open(episode_id).decisions[0].action


def test_blocks_are_placed_through_the_whole_graph(results: list[dict[str, Any]]) -> None:
    assert len(results) == SCENES
    assert sum(result["solved"] for result in results) >= SCENES - 1


def test_first_decisions_are_those_of_the_direct_evaluation(results: list[dict[str, Any]]) -> None:
    direct = evaluate(TASK, shipped(TASK), [result["seed"] for result in results])
    for live, offline in zip(results, direct, strict=True):
        wanted = PickPlace.from_dict(offline.actions[0])
        assert np.array_equal(live["first"].pick, wanted.pick), f"seed {live['seed']}"
        assert np.array_equal(live["first"].place, wanted.place), f"seed {live['seed']}"

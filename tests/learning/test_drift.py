"""The watch is quiet while nothing changes, speaks up when something does, and says which episodes show it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.cores import use_cores
from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning import drift_known
from embodied_vision.learning.dataset import load_dataset
from embodied_vision.learning.drift import Bets, Falls, Watch
from embodied_vision.learning.drift_check import check
from embodied_vision.learning.drift_known import Known, Reference
from embodied_vision.learning.drift_report import look, plot
from tests.block_world import TASK, WORKSPACE, Cell, PatchEncoder

EYES: Encoder = PatchEncoder()


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> None:
    use_cores(1)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    return Cell(EpisodeStore(tmp_path_factory.mktemp("drift") / "store"))


@pytest.fixture(scope="module")
def known(cell: Cell) -> Known:
    ids = [cell.episode([True]) for _ in range(24)]
    dataset = load_dataset(cell.store, TASK, EYES, WORKSPACE, episode_ids=ids)
    actions = [cell.store.open(episode_id).decisions.action(0) for episode_id in dataset.episode_ids]
    return Known.of(dataset, actions, "abc")


def test_p_values_of_what_is_usual_are_usual() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(20, 20))
    p = []
    for _ in range(20):
        found = Reference.fit(rng.normal(size=(80, 20)) @ mix, [str(i) for i in range(80)])
        p += [found.p_value(vector) for vector in rng.normal(size=(40, 20)) @ mix]
    for alpha in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= alpha) == pytest.approx(alpha, abs=0.04)
    assert found.p_value(np.full(20, 1e6)) == pytest.approx(1 / 41)
    assert found.p_value(np.full(20, np.nan)) == pytest.approx(1 / 41)


def test_what_never_varied_is_noticed_when_it_does() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3)) * [1, 1, 0]
    found = Reference.fit(values, [str(i) for i in range(40)])
    assert found.p_value([0, 0, 0]) > 0.2
    assert found.p_value([0, 0, 1]) == pytest.approx(1 / 21)


def test_too_little_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput, match="3 episodes"):
        Reference.fit(np.zeros((30, 2)), ["a", "b", "c"] * 10)
    values = np.zeros((20, 2))
    values[7] = np.nan
    with pytest.raises(BadInput, match="e7"):
        Reference.fit(values, [f"e{i}" for i in range(20)])
    with pytest.raises(BadInput, match="3 numbers, known are 2"):
        Reference.fit(np.zeros((20, 2)), [str(i) for i in range(20)]).p_value([1, 2, 3])


def test_false_alarms_are_as_rare_as_promised_and_changes_are_found() -> None:
    found = {each.channel: each for each in check(streams=6, length=300, episodes=60, dimension=24)}
    for name, each in found.items():
        assert each.false_per_1000.value <= 2.0, name
        assert each.detected.value == 1.0, name
        assert each.delay < 100, name


def test_an_alarm_names_the_episodes_since_the_change() -> None:
    bets = Bets("scene")
    for number in range(50):
        assert bets.update(1.0, f"calm-{number}/0") is None
    alarms = [alarm for number in range(20) if (alarm := bets.update(0.01, f"new-{number}/0"))]
    assert alarms
    assert alarms[0].episodes[0] == "new-0"
    assert all(name.startswith("new") for name in alarms[0].episodes)
    for p in (0.0, -1.0, 2.0, math.nan):
        with pytest.raises(BadInput, match="p value"):
            bets.update(p, "x")


def test_only_falls_of_outcomes_give_an_alarm() -> None:
    def alarms(values: list[float]) -> int:
        falls = Falls("outcome")
        return sum(falls.update(value, str(i)) is not None for i, value in enumerate(values))

    assert alarms([0.0] * 60 + [1.0] * 60) == 0
    assert alarms([1.0] * 60 + [0.0] * 60) == 1
    assert alarms([1.0] * 200) == 0
    assert alarms([math.nan] * 200) == 0


def test_another_light_is_noticed_in_logged_episodes(cell: Cell, known: Known, tmp_path: Path) -> None:
    usual = [cell.episode([True], scores={"pick": 0.9, "place": 0.8}) for _ in range(6)]
    calm = look(cell.store, known, EYES, WORKSPACE, patience=200)
    assert (calm.episodes, calm.alarms) == (6, [])
    dim = [cell.episode([True], light=0.6) for _ in range(12)]
    found = look(cell.store, known, EYES, WORKSPACE, patience=200)
    assert {alarm.channel for alarm in found.alarms} == {"scene"}
    alarm = found.alarms[0]
    assert set(alarm.episodes) <= {*dim, usual[-1]}
    assert alarm.episodes[-1] in dim
    assert {point.values["score"] for point in found.points if "score" in point.values} == {0.8}
    json.dumps(found.to_dict(), allow_nan=False)
    plot(found, "drift", tmp_path / "drift.png")
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")


def test_features_that_are_no_numbers_are_as_unusual_as_can_be(cell: Cell, known: Known, tmp_path: Path) -> None:
    other = Cell(EpisodeStore(tmp_path))
    other.episode([True])
    found = look(other.store, known, PatchEncoder(broken=True), WORKSPACE)
    assert found.points[0].values["scene"] == pytest.approx(1 / (len(known.scenes.distances) + 1))


def test_a_damaged_episode_is_told_of(known: Known, tmp_path: Path) -> None:
    other = Cell(EpisodeStore(tmp_path))
    broken, _ = other.episode([True]), other.episode([True])
    (other.store.folder(broken) / "manifest.json").write_text("{")
    found = look(other.store, known, EYES, WORKSPACE)
    assert (found.episodes, len(found.damaged)) == (1, 1)


def test_an_empty_store_gives_no_point_and_another_encoder_is_refused(known: Known, tmp_path: Path) -> None:
    empty = EpisodeStore(tmp_path / "nowhere")
    assert look(empty, known, EYES, WORKSPACE).to_dict()["decisions"] == 0
    with pytest.raises(BadInput, match="patches-2"):
        look(empty, known, PatchEncoder(encoder_id="patches-2"), WORKSPACE)


def test_what_is_known_comes_back_from_the_disk_and_is_refused_when_cut_short(known: Known, tmp_path: Path) -> None:
    folder = tmp_path / "p.known"
    drift_known.save(known, folder)
    again = drift_known.load(folder)
    assert (again.checkpoint_id, again.encoder_id, tuple(again.episodes)) == ("abc", "patches-1", known.episodes)
    probe = known.scenes.mean + 0.1
    assert again.scenes.distance(probe) == known.scenes.distance(probe)
    for name in ("model.safetensors", "manifest.json"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(CheckpointError, match=name):
            drift_known.load(folder)
        (folder / name).write_bytes(data)


def test_a_watch_without_patience_is_refused() -> None:
    with pytest.raises(BadInput, match="patience"):
        Watch(1.0)

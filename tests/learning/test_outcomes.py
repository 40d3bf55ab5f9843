"""Outcomes are told from what is seen, with probabilities that hold, and nothing is said where nothing can be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.cores import use_cores
from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.edit import change_attribute, relabel
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.trim import trim_stamps
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning import outcomes
from embodied_vision.learning.outcomes import Classifier, OutcomeConfig
from embodied_vision.learning.outcomes_judge import Judge, label
from embodied_vision.learning.outcomes_views import Transition, earned, logged, part_of, transitions
from embodied_vision.learning.seeds import scene_seed
from tests.block_world import TASK, WORKSPACE, Cell, PatchEncoder, action, frame

EYES: Encoder = PatchEncoder()
CONFIG = OutcomeConfig(steps=60, batch=8)


def _read(store: EpisodeStore, encoder: Encoder = EYES, cache: Path | None = None) -> dict[str, list[Transition]]:
    parts: dict[str, list[Transition]] = {"fit": [], "calibrate": [], "held-out": []}
    for episode, found in logged(store, TASK, encoder, WORKSPACE, cache):
        parts[part_of(episode)] += found
    return parts


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> None:
    use_cores(1)


@pytest.fixture(scope="module")
def practised(tmp_path_factory: pytest.TempPathFactory) -> tuple[EpisodeStore, dict[str, list[Transition]]]:
    """Six moves a scene, of which any may fail; scenes of all three splits."""
    store = EpisodeStore(tmp_path_factory.mktemp("outcomes") / "store")
    cell = Cell(store)
    for index in range(10):
        cell.episode(list(cell.rng.uniform(size=6) < 0.5), seed=scene_seed("train", index))
    for split in ("validation", "test"):
        for index in range(4):
            cell.episode(list(cell.rng.uniform(size=6) < 0.5), seed=scene_seed(split, index))  # type: ignore[arg-type]
    return store, _read(store, cache=store.path / "cache")


@pytest.fixture(scope="module")
def classifier(practised: tuple[EpisodeStore, dict[str, list[Transition]]]) -> Classifier:
    parts = practised[1]
    return outcomes.fit(TASK, EYES, WORKSPACE, parts["fit"], parts["calibrate"], CONFIG)


def test_held_out_outcomes_are_told(
    practised: tuple[EpisodeStore, dict[str, list[Transition]]], classifier: Classifier
) -> None:
    measured = Judge(classifier, EYES).measure(practised[1]["held-out"])
    assert measured.outcomes >= 20
    assert measured.accuracy.value > 0.9
    assert measured.auc > 0.95
    assert measured.reliability.brier < 0.1
    assert sum(each.count for each in measured.reliability.bins) == measured.outcomes


def test_the_same_data_and_seed_give_the_same_classifier(
    practised: tuple[EpisodeStore, dict[str, list[Transition]]],
) -> None:
    parts, short = practised[1], replace(CONFIG, steps=3)
    one, other = (
        outcomes.fit(TASK, EYES, WORKSPACE, parts["fit"], parts["calibrate"], short).classifier_id for _ in range(2)
    )
    assert one == other


def test_it_comes_back_from_the_disk_as_it_was(classifier: Classifier, tmp_path: Path) -> None:
    assert outcomes.save(classifier, tmp_path / "judge") == classifier.classifier_id
    found = outcomes.load(tmp_path / "judge")
    assert found.classifier_id == classifier.classifier_id
    seen = frame([(0.5, 0.1)], 2)
    act = action((0.5, 0.0), (0.5, 0.1), 1)
    said = [Judge(each, EYES).judge([frame([(0.5, 0.0)], 1)], [seen], act) for each in (classifier, found)]
    assert said[0] == said[1]


def test_another_encoder_is_refused(classifier: Classifier) -> None:
    with pytest.raises(CheckpointError, match="patches-2"):
        Judge(classifier, PatchEncoder(encoder_id="patches-2"))


def test_features_that_are_no_numbers_leave_it_unsure(classifier: Classifier) -> None:
    broken: Encoder = PatchEncoder(broken=True)
    before, after = [frame([(0.5, 0.0)], 1)], [frame([(0.5, 0.1)], 2)]
    said = Judge(classifier, broken).judge(before, after, action((0.5, 0.0), (0.5, 0.1), 1))
    assert said.word == "unsure"
    assert math.isnan(said.probability)
    assert said.to_dict()["probability"] is None
    assert "not finite" in said.reason


def test_what_is_not_seen_leaves_it_unsure(classifier: Classifier) -> None:
    """Picks and places beyond the map, by a little, by far, and by what is no number."""
    before, after = [frame([(0.5, 0.0)], 1)], [frame([(0.5, 0.1)], 2)]
    for place in ((0.76, 0.1), (5.0, 9.0), (math.nan, 0.0)):
        act = action((0.5, 0.0), (0.5, 0.1), 1)
        act.place[:2, 3] = place
        assert Judge(classifier, EYES).judge(before, after, act).word == "unsure", place


def test_outcomes_of_one_kind_and_too_few_are_refused(
    practised: tuple[EpisodeStore, dict[str, list[Transition]]],
) -> None:
    parts = practised[1]
    alike = [t for t in (*parts["fit"], *parts["held-out"]) if t.succeeded]
    with pytest.raises(BadInput, match=r"all \d+ outcomes to learn from are successes"):
        outcomes.fit(TASK, EYES, WORKSPACE, alike, parts["calibrate"], CONFIG)
    failed = [t for t in (*parts["calibrate"], *parts["held-out"]) if not t.succeeded]
    with pytest.raises(BadInput, match=r"all \d+ outcomes to calibrate on are failures"):
        outcomes.fit(TASK, EYES, WORKSPACE, parts["fit"], failed, replace(CONFIG, steps=2))
    with pytest.raises(BadInput, match="5 known outcomes"):
        outcomes.fit(TASK, EYES, WORKSPACE, parts["fit"][:5], parts["calibrate"], CONFIG)
    with pytest.raises(BadInput, match="a scene is in"):
        outcomes.fit(TASK, EYES, WORKSPACE, parts["fit"], parts["fit"], CONFIG)
    with pytest.raises(BadInput, match="0 known outcomes"):
        outcomes.fit(TASK, EYES, WORKSPACE, [], [], CONFIG)


def test_an_empty_store_has_nothing_to_read(tmp_path: Path) -> None:
    assert _read(EpisodeStore(tmp_path / "nowhere")) == {"fit": [], "calibrate": [], "held-out": []}


def test_what_broken_features_made_is_not_learnt_from(tmp_path: Path) -> None:
    cell = Cell(EpisodeStore(tmp_path))
    for _ in range(2):
        cell.episode([True, False])
    found = _read(cell.store, PatchEncoder(broken=True))
    assert sum(map(len, found.values())) == 4
    with pytest.raises(BadInput, match="0 known outcomes"):
        outcomes.fit(TASK, EYES, WORKSPACE, [t for part in found.values() for t in part], [], CONFIG)


def test_no_scene_is_in_two_parts(practised: tuple[EpisodeStore, dict[str, list[Transition]]]) -> None:
    scenes = [{t.scene for t in part} for part in practised[1].values()]
    assert all(scenes)
    assert not scenes[0] & scenes[1]
    assert not scenes[0] & scenes[2]
    assert not scenes[1] & scenes[2]


@pytest.mark.parametrize("succeeds", [[True, False, True], [False, False], [True], [True, True]])
def test_rewards_of_a_score_so_far_are_told_apart(tmp_path: Path, succeeds: list[bool]) -> None:
    store = EpisodeStore(tmp_path)
    episode = store.open(Cell(store).episode(succeeds))
    share = 1 / len(succeeds)
    assert earned(episode) == pytest.approx([share if good else 0.0 for good in succeeds])


def test_what_nobody_judged_is_unknown(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode = store.open(Cell(store).episode([True, False], reward=False))
    assert earned(episode) == [None, None]
    assert [t.succeeded for t in transitions(episode, EYES, WORKSPACE)] == [None, None]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ([1, 0], [1.0, 0.0]),
        ([1], [None, None]),
        ([1, True], [None, None]),
        ("no", [None, None]),
        ([1, "x"], [None, None]),
    ],
)
def test_what_an_operator_says_of_each_action_counts(tmp_path: Path, said: object, read: list[float | None]) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = Cell(store).episode([True, False], reward=False)
    relabel(store, episode_id, {"earned": said})
    assert earned(store.open(episode_id)) == read


def test_the_cache_says_the_same_and_may_be_damaged(tmp_path: Path) -> None:
    store, cache = EpisodeStore(tmp_path / "store"), tmp_path / "cache"
    episode = store.open(Cell(store).episode([True, False]))
    fresh = transitions(episode, EYES, WORKSPACE, cache)
    (path,) = cache.rglob("*.safetensors")
    for size in (None, 40, 0):
        if size is not None:
            path.write_bytes(path.read_bytes()[:size])
        again = transitions(episode, EYES, WORKSPACE, cache)
        for one, other in zip(fresh, again, strict=True):
            assert np.array_equal(one.view.geometry, other.view.geometry)
            assert np.array_equal(one.view.features, other.view.features)


def test_a_real_cells_episode_gets_its_outcome(classifier: Classifier, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    decided = Judge(replace(classifier, sure=0.5), EYES)
    for succeeds, solved, reward in (([True, True], True, 1.0), ([False, True], False, 0.5)):
        episode = store.open(Cell(store).episode(succeeds, reward=False))
        assert label(store, episode, decided) == store.open(episode.id).outcome
        outcome = store.open(episode.id).outcome
        words = [entry["word"] for entry in outcome["judged"]["decisions"]]
        assert words == ["success" if good else "failure" for good in succeeds]
        assert outcome["judged"]["classifier"] == decided.classifier.classifier_id
        assert (outcome["solved"], outcome["reward"]) == (solved, reward)


def test_an_action_that_is_left_open_leaves_the_episode_open(classifier: Classifier, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode = store.open(Cell(store).episode([True, True], reward=False))
    outcome = label(store, episode, Judge(replace(classifier, sure=1 - 1e-12), EYES))
    assert (outcome["judged"]["unsure"], "solved" in outcome) == (2, False)


def test_what_the_arm_did_not_begin_does_not_count(classifier: Classifier, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = Cell(store).episode([False, False], reward=False)
    change_attribute(store, episode_id, DECISIONS_BEGUN, lambda _: [])
    outcome = label(store, store.open(episode_id), Judge(classifier, EYES))
    judged = outcome["judged"]
    assert [entry["word"] for entry in judged["decisions"]] == ["unsure", "unsure"]
    assert "begin" in judged["decisions"][0]["reason"]
    assert (judged["failures"], judged["unsure"]) == (0, 0)
    assert "solved" not in outcome


def test_what_a_simulator_said_stays(classifier: Classifier, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode = store.open(Cell(store).episode([True], outcome={"reward": 0.25, "solved": False}))
    label(store, episode, Judge(classifier, EYES))
    outcome = store.open(episode.id).outcome
    assert (outcome["reward"], outcome["solved"]) == (0.25, False)
    assert len(outcome["judged"]["decisions"]) == 1


def test_a_decision_with_no_frame_after_it_is_left_open(classifier: Classifier, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode = store.open(Cell(store).episode([True, True], reward=False))
    last = int(episode.decisions.stamps_ns[1])
    trim_stamps(store, episode.id, None, last + 1)
    said = Judge(replace(classifier, sure=0.5), EYES).episode(store.open(episode.id))
    assert [said[0].word, said[1].word] == ["success", "unsure"]
    assert "no frame" in said[1].reason

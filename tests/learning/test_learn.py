"""A round of learning takes what is new, replays what is old, and promotes only what does no worse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policies.stubs import TINY, StubEncoder, frame, random_checkpoint

from embodied_vision import geometry
from embodied_vision.episodes.edit import change_attribute
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, CheckpointError, RunFailed
from embodied_vision.learning import decide as deciding
from embodied_vision.learning import learn as learning
from embodied_vision.learning.decide import Outcome
from embodied_vision.learning.evaluate import SceneResult
from embodied_vision.learning.gate import Cost
from embodied_vision.learning.holdout import is_held_out
from embodied_vision.learning.learn import learn
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.lessons import note
from embodied_vision.learning.promotion import Pointer
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.types import PickPlace

TASK = "block-insertion"
CONFIG = LearnConfig(steps=1, scenes=5, margin=0.5, holdout=0.0, threads=1)


def log_episode(store: EpisodeStore, *, reward: float = 1.0, seed: int | None = 5, task: str = TASK) -> str:
    shot = frame(1)
    attributes: dict[str, Any] = {} if seed is None else {"seed": seed}
    writer = EpisodeWriter(store, task=task, robot="panda_suction", cameras=[shot.camera], attributes=attributes)
    action = PickPlace(
        geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4), stamp_ns=shot.stamp_ns
    )
    writer.append_decision(action, [shot])
    return writer.close({"reward": reward, "solved": reward >= 1.0})


@pytest.fixture(autouse=True)
def costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured of a decision's time has tests of its own."""
    monkeypatch.setattr(deciding, "cost", lambda *_: (Cost(1.0, 1), Cost(1.0, 1)))


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    """A folder of policies in which learning has begun."""
    pointer = Pointer(tmp_path / "policies", TASK)
    pointer.promote(pointer.add(random_checkpoint("", config=TINY)).name, "start")
    return pointer


def round_of(
    pointer: Pointer,
    store: EpisodeStore,
    monkeypatch: pytest.MonkeyPatch,
    *,
    candidate: Sequence[float] = (1, 1, 1, 1, 1),
    baseline: Sequence[float] = (1, 1, 1, 1, 1),
    config: LearnConfig = CONFIG,
) -> Outcome:
    """One round, with the rewards that candidate and baseline shall get on the validation scenes."""
    in_use = pointer.current
    asked: list[list[int]] = []

    def measured(task: str, folder: Path, seeds: Sequence[int], **_: Any) -> list[SceneResult]:
        asked.append(list(seeds))
        rewards = baseline if folder.name == in_use else candidate
        return [SceneResult(seed, reward, reward == 1, 1) for seed, reward in zip(seeds, rewards, strict=True)]

    monkeypatch.setattr(deciding, "evaluate", measured)
    outcome = learn(TASK, store, pointer.folder.parent, config)
    assert all(seeds == asked[0] for seeds in asked)
    assert all(1_000_000 <= seed < 2_000_000 for seeds in asked for seed in seeds)
    return outcome


def test_a_candidate_that_does_no_worse_is_promoted_and_its_episodes_are_known(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    first = log_episode(store)
    before = pointer.current
    outcome = round_of(pointer, store, monkeypatch)
    assert (outcome.decision, outcome.baseline, outcome.new_episodes) == ("promoted", before, (first,))
    assert (pointer.current, pointer.former) == (outcome.candidate, before)
    manifest = checkpoints.read_manifest(pointer.folder / "current")
    assert manifest["training"]["episodes"] == [first]
    assert manifest["training"]["parent"] == before

    second = log_episode(store)
    again = round_of(pointer, store, monkeypatch)
    assert (again.new_episodes, again.replayed) == ((second,), 1)
    assert round_of(pointer, store, monkeypatch).reason.startswith("no new solved or corrected episode")


def test_a_worse_candidate_is_refused_and_says_by_how_much(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store)
    before = pointer.current
    outcome = round_of(pointer, store, monkeypatch, candidate=(1, 0, 0, 1, 1))
    assert (outcome.decision, pointer.current) == ("refused", before)
    assert "0 won, 2 lost on 5 validation scenes" in outcome.reason
    assert outcome.differences[0].difference == -40.0
    assert pointer.history()[-1]["event"] == "refused"
    assert pointer.history()[-1]["gate"] == json.loads(json.dumps(outcome.gate))


def test_a_candidate_that_wins_some_and_loses_some_is_refused(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store)
    outcome = round_of(pointer, store, monkeypatch, candidate=(1, 0, 0, 1, 1), baseline=(0, 1, 1, 1, 1))
    assert outcome.decision == "refused"
    assert "may be worse" in outcome.reason


@pytest.mark.parametrize(
    "episode", [{"reward": 0.5}, {"seed": 1_000_003}, {"seed": 2_000_003}, {"task": "place-red-in-green"}]
)
def test_failed_runs_other_tasks_and_held_out_scenes_teach_nothing(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, episode: dict[str, Any]
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store, **episode)
    outcome = round_of(pointer, store, monkeypatch)
    assert (outcome.decision, outcome.candidate) == ("refused", None)


def test_episodes_of_a_real_cell_have_no_seed_and_teach(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store, seed=None)
    assert round_of(pointer, store, monkeypatch).decision == "promoted"


def test_a_policy_of_another_encoder_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointer = Pointer(tmp_path / "policies", TASK)
    pointer.promote(pointer.add(random_checkpoint("dino-7")).name, "start")
    store = EpisodeStore(tmp_path / "store")
    log_episode(store)
    monkeypatch.setattr(learning, "load_encoder", lambda name: StubEncoder())
    with pytest.raises(CheckpointError, match=r"dino-7.*stub-1"):
        learn(TASK, store, pointer.folder.parent, CONFIG)
    assert not (store.path / "cache").exists()
    assert len(list((pointer.folder / "checkpoints").iterdir())) == 1


def test_a_task_without_any_checkpoint_is_refused(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store, task="towers-of-hanoi")
    with pytest.raises(BadInput, match="no checkpoint of 'towers-of-hanoi'"):
        learn("towers-of-hanoi", store, tmp_path / "policies", CONFIG)


def test_held_out_episodes_teach_nothing_and_are_told_by_their_id(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    ids = [log_episode(store) for _ in range(4)]
    config = replace(CONFIG, holdout=0.5)
    held_out = [episode_id for episode_id in ids if is_held_out(episode_id, 0.5)]
    outcome = round_of(pointer, store, monkeypatch, config=config)
    assert set(outcome.new_episodes) == set(ids) - set(held_out)
    share = sum(is_held_out(f"episode-{i}", 0.2) for i in range(5000)) / 5000
    assert share == pytest.approx(0.2, abs=0.02)


def test_a_candidate_that_was_rolled_back_is_not_promoted_again(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store)
    first = round_of(pointer, store, monkeypatch)
    pointer.rollback("worse on the arm")
    again = round_of(pointer, store, monkeypatch)
    assert (first.candidate, first.decision) == (again.candidate, "promoted")
    assert again.decision == "refused"
    assert "was rolled back" in again.reason


def test_a_candidate_is_not_promoted_over_another_policy_than_it_was_compared_with(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody rolls back while scenes are being run."""
    store = EpisodeStore(tmp_path / "store")
    log_episode(store)
    other = pointer.add(random_checkpoint("", seed=8, config=TINY)).name

    def measured(task: str, folder: Path, seeds: Sequence[int], **_: Any) -> list[SceneResult]:
        if pointer.current != other:
            pointer.promote(other, "by hand")
        return [SceneResult(seed, 1.0, True, 1) for seed in seeds]

    monkeypatch.setattr(deciding, "evaluate", measured)
    with pytest.raises(RunFailed, match=f"{other} is in use"):
        learn(TASK, store, pointer.folder.parent, CONFIG)
    assert pointer.current == other


def test_a_guard_that_refuses_the_candidate_refuses_it_here(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store)
    in_use = pointer.current

    def measured(task: str, folder: Path, seeds: Sequence[int], **_: Any) -> list[SceneResult]:
        refused = () if folder.name == in_use else ("position_limit: x is 2",)
        return [SceneResult(seed, 1.0, True, 1, refused=refused) for seed in seeds]

    monkeypatch.setattr(deciding, "evaluate", measured)
    outcome = learn(TASK, store, pointer.folder.parent, CONFIG)
    assert outcome.decision == "refused"
    assert outcome.reason.startswith("the guard refused actions of the candidate in 5 scenes")


def test_a_real_cell_without_a_simulator_needs_episodes_or_a_shadow(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store, seed=None)
    outcome = round_of(pointer, store, monkeypatch, config=replace(CONFIG, scenes=0))
    assert outcome.decision == "refused"
    assert outcome.reason.startswith("nothing to judge it by")


def test_scenes_that_can_show_nothing_are_refused_at_once() -> None:
    with pytest.raises(BadInput, match="compare on at least 59"):
        LearnConfig(scenes=20)


def log_failure(store: EpisodeStore, *, policy_id: str = "p1", seed: int | None = 6) -> str:
    """An episode in which a policy acted once, and nothing changed."""
    shot = frame(1)
    attributes: dict[str, Any] = {} if seed is None else {"seed": seed}
    with EpisodeWriter(
        store, task=TASK, robot="panda_suction", cameras=[shot.camera], attributes=attributes, policy_id=policy_id
    ) as writer:
        action = PickPlace(
            geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06), stamp_ns=shot.stamp_ns
        )
        writer.append_decision(action, [shot])
        after = replace(shot, stamp_ns=shot.stamp_ns + 1)
        writer.append_frame(after)
        writer.append("reward", after.stamp_ns, [0.0])
        return writer.close({"reward": 0.0, "solved": False})


def test_what_failed_goes_along_with_what_is_new_and_is_known_from_then_on(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    failed = log_failure(store)
    assert round_of(pointer, store, monkeypatch).reason.startswith("no new solved or corrected episode")
    solved = log_episode(store)
    outcome = round_of(pointer, store, monkeypatch)
    assert (outcome.decision, outcome.failed) == ("promoted", 1)
    assert outcome.new_episodes == (failed, solved)
    training = checkpoints.read_manifest(pointer.folder / "current")["training"]
    assert (training["episodes"], training["failed"]) == ([failed, solved], 1)
    # What is known is repeated as far as it is to be imitated, and does not fail once more.
    another = log_episode(store)
    again = round_of(pointer, store, monkeypatch)
    assert (again.new_episodes, again.failed, again.replayed) == ((another,), 0, 1)


def test_what_failed_changes_what_is_learnt_unless_it_has_no_weight(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {}
    for name, failures, failed in (("none", 0, 0.2), ("some", 3, 0.2), ("ignored", 3, 0.0)):
        store = EpisodeStore(tmp_path / name)
        log_episode(store)
        for _ in range(failures):
            log_failure(store)
        config = replace(CONFIG, steps=2, failed=failed)
        outcome = round_of(pointer, store, monkeypatch, config=config, candidate=(0, 0, 0, 0, 0))
        assert outcome.failed == (failures if failed else 0)
        assert outcome.candidate is not None
        weights[name] = checkpoints.load(pointer.path(outcome.candidate)).weights
    assert all(torch.equal(weights["none"][key], value) for key, value in weights["ignored"].items())
    coarse = [key for key in weights["none"] if key.startswith("coarse")]
    assert any(not torch.equal(weights["none"][key], weights["some"][key]) for key in coarse)
    fine = [key for key in weights["none"] if key.startswith("fine")]
    assert all(torch.equal(weights["none"][key], weights["some"][key]) for key in fine)  # no place was wrong


@pytest.mark.parametrize("failure", [{"seed": 1_000_003}, {"seed": 2_000_003}, {"policy_id": ""}])
def test_failures_of_held_out_scenes_and_of_people_teach_nothing(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: dict[str, Any]
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_failure(store, **failure)
    log_episode(store)
    assert round_of(pointer, store, monkeypatch).failed == 0


def test_decisions_that_the_arm_refused_are_left_out_and_counted(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store)
    refused = log_failure(store)
    change_attribute(store, refused, DECISIONS_BEGUN, lambda _: [])
    outcome = round_of(pointer, store, monkeypatch)
    assert (outcome.decision, outcome.failed, outcome.left_out) == ("promoted", 0, 1)
    assert refused not in outcome.new_episodes
    assert note(outcome.to_dict()) == "left out: 1 decision that the arm refused or never began"
    both = note({"failed": 3, "left_out": 2})
    assert both == "to be avoided: 3 actions that failed; left out: 2 decisions that the arm refused or never began"
    assert note({}) == ""


def test_a_weight_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match=r"the weight of what failed is 1\.5"):
        LearnConfig(failed=1.5)

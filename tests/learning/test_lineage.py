"""From any action to what it was learnt from, from any episode to who learnt it, and a policy without an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from policies.stubs import TINY, frame, random_checkpoint

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning import decide as learning
from embodied_vision.learning import lineage
from embodied_vision.learning.gate import Cost
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.retrain import retrain
from embodied_vision.learning.scene_results import SceneResult
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.types import PickPlace

TASK = "block-insertion"
CONFIG = LearnConfig(steps=1, scenes=5, margin=0.5, holdout=0.0, threads=1)


@pytest.fixture(autouse=True)
def solved_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(task: str, folder: Path, seeds: Sequence[int], **_: Any) -> list[SceneResult]:
        return [SceneResult(seed, 1.0, True, 1) for seed in seeds]

    monkeypatch.setattr(learning, "evaluate", measured)
    monkeypatch.setattr(learning, "cost", lambda *_: (Cost(1.0, 1), Cost(1.0, 1)))


def log_episode(store: EpisodeStore, policy_id: str = "", reward: float = 1.0) -> tuple[str, str]:
    """Ids of an episode and of its decision; every one looks different."""
    shot = frame(len(store.ids()))
    writer = EpisodeWriter(
        store, task=TASK, robot="panda_suction", cameras=[shot.camera], policy_id=policy_id, attributes={"seed": 5}
    )
    action = PickPlace(
        geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4), stamp_ns=shot.stamp_ns
    )
    writer.append_decision(action, [shot])
    return writer.close({"reward": reward, "solved": reward == 1.0}), action.decision_id


@pytest.fixture
def world(tmp_path: Path) -> tuple[EpisodeStore, Path, list[str]]:
    """A first policy that learnt from a, and two more in a row: from b, then from c."""
    store, policies = EpisodeStore(tmp_path / "store"), tmp_path / "policies"
    pointer, ids, parent = Pointer(policies, TASK), [log_episode(store)[0] for _ in range(3)], ""
    for number in range(3):
        training = {"episodes": ids[: number + 1], "parent": parent, "steps": 1, "batch": 1}
        trained = replace(random_checkpoint("", seed=number, config=TINY), training=training)
        parent = pointer.add(trained).name
        pointer.promote(parent, "better")
    return store, policies, ids


def test_an_action_leads_to_its_policy_and_all_episodes_it_was_learnt_from(
    world: tuple[EpisodeStore, Path, list[str]],
) -> None:
    store, policies, ids = world
    current = Pointer(policies, TASK).current
    assert current is not None
    episode, decision = log_episode(store, current)
    for _ in range(3):
        log_episode(store)
    origin = lineage.origin(decision, store, policies)
    assert (origin.episode, origin.number) == (episode, 0)
    assert [list(ancestor.episodes) for ancestor in origin.line] == [ids[2:], ids[1:2], ids[:1]]
    assert origin.line[0].checkpoint_id == current
    with pytest.raises(BadInput, match="holds decision"):
        lineage.origin("no-such-decision", store, policies)


def test_an_episode_leads_to_every_policy_that_saw_it(world: tuple[EpisodeStore, Path, list[str]]) -> None:
    _, policies, ids = world
    assert sorted(seen.use for seen in lineage.seen_by(ids[0], policies)) == ["former", "in use", "stored"]
    assert [seen.use for seen in lineage.seen_by(ids[2], policies)] == ["in use"]
    assert lineage.seen_by("another", policies) == []


def test_a_checkpoint_whose_parent_is_gone_says_so(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    orphan = replace(random_checkpoint("", config=TINY), training={"parent": "0123456789abcdef", "episodes": ["a"]})
    line = lineage.line(pointer.add(orphan).name, TASK, tmp_path)
    assert [(bool(a.folder), list(a.episodes)) for a in line] == [(True, ["a"]), (False, [])]


def test_an_episode_is_forgotten_and_the_policy_trained_again_without_it(
    world: tuple[EpisodeStore, Path, list[str]],
) -> None:
    store, policies, ids = world
    lineage.erase(ids[1], store)
    assert not list(store.path.glob(f"**/{ids[1]}*"))
    outcome = retrain(TASK, [ids[1]], store, policies, CONFIG)
    assert outcome.decision == "promoted"
    pointer = Pointer(policies, TASK)
    training = checkpoints.read_manifest(pointer.folder / "current")["training"]
    assert (training["episodes"], training["without"]) == ([ids[0], ids[2]], [ids[1]])
    for seen in lineage.seen_by(ids[1], policies):
        assert seen.use != "in use"
        pointer.purge(seen.checkpoint_id, "privacy")
    assert lineage.seen_by(ids[1], policies) == []
    assert pointer.former is None
    with pytest.raises(BadInput, match="nothing to roll back to"):
        pointer.rollback()
    with pytest.raises(BadInput, match="is in use"):
        pointer.purge(pointer.current or "", "by mistake")


def test_without_an_untouched_ancestor_training_begins_anew(world: tuple[EpisodeStore, Path, list[str]]) -> None:
    store, policies, ids = world
    folder, missing = lineage.untouched(TASK, [ids[0]], policies)
    assert (folder, missing) == (None, sorted(ids[1:]))
    lineage.erase(ids[0], store)
    current = checkpoints.load(Pointer(policies, TASK).folder / "current")
    assert current.training["steps"] == 1
    outcome = retrain(TASK, [ids[0]], store, policies, CONFIG)
    training = checkpoints.read_manifest(Pointer(policies, TASK).path(outcome.candidate or ""))["training"]
    assert (training["episodes"], training.get("parent")) == (sorted(ids[1:]), None)


def test_an_episode_is_forgotten_where_nothing_but_failures_was_learnt_beside_it(
    world: tuple[EpisodeStore, Path, list[str]],
) -> None:
    store, policies, ids = world
    pointer = Pointer(policies, TASK)
    solved, failed = log_episode(store)[0], log_episode(store, "p", reward=0.0)[0]
    training = {"episodes": [*ids, solved, failed], "parent": pointer.current, "steps": 1, "batch": 1}
    pointer.promote(pointer.add(replace(random_checkpoint("", seed=9, config=TINY), training=training)).name, "better")
    lineage.erase(solved, store)
    before = pointer.former
    outcome = retrain(TASK, [solved], store, policies, CONFIG)
    assert (outcome.decision, outcome.candidate) == ("promoted", before)
    assert not any(seen.use == "in use" for seen in lineage.seen_by(solved, policies))


def test_nothing_left_to_learn_from_is_told(tmp_path: Path) -> None:
    store, pointer = EpisodeStore(tmp_path / "store"), Pointer(tmp_path / "policies", TASK)
    episode = log_episode(store)[0]
    only = replace(random_checkpoint("", config=TINY), training={"episodes": [episode]})
    pointer.promote(pointer.add(only).name, "start")
    lineage.erase(episode, store)
    with pytest.raises(BadInput, match="holds none of the other 0 episodes"):
        retrain(TASK, [episode], store, pointer.folder.parent, CONFIG)
    with pytest.raises(EpisodeError):
        lineage.erase(episode, store)

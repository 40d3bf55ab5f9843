"""A candidate on another encoder than the policy in use: each is tried with its own, and the pointer names that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies.stubs import DIMENSION, TINY, StubEncoder, frame, random_checkpoint

from embodied_vision.encoders.registry import whole_name
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning import decide as learning
from embodied_vision.learning.decide import Outcome, begin, decide
from embodied_vision.learning.evaluate import SceneResult
from embodied_vision.learning.gate_evidence import cost
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.promotion import Pointer, other_encoder
from embodied_vision.policies.policy import Policy
from embodied_vision.types import Features

TASK = "block-insertion"
CONFIG = LearnConfig(scenes=5, margin=0.5, holdout=0.999999, latency_ratio=1000.0)
SHAPES = replace(TINY, features=DIMENSION)
FIRST = random_checkpoint("stub-1", config=SHAPES)
SECOND = replace(FIRST, encoder_id="stub-2")


class OtherEncoder(StubEncoder):
    """The same features by another name and in more time, and a count of the images."""

    def __init__(self, encoder_id: str, pause_s: float = 0.0) -> None:
        self.encoder_id = encoder_id
        self.images, self.pause_s = 0, pause_s

    def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
        self.images += 1
        time.sleep(self.pause_s)
        return super().encode(color, stamp_ns)


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> dict[str, OtherEncoder]:
    """What there is to load, by name."""
    there = {"one": OtherEncoder("stub-1"), "two": OtherEncoder("stub-2"), "three": OtherEncoder("stub-3")}
    monkeypatch.setattr(learning, "load_encoder", there.__getitem__)
    return there


@pytest.fixture
def pointer(tmp_path: Path, encoders: dict[str, OtherEncoder]) -> Pointer:
    """A folder of policies that begins with one on the encoder `one`."""
    pointer = Pointer(tmp_path / "policies", TASK)
    begin(pointer, FIRST, "one")
    return pointer


def gated(pointer: Pointer, monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Outcome, dict[str, str]]:
    """The second one at the gate, and by which encoder each checkpoint ran its scenes."""
    ran: dict[str, str] = {}

    def measured(task: str, folder: Path, seeds: Sequence[int], *, encoder: str, **_: Any) -> list[SceneResult]:
        ran[folder.name] = encoder
        return [SceneResult(seed, 1.0, True, 1) for seed in seeds]

    monkeypatch.setattr(learning, "evaluate", measured)
    with pointer.locked():
        return decide(pointer, SECOND, CONFIG, **more), ran


def test_each_is_tried_with_its_own_and_the_pointer_names_the_one_in_use(
    pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pointer.release["encoder"] == {"id": "stub-1", "name": "one"}
    store, shot, eyes = EpisodeStore(tmp_path / "store"), frame(1), OtherEncoder("stub-1")
    action = Policy(FIRST, eyes).decide([shot], [eyes.encode(shot.color, shot.stamp_ns)])
    writer = EpisodeWriter(store, task=TASK, robot="panda_suction", cameras=[shot.camera])
    writer.append_decision(action, [shot])
    writer.close({"reward": 1.0, "solved": True})

    outcome, ran = gated(pointer, monkeypatch, store=store, encoder="two", baseline_encoder="one")
    assert ran == {SECOND.checkpoint_id: "two", FIRST.checkpoint_id: "one"}
    (again,) = (f for f in outcome.gate["findings"] if f["name"] == "logged episodes")
    assert (again["details"]["only_candidate"], again["details"]["only_baseline"]) == ([], [])
    assert (again["details"]["wins"], again["details"]["losses"], again["details"]["scenes"]) == (0, 0, 1)
    assert outcome.decision == "promoted"
    assert pointer.release["encoder"] == {"id": "stub-2", "name": "two"}
    assert other_encoder(pointer.folder / "current", "stub-2") == ""
    assert "--encoder two" in other_encoder(pointer.folder / "current", "stub-1")
    pointer.rollback()
    assert pointer.release["encoder"] == {"id": "stub-1", "name": "one"}


def test_a_decision_is_timed_with_its_encoder_only_where_the_two_differ(
    pointer: Pointer, encoders: dict[str, OtherEncoder]
) -> None:
    first, second, one, two = pointer.add(FIRST), pointer.add(SECOND), encoders["one"], OtherEncoder("stub-2", 0.02)
    cost(first, first, one, one)
    assert one.images == 0
    ours, _ = cost(second, first, two, one)
    assert one.images == two.images > 0
    assert ours.decision_ms >= 20
    with pytest.raises(CheckpointError, match=r"stub-1.*stub-2"):
        cost(second, first, two, two)


@pytest.mark.parametrize("given", [{"encoder": "two"}, {"encoder": "two", "baseline_encoder": "three"}])
def test_a_policy_in_use_on_yet_another_encoder_is_an_error_that_says_what_to_give(
    pointer: Pointer, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    with pytest.raises(CheckpointError, match=r"in use reads encoder 'stub-1'.*'stub-2'.*--baseline-encoder"):
        gated(pointer, monkeypatch, **given)
    with pytest.raises(CheckpointError, match=r"stub-2.*stub-1"):
        gated(pointer, monkeypatch, encoder="one", baseline_encoder="one")
    assert pointer.stored() == [FIRST.checkpoint_id]
    assert pointer.current == FIRST.checkpoint_id


def test_learning_begins_once_and_with_the_right_encoder(pointer: Pointer, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"{FIRST.checkpoint_id} is in use.*learn gate"):
        begin(pointer, SECOND, "two")
    assert pointer.stored() == [FIRST.checkpoint_id]
    other = Pointer(tmp_path / "other", TASK)
    with pytest.raises(CheckpointError, match=r"stub-2.*stub-1"):
        begin(other, SECOND, "one")
    assert not other.folder.exists()


def test_an_encoder_is_named_so_that_it_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert whole_name("mine+size=448+base=mine") == f"{tmp_path}/mine+size=448+base={tmp_path}/mine"
    for name in ("default", "facebook/dinov2-small+layers=-1,-4", "efficientnet-lite0"):
        assert whole_name(name) == name

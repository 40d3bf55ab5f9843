"""An update learns what is new, gives the same weights however it is cut up, and its methods do what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learning.continual.worlds import CONFIG, dataset, empty_head

from embodied_vision.errors import BadInput
from embodied_vision.learning.continual import update as updates
from embodied_vision.learning.continual.buffer import Buffer
from embodied_vision.learning.continual.methods import METHODS, method_of
from embodied_vision.learning.continual.shared import SharedHead
from embodied_vision.learning.continual.update import (
    Experience,
    UpdateConfig,
    Updated,
    policy_of,
    update,
)

BUDGET = 40_000


def learn(
    head: SharedHead,
    buffer: Buffer,
    task: str,
    method: str,
    state: Path,
    config: UpdateConfig = CONFIG,
    **options: object,
) -> Updated:
    data = dataset(task)
    return update(
        head,
        buffer,
        [Experience(data)],
        METHODS[method],
        config,
        state=state,
        budget=BUDGET,
        tasks_in_all=2,
        **options,  # type: ignore[arg-type]
    )


def same(a: SharedHead, b: SharedHead) -> bool:
    first, second = a.weights(), b.weights()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Stop(Exception):
    """Ends a run as a signal would."""


@pytest.mark.parametrize("method", ["product", "packnet"])
def test_a_resumed_update_ends_in_the_same_head_and_buffer(method: str, tmp_path: Path) -> None:
    first = learn(empty_head(), Buffer(), "insert", method, tmp_path / "first")
    before = first.head.weights()
    whole = learn(first.head, first.buffer, "aside", method, tmp_path / "whole", threads=3)

    def interrupt(stage: str, step: int, _: object) -> None:
        if step == 2:
            raise Stop

    cut = tmp_path / "cut"
    with pytest.raises(Stop):
        learn(first.head, first.buffer, "aside", method, cut, threads=1, report=interrupt, save_every_s=0.0)
    again = learn(first.head, first.buffer, "aside", method, cut, threads=1, resume=True)
    assert same(whole.head, again.head)
    assert [each.data for each in whole.buffer.kept] == [each.data for each in again.buffer.kept]
    assert whole.buffer.bytes <= BUDGET
    assert (whole.buffer.bytes > 0) == (METHODS[method].keeps in ("stratified", "reservoir"))
    assert len(whole.snapshots) == CONFIG.checkpoints
    after = first.head.weights()
    assert all(torch.equal(after[name], value) for name, value in before.items())  # the head that was given
    assert list(first.head.tasks) == ["insert"]
    assert list(whole.head.tasks) == ["insert", "aside"]


def test_packnet_never_changes_an_earlier_policy_and_fine_tuning_does(tmp_path: Path) -> None:
    for method, kept in (("packnet", True), ("sequential", False)):
        chosen = METHODS[method]
        first = learn(empty_head(), Buffer(), "insert", method, tmp_path / method / "0")
        second = learn(first.head, first.buffer, "aside", method, tmp_path / method / "1")
        before, after = (policy_of(each.head, "insert", chosen, {}).checkpoint_id for each in (first, second))
        assert (before == after) == kept
        weights = policy_of(second.head, "insert", chosen, {}).weights
        share = float((weights["coarse.trunk.down.0.0.weight"] != 0).float().mean())
        assert share == pytest.approx(0.5 if kept else 1.0, abs=0.01)  # the rest is left to the second task


def test_ewc_holds_what_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "FISHER_EXAMPLES", 2)
    first = learn(empty_head(), Buffer(), "insert", "ewc", tmp_path / "0")
    names = [name for name in first.head.memory if ".fisher." in name]
    assert names
    assert all(bool((first.head.memory[name] >= 0).all()) for name in names)

    def moved(ewc: float, where: str) -> float:
        config = replace(CONFIG, ewc=ewc, train=replace(CONFIG.train, learning_rate=1e-3))
        second = learn(first.head, first.buffer, "aside", "ewc", tmp_path / where, config)
        total = 0.0
        for stage in ("coarse", "fine"):
            old, new = (each.head.stage(stage).shared_parameters() for each in (first, second))
            for name, value in old.items():
                fisher = first.head.memory[f"{stage}.fisher.{name}"]
                total += float((fisher * (new[name] - value).detach().square()).sum())
        return total

    assert moved(1e6, "held") < moved(0.0, "free")


def test_what_is_kept_is_replayed_by_the_methods_that_replay_alone(tmp_path: Path) -> None:
    first = learn(empty_head(), Buffer(), "insert", "derpp", tmp_path / "0")
    assert all(set(each.item.logits) == {"pick", "place", "fine"} for each in first.buffer.kept)
    assert first.buffer.kept
    for method in ("sequential", "derpp"):
        heads = [
            learn(first.head, buffer, "aside", method, tmp_path / method / str(i)).head
            for i, buffer in enumerate((first.buffer, Buffer()))
        ]
        assert same(*heads) == (method == "sequential")


def test_more_of_a_known_task_is_learnt_into_the_same_policy_and_kept_apart(tmp_path: Path) -> None:
    first = learn(empty_head(), Buffer(), "insert", "product", tmp_path / "0")
    again = Experience(dataset("insert", 2, seed=5), kind="correction", weight=2.0)
    second = update(first.head, first.buffer, [again], METHODS["product"], CONFIG, state=tmp_path / "1", budget=BUDGET)
    assert list(second.head.tasks) == ["insert"]
    assert list(second.head.tasks["insert"].episodes) == ["insert-0", "insert-5"]
    assert set(second.buffer.strata()) == {("insert", "solved"), ("insert", "corrected")}


def test_other_experience_cannot_be_resumed(tmp_path: Path) -> None:
    learn(empty_head(), Buffer(), "insert", "product", tmp_path)
    with pytest.raises(BadInput, match="other demonstrations or settings"):
        learn(empty_head(), Buffer(), "aside", "product", tmp_path, resume=True)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data = dataset("insert", 1)
    scene = data.examples[0].scene
    assert scene.features is not None
    features = scene.features.copy()
    features[3, 3, 0] = np.nan
    broken = replace(data, examples=[replace(data.examples[0], scene=replace(scene, features=features))])
    with pytest.raises(BadInput, match="not finite"):
        update(empty_head(), Buffer(), [Experience(broken)], METHODS["product"], CONFIG, state=tmp_path, budget=BUDGET)


def test_an_unknown_method_is_told() -> None:
    with pytest.raises(BadInput, match="method 'magic' is unknown; choose of product"):
        method_of("magic")

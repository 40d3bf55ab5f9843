"""What is kept: never more bytes than allowed, all of it readable again, and the examples that differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learning.continual.worlds import dataset

from embodied_vision.errors import BadInput
from embodied_vision.learning.continual import items
from embodied_vision.learning.continual.buffer import Buffer, Kept, reservoir, stratified
from embodied_vision.learning.continual.items import Item
from embodied_vision.learning.dataset import Example
from embodied_vision.types import Workspace


def kept(examples: list[Example], task: str, loss: float = 1.0) -> list[Item]:
    return [Item(example, task, loss=loss, seed=i) for i, example in enumerate(examples)]


def test_an_item_comes_back_as_it_was_kept() -> None:
    example = dataset("insert", 2).examples[0]
    logits = {"pick": np.arange(12, dtype=np.float16).reshape(3, 4)}
    data = items.encode(Item(example, "insert", "corrected", 0.5, 1.25, 9, logits))
    item = items.decode(data, Workspace())
    again, before = item.example, example
    assert (item.task, item.outcome, item.novelty, item.loss, item.seed) == ("insert", "corrected", 0.5, 1.25, 9)
    assert np.array_equal(item.logits["pick"], logits["pick"])
    assert np.array_equal(again.scene.color, before.scene.color)
    assert np.array_equal(again.scene.valid, before.scene.valid)
    assert np.abs(again.scene.height - before.scene.height).max() <= items.HEIGHT_STEP_M / 2 + 1e-7
    assert np.array_equal(again.segment.mask, before.segment.mask)
    for name in ("anchor", "grasp"):
        assert np.array_equal(getattr(again.segment, name), getattr(before.segment, name))
    assert np.array_equal(again.place, before.place)
    assert np.array_equal(again.elsewhere, before.elsewhere)
    assert (again.yaw_rad, again.fold, again.release_m, again.tip_m, again.source) == (
        before.yaw_rad,
        before.fold,
        before.release_m,
        before.tip_m,
        before.source,
    )
    assert len(again.waiting) == len(before.waiting)
    assert again.pooled_features is not None
    assert before.pooled_features is not None
    off = np.abs(again.pooled_features.astype(float) - before.pooled_features).mean((0, 1))
    assert (off < 0.5 * before.pooled_features.std((0, 1)) + 1e-3).all()
    assert len(items.encode(item)) == pytest.approx(len(data), rel=0.02)


def test_damage_is_told() -> None:
    data = bytearray(items.encode(Item(dataset("insert", 1).examples[0], "insert")))
    for spoilt in (bytes(data[:-1]), bytes(data[:7]), b"", bytes(data[: len(data) // 2])):
        with pytest.raises(BadInput, match="damaged"):
            items.decode(spoilt, Workspace())
    for at in (0, 20, len(data) - 3):
        flipped = bytearray(data)
        flipped[at] ^= 4
        with pytest.raises(BadInput, match="damaged"):
            items.decode(bytes(flipped), Workspace())


def test_the_budget_holds_to_the_byte_and_the_file_is_as_large_as_it_says(tmp_path: Path) -> None:
    new = [*kept(list(dataset("insert", 4).examples), "insert"), *kept(list(dataset("aside", 4).examples), "aside")]
    sizes = [len(Kept.of(item).data) for item in new]
    for budget in (0, min(sizes) - 1, min(sizes), sum(sizes) // 2, sum(sizes)):
        for buffer in (stratified(Buffer(), new, budget), reservoir(Buffer(), new, budget, 0)):
            assert buffer.bytes <= budget
            buffer.save(tmp_path / "replay.bin")
            assert (tmp_path / "replay.bin").stat().st_size == buffer.bytes
            again = Buffer.read(tmp_path / "replay.bin", Workspace())
            assert [each.data for each in again.kept] == [each.data for each in buffer.kept]
    assert len(stratified(Buffer(), new, 2 * sum(sizes)).kept) == 8


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    buffer = stratified(Buffer(), kept(list(dataset("insert", 2).examples), "insert"), 10**6)
    path = tmp_path / "replay.bin"
    buffer.save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BadInput, match="damaged"):
        Buffer.read(path, Workspace())
    path.write_bytes(b"something else")
    with pytest.raises(BadInput, match="no kept example"):
        Buffer.read(path, Workspace())
    with pytest.raises(BadInput, match="cannot be read"):
        Buffer.read(tmp_path / "none", Workspace())


def test_strata_have_equal_shares_however_much_of_one_there_is() -> None:
    many = stratified(Buffer(), kept(list(dataset("insert", 6).examples), "insert"), 10**6)
    budget = many.bytes // 2
    full = stratified(Buffer(), [each.item for each in many.kept], budget)
    both = stratified(full, kept(list(dataset("aside", 6).examples), "aside"), budget)
    sizes = {key: sum(len(each.data) for each in part) for key, part in both.strata().items()}
    assert set(sizes) == {("insert", "solved"), ("aside", "solved")}
    largest = max(len(each.data) for each in both.kept)
    assert abs(sizes["insert", "solved"] - sizes["aside", "solved"]) <= largest
    # What leaves a stratum is what was chosen last.
    before, after = ([each.data for each in b.kept if each.item.task == "insert"] for b in (full, both))
    assert after == before[: len(after)]


def test_what_is_unlike_the_others_is_kept_first_and_of_likes_what_is_hard() -> None:
    first, second = dataset("insert", 2).examples
    nearly = replace(first, place=first.place + 0.1)
    order = [
        each.item.example.source
        for each in stratified(
            Buffer(),
            [
                Item(first, "insert", loss=1.0),
                Item(replace(nearly, source="hard"), "insert", loss=3.0),
                Item(replace(second, source="other"), "insert", loss=1.0),
            ],
            10**6,
        ).kept
    ]
    assert order[-1] == first.source
    assert set(order[:2]) == {"hard", "other"}


def test_the_reservoir_does_not_depend_on_how_experience_was_cut_up() -> None:
    new = [*kept(list(dataset("insert", 4).examples), "insert"), *kept(list(dataset("aside", 4).examples), "aside")]
    budget = sum(len(Kept.of(item).data) for item in new) // 2
    at_once = reservoir(Buffer(), new, budget, 1)
    in_parts = reservoir(reservoir(Buffer(), new[:4], budget, 1), new[4:], budget, 1)
    assert [each.item.example.source for each in at_once.kept] == [each.item.example.source for each in in_parts.kept]
    assert 0 < len(at_once.kept) < 8

"""What a round is given: what is to be done from some of its decisions, what is to be avoided from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from embodied_vision.episodes.corrections import Target, correct
from embodied_vision.episodes.edit import change_attribute
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner_round import RoundSpec, learnable
from embodied_vision.learning.lessons import lessons
from tests.block_world import TASK, WORKSPACE, Cell, PatchEncoder

EYES = PatchEncoder()


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(EpisodeStore(tmp_path / "store"))


def spec(cell: Cell, fresh: list[str], failed: list[str], weight: float = 0.2) -> RoundSpec:
    config = LearnConfig(failed=weight)
    made = RoundSpec(TASK, str(cell.store.path), "policies", "default", fresh, [], config, failed)
    return RoundSpec.from_json(made.to_json())


def test_a_round_learns_what_to_do_and_what_to_avoid(cell: Cell) -> None:
    shown = cell.episode([True], policy_id="oracle")
    partly = cell.episode([True, False])
    nothing = cell.episode([False])
    found = learnable(cell.store, spec(cell, [shown, partly], [nothing]), EYES, WORKSPACE)
    assert [example.source for example in found.good.examples] == [f"{shown}/0", f"{partly}/0"]
    assert [(s.source, s.sign, s.weight) for s in found.failed] == [
        (f"{partly}/1", -1, 0.2),
        (f"{nothing}/0", -1, 0.2),
    ]
    assert found.good.episode_ids == [shown, partly]
    assert found.episode_ids == [shown, partly, nothing]
    without = learnable(cell.store, spec(cell, [shown, partly], [nothing], weight=0.0), EYES, WORKSPACE)
    assert without.failed == []
    assert [example.source for example in without.good.examples] == [f"{shown}/0", f"{partly}/0"]


def test_failures_alone_are_no_lesson(cell: Cell) -> None:
    nothing = [cell.episode([False]) for _ in range(2)]
    with pytest.raises(BadInput, match="no decision of 0 episodes of move-the-block did any good"):
        learnable(cell.store, spec(cell, [], nothing), EYES, WORKSPACE)


def test_a_failure_that_cannot_be_read_spoils_no_round(cell: Cell) -> None:
    shown = cell.episode([True], policy_id="oracle")
    gone, cut, whole = (cell.episode([False]) for _ in range(3))
    (cell.store.folder(gone) / "manifest.json").write_text("{")
    for file in (cell.store.folder(cut) / "data.zarr" / "decisions" / "cameras").rglob("*"):
        if file.is_file() and file.suffix != ".json":
            file.write_bytes(bytes(file.stat().st_size))
    found = learnable(cell.store, spec(cell, [shown], [gone, cut, whole]), EYES, WORKSPACE)
    assert [sample.source for sample in found.failed] == [f"{whole}/0"]


def test_what_was_corrected_teaches_though_the_arm_refused_it_and_the_rest_is_counted(cell: Cell) -> None:
    refused = cell.episode([False, False])
    change_attribute(cell.store, refused, DECISIONS_BEGUN, lambda _: [])
    correct(cell.store, refused, 1, None, Target(0.55, 0.2, 0.0, 0.042), who="Ada")
    found = lessons(cell.store, TASK, EYES, WORKSPACE, whole=[], judged=[refused])
    assert [example.source for example in found.good.examples] == [f"{refused}/1"]
    assert (found.failed, found.good.left_out) == ([], 1)


def test_two_renderers_are_refused(cell: Cell) -> None:
    ids = [cell.episode([True], seed=seed) for seed in (3, 4)]
    change_attribute(cell.store, ids[1], "renderer", lambda _: "egl")
    with pytest.raises(BadInput, match="drawn by egl and software; log them with one renderer"):
        lessons(cell.store, TASK, EYES, WORKSPACE, whole=[], judged=ids)
    assert lessons(cell.store, TASK, EYES, WORKSPACE, whole=[], judged=ids[:1]).good.renderer == "software"

"""What worked is imitated, what failed is avoided, what was corrected is done as it should have been."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied_vision import geometry
from embodied_vision.cores import use_cores
from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.corrections import Target, correct
from embodied_vision.episodes.edit import change_attribute, relabel
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning.augment import CoarseSample, coarse_sample
from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.experience import Sample, Weights, count, earns_at_once, samples
from embodied_vision.learning.experience_losses import failure_losses, unlikelihood, with_failures
from embodied_vision.learning.losses import label_losses, stage_outputs
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import CoarseNet, NetworkConfig, PolicyNetwork
from embodied_vision.types import Primitive
from tests.block_world import TASK, WORKSPACE, Cell, PatchEncoder, action, camera, frame

EYES: Encoder = PatchEncoder()
TINY = NetworkConfig(features=4, coarse_widths=(8, 8), embedding=4, fine_widths=(8, 8), fine_channels=3)


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> None:
    use_cores(1)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(EpisodeStore(tmp_path / "store"))


def _samples(cell: Cell, weights: Weights | None = None) -> list[Sample]:
    return samples(cell.store, TASK, EYES, WORKSPACE, weights=weights)


def test_an_empty_store_teaches_nothing(tmp_path: Path) -> None:
    assert samples(EpisodeStore(tmp_path / "nowhere"), TASK, None, WORKSPACE) == []


def test_each_decision_teaches_what_became_of_it(cell: Cell) -> None:
    worked, failed = cell.episode([True, True]), cell.episode([True, False])
    found = _samples(cell)
    assert [(s.source, s.sign, s.kind) for s in found] == [
        (f"{worked}/0", 1, "earned"),
        (f"{worked}/1", 1, "earned"),
        (f"{failed}/0", 1, "earned"),
        (f"{failed}/1", -1, "failed"),
    ]
    assert {s.weight for s in found} == {Weights().earned, Weights().failed}
    assert found[3].about == {"pick"}  # the block still stands there
    assert count(found) == {"demonstration": 0, "earned": 3, "corrected": 0, "failed": 1}
    assert found[0].example.pooled_features is not None


def test_an_object_that_went_astray_was_put_wrongly_where_right_actions_pay_at_once(cell: Cell) -> None:
    """It left its place and earned nothing, which may as well have been the first of two steps."""
    episode_id = cell.episode([True], outcome={"reward": 0.0, "solved": False}, reward=False)
    relabel(
        cell.store,
        episode_id,
        {"judged": {"classifier": "c", "decisions": [{"word": "failure", "probability": 0.1, "reason": ""}]}},
    )
    assert _samples(cell) == []
    (found,) = samples(cell.store, TASK, EYES, WORKSPACE, at_once=True)
    assert (found.kind, found.sign, found.about) == ("failed", -1, {"place"})
    assert found.weight == pytest.approx(0.9 * Weights().failed)
    assert samples(cell.store, TASK, EYES, WORKSPACE, at_once=True, weights=Weights(failed=0.0)) == []


def test_verdicts_that_name_their_decision_are_found_by_it(cell: Cell) -> None:
    """A decision that nobody asked for may have been logged in between."""
    episode_id = cell.episode([False, False], reward=False)
    second = cell.store.open(episode_id).decisions.action(1).decision_id
    said = [{"word": "failure", "probability": 0.0, "reason": "", "decision_id": second}]
    relabel(cell.store, episode_id, {"judged": {"classifier": "c", "decisions": said}})
    assert [sample.source for sample in _samples(cell)] == [f"{episode_id}/1"]


def test_a_task_pays_at_once_where_all_that_was_shown_earned_something(cell: Cell) -> None:
    assert not earns_at_once(EpisodeStore(cell.store.path / "nowhere"), TASK)
    for number in range(3):
        assert not earns_at_once(cell.store, TASK), f"{2 * number} decisions tell too little"
        cell.episode([True, True], policy_id="oracle")
    cell.episode([False, True])  # what a policy does tells nothing of the task
    assert earns_at_once(cell.store, TASK)
    cell.episode([True, False, True], policy_id="oracle", outcome={"reward": 1.0, "solved": True})
    assert not earns_at_once(cell.store, TASK), "a step of this one paid later"


def test_what_a_demonstration_is_not_known_to_have_earned_tells_nothing(cell: Cell) -> None:
    for _ in range(3):
        cell.episode([True, True], policy_id="", reward=False, outcome={"reward": 1.0, "solved": True})
    assert not earns_at_once(cell.store, TASK)
    said = [{"word": "success", "probability": 0.95, "reason": ""}] * 2
    for episode_id in cell.store.ids():
        relabel(cell.store, episode_id, {"judged": {"classifier": "c", "decisions": said}})
    assert earns_at_once(cell.store, TASK)


def test_a_wasted_pick_is_avoided_in_a_solved_episode_too(cell: Cell) -> None:
    episode_id = cell.episode([False, True], outcome={"reward": 0.5, "solved": True})
    found = _samples(cell)
    assert [(s.source, s.kind, s.about) for s in found] == [
        (f"{episode_id}/0", "failed", {"pick"}),
        (f"{episode_id}/1", "earned", {"pick", "place"}),
    ]


def test_what_the_arm_refused_did_not_fail(cell: Cell) -> None:
    episode_id = cell.episode([False, False])
    second = cell.store.open(episode_id).decisions.action(1).decision_id
    change_attribute(cell.store, episode_id, DECISIONS_BEGUN, lambda _: [second])
    assert [s.source for s in _samples(cell)] == [f"{episode_id}/1"]


def _attempt(cell: Cell, primitive: Primitive = "pick_place", joints: Sequence[float] = ()) -> str:
    """One decision that changes nothing; `joints` are angles of a joint that were logged at the end, 20 ms apart."""
    at, begins = (0.5, 0.1), 1_800_000_000_000_000_000
    before, after = frame([at], begins), frame([at], begins + 10**9)
    with EpisodeWriter(
        cell.store, task=TASK, robot="panda_suction", cameras=[camera()], policy_id="p1", color_codec="lossless"
    ) as writer:
        writer.append_decision(action(at, (0.4, -0.2), begins, primitive=primitive), [before])
        writer.append_frame(after)
        writer.append("reward", after.stamp_ns, [0.0])
        for number, angle in enumerate(joints):
            writer.append("joint_state", after.stamp_ns + number * 20_000_000, [angle, 0.0])
        return writer.close({"reward": 0.0, "solved": False})


@pytest.mark.parametrize(
    ("attempt", "failed"),
    [
        ({}, 1),
        ({"joints": [0.3, 0.3, 0.3, 0.3]}, 1),
        ({"joints": [0.3, 0.31, 0.32, 0.33]}, 0),  # ended in the middle of a motion
        ({"joints": [0.1, 0.2, 0.3, *[0.4] * 7]}, 1),
        ({"primitive": "push"}, 0),
        ({"primitive": "drag"}, 0),
    ],
)
def test_nothing_is_blamed_on_what_is_not_certain_to_have_failed(
    cell: Cell, attempt: dict[str, Any], failed: int
) -> None:
    _attempt(cell, **attempt)
    assert len(samples(cell.store, TASK, EYES, WORKSPACE, at_once=True)) == failed


def test_a_correction_counts_as_a_demonstration_whatever_became_of_it(cell: Cell) -> None:
    episode_id = cell.episode([False])
    correct(cell.store, episode_id, 0, None, Target(0.55, 0.2, 0.0, 0.042), who="Ada")
    (found,) = _samples(cell)
    assert (found.kind, found.sign, found.weight) == ("corrected", 1, Weights().demonstration)
    assert found.example.place == pytest.approx(geometry.xy_to_cell([0.55, 0.2], WORKSPACE), abs=2.5)


def test_corrected_and_right_decisions_know_each_others_places_and_failed_ones_do_not(cell: Cell) -> None:
    episode_id = cell.episode([True, False, False])
    correct(cell.store, episode_id, 1, None, Target(0.55, 0.2, 0.0, 0.042), who="Ada")
    found = _samples(cell)
    assert [s.kind for s in found] == ["earned", "corrected", "failed"]
    assert np.allclose(found[0].example.elsewhere, [found[1].example.place])
    assert not len(found[2].example.elsewhere)


def test_verdicts_stand_in_for_rewards(cell: Cell) -> None:
    episode_id = cell.episode([True, True, False], reward=False)
    assert _samples(cell) == []
    said = [("success", 0.97), ("unsure", 0.6), ("failure", 0.0)]
    decisions = [{"word": word, "probability": p, "reason": ""} for word, p in said]
    relabel(cell.store, episode_id, {"judged": {"classifier": "c", "decisions": decisions}})
    found = _samples(cell)
    assert [(s.source, s.sign) for s in found] == [(f"{episode_id}/0", 1), (f"{episode_id}/2", -1)]
    assert [s.weight for s in found] == pytest.approx([0.97 * Weights().earned, Weights().failed])


@pytest.mark.parametrize(
    "judged", ["text", {}, {"decisions": 3}, {"decisions": [None]}, {"decisions": [{"word": "success"}]}]
)
def test_verdicts_that_are_none_teach_nothing(cell: Cell, judged: object) -> None:
    relabel(cell.store, cell.episode([True], reward=False), {"judged": judged})
    assert _samples(cell) == []


def test_scenes_of_validation_and_test_and_aborted_episodes_teach_nothing(cell: Cell) -> None:
    for split in ("validation", "test"):
        episode_id = cell.episode([True], seed=scene_seed(split, 0))  # type: ignore[arg-type]
        correct(cell.store, episode_id, 0, Target(0.5, 0.0, 0.0, 0.04), None, who="Ada")
    cell.episode([True], outcome={"reward": 1.0, "aborted": True})
    cell.episode([])
    assert _samples(cell) == []


def test_a_weight_of_nothing_leaves_a_kind_out(cell: Cell) -> None:
    cell.episode([True, False])
    assert [s.kind for s in _samples(cell, Weights(failed=0.0))] == ["earned"]
    with pytest.raises(BadInput, match="earned is nan"):
        Weights(earned=float("nan"))


def test_a_damaged_episode_is_told_of_and_left_out(cell: Cell) -> None:
    broken, whole = cell.episode([True]), cell.episode([True])
    (cell.store.folder(broken) / "manifest.json").write_text("{")
    told: list[EpisodeError] = []
    found = samples(cell.store, TASK, EYES, WORKSPACE, on_damaged=told.append)
    assert [s.source for s in found] == [f"{whole}/0"]
    assert len(told) == 1
    with pytest.raises(EpisodeError):
        samples(cell.store, TASK, EYES, WORKSPACE, episode_ids=[broken, whole])


def test_what_failed_becomes_less_likely_and_what_it_is_not_about_stays(cell: Cell) -> None:
    cell.episode([False])
    (failed,) = _samples(cell)
    network = PolicyNetwork.seeded(TINY, 0)
    normal = Normalisation.identity(4)
    config = TrainConfig()

    def losses() -> dict[str, torch.Tensor]:
        return failure_losses(network.coarse, failed, normal, config, np.random.default_rng(3))

    before = losses()
    assert float(before["place"]) == 0.0
    rate = torch.optim.SGD(network.coarse.parameters(), lr=0.05)
    sum(before.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    rate.step()
    assert losses()["pick"].item() < before["pick"].item()
    fine = failure_losses(network.fine, failed, normal, config, np.random.default_rng(3))
    assert float(fine["fine"]) == 0.0
    astray = replace(failed, about=frozenset({"place"}))
    fine = failure_losses(network.fine, astray, normal, config, np.random.default_rng(3))
    assert 0 < fine["fine"].item() < failed.weight
    coarse = failure_losses(network.coarse, astray, normal, config, np.random.default_rng(3))
    assert {name: float(loss) for name, loss in coarse.items()} == {"pick": 0.0, "place": 0.0}


def test_a_failure_is_shown_where_it_happened(cell: Cell) -> None:
    """Other examples have their objects taken elsewhere; what failed there may work elsewhere."""
    cell.episode([False])
    (failed,) = _samples(cell)

    def apart(rearrange: bool) -> list[float]:
        """How far the picked object and its place lie apart, in coarse cells, as often as it is shown."""
        found = []
        for seed in range(15):
            rng = np.random.default_rng(seed)
            shown = coarse_sample(failed.example, Normalisation.identity(4), TINY, rng, rearrange=rearrange)
            cells = np.moveaxis(np.indices(shown.place.shape), 0, -1)
            middles = [(cells * w.numpy()[..., None]).sum((0, 1)) / float(w.sum()) for w in (shown.picked, shown.place)]
            found.append(float(np.linalg.norm(middles[0] - middles[1])))
        return found

    as_it_was = float(np.linalg.norm(failed.example.segment.anchor - failed.example.place)) / TINY.coarse_pool
    assert max(abs(distance - as_it_was) for distance in apart(False)) < 0.7
    assert max(abs(distance - as_it_was) for distance in apart(True)) > 2


def test_failures_are_drawn_in_place_of_what_is_new_and_seldom(cell: Cell) -> None:
    cell.episode([False])
    (failed,) = _samples(cell)
    network = PolicyNetwork.seeded(TINY, 0)
    normal, config = Normalisation.identity(4), TrainConfig()
    right = {"pick": torch.tensor(7.0), "place": torch.tensor(7.0)}

    def draw(step: int, number: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return right

    assert with_failures(network.fine, draw, [failed], normal, config, new=9, every=2) is draw  # picks alone failed
    either = with_failures(network.coarse, draw, [failed], normal, config, new=9, every=2)
    drawn = [either(0, number, np.random.default_rng([number])) is right for number in range(120)]
    assert all(drawn[1::2]), "what is replayed stays"
    assert 1 <= drawn[::2].count(False) <= 13  # a tenth of 60
    often = with_failures(network.coarse, draw, [failed] * 60, normal, config, new=1, every=1)
    drawn = [often(0, number, np.random.default_rng([number])) is right for number in range(60)]
    assert 5 <= drawn.count(False) <= 26  # a quarter


def _picks(net: CoarseNet, sample: CoarseSample) -> float:
    """Probability that the stage gives to what a sample picks."""
    output = stage_outputs(net, [sample])["pick"]
    return 1 - torch.exp(-unlikelihood(output.logits, output.label)).item()


def _descend(net: CoarseNet, loss: Callable[[], torch.Tensor], steps: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def test_a_failed_pick_is_given_up_and_the_others_are_not_even_where_failures_are_made_up(cell: Cell) -> None:
    """Of two scenes that a policy is sure of, the pick of one fails; then somebody says the same of the other one."""
    cell.episode([True])
    cell.episode([False], light=0.4)
    right, failed = _samples(cell)
    normal = Normalisation.identity(4)
    views = [
        coarse_sample(sample.example, normal, TINY, np.random.default_rng(1), rearrange=False)
        for sample in (right, failed)
    ]
    net = PolicyNetwork.seeded(TINY, 0).coarse

    def cost(view: CoarseSample) -> torch.Tensor:
        return label_losses(stage_outputs(net, [view]))["pick"]

    def avoid(view: CoarseSample) -> torch.Tensor:
        output = stage_outputs(net, [view])["pick"]
        return failed.weight * unlikelihood(output.logits, output.label)

    _descend(net, lambda: cost(views[0]) + cost(views[1]), 60)
    sure = [_picks(net, view) for view in views]
    assert min(sure) > 0.8

    # As in a round: half of the draws are rehearsal, an eighth failures.
    _descend(net, lambda: 0.5 * cost(views[0]) + 0.125 * avoid(views[1]), 100)
    after = [_picks(net, view) for view in views]
    assert after[1] < 0.5 * sure[1]
    assert abs(after[0] - sure[0]) < 0.05

    _descend(net, lambda: 0.5 * cost(views[0]) + 0.125 * avoid(views[0]), 60)
    assert _picks(net, views[0]) > 0.8


def test_unlikelihood_pulls_by_no_more_than_the_probability() -> None:
    label = torch.zeros(1, 4)
    label[0, 1] = 1.0
    costs, pulls = [], []
    for x in (-5.0, 0.0, 5.0, 1000.0):
        logits = torch.tensor([[0.0, x, 0.0, 0.0]], requires_grad=True)
        cost = unlikelihood(logits, label)
        (gradient,) = torch.autograd.grad(cost, logits)
        costs.append(cost.item())
        pulls.append(float(gradient[0, 1]))
        assert gradient.sum() == pytest.approx(0.0, abs=1e-6)
    assert costs == sorted(costs)
    assert costs[1] == pytest.approx(-np.log(0.75))
    assert np.isfinite(costs[3])
    likely = [float(torch.tensor([0.0, x, 0.0, 0.0]).softmax(0)[1]) for x in (-5.0, 0.0, 5.0, 1000.0)]
    assert pulls == pytest.approx(likely, abs=1e-6)

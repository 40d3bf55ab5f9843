"""What worked is imitated, what failed is avoided, what was corrected is done as it should have been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embodied_vision import geometry
from embodied_vision.cores import use_cores
from embodied_vision.encoders.base import Encoder
from embodied_vision.episodes.corrections import Target, correct
from embodied_vision.episodes.edit import relabel
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.experience import Sample, Weights, count, samples
from embodied_vision.learning.experience_losses import draw_samples, signed_losses, unlikelihood
from embodied_vision.learning.losses import stage_losses
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from tests.block_world import TASK, WORKSPACE, Cell, PatchEncoder

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


def test_an_object_that_went_astray_was_put_wrongly(cell: Cell) -> None:
    """It left its place and the score says that it is nowhere good."""
    episode_id = cell.episode([True], outcome={"reward": 0.0, "solved": False}, reward=False)
    relabel(
        cell.store,
        episode_id,
        {"judged": {"classifier": "c", "decisions": [{"word": "failure", "probability": 0.1, "reason": ""}]}},
    )
    (found,) = _samples(cell)
    assert (found.kind, found.sign, found.about) == ("failed", -1, {"place"})
    assert found.weight == pytest.approx(0.9 * Weights().failed)


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
        return signed_losses(network.coarse, failed, normal, config, np.random.default_rng(3))

    before = losses()
    assert float(before["place"]) == 0.0
    rate = torch.optim.SGD(network.coarse.parameters(), lr=0.05)
    sum(before.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    rate.step()
    assert losses()["pick"].item() < before["pick"].item()
    fine = signed_losses(network.fine, failed, normal, config, np.random.default_rng(3))
    assert float(fine["fine"]) == 0.0


def test_what_worked_costs_what_it_always_cost_times_its_weight(cell: Cell) -> None:
    cell.episode([True])
    (good,) = _samples(cell)
    network = PolicyNetwork.seeded(TINY, 0)
    normal, config = Normalisation.identity(4), TrainConfig()
    for net in (network.coarse, network.fine):
        ours = signed_losses(net, good, normal, config, np.random.default_rng(1))
        plain = stage_losses(net, [good.example], normal, config, np.random.default_rng(1))
        assert {k: v.item() for k, v in ours.items()} == pytest.approx(
            {k: good.weight * v.item() for k, v in plain.items()}
        )


def test_samples_are_drawn_evenly_with_their_weights(cell: Cell) -> None:
    cell.episode([True, False])
    found = _samples(cell)
    network = PolicyNetwork.seeded(TINY, 0)
    normal, config = Normalisation.identity(4), TrainConfig()
    draw = draw_samples(network.coarse, found, normal, config)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = found[int(rng.integers(2))]
        own = signed_losses(network.coarse, drawn, normal, config, rng)
        again = draw(0, 0, np.random.default_rng(seed))
        assert {k: v.item() for k, v in again.items()} == {k: v.item() for k, v in own.items()}
    with pytest.raises(BadInput, match="no sample"):
        draw_samples(network.coarse, [], normal, config)


def test_unlikelihood_is_bounded_and_grows_with_the_probability() -> None:
    label = torch.zeros(1, 4)
    label[0, 1] = 1.0
    costs = [float(unlikelihood(torch.tensor([[0.0, x, 0.0, 0.0]]), label)) for x in (-5.0, 0.0, 5.0, 1000.0)]
    assert costs == sorted(costs)
    assert costs[1] == pytest.approx(-np.log(0.75))
    assert np.isfinite(costs[3])

"""Data and policies know preset and renderer: presets do not mix unseen, renderers do not mix at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from policies.stubs import TINY, frame, random_checkpoint

from embodied_vision import geometry
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.errors import BadInput
from embodied_vision.learning.collect import collect
from embodied_vision.learning.dataset import load_dataset, renderer_of, teaching_ids
from embodied_vision.learning.environments import Conditions
from embodied_vision.learning.evaluate import evaluate, summarise
from embodied_vision.learning.learn import learn
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.runs import train_run
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.learning.train import TrainConfig
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.types import PickPlace, Workspace

TASK = "block-insertion"
SOFTWARE = Conditions(renderer="software")


def log_episode(store: EpisodeStore, seed: int, **attributes: str) -> None:
    """A solved episode of one decision, as a simulator that drew it would log it."""
    shot = frame(seed)
    writer = EpisodeWriter(
        store, task=TASK, robot="panda_suction", cameras=[shot.camera], attributes={"seed": seed, **attributes}
    )
    action = PickPlace(
        geometry.tool_down(0.5, 0.1, 0.05), geometry.tool_down(0.45, -0.2, 0.06, 0.4), stamp_ns=shot.stamp_ns
    )
    writer.append_decision(action, [shot])
    writer.close({"reward": 1.0, "solved": True})


def test_a_collection_of_another_preset_begins_anew(tmp_path: Path) -> None:
    mild = replace(SOFTWARE, preset="mild")
    (plain,) = collect(TASK, tmp_path, 1, conditions=SOFTWARE)
    (drawn,) = collect(TASK, tmp_path, 1, conditions=mild)
    assert drawn.seed == plain.seed == scene_seed("train", 0)
    assert drawn.steps > 0
    again = list(collect(TASK, tmp_path, 1, conditions=mild))
    assert [(result.episode_id, result.steps) for result in again] == [(drawn.episode_id, 0)]
    episodes = [EpisodeStore(tmp_path).open(str(result.episode_id)) for result in (plain, drawn)]
    assert [episode.attributes["preset"] for episode in episodes] == ["none", "mild"]
    assert {episode.attributes["renderer"] for episode in episodes} == {"software"}
    cameras = [episode.cameras["camera"].T_base_camera.tolist() for episode in episodes]
    assert cameras[0] != cameras[1]


def test_a_store_keeps_to_its_renderer(tmp_path: Path) -> None:
    list(collect(TASK, tmp_path, 1, conditions=SOFTWARE))
    (_, second) = collect(TASK, tmp_path, 2, conditions=Conditions(renderer="auto"))
    assert EpisodeStore(tmp_path).open(str(second.episode_id)).attributes["renderer"] == "software"
    with pytest.raises(BadInput, match=r"drawn by software, asked for egl; .* name another store or renderer"):
        next(collect(TASK, tmp_path, 3, conditions=Conditions(renderer="egl")))


def test_two_renderers_do_not_train_one_policy(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    log_episode(store, 4)
    log_episode(store, 5, renderer="software")
    alike = load_dataset(store, TASK, None, Workspace(), episode_ids=teaching_ids(store, TASK))
    assert alike.renderer == "software"
    log_episode(store, 6, renderer="egl")
    with pytest.raises(BadInput, match="drawn 1 by egl and 2 by software"):
        load_dataset(store, TASK, None, Workspace(), episode_ids=teaching_ids(store, TASK))


def test_a_checkpoint_names_the_renderer_of_its_demonstrations(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    log_episode(store, 4, renderer="egl")
    dataset = load_dataset(store, TASK, None, Workspace(), episode_ids=store.ids())
    train_run(dataset, None, tmp_path / "run", TrainConfig(steps=1, batch=1), threads=1)
    training = checkpoints.read_manifest(tmp_path / "run" / "checkpoint")["training"]
    assert renderer_of(training) == "egl"
    assert renderer_of({}) == "software"


def test_a_policy_is_evaluated_with_its_renderer_and_the_preset_asked_for(tmp_path: Path) -> None:
    checkpoints.save(random_checkpoint("", config=TINY), tmp_path / "policy")
    results = evaluate(TASK, tmp_path / "policy", [1_000_000], preset="mild")
    figures = summarise(TASK, "policy", results, "mild")
    assert (figures["preset"], figures["renderer"]) == ("mild", "software")
    plain = evaluate(TASK, tmp_path / "policy", [1_000_000])
    assert [a["pick"] for a in plain[0].actions] != [a["pick"] for a in results[0].actions]


def test_fine_tuning_on_another_renderer_is_refused(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path / "policies", TASK)
    pointer.promote(pointer.add(random_checkpoint("", config=TINY)).name, "start")
    store = EpisodeStore(tmp_path / "store")
    log_episode(store, 4, renderer="egl")
    with pytest.raises(BadInput, match="drawn by egl, the checkpoint in use learnt from pictures by software"):
        learn(TASK, store, pointer.folder.parent, LearnConfig(steps=1, scenes=60, threads=1, holdout=0.0))

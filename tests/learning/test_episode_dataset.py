"""What a training reads through workers is what lies in the episodes, each window once an epoch."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from episodes.samples import PERIOD_NS, START_NS, make_camera, make_frame

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.edit import relabel
from embodied_vision.episodes.filters import Filter
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.trim import trim_stamps
from embodied_vision.episodes.windows import Sampling, Windows
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.learning import episode_loader
from embodied_vision.learning.episode_dataset import EpisodeDataset, Skipped, collate
from embodied_vision.learning.episode_loader import EpisodeLoader
from embodied_vision.types import PickPlace

PERIOD_S = PERIOD_NS / 1e9
SAMPLINGS = {
    "cameras/camera/color": Sampling.at(-PERIOD_S, 0, align="nearest", tolerance_s=0.01),
    "cameras/camera/depth": Sampling.at(0),
    "streams/joints": Sampling.every(30, first=-3, length=4),
    "streams/commands": Sampling.every(30, first=0, length=3, align="interpolate"),
}
LENGTHS = (5, 7, 3, 4)


def write(store: EpisodeStore, frames: int, number: int, task: str = "task", height: int = 12) -> str:
    camera = make_camera(height=height)
    with EpisodeWriter(store, task=task, robot="robot", cameras=[camera]) as writer:
        for index in range(frames):
            writer.append_frame(make_frame(camera, 100 * number + index))
            stamp = START_NS + (100 * number + index) * PERIOD_NS
            writer.append("joints", stamp, [float(number), float(index)])
            writer.append("commands", stamp + 1000, [float(index)])
        return writer.close({"solved": number % 2 == 0})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)  # do not wait for the disk
        store = EpisodeStore(tmp_path_factory.mktemp("dataset"))
        for number, frames in enumerate(LENGTHS):
            write(store, frames, number)
        return store


@pytest.fixture
def own(store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EpisodeStore:
    """A copy of the store, to be spoiled."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    return EpisodeStore(shutil.copytree(store.path, tmp_path / "own"))


def keys_of(batch: dict[str, Any]) -> list[tuple[int, int]]:
    """Episode and anchor of each sample."""
    return list(zip(batch["episode"].tolist(), batch["anchor_ns"].tolist(), strict=True))


def everything(store: EpisodeStore) -> list[tuple[int, int]]:
    return [
        (number, stamp)
        for number, episode_id in enumerate(store.ids())
        for stamp in store.open(episode_id).frames("camera").stamps_ns.tolist()
    ]


def drawn(loader: EpisodeLoader) -> list[tuple[int, int]]:
    return [key for batch in loader for key in keys_of(batch)]


def test_samples_are_the_windows_of_the_episodes(store: EpisodeStore) -> None:
    dataset = EpisodeDataset(store, SAMPLINGS)
    assert len(dataset) == sum(LENGTHS)
    assert dataset.episodes == len(LENGTHS)
    index = 0
    for episode_id, frames in zip(store.ids(), LENGTHS, strict=True):
        windows = Windows(store.open(episode_id), SAMPLINGS)
        for number in range(frames):
            assert dataset.locate(index) == (episode_id, number)
            sample = dataset[index]
            assert isinstance(sample, dict)
            for key, window in windows[number].items():
                np.testing.assert_array_equal(sample[key].numpy(), window.values)
                np.testing.assert_array_equal(sample[f"{key}/padded"].numpy(), window.padded)
                np.testing.assert_array_equal(sample[f"{key}/stamps_ns"].numpy(), window.stamps_ns)
                np.testing.assert_array_equal(sample[f"{key}/ages_ns"].numpy(), window.ages_ns)
            index += 1
    assert dataset[-1]["anchor_ns"] == dataset[len(dataset) - 1]["anchor_ns"]  # type: ignore[index]
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (1, "spawn")])
def test_workers_hand_out_every_sample_once_in_the_same_order(store: EpisodeStore, workers: int, context: Any) -> None:
    dataset = EpisodeDataset(store, SAMPLINGS, stride=2)
    dataset[0]  # so that an episode is open when workers start
    loader = EpisodeLoader(dataset, batch_size=3, seed=5, workers=workers, context=context)
    alone = EpisodeLoader(EpisodeDataset(store, SAMPLINGS, stride=2), batch_size=3, seed=5, workers=0)
    for _ in range(2):
        assert len(loader) == 4
        for batch, wanted in zip(loader, alone, strict=True):
            assert batch.keys() == wanted.keys()
            assert all(torch.equal(batch[key], wanted[key]) for key in batch)
        assert len(loader) == 4  # of the next epoch
    assert loader.sampler.epoch == 2


def test_each_epoch_has_every_sample_once(store: EpisodeStore) -> None:
    loader = EpisodeLoader(EpisodeDataset(store, {"streams/joints": Sampling.at(0)}), batch_size=4, workers=0)
    first, second = drawn(loader), drawn(loader)
    stamps = [key for key in everything(store)]
    assert sorted(first) == sorted(second) == sorted(stamps)
    assert first != second
    straight = EpisodeLoader(EpisodeDataset(store, SAMPLINGS), batch_size=4, workers=0, shuffle=False)
    assert drawn(straight) == stamps


def test_ranks_share_the_samples(store: EpisodeStore) -> None:
    dataset = EpisodeDataset(store, {"streams/joints": Sampling.at(0)})
    loaders = [EpisodeLoader(dataset, batch_size=2, workers=0, rank=rank, ranks=3) for rank in range(3)]
    shares = [drawn(loader) for loader in loaders]
    assert [len(share) for share in shares] == [len(dataset) // 3] * 3
    assert len({key for share in shares for key in share}) == len(dataset) // 3 * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on_in_the_middle_of_an_epoch(store: EpisodeStore, workers: int) -> None:
    def make() -> EpisodeLoader:
        return EpisodeLoader(EpisodeDataset(store, {"streams/joints": Sampling.at(0)}), batch_size=3, workers=workers)

    whole = make()
    wanted = drawn(whole) + drawn(whole)
    stopped = make()
    done = drawn(stopped)
    for batch in stopped:
        done += keys_of(batch)
        if len(done) == len(wanted) // 2 + 6:
            break
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    rest = drawn(resumed)
    assert done + rest == wanted
    assert drawn(stopped) == rest  # the one that was stopped goes on as well


def test_a_state_of_other_data_is_refused(store: EpisodeStore) -> None:
    samplings = {"streams/joints": Sampling.at(0)}
    state = EpisodeLoader(EpisodeDataset(store, samplings), batch_size=3, workers=0).state_dict()
    others = [
        EpisodeLoader(EpisodeDataset(store, samplings, ids=store.ids()[:2]), batch_size=3, workers=0),
        EpisodeLoader(EpisodeDataset(store, {"streams/joints": Sampling.at(0.1)}), batch_size=3, workers=0),
        EpisodeLoader(EpisodeDataset(store, samplings), batch_size=4, workers=0),
        EpisodeLoader(EpisodeDataset(store, samplings), batch_size=3, seed=1, workers=0),
    ]
    for other in others:
        with pytest.raises(BadInput, match="state"):
            other.load_state_dict(state)


def test_episodes_are_chosen_by_what_they_are_and_stay_chosen(own: EpisodeStore) -> None:
    write(own, 4, 7, task="other")
    ids = own.ids()
    solved = EpisodeDataset(own, SAMPLINGS, wanted=Filter(task="task", outcome={"solved": True}))
    assert [solved.episode_id(number) for number in range(solved.episodes)] == [ids[0], ids[2]]
    assert len(solved) == LENGTHS[0] + LENGTHS[2]
    named = EpisodeDataset(own, SAMPLINGS, ids=reversed(ids[1:3]))
    assert [named.episode_id(number) for number in range(named.episodes)] == ids[1:3]
    before = [solved.locate(index) for index in range(len(solved))]
    write(own, 4, 8)
    shutil.rmtree(own.path / "episodes" / ids[1])
    assert [solved.locate(index) for index in range(len(solved))] == before
    assert isinstance(solved[len(solved) - 1], dict)


def spoil(store: EpisodeStore, number: int) -> str:
    """Flip a bit in the first image of an episode."""
    episode_id = store.ids()[number]
    shard = store.path / "episodes" / episode_id / "data.zarr/cameras/camera/color/c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(data)
    return episode_id


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_episode_ends_the_training_and_is_named(own: EpisodeStore, workers: int) -> None:
    dataset = EpisodeDataset(own, {"cameras/camera/color": Sampling.at(0)})
    damaged = spoil(own, 1)
    with pytest.raises(EpisodeError, match=f"(?s){damaged}.*crc32c"):
        drawn(EpisodeLoader(dataset, batch_size=4, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_samples_may_be_skipped_and_are_counted(own: EpisodeStore, workers: int) -> None:
    dataset = EpisodeDataset(own, {"cameras/camera/color": Sampling.at(0)}, on_damaged="skip")
    damaged, gone = spoil(own, 1), own.ids()[2]
    shutil.rmtree(own.path / "episodes" / gone)
    loader = EpisodeLoader(dataset, batch_size=1, workers=workers)
    assert len(drawn(loader)) == sum(LENGTHS) - 1 - LENGTHS[2]
    assert loader.skipped == {damaged: 1, gone: LENGTHS[2]}
    assert loader.sampler.epoch == 1


def test_an_episode_that_was_cut_meanwhile_is_named(own: EpisodeStore) -> None:
    samplings = {"cameras/camera/color": Sampling.at(0)}
    dataset = EpisodeDataset(own, samplings)
    skipping = EpisodeDataset(own, samplings, on_damaged="skip")
    first = own.ids()[0]
    before = dataset[0]
    assert isinstance(before, dict)
    relabel(own, first, {"solved": False})
    after = dataset[0]
    assert isinstance(after, dict)
    assert torch.equal(before["cameras/camera/color"], after["cameras/camera/color"])
    assert trim_stamps(own, first, START_NS + PERIOD_NS)
    with pytest.raises(EpisodeError, match=f"(?s){first}.*has 4 samples and had 5"):
        dataset[0]
    assert isinstance(skipping[0], Skipped)


def test_the_index_of_many_episodes_is_small(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    many = ((f"{number:036}", 300) for number in range(100_000))
    monkeypatch.setattr(EpisodeDataset, "_lengths", lambda *_: many)
    monkeypatch.setattr(EpisodeDataset, "_check_first", lambda _: None)
    dataset = EpisodeDataset(store, SAMPLINGS)
    assert len(pickle.dumps(dataset)) < 5.5e6
    assert dataset.locate(30_000_000 - 1) == (f"{99_999:036}", 299)


def test_episodes_damaged_before_are_told_when_the_dataset_is_made(own: EpisodeStore) -> None:
    damaged = own.ids()[3]
    (own.path / "episodes" / damaged / "manifest.json").write_text("{}")
    for ids in (None, own.ids()):
        with pytest.raises(EpisodeError, match=damaged):
            EpisodeDataset(own, SAMPLINGS, ids=ids)
        dataset = EpisodeDataset(own, SAMPLINGS, ids=ids, on_damaged="skip")
        assert [skipped.episode_id for skipped in dataset.unreadable] == [damaged]
        assert dataset.episodes == 3


def test_few_episodes_stay_open(store: EpisodeStore) -> None:
    dataset = EpisodeDataset(store, {"streams/joints": Sampling.at(0)}, open_episodes=2)
    for index in range(len(dataset)):
        dataset[index]
    assert len(dataset._opened) == 2
    assert len(pickle.loads(pickle.dumps(dataset))._opened) == 0  # noqa: S301 as spawned workers are given it


def test_a_transform_makes_samples_of_the_same_shape(own: EpisodeStore) -> None:
    write(own, 3, 9, height=8)
    samplings = {"cameras/camera/color": Sampling.at(0)}
    with pytest.raises(BadInput, match="cannot be stacked"):
        drawn(EpisodeLoader(EpisodeDataset(own, samplings), batch_size=22, workers=0))

    def cut(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "cameras/camera/color": sample["cameras/camera/color"][:, :8]}

    (batch,) = EpisodeLoader(EpisodeDataset(own, samplings, transform=cut), batch_size=22, workers=0)
    assert batch["cameras/camera/color"].shape == (22, 1, 8, 16, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samplings": {}}, "nothing"),
        ({"reference": "cameras/other/color"}, "cameras/other"),
        ({"reference": "cameras/other/color", "ids": "all"}, "cameras/other"),
        ({"samplings": {"streams/joints": Sampling.at(0), "streams/none": Sampling.at(0)}}, "streams/none"),
        ({"samplings": {"cameras/camera/features": Sampling.at(0)}}, "cache of features"),
        ({"reference": "decisions"}, "no episode"),
        ({"wanted": Filter(task="nothing")}, "no episode"),
        ({"ids": []}, "no episode"),
        ({"stride": 0}, "stride"),
        ({"on_damaged": "ignore"}, "ignore"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused(store: EpisodeStore, arguments: dict, message: str) -> None:
    if arguments.get("ids") == "all":
        arguments = {**arguments, "ids": store.ids()}
    with pytest.raises(BadInput, match=message):
        EpisodeDataset(store, **{"samplings": SAMPLINGS, **arguments})


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"batch_size": 1, "workers": -1}])
def test_what_cannot_be_a_loader_is_refused(store: EpisodeStore, arguments: dict) -> None:
    with pytest.raises(BadInput):
        EpisodeLoader(EpisodeDataset(store, SAMPLINGS), **arguments)


def test_a_killed_worker_ends_the_training_with_an_error(store: EpisodeStore) -> None:
    loader = EpisodeLoader(
        EpisodeDataset(store, {"streams/joints": Sampling.at(0)}, transform=kill_in_worker), batch_size=2, workers=1
    )
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        drawn(loader)
    assert loader.sampler.epoch == 0


def kill_in_worker(sample: dict[str, Any]) -> dict[str, Any]:
    if multiprocessing.parent_process() is not None and int(sample["episode"]) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


def test_batches_that_shared_memory_cannot_hold_are_refused(
    store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = EpisodeDataset(store, {"cameras/camera/color": Sampling.at(0)})
    monkeypatch.setattr(episode_loader, "_shared_memory_free", lambda: 12 * 16 * 3 * 4 * 3)
    EpisodeLoader(dataset, batch_size=4, workers=0)
    with pytest.raises(BadInput, match="--shm-size"):
        EpisodeLoader(dataset, batch_size=4, workers=1)


def test_nothing_is_stacked_of_what_was_all_skipped(own: EpisodeStore) -> None:
    dataset = EpisodeDataset(own, {"cameras/camera/color": Sampling.at(0)}, on_damaged="skip")
    spoil(own, 0)
    assert list(collate([dataset[0]])) == ["skipped"]


def test_around_decisions_there_are_windows_for_those_that_the_arm_began(own: EpisodeStore) -> None:
    camera = make_camera()
    pose = np.eye(4)
    stamps = [START_NS + number * PERIOD_NS for number in range(3)]
    for begun in ([0, 2], [], None):
        actions = [PickPlace(pose, pose, stamp_ns=stamp) for stamp in stamps]
        attributes = {} if begun is None else {DECISIONS_BEGUN: [actions[number].decision_id for number in begun]}
        with EpisodeWriter(own, task="decided", robot="robot", cameras=[camera], attributes=attributes) as writer:
            for number, action in enumerate(actions):
                writer.append_decision(action, [make_frame(camera, number)])
            writer.close({})
    told, _, silent = list(own.ids())[-3:]
    dataset = EpisodeDataset(own, {"decisions": Sampling.at(0)}, wanted=Filter(task="decided"))
    assert [dataset.locate(index) for index in range(len(dataset))] == [
        (told, 0),
        (told, 2),
        (silent, 0),
        (silent, 1),
        (silent, 2),
    ]
    assert dataset.left_out == 4
    assert [dataset[index]["anchor_ns"] for index in (0, 1)] == [stamps[0], stamps[2]]  # type: ignore[index]
    assert dataset.digest() != EpisodeDataset(own, {"decisions": Sampling.at(0)}, ids=[silent]).digest()

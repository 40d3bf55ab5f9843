"""Episodes in robomimic's HDF5 layout: what its readers expect, what comes back, and what files of others become."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from embodied_vision.calibration import write_cameras
from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.exchange import find_format
from embodied_vision.episodes.exchange.rows import find_clock, rows_of
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.types import Camera
from episodes.exchange import moving
from episodes.exchange.moving import FRONT
from episodes.samples import Child


def bring_in(source: Path, store: EpisodeStore, **more: Any) -> list[Episode]:
    wanted = {"task": None, "topics": None, **more}
    return [store.open(number) for number in find_format("hdf5").import_(source, store, **wanted)]


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "store")


@pytest.fixture
def exported(store: EpisodeStore, tmp_path: Path) -> Path:
    """Two episodes of different lengths."""
    ids = [moving.write(store), moving.write(store, frames=8, task="palletise")]
    told: list[str] = []
    find_format("hdf5").export([store.open(number) for number in ids], tmp_path / "demos.hdf5", done=told.append)
    assert told == ids
    return tmp_path / "demos.hdf5"


def test_the_layout_is_the_one_that_robomimic_documents(store: EpisodeStore, exported: Path) -> None:
    with h5py.File(exported) as file:
        data = file["data"]
        assert set(data) == {"demo_0", "demo_1"}
        assert data.attrs["total"] == 22
        environment = json.loads(data.attrs["env_args"])
        assert environment.keys() == {"env_name", "type", "env_kwargs"}
        for number, episode in enumerate(store.open(episode_id) for episode_id in store.ids()):
            rows, demo = rows_of(episode, find_clock([episode])), data[f"demo_{number}"]
            assert demo.attrs["num_samples"] == len(rows)
            np.testing.assert_array_equal(demo["actions"], rows.action)
            np.testing.assert_array_equal(demo["rewards"], rows.reward)
            np.testing.assert_array_equal(demo["dones"], rows.done)
            np.testing.assert_array_equal(demo["obs/joint_positions"], rows.state)
            for name in episode.cameras:
                key, frames = name.replace("/", "."), episode.frames(name)
                image, depth = demo[f"obs/{key}_image"], demo[f"obs/{key}_depth"]
                assert (image.dtype, depth.dtype, depth.attrs["unit"]) == (np.uint8, np.uint16, "mm")
                for row, frame in enumerate(rows.frames[name]):
                    np.testing.assert_array_equal(image[row], frames.color(int(frame)))
                    np.testing.assert_array_equal(depth[row, ..., 0], frames.depth_mm(int(frame)))
        assert file["mask/solved"][:].tolist() == [b"demo_0", b"demo_1"]
        assert file["mask/palletise"][:].tolist() == [b"demo_1"]


def test_our_own_export_comes_back_whole(store: EpisodeStore, exported: Path, tmp_path: Path) -> None:
    back = bring_in(exported, EpisodeStore(tmp_path / "back"))
    for episode, origin in zip(back, (store.open(number) for number in store.ids()), strict=True):
        assert (episode.task, episode.robot, episode.policy_id) == (origin.task, origin.robot, origin.policy_id)
        assert episode.outcome == origin.outcome
        assert (episode.created_ns, episode.tags) == (origin.created_ns, origin.tags)
        imported = {"format": "hdf5", "source": "demos.hdf5", "id": origin.id}
        assert episode.attributes["imported"].items() >= imported.items()
        assert {k: v for k, v in episode.attributes.items() if k != "imported"} == origin.attributes
        assert episode.streams == origin.streams
        for name in origin.streams:
            for mine, theirs in zip(episode.stream(name), origin.stream(name), strict=True):
                np.testing.assert_array_equal(mine, theirs)
        for name, camera in origin.cameras.items():
            assert episode.cameras[name].to_dict() == camera.to_dict()
            mine, theirs = episode.frames(name), origin.frames(name)
            np.testing.assert_array_equal(mine.stamps_ns, theirs.stamps_ns)
            for number in range(len(theirs)):
                np.testing.assert_array_equal(mine.color(number), theirs.color(number))
                np.testing.assert_array_equal(mine.depth_mm(number), theirs.depth_mm(number))
        assert len(episode.decisions) == 3
        for one, other in zip(episode.decisions, origin.decisions, strict=True):
            assert len(one.frames) == len(other.frames)
            for mine, theirs in zip(one.frames, other.frames, strict=True):
                assert (mine.camera.name, mine.stamp_ns) == (theirs.camera.name, theirs.stamp_ns)
                np.testing.assert_array_equal(mine.color, theirs.color)
                np.testing.assert_array_equal(mine.depth, theirs.depth)
            assert (one.action.to_dict(), one.info) == (other.action.to_dict(), other.info)


def test_an_export_never_takes_the_place_of_a_file_and_leaves_nothing_when_it_fails(
    store: EpisodeStore, exported: Path, tmp_path: Path
) -> None:
    before = exported.read_bytes()
    with pytest.raises(BadInput, match="exists"):
        find_format("hdf5").export([store.open(store.ids()[0])], exported, done=print)
    assert exported.read_bytes() == before
    with EpisodeWriter(store, task="t", robot="r", cameras=[FRONT]) as writer:
        writer.append_frame(moving.frame(0, FRONT, 0))
        without = store.open(writer.close({}))
    with pytest.raises(BadInput, match="none of them joint states"):
        find_format("hdf5").export([store.open(store.ids()[0]), without], tmp_path / "new.hdf5", done=print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demos.hdf5", "store"]


@pytest.mark.parametrize("form", ["hdf5", "lerobot"])
def test_a_full_disk_leaves_nothing_of_an_export_and_names_the_path(
    store: EpisodeStore, tmp_path: Path, form: str
) -> None:
    episode = store.open(moving.write(store))

    def fill_the_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(RunFailed, match=f"out.{form}.*cannot be written.*free space"):
            find_format(form).export([episode], tmp_path / f"out.{form}", done=print)

    with Child(fill_the_disk) as child:
        assert child.wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


# ---- files of others


def robosuite(path: Path, lengths: tuple[int, ...] = (4, 6)) -> Path:
    """As robomimic's own scripts leave them, demos out of order."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "type": 1, "env_version": "1.4.1", "env_kwargs": {"control_freq": 25}}
        )
        data.attrs["total"] = sum(lengths)
        for number, length in reversed(list(enumerate(lengths))):
            demo = data.create_group(f"demo_{number * 9}")
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"] = np.arange(length * 7, dtype=float).reshape(length, 7)
            demo["rewards"] = np.array([0.0] * (length - 1) + [1.0])
            demo["dones"] = np.array([0] * (length - 1) + [1])
            demo["states"] = np.ones((length, 5))
            for group in ("obs", "next_obs"):
                obs = demo.create_group(group)
                images = np.full((length, 10, 14, 3), 100 + number, np.uint8)
                obs.create_dataset("agentview_image", data=images, compression="gzip")
                obs["agentview_depth"] = np.zeros((length, 10, 14, 1), np.float32)
                obs["robot0_eef_pos"] = np.full((length, 3), number, float)
                obs["object"] = np.zeros(length)
    return path


def test_a_file_of_robomimic_comes_in(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    first, second = bring_in(robosuite(tmp_path / "lift.hdf5"), store, task="ignored")
    assert (first.task, first.outcome) == ("Lift", {"reward": 1.0})
    assert (len(first.frames("agentview")), len(second.frames("agentview"))) == (4, 6)
    stamps, actions = first.stream("action")
    assert stamps.tolist() == [0, 40_000_000, 80_000_000, 120_000_000]
    np.testing.assert_array_equal(actions, np.arange(28.0).reshape(4, 7))
    assert first.stream("next/reward")[1][:, 0].tolist() == [0, 0, 0, 1]
    assert second.stream("observation/robot0_eef_pos")[1].tolist() == [[1.0] * 3] * 6
    assert second.stream("observation/object")[1].shape == (6, 1)
    assert (second.frames("agentview").color(5) == 101).all()
    assert not second.frames("agentview").depth_mm(0).any()
    told = first.attributes["imported"]
    assert (told["control_freq"], told["calibration"], told["depth"]) == (25.0, "nominal", [])
    assert told["left_out"] == ["next_obs", "obs/agentview_depth"]


def test_a_calibration_file_takes_the_place_of_nominal_cameras(tmp_path: Path) -> None:
    K = np.array([[30.0, 0, 7], [0, 31.0, 5], [0, 0, 1]])
    write_cameras((Camera("agentview", 14, 10, K, np.eye(4)),), tmp_path / "cameras.yaml")
    source = robosuite(tmp_path / "lift.hdf5")
    first = bring_in(source, EpisodeStore(tmp_path / "store"), topics=tmp_path / "cameras.yaml")[0]
    np.testing.assert_array_equal(first.cameras["agentview"].K, K)


def test_arrays_of_different_lengths_are_refused_by_name_and_earlier_demos_stay(tmp_path: Path) -> None:
    source, store = robosuite(tmp_path / "lift.hdf5"), EpisodeStore(tmp_path / "store")
    with h5py.File(source, "a") as file:
        del file["data/demo_9/obs/robot0_eef_pos"]
        file["data/demo_9/obs/robot0_eef_pos"] = np.zeros((5, 3))
    with pytest.raises(BadInput, match=r"demo_9/obs/robot0_eef_pos has 5 rows, the demo's actions 6"):
        bring_in(source, store)
    assert len(store.ids()) == 1
    assert store.staging_ids() == []


# ---- robomimic's own reader


@pytest.mark.skipif(
    "EMBODIED_VISION_ROBOMIMIC_PYTHON" not in os.environ,
    reason="EMBODIED_VISION_ROBOMIMIC_PYTHON names no interpreter with robomimic",
)
def test_robomimics_own_reader_opens_the_export(store: EpisodeStore, exported: Path, tmp_path: Path) -> None:
    command = [os.environ["EMBODIED_VISION_ROBOMIMIC_PYTHON"], str(Path(__file__).with_name("robomimic_reader.py"))]
    run = subprocess.run(
        [*command, str(exported), str(tmp_path / "seen.npz")], capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr[-3000:]
    seen = np.load(tmp_path / "seen.npz")
    assert (str(seen["env_name"]), int(seen["shapes"]), int(seen["solved"])) == ("block-insertion", 4, 22)
    begin = 0
    for episode in (store.open(episode_id) for episode_id in store.ids()):
        rows = rows_of(episode, find_clock([episode]))
        part = slice(begin, begin + len(rows))
        np.testing.assert_array_equal(seen["actions"][part][:, 0], rows.action)
        np.testing.assert_array_equal(seen["obs/joint_positions"][part][:, 0], rows.state)
        images = seen["obs/cell.front_image"][part][:, 0]
        for row, frame in enumerate(rows.frames["cell/front"]):
            np.testing.assert_array_equal(images[row], episode.frames("cell/front").color(int(frame)))
        begin += len(rows)

"""What goes in comes out."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
import skimage.data
import skimage.transform
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.schema import ColorCodec
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.types import RGBD, PickPlace

from .samples import START_NS, assert_holds, make_action, make_camera, make_frame, write_episode


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=2),
    frames=st.sampled_from([0, 1, 2, 63, 64, 65, 130]),
    samples=st.sampled_from([1, 5, 1023, 1024, 1025]),
    dimension=st.integers(1, 9),
)
def test_frames_and_streams_come_back(sizes: list[tuple[int, int]], frames: int, samples: int, dimension: int) -> None:
    cameras = [make_camera(f"side/camera{number}", *size) for number, size in enumerate(sizes)]
    values = np.random.default_rng(0).normal(size=(samples, dimension))
    values[0, 0] = np.nan
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore(folder)
        with EpisodeWriter(store, task="t", robot="r", cameras=cameras, color_codec="lossless") as writer:
            for number in range(frames):
                for camera in cameras:
                    writer.append_frame(make_frame(camera, number))
            for number, value in enumerate(values):
                writer.append("arm/joint_states", START_NS - number, value)
            writer.close({})
        episode = store.open(writer.id)

        assert list(episode.cameras) == [camera.name for camera in cameras]
        for camera in cameras:
            logged = episode.frames(camera.name)
            assert len(logged) == frames
            for number in {0, frames // 2, frames - 1} if frames else set():
                wanted = make_frame(camera, number)
                np.testing.assert_array_equal(logged[number].color, wanted.color)
                np.testing.assert_array_equal(logged[number].depth, wanted.depth)
                assert logged[number].stamp_ns == wanted.stamp_ns == logged.stamps_ns[number]
        stamps, logged_values = episode.stream("arm/joint_states")
        np.testing.assert_array_equal(stamps, START_NS - np.arange(samples))
        np.testing.assert_array_equal(logged_values, values)


def test_metadata_come_back(tmp_path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    with EpisodeWriter(
        store,
        task="block-insertion",
        robot="panda_suction",
        cameras=[camera],
        encoder_id="enc",
        policy_id="pol",
        attributes={"seed": np.int64(7), "nested": {"list": [1, "é"]}},
    ) as writer:
        writer.close({"reward": 0.5, "solved": False, "reason": "max_steps"})
    episode = store.open(writer.id)
    assert (episode.id, episode.task, episode.robot) == (writer.id, "block-insertion", "panda_suction")
    assert (episode.encoder_id, episode.policy_id) == ("enc", "pol")
    assert episode.attributes == {"seed": 7, "nested": {"list": [1, "é"]}}
    assert episode.outcome == {"reward": 0.5, "solved": False, "reason": "max_steps"}
    assert episode.cameras["camera"].to_dict() == camera.to_dict()
    assert episode.created_ns <= episode.closed_ns


def test_decisions_come_back_bit_for_bit_although_frames_are_jpeg(tmp_path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    frame = make_frame(camera, 3)
    strange = PickPlace(
        pick=np.array([[np.nan, np.inf, -np.inf, -0.0]] * 4),
        place=np.nextafter(np.eye(4), 2.0),
        primitive="push",
        scores={"tiny": 5e-324, "nan": float("nan"), "inf": float("-inf")},
        stamp_ns=2**62 + 1,
    )
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], quality=10) as writer:
        writer.append_frame(frame)
        writer.append_decision(strange, [frame], {"checkpoint": "abc", "rank": np.float32(0.1)})
        writer.append_decision(make_action(1), [])
        writer.close({})
    first, second = store.open(writer.id).decisions

    assert first.action.pick.tobytes() == strange.pick.tobytes()
    assert first.action.place.tobytes() == strange.place.tobytes()
    assert repr(first.action.scores) == repr(strange.scores)
    assert (first.action.decision_id, first.action.primitive) == (strange.decision_id, "push")
    assert first.action.stamp_ns == strange.stamp_ns
    assert first.info == {"checkpoint": "abc", "rank": float(np.float32(0.1))}
    (logged,) = first.frames
    np.testing.assert_array_equal(logged.color, frame.color)
    assert logged.depth.tobytes() == frame.depth.tobytes()
    assert logged.stamp_ns == frame.stamp_ns
    assert second.frames == ()
    assert second.action.to_dict() == make_action(1).to_dict() | {"decision_id": second.action.decision_id}


@pytest.mark.parametrize(("codec", "smaller"), [("jpeg", 5), ("htj2k", 7)])
def test_photographs_stay_close_and_become_small(tmp_path, codec: ColorCodec, smaller: int) -> None:
    image = skimage.transform.resize(skimage.data.astronaut(), (240, 424), anti_aliasing=True)
    color = np.round(image * 255).astype(np.uint8)
    store, camera = EpisodeStore(tmp_path), make_camera(height=240, width=424)
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec=codec, quality=90) as writer:
        writer.append_frame(RGBD(color, np.zeros((240, 424), np.float32), camera, 0))
        writer.close({})
    episode = store.open(writer.id)
    error = episode.frames("camera")[0].color.astype(float) - color
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 35
    size = sum(path.stat().st_size for path in (episode.path / "data.zarr/cameras/camera/color").rglob("*"))
    assert size < color.nbytes / smaller


def test_frames_index_like_a_sequence(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    episode = store.open(write_episode(store, frames=5))
    frames = episode.frames("camera")
    assert frames[-1].stamp_ns == frames.stamps_ns[4]
    assert_holds(episode, 5)
    for index in (5, -6):
        with pytest.raises(IndexError):
            frames[index]
    with pytest.raises(BadInput, match="no camera 'left'"):
        episode.frames("left")
    with pytest.raises(BadInput, match="no stream 'features'"):
        episode.stream("features")


def test_select_finds_by_task_outcome_and_age(tmp_path) -> None:
    store = EpisodeStore(tmp_path)
    assert store.ids() == []
    good = write_episode(store, frames=1)
    bad = write_episode(store, frames=1, solved=False)
    other = write_episode(store, frames=1, task="place-red-in-green")
    assert store.ids() == sorted([good, bad, other])
    assert [e.id for e in store.select(task="block-insertion", outcome={"solved": True})] == [good]
    assert {e.id for e in store.select(outcome={"solved": True})} == {good, other}
    assert list(store.select(outcome={"aborted": False})) == []
    assert [e.id for e in store.select(after=store.ids()[0])] == store.ids()[1:]

    (store.episodes_path / bad / "manifest.json").unlink()
    with pytest.raises(EpisodeError, match="manifest"):
        list(store.select())
    damaged: list[EpisodeError] = []
    assert {e.id for e in store.select(on_damaged=damaged.append)} == {good, other}
    assert len(damaged) == 1
    assert bad in str(damaged[0])


@pytest.mark.parametrize("episode_id", ["nothing", "", "../episodes", "a/b"])
def test_unknown_id_is_a_clear_error(tmp_path, episode_id: str) -> None:
    store = EpisodeStore(tmp_path)
    write_episode(store, frames=1)
    with pytest.raises(EpisodeError, match="no episode"):
        store.open(episode_id)

"""Changes of closed episodes: what they keep, several at once, readers meanwhile, disks that fail, hostile stores."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.edit import delete, relabel, tag
from embodied_vision.episodes.manifest import MANIFEST, read_manifest
from embodied_vision.episodes.merge import merge_one
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.swap import Busy, locked
from embodied_vision.episodes.trim import trim, trim_stamps
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput, EpisodeError

from .samples import (
    PERIOD_NS,
    START_NS,
    Child,
    assert_holds,
    contents,
    files_of,
    fill,
    make_action,
    make_camera,
    make_frame,
    read_all,
    write_episode,
)

PERIOD_S = PERIOD_NS / 1e9
FRAMES = 70
"""More than a shard holds."""


def write_long(store: EpisodeStore, codec: Any = "lossless") -> str:
    """Two cameras, a value a frame, a decision every ten frames on the frames of both."""
    cameras = [make_camera("left"), make_camera("right", 10, 14)]
    with EpisodeWriter(store, task="t", robot="r", cameras=cameras, color_codec=codec) as writer:
        for number in range(FRAMES):
            frames = [make_frame(camera, number) for camera in cameras]
            for frame in frames:
                writer.append_frame(frame)
            writer.append("joint_states", START_NS + number * PERIOD_NS, [float(number), -float(number)])
            if number % 10 == 0:
                action = make_action(number * PERIOD_NS)
                writer.append_decision(action, frames, {"number": number})
        return writer.close({"reward": 1.0})


@pytest.mark.parametrize("codec", ["lossless", "jpeg", "htj2k"])
def test_trim_keeps_everything_in_the_window_as_it_was(tmp_path: Path, codec: str) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = write_long(store, codec)
    before = store.open(episode_id)
    encoded = {name: [before.frames(name).encoded_color(n) for n in range(FRAMES)] for name in before.cameras}
    depths = {name: [before.frames(name).depth_mm(n) for n in range(FRAMES)] for name in before.cameras}
    decisions = list(before.decisions)

    assert trim(store, episode_id, 3 * PERIOD_S, 68 * PERIOD_S)
    after, kept = store.open(episode_id), range(3, 68)
    for name in after.cameras:
        frames = after.frames(name)
        assert frames.stamps_ns.tolist() == [START_NS + number * PERIOD_NS for number in kept]
        assert [frames.encoded_color(n) for n in range(len(frames))] == [encoded[name][n] for n in kept]
        for index, number in enumerate(kept):
            np.testing.assert_array_equal(frames.depth_mm(index), depths[name][number])
    stamps, values = after.stream("joint_states")
    assert stamps.tolist() == [START_NS + number * PERIOD_NS for number in kept]
    np.testing.assert_array_equal(values, [[number, -number] for number in kept])
    assert [decision.info["number"] for decision in after.decisions] == [10, 20, 30, 40, 50, 60]
    for one, other in zip(after.decisions, decisions[1:], strict=True):
        assert one.action.to_dict() == other.action.to_dict()
        for frame, wanted in zip(one.frames, other.frames, strict=True):
            assert (frame.stamp_ns, frame.camera.name) == (wanted.stamp_ns, wanted.camera.name)
            np.testing.assert_array_equal(frame.color, wanted.color)
            np.testing.assert_array_equal(frame.depth, wanted.depth)
    assert verify(store)[0].ok
    assert after.group()["cameras/left/depth"].shape[0] == len(kept)
    np.testing.assert_array_equal(after.group()["decisions/stamps"][:], after.decisions.stamps_ns)
    (entry,) = after.history
    assert (entry["what"], entry["from"]) == (
        "trim",
        {"first_ns": START_NS, "last_ns": START_NS + (FRAMES - 1) * PERIOD_NS},
    )
    assert (after.outcome, after.created_ns, after.closed_ns) == (before.outcome, before.created_ns, before.closed_ns)
    assert not trim(store, episode_id)


def test_trim_can_leave_a_camera_without_frames(tmp_path: Path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera]) as writer:
        writer.append_frame(make_frame(camera, 0))
        writer.append("x", START_NS + 10 * PERIOD_NS, [1.0])
        writer.append_decision(make_action(), [])
        writer.close({})
    trim_stamps(store, writer.id, start_ns=START_NS + PERIOD_NS)
    episode = store.open(writer.id)
    assert (len(episode.frames("camera")), len(episode.decisions), len(episode.stream("x")[0])) == (0, 0, 1)
    trim_stamps(store, writer.id, stop_ns=START_NS + 11 * PERIOD_NS)
    assert verify(store)[0].ok


def test_trim_refuses_damage_and_does_not_seal_it(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    (shard,) = (store.episodes_path / episode_id / "data.zarr/cameras/camera/color").glob("c*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(EpisodeError, match="damaged"):
        trim(store, episode_id, start_s=PERIOD_S)
    relabel(store, episode_id, {"solved": False})
    (report,) = verify(store)
    assert [file for file, _ in report.problems] == [str(shard.relative_to(store.episodes_path / episode_id))]


def test_reader_goes_on_through_changes_of_labels(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode = store.open(write_episode(store))
    frames = episode.frames("camera")
    frames[0]
    for number in range(3):
        relabel(store, episode.id, {"number": number})
        tag(store, episode.id, [f"tag-{number}"])
        assert_holds(episode, 5)
        read_all(pickle.loads(pickle.dumps(episode)))  # noqa: S301 as to another process


def test_reader_of_a_trimmed_episode_is_told(tmp_path: Path) -> None:
    """Frames of noise have chunks of equal sizes: the places that a reader remembers fit another frame's chunk."""
    store = EpisodeStore(tmp_path)
    episode_id = write_long(store)
    opened = [store.open(episode_id) for _ in range(4)]
    read, half, fresh, copied = opened
    read_all(read)
    half.frames("left")[0]
    sent = pickle.dumps(copied)
    trim(store, episode_id, start_s=5 * PERIOD_S)
    for episode in (read, half, fresh, pickle.loads(sent)):  # noqa: S301
        for look in (
            lambda episode=episode: episode.frames("left")[0],
            lambda episode=episode: episode.frames("left").colors([1, 2]),
            lambda episode=episode: episode.frames("right").depth_mm(0),
            lambda episode=episode: episode.stream("joint_states"),
            lambda episode=episode: episode.decisions[0],
        ):
            with pytest.raises(EpisodeError, match="open it again"):
                look()
    assert store.open(episode_id).frames("left")[0].stamp_ns == START_NS + 5 * PERIOD_NS
    delete(store, episode_id)
    with pytest.raises(EpisodeError, match="open it again"):
        read.frames("left")[0]


def test_readers_beside_an_editor_see_one_version_or_an_error(tmp_path: Path) -> None:
    store, frames = EpisodeStore(tmp_path), 20
    episode_id = write_episode(store, frames=frames)

    def edit_for_ever() -> None:
        for number in range(1, frames - 1):
            relabel(store, episode_id, {"number": number})
            trim_stamps(store, episode_id, start_ns=START_NS + number * PERIOD_NS)

    seen, problems = set(), []
    with Child(edit_for_ever) as child:
        while store.open(episode_id).outcome.get("number", 0) < frames - 2:
            episode = store.open(episode_id)  # never an error: some version is there at any time
            try:
                logged = episode.frames("camera")
                first = (int(logged.stamps_ns[0]) - START_NS) // PERIOD_NS
                assert len(logged) == frames - first
                for index, frame in enumerate(logged):
                    wanted = make_frame(logged.camera, first + index)
                    assert frame.stamp_ns == wanted.stamp_ns
                    np.testing.assert_array_equal(frame.color, wanted.color)
            except EpisodeError as error:
                problems.append(str(error))
                continue
            assert verify(store)[0].ok
            seen.add(first)
        assert child.wait() == 0
    assert seen
    assert [problem for problem in problems if "open it again" not in problem] == []


def test_edits_of_many_processes_all_count(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)

    def tag_several(part: int) -> None:
        for number in range(5):
            tag(store, episode_id, [f"{part}-{number}"])

    with (
        Child(lambda: tag_several(0)) as one,
        Child(lambda: tag_several(1)) as two,
        Child(lambda: tag_several(2)) as three,
    ):
        while any(os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for child in (one, two)):
            repair(store)  # settles what is dead, leaves alone what lives
        assert (one.wait(), two.wait(), three.wait()) == (0, 0, 0)
    episode = store.open(episode_id)
    assert episode.tags == tuple(sorted(f"{part}-{number}" for part in range(3) for number in range(5)))
    assert len(episode.history) == 15
    assert_holds(episode, 5)
    assert store.edit_ids() == []


def test_a_folder_that_another_process_takes_away_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    make, seen = os.mkdir, []

    def there_and_gone(path: Any, *args: Any, **more: Any) -> None:
        if Path(path) == store.edits_path / episode_id and not seen:
            seen.append(path)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        make(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", there_and_gone)
        assert tag(store, episode_id, ["x"])
    assert seen
    assert store.open(episode_id).tags == ("x",)


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_what_lies_in_the_place_of_the_folder_is_told(tmp_path: Path, kind: str) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    folder = store.edits_path / episode_id
    folder.parent.mkdir(exist_ok=True)
    if kind == "file":
        folder.touch()
    elif kind == "link":
        folder.symlink_to(tmp_path / "nowhere")
    else:
        os.mkfifo(folder)
    with pytest.raises(EpisodeError, match=episode_id):
        tag(store, episode_id, ["x"])
    assert store.open(episode_id).tags == ()


def test_an_edit_and_a_deletion_at_once(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    for _ in range(3):
        episode_id = write_episode(store)

        def tag_for_ever(episode_id: str = episode_id) -> None:
            for number in count():
                tag(store, episode_id, [str(number % 20)])
                time.sleep(0.005)  # who waits asks now and then, and would find it held each time

        def edit() -> None:
            with pytest.raises(EpisodeError, match="no episode"):
                tag_for_ever()

        with Child(edit) as editor, Child(lambda episode_id=episode_id: delete(store, episode_id)) as deleter:
            assert (editor.wait(), deleter.wait()) == (0, 0)
        assert store.ids() == []
        assert repair(store) == []


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    with locked(store, episode_id):
        with pytest.raises(Busy, match="another process"):
            with locked(store, episode_id, wait_s=0.0):
                pass
        assert [(result.id, result.state) for result in repair(store)] == [(episode_id, "editing")]
    assert tag(store, episode_id, ["x"])


def test_episode_that_is_just_being_closed_is_left_alone(tmp_path: Path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera]) as writer:
        fill(writer, camera)
        with pytest.raises(EpisodeError, match="in staging"):
            tag(store, writer.id, ["x"])
        shutil.copytree(store.episodes_path / write_episode(store), store.episodes_path / writer.id)
        with pytest.raises(EpisodeError, match="being closed"):
            delete(store, writer.id)
        assert writer.id in store.ids()


@pytest.mark.parametrize("call", ["link", "mkdir", "fsync", "rename"])
def test_full_disk_leaves_the_episode_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    before = contents(store.open(episode_id))

    def full(*args: Any, **_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        if call == "rename":
            patch.setattr("embodied_vision.episodes.swap.exchange", full)
        with pytest.raises(EpisodeError, match=r"No space left.*not half changed"):
            relabel(store, episode_id, {"solved": False})
    repair(store)
    assert contents(store.open(episode_id)) == before
    assert verify(store)[0].ok
    assert store.edit_ids() == []
    assert relabel(store, episode_id, {"solved": False})


def test_file_systems_without_hard_links_and_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*args: Any, **_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(args[0]))

    monkeypatch.setattr(os, "link", cannot)
    monkeypatch.setattr("embodied_vision.episodes.swap.exchange", cannot)
    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    relabel(store, episode_id, {"solved": False})
    assert_holds(store.open(episode_id), 5)
    trim(store, episode_id, stop_s=2 * PERIOD_S)
    assert_holds(store.open(episode_id), 2)
    assert verify(store)[0].ok


def test_sync_that_fails_after_the_swap_is_told_and_undoes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though some file systems answer it with what `exchange` says where it cannot."""
    from embodied_vision.episodes import swap

    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    exchange, sync = swap.exchange, swap.sync
    swapped: list[Path] = []

    def exchanged(one: Path, other: Path) -> None:
        exchange(one, other)
        swapped.append(other)

    def fails_once(path: Path) -> None:
        if len(swapped) == 1:
            swapped.append(path)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        sync(path)

    monkeypatch.setattr(swap, "exchange", exchanged)
    monkeypatch.setattr(swap, "sync", fails_once)
    with pytest.raises(EpisodeError, match="Invalid argument"):
        relabel(store, episode_id, {"solved": False})
    assert store.open(episode_id).outcome["solved"] is False
    assert verify(store)[0].ok
    assert store.edit_ids() == []


def test_all_of_the_next_version_is_on_the_disk_before_the_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embodied_vision.episodes import swap

    store = EpisodeStore(tmp_path)
    episode_id = write_episode(store)
    events: list[str] = []
    exchange = swap.exchange

    def exchanged(one: Path, other: Path) -> None:
        events.append("swap")
        exchange(one, other)

    monkeypatch.setattr(os, "fsync", lambda fd: events.append(os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(swap, "exchange", exchanged)
    trim(store, episode_id, stop_s=2 * PERIOD_S)
    before, after = events[: events.index("swap")], events[events.index("swap") + 1 :]
    episode, build = store.episodes_path / episode_id, store.edits_path / episode_id / episode_id
    wanted = {str(build / path.relative_to(episode)) for path in [episode, *episode.rglob("*")]}
    assert wanted <= set(before)
    assert before.index(str(build / MANIFEST)) > max(i for i, path in enumerate(before) if path.endswith("zarr.json"))
    assert {str(store.episodes_path), str(store.edits_path / episode_id)} <= set(after)


@pytest.mark.parametrize("episode_id", ["../outside", "..", "", ".", "a/b", "nobody"])
def test_ids_that_lead_elsewhere_are_refused(tmp_path: Path, episode_id: str) -> None:
    store = EpisodeStore(tmp_path / "store")
    shutil.copytree(store.episodes_path / write_episode(store), tmp_path / "store" / "outside")
    for change in (delete, lambda *args: tag(*args, ["x"]), lambda *args: trim(*args, 1.0)):
        with pytest.raises(EpisodeError, match="no episode"):
            change(store, episode_id)
    with pytest.raises(EpisodeError, match="no episode"):
        merge_one(EpisodeStore(tmp_path / "target"), store, episode_id)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


@pytest.mark.parametrize("what", ["edits", "trash", "edits/ID", "edits/ID/lock", "edits/ID/ID"])
def test_links_in_a_store_lead_nowhere(tmp_path: Path, what: str) -> None:
    store, outside = EpisodeStore(tmp_path / "store"), tmp_path / "outside"
    episode_id = write_episode(store)
    outside.mkdir()
    (outside / "precious").write_text("mine")
    link = store.path / what.replace("ID", episode_id)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "precious" if what.endswith("lock") else outside)
    if what.endswith("ID/ID"):
        tag(store, episode_id, ["x"])  # it was no version, and went
    else:
        with pytest.raises(EpisodeError, match="symbolic link"):
            delete(store, episode_id, keep=True)
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "mine"
    assert verify(store)[0].ok


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "data.zarr/../../../escaped"])
def test_manifests_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """A manifest that matches its own sha256, but names a file outside of the episode."""
    import hashlib

    store = EpisodeStore(tmp_path / "source")
    episode_id = write_episode(store)
    path = store.episodes_path / episode_id / MANIFEST
    content = json.loads(path.read_text())
    del content["sha256"]
    content["files"][name] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content))
    (store.path / "escaped").write_text("x")
    before = files_of(tmp_path)
    target = EpisodeStore(tmp_path / "target")
    assert merge_one(target, store, episode_id).state == "damaged"
    with pytest.raises(EpisodeError):
        tag(store, episode_id, ["x"])
    assert files_of(tmp_path) == before


def test_merge_of_an_episode_that_is_open_in_the_target(tmp_path: Path) -> None:
    store, target = EpisodeStore(tmp_path / "source"), EpisodeStore(tmp_path / "target")
    episode_id = write_episode(store)
    (target.staging_path / episode_id).mkdir(parents=True)
    assert merge_one(target, store, episode_id).state == "conflict"
    assert target.ids() == []


def test_merge_does_not_move_onto_a_damaged_copy(tmp_path: Path) -> None:
    store, target = EpisodeStore(tmp_path / "source"), EpisodeStore(tmp_path / "target")
    episode_id = write_episode(store)
    assert merge_one(target, store, episode_id).state == "copied"
    name = next(name for name in read_manifest(target.folder(episode_id)) if "/c." in name)
    shard = target.folder(episode_id) / name
    shard.write_bytes(bytes(shard.stat().st_size))
    assert merge_one(target, store, episode_id, move=True).state == "damaged"
    assert_holds(store.open(episode_id), 5)


def test_two_merges_at_once(tmp_path: Path) -> None:
    store, target = EpisodeStore(tmp_path / "source"), EpisodeStore(tmp_path / "target")
    ids = [write_episode(store) for _ in range(6)]

    def merge_all(order: int) -> None:
        for episode_id in ids[::order]:
            assert merge_one(target, store, episode_id).state in ("copied", "there")

    with Child(lambda: merge_all(1)) as one, Child(lambda: merge_all(-1)) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    assert target.ids() == store.ids()
    assert all(report.ok for report in verify(target))
    assert target.edit_ids() == []


def test_catalogue_sees_every_change(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    ids = [write_episode(store) for _ in range(3)]
    assert [episode.id for episode in store.select(outcome={"solved": True})] == ids
    for _ in range(3):  # inodes come back
        relabel(store, ids[0], {"solved": False})
        assert [episode.id for episode in store.select(outcome={"solved": True})] == ids[1:]
        relabel(store, ids[0], {"solved": True})
        assert [episode.id for episode in store.select(outcome={"solved": True})] == ids
    delete(store, ids[1])
    assert [episode.id for episode in store.select()] == [ids[0], ids[2]]


def test_empty_episode_cannot_be_trimmed(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    with EpisodeWriter(store, task="t", robot="r", cameras=[make_camera()]) as writer:
        writer.close({})
    with pytest.raises(BadInput, match="nothing"):
        trim(store, writer.id, 0.0, 1.0)
    assert isinstance(store.open(writer.id), Episode)

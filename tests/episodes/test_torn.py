"""Files that hold other bytes than were written: cut, ended by zeros, blocks of other files, blocks in wrong places."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.commit import JOURNAL
from embodied_vision.episodes.journal import JournalReader
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EpisodeError

from .contents import contents, write_rich_episode
from .faults import killed_at, trace
from .samples import START_NS, assert_holds, files_of, make_camera, make_frame

BLOCK = 512
"""What a disk writes at once, at least."""


def cut(at: float) -> Callable[[bytes, bytes], bytes]:
    return lambda data, other: data[: int(at * len(data))]


def zeros_from(at: float) -> Callable[[bytes, bytes], bytes]:
    return lambda data, other: data[: int(at * len(data))].ljust(len(data), b"\0")


def block_of_another(at: float) -> Callable[[bytes, bytes], bytes]:
    def damage(data: bytes, other: bytes) -> bytes:
        start = min(int(at * len(data)) // BLOCK * BLOCK, max(0, len(data) - 1))
        piece = other[start : start + BLOCK] or other[:BLOCK]
        return data[:start] + piece[: len(data) - start] + data[start + len(piece) :]

    return damage


def block_again(data: bytes, other: bytes) -> bytes:
    """The first block stands in the second's place as well."""
    half = min(BLOCK, len(data) // 2)
    return data[:half] + data[:half] + data[2 * half :]


def block_twice(data: bytes, other: bytes) -> bytes:
    """The first block was written twice, and all after it is shifted."""
    return data[:BLOCK] + data


DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": cut(0.0),
    "cut near the start": cut(0.02),
    "cut in half": cut(0.5),
    "cut near the end": cut(0.98),
    "all zeros": zeros_from(0.0),
    "zeros from the middle on": zeros_from(0.5),
    "zeros at the end": zeros_from(0.9),
    "another file's first block": block_of_another(0.0),
    "another file's middle block": block_of_another(0.5),
    "another file's last block": block_of_another(1.0),
    "a block again": block_again,
    "a block twice": block_twice,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    store = EpisodeStore(tmp_path_factory.mktemp("store"))
    write_rich_episode(store)
    return store


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_file_of_a_closed_episode(whole: EpisodeStore, tmp_path: Path, damage: str) -> None:
    (episode_id,) = whole.ids()
    store = EpisodeStore(tmp_path / "copy")
    shutil.copytree(whole.path, store.path)
    folder = store.episodes_path / episode_id
    paths = files_of(folder)
    damaged = 0
    for path, neighbour in zip(paths, [*paths[1:], paths[0]], strict=True):
        original = path.read_bytes()
        data = DAMAGES[damage](original, neighbour.read_bytes())
        if data == original:
            continue
        damaged += 1
        path.write_bytes(data)
        (report,) = verify(store)
        assert [name for name, _ in report.problems] == [str(path.relative_to(folder))]
        with pytest.raises(EpisodeError, match=path.name):
            contents(store.open(episode_id))
        path.write_bytes(original)
    assert damaged > 0.8 * len(paths)


def journal_of(store: EpisodeStore, frames: int = 4) -> Path:
    """The journal of a dead writer of frames and samples."""
    camera = make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        for number in range(frames):
            writer.append_frame(make_frame(camera, number))
            writer.append("joint_states", START_NS + number, [float(number)])
    return store.staging_path / writer.id / JOURNAL


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_is_repaired_around_its_damage(tmp_path: Path, damage: str) -> None:
    store = EpisodeStore(tmp_path / "store")
    journal = journal_of(store)
    other = journal_of(EpisodeStore(tmp_path / "other"), 6).read_bytes()
    with JournalReader(journal) as reader:
        ends = [sum(record.blobs[-1]) for record in reader.records[1:]]
    original = journal.read_bytes()
    header_end = original.index(b"\xeeEVJ", 1)
    data = DAMAGES[damage](original, other)
    journal.write_bytes(data)
    (result,) = repair(store)
    assert store.staging_ids() == []
    if original[:header_end] not in data:  # without its header nobody knows what the records are of
        assert store.ids() == []
        if result.state == "empty":  # as a writer leaves it that was killed in its first call
            assert original.startswith(data)
        else:
            assert result.state == "failed"
            assert (store.quarantine_path / result.id / JOURNAL).read_bytes() == data
        return
    assert result.state == "recovered"
    episode, camera = store.open(result.id), make_camera()
    assert verify(store)[0].ok
    untouched = _common(original, data)
    whole = sum(end <= untouched for end in ends)
    frames = episode.frames("camera")
    assert len(frames) + len(episode.stream("joint_states")[0]) >= whole
    for frame in frames:
        number = round((frame.stamp_ns - START_NS) / 66_666_667)
        np.testing.assert_array_equal(frame.color, make_frame(camera, number).color)
        np.testing.assert_array_equal(frame.depth, make_frame(camera, number).depth)
    if result.detail:
        assert (store.quarantine_path / result.id / JOURNAL).read_bytes() == data


def _common(first: bytes, second: bytes) -> int:
    """How many bytes both begin with."""
    same = (one == two for one, two in zip(first, second, strict=False))
    return next((at for at, equal in enumerate(same) if not equal), min(len(first), len(second)))


def unfinished(store: EpisodeStore) -> Iterator[Path]:
    """The store with a writer killed just before its episode appears; its built files."""
    camera = make_camera()

    def work(target: EpisodeStore) -> None:
        with EpisodeWriter(target, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
            for number in range(3):
                writer.append_frame(make_frame(camera, number))
            writer.close({"reward": 1.0})

    calls = trace(lambda: work(EpisodeStore(store.path.with_name("elsewhere"))))
    assert killed_at(lambda: work(store), calls.index("rename"))
    (staging,) = store.staging_path.iterdir()
    yield from files_of(staging / "build")


def test_any_file_of_an_episode_that_was_being_built(tmp_path: Path) -> None:
    before = EpisodeStore(tmp_path / "before")
    built = list(unfinished(before))
    assert len(built) > 15
    for number, path in enumerate(built):
        store = EpisodeStore(tmp_path / str(number))
        shutil.copytree(before.staging_path, store.staging_path)
        copy = store.path / path.relative_to(before.path)
        copy.write_bytes(list(DAMAGES.values())[number % len(DAMAGES)](copy.read_bytes(), built[0].read_bytes()))
        assert [(result.state, result.detail) for result in repair(store)] == [("recovered", "")]
        assert verify(store)[0].ok
        assert_holds(store.open(store.ids()[0]), 3)
        assert store.open(store.ids()[0]).outcome == {"reward": 1.0}

"""A flipped bit anywhere is found: `verify` names the file, and no reader takes it for data."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.commit import JOURNAL
from embodied_vision.episodes.journal import JournalReader
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EpisodeError

from .contents import contents, write_rich_episode
from .samples import START_NS, files_of, make_camera, make_frame

FLIPS_A_FILE = int(os.environ.get("EPISODE_FLIPS", "1"))
"""Besides those at set places; all files together make the hundreds."""


def places(data: bytes, rng: random.Random) -> list[int]:
    """Bytes of a file to flip a bit in: both ends, the middle, a shard's index and checksums, JSON of every sort."""
    wanted = [0, 1, len(data) // 2, len(data) - 1]
    try:
        text = data.decode()
        json.loads(text)
    except ValueError:
        index = 64 * 16 + 4
        wanted += [
            len(data) - index,
            len(data) - index + 8,
            len(data) - index + 16,
            len(data) - 4,
            len(data) - index - 1,
        ]
    else:
        sorts = ("{", "}", "[", '"', ":", ",", " ", "\n", "0", "1", "e", "_")
        wanted += [rng.choice(at) for at in ([i for i, c in enumerate(text) if c == sort] for sort in sorts) if at]
        own = text.rfind('"sha256"')
        wanted += [own + 15, own + 40] if own >= 0 else []
    wanted += [rng.randrange(len(data)) for _ in range(FLIPS_A_FILE)]
    return sorted({place for place in wanted if 0 <= place < len(data)})


def attempt(store: EpisodeStore, episode_id: str) -> tuple[dict[str, Any] | None, str]:
    """What an episode holds, or what is wrong with it."""
    try:
        return contents(store.open(episode_id)), ""
    except EpisodeError as error:
        return None, str(error)


def test_flips_in_every_file_of_an_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, rng = EpisodeStore(tmp_path), random.Random(3)
    episode_id = write_rich_episode(store)
    folder = store.episodes_path / episode_id
    written = contents(store.open(episode_id))
    flips = unnoticed = 0
    for path in files_of(folder):
        original = path.read_bytes()
        for place in places(original, rng):
            data = bytearray(original)
            data[place] ^= 1 << rng.randrange(8)
            with open(path, "r+b") as file:  # in place, as a disk does it
                file.write(data)
            flips += 1
            (report,) = verify(store)
            assert not report.ok
            assert [name for name, _ in report.problems] == [str(path.relative_to(folder))]
            read, problem = attempt(store, episode_id)
            assert read == written or path.name in problem
            unnoticed += not problem
        with open(path, "r+b") as file:
            file.write(original)
    with capsys.disabled():
        print(f"\n{flips} bits flipped, {unnoticed} of them in bytes that reading does not need")
    assert flips >= 500
    assert contents(store.open(episode_id)) == written


def test_flips_while_an_episode_is_open(tmp_path: Path) -> None:
    """What was checked when it was opened may rot before it is read."""
    store, rng = EpisodeStore(tmp_path), random.Random(4)
    episode_id = write_rich_episode(store)
    folder = store.episodes_path / episode_id
    written = contents(store.open(episode_id))
    caught = 0
    for path in files_of(folder):
        original = path.read_bytes()
        for _ in range(6):
            episode = store.open(episode_id)
            data = bytearray(original)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            with open(path, "r+b") as file:
                file.write(data)
            try:
                read = contents(episode)
            except EpisodeError:
                caught += 1
            else:
                assert read == written
            with open(path, "r+b") as file:
                file.write(original)
    assert caught > 50


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of a header, two frames and six samples whose writer died."""
    store, camera = EpisodeStore(tmp_path_factory.mktemp("store")), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        for number in range(2):
            writer.append_frame(make_frame(camera, number))
            for part in range(3):
                writer.append("joint_states", START_NS + 3 * number + part, [1.0 * number, part])
    return store.staging_path / writer.id / JOURNAL


def read_records(path: Path) -> tuple[list[tuple[Any, list[bytes]]], list[tuple[int, int]]]:
    """Records with their blobs, and gaps."""
    with JournalReader(path) as reader:
        found = [(r.fields, [reader.blob(r, number) for number in range(len(r.blobs))]) for r in reader.records]
        return found, reader.gaps


def test_a_flip_in_the_journal_costs_its_record_and_no_other(journal: Path, tmp_path: Path) -> None:
    original = journal.read_bytes()
    with JournalReader(journal) as reader:
        records = [
            (record.fields, [reader.blob(record, n) for n in range(len(record.blobs))]) for record in reader.records
        ]
    starts = [at for at in range(len(original)) if original.startswith(b"\xeeEVJ", at)]
    assert len(starts) == len(records) == 9
    rng = random.Random(5)
    damaged = tmp_path / JOURNAL
    ends = [*starts[1:], len(original)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for place in {
            *range(start, start + 40),
            end - 1,
            *(rng.randrange(start, end) for _ in range(10 * FLIPS_A_FILE)),
        }:
            data = bytearray(original)
            data[place] ^= 1 << rng.randrange(8)
            damaged.write_bytes(data)
            assert read_records(damaged) == (records[:number] + records[number + 1 :], [(start, end - start)])


def test_a_flip_in_the_journal_is_told_and_the_journal_kept(journal: Path, tmp_path: Path) -> None:
    original = journal.read_bytes()
    rng = random.Random(6)
    for attempt in range(8):
        store = EpisodeStore(tmp_path / str(attempt))
        shutil.copytree(journal.parent, store.staging_path / "episode")
        data = bytearray(original)
        data[rng.randrange(len(data) // 3, len(data))] ^= 1
        (store.staging_path / "episode" / JOURNAL).write_bytes(data)
        (result,) = repair(store)
        assert (result.state, result.records) == ("recovered", 8)
        assert "unreadable" in result.detail
        assert (store.quarantine_path / "episode" / JOURNAL).read_bytes() == bytes(data)
        assert verify(store)[0].ok

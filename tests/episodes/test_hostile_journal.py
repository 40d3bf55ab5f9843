"""Journals made to mislead, every checksum right: repair takes what a writer could have written and tells the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.commit import JOURNAL
from embodied_vision.episodes.journal import JournalReader, JournalWriter
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput

from .contents import contents
from .forged import bounded, journal_record, tree
from .samples import START_NS, make_action, make_camera, make_frame
from .test_hostile_metadata import PIECES, places_in

ID = "episode"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], bytes]]:
    """Heads and bodies of a header, a frame, a sample, a decision, a note and an outcome."""
    store, camera = EpisodeStore(tmp_path_factory.mktemp("store")), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        writer.append_frame(make_frame(camera, 0))
        writer.append("joint_states", START_NS, [1.0, 2.0])
        writer.append_decision(make_action(), [make_frame(camera, 0)], {"number": 1})
        writer.note("dropped", 3)
    with JournalReader(store.staging_path / writer.id / JOURNAL) as reader:
        found = [
            (
                {**record.fields, "blobs": [size for _, size in record.blobs]},
                b"".join(reader.blob(record, number) for number in range(len(record.blobs))),
            )
            for record in reader.records
        ]
    return [*found, ({"kind": "outcome", "outcome": {"reward": 1.0}, "blobs": []}, b"")]


def staged(folder: Path, data: bytes) -> EpisodeStore:
    store = EpisodeStore(folder / "store")
    (store.staging_path / ID).mkdir(parents=True)
    (store.staging_path / ID / JOURNAL).write_bytes(data)
    return store


BLOBS: dict[str, Any] = {
    "negative": [-1, 100],
    "beyond": [2**40],
    "beyond int64": [2**80],
    "too many": [0] * 1000,
    "too few": [],
    "floats": [1.0, 2.0],
    "bools": [True, True],
    "a number": 3,
    "texts": ["1"],
    "a mapping": {},
}
HEADS: dict[str, dict[str, Any]] = {
    "of unknown camera": {"camera": "other"},
    "of a camera elsewhere": {"camera": "../../../outside"},
    "of no camera": {"camera": None},
    "late": {"stamp": 2**63},
    "early": {"stamp": -(2**70)},
    "at half past": {"stamp": 0.5},
    "of a text's time": {"stamp": "now"},
    "of a mapping's kind": {"kind": {}},
    "of a number's kind": {"kind": 3},
    **{f"of blobs {what}": {"blobs": sizes} for what, sizes in BLOBS.items()},
}


@pytest.mark.parametrize("what", HEADS)
def test_record_that_no_writer_makes_is_a_gap(
    records: list[tuple[dict[str, Any], bytes]], tmp_path: Path, what: str
) -> None:
    head, body = records[1]
    spoilt = journal_record({**head, **HEADS[what]}, body)
    good = [journal_record(*record) for record in records]
    store = staged(tmp_path, b"".join([*good[:3], spoilt, *good[3:]]))
    (result,) = repair(store)
    assert (result.state, result.records) == ("recovered", len(records))
    assert f"{len(spoilt)} bytes unreadable" in result.detail
    assert verify(store)[0].ok
    episode = store.open(ID)
    assert len(episode.frames("camera")) == len(episode.decisions) == 1
    assert episode.outcome == {"reward": 1.0}
    assert episode.attributes == {"dropped": 3}
    assert (store.quarantine_path / ID / JOURNAL).exists()


TEXTS = {
    "nested": b'{"kind": "note", "name": "x", "value": ' + b"[" * 50_000 + b"]" * 50_000 + b', "blobs": []}',
    "no JSON": b"\xff" * 100,
    "empty": b"",
    "a list": b"[]",
    "a key twice": b'{"kind": "note", "kind": "note", "name": "x", "value": 1, "blobs": []}',
    "half a surrogate": b'{"kind": "note", "name": "\\ud800", "value": 1, "blobs": []}',
    "a long number": b'{"kind": "note", "name": "x", "value": ' + b"9" * 5000 + b', "blobs": []}',
}


@pytest.mark.parametrize("what", TEXTS)
def test_head_that_is_made_to_choke_on_is_a_gap(
    records: list[tuple[dict[str, Any], bytes]], tmp_path: Path, what: str
) -> None:
    good = [journal_record(*record) for record in records]
    store = staged(tmp_path, b"".join([*good[:2], journal_record(TEXTS[what]), *good[2:]]))

    def work() -> None:
        (result,) = repair(store)
        assert (result.state, result.records) == ("recovered", len(records))
        assert "unreadable" in result.detail

    bounded(work)
    contents(store.open(ID))


def test_lengths_that_lead_beyond_the_file(records: list[tuple[dict[str, Any], bytes]], tmp_path: Path) -> None:
    good = [journal_record(*record) for record in records]
    for number, lengths in enumerate([(2**32 - 1, 0), (0, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0, 0), (100, 2**31)]):
        frame = b"\xeeEVJ" + b"".join(value.to_bytes(4, "little") for value in (*lengths, 12345))
        store = staged(tmp_path / str(number), b"".join([*good[:2], frame, *good[2:]]))

        def work(store: EpisodeStore = store) -> None:
            (result,) = repair(store)
            assert (result.state, result.records) == ("recovered", len(records))
            assert "16 bytes unreadable" in result.detail

        bounded(work)


def test_journal_that_costs_time_is_given_up(tmp_path: Path) -> None:
    """A million beginnings, each of a record to the end of the file: read a bounded number of times, kept, told."""
    size = 16_000_000
    piece = b"\xeeEVJ" + (2).to_bytes(4, "little")
    data = b"".join(piece + max(0, size - 16 * at - 18).to_bytes(4, "little") + b"abcd" for at in range(size // 16))
    store = staged(tmp_path, data)

    def work() -> None:
        (result,) = repair(store)
        assert result.state == "failed"

    bounded(work)
    assert (store.quarantine_path / ID / JOURNAL).stat().st_size == size


def test_sparse_journal_takes_no_memory(records: list[tuple[dict[str, Any], bytes]], tmp_path: Path) -> None:
    store = staged(tmp_path, b"".join(journal_record(*record) for record in records))
    os.truncate(store.staging_path / ID / JOURNAL, 1 << 31)

    def work() -> None:
        (result,) = repair(store)
        assert (result.state, result.records) == ("recovered", len(records))

    bounded(work)


def test_bad_sector_is_a_gap(
    records: list[tuple[dict[str, Any], bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [journal_record(*record) for record in records]
    frame = journal_record({**records[1][0], "stamp": 1}, records[1][1])
    store = staged(tmp_path, b"".join([*good[:2], *[frame] * 20, *good[2:]]))
    read = os.pread
    bad = range(9000, 9512)

    def pread(fd: int, count: int, offset: int) -> bytes:
        if offset < bad.stop and offset + count > bad.start:
            raise OSError(5, "Input/output error")
        return read(fd, count, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", pread)
        (result,) = repair(store)
    assert result.state == "recovered"
    assert "unreadable" in result.detail
    frames = store.open(ID).frames("camera")
    assert 10 < len(frames) < 21
    for image in frames.colors(np.arange(len(frames))):
        np.testing.assert_array_equal(image, make_frame(make_camera(), 0).color)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_of_a_journal_brings_back_what_it_says_or_tells(
    records: list[tuple[dict[str, Any], bytes]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("journal")
    heads = json.loads(json.dumps([head for head, _ in records]))
    number = data.draw(st.integers(0, len(heads) - 1))
    place = data.draw(st.sampled_from(places_in(heads[number])[1:]))
    part = heads[number]
    for step in place[:-1]:
        part = part[step]
    if data.draw(st.booleans()):
        part[place[-1]] = data.draw(PIECES)
    else:
        del part[place[-1]]
    bodies = [body for _, body in records]
    if data.draw(st.integers(0, 4)) == 0:
        bodies[number] = data.draw(st.binary(max_size=64))
    store = staged(root, b"".join(journal_record(head, body) for head, body in zip(heads, bodies, strict=True)))
    (result,) = repair(store)
    assert set(os.listdir(root)) == {"store"}
    assert set(tree(store.path)) & {f"quarantine/{ID}/{JOURNAL}"} or result.state == "recovered"
    if result.state == "recovered":
        assert verify(store)[0].ok
        # A header that names no such camera makes records of that camera unreadable as well, in one stretch.
        assert result.records == len(records) or "unreadable" in result.detail
        contents(store.open(ID))
    else:
        assert result.state == "failed"
        assert store.ids() == []


def test_what_could_not_be_read_again_is_not_logged(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested]
    itself: dict[str, Any] = {}
    itself["itself"] = itself
    with EpisodeWriter(EpisodeStore(tmp_path), task="t", robot="r", cameras=[]) as writer:
        for value in (nested, itself, {"x": "\ud800"}):
            with pytest.raises(BadInput):
                writer.append_decision(make_action(), [], {"value": value})
            with pytest.raises(BadInput):
                writer.note("x", value)
        for stamp in (2**63, -(2**63) - 1):
            with pytest.raises(BadInput):
                writer.append("joint_states", stamp, [1.0])
        writer.append("empty", 0, [])
        writer.close({})
    episode = EpisodeStore(tmp_path).open(writer.id)
    assert len(episode.decisions) == 0
    assert episode.streams == ("empty",)
    assert episode.stream("empty")[1].shape == (1, 0)
    for text in ("\ud800", 3, None):
        with pytest.raises(BadInput):
            EpisodeWriter(EpisodeStore(tmp_path), task=text, robot="r", cameras=[])  # type: ignore[arg-type]
        assert EpisodeStore(tmp_path).staging_ids() == []
    writer_of_records = JournalWriter(tmp_path / JOURNAL)
    with pytest.raises(BadInput, match="bytes of JSON"):
        writer_of_records.append({"kind": "note", "name": "x", "value": "x" * (17 << 20)})
    writer_of_records.release()

"""Cutting an episode down to a window of time. Frames are copied encoded, so they stay bit for bit what they were."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.arrays import ArrayReader, read_attributes, write_chunks, write_group, write_values
from embodied_vision.episodes.codecs import unseal
from embodied_vision.episodes.edit import editing, noted
from embodied_vision.episodes.pin import MARKER
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.schema import GROUP, folder_name
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError

_NS = 1_000_000_000

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class _Cut:
    """What stays, by its number in the episode."""

    frames: dict[str, Indices]
    streams: dict[str, Indices]
    decisions: Indices


def trim(store: EpisodeStore, episode_id: str, start_s: float | None = None, stop_s: float | None = None) -> bool:
    """Keep what happened from `start_s` until just before `stop_s`, seconds after the first frame or value.

    Args:
        store: where the episode lies.
        episode_id: which one.
        start_s, stop_s: None for the beginning and the end.

    Returns:
        whether anything was cut.

    Raises:
        BadInput: the window is empty or holds nothing of the episode.
        EpisodeError: as `edit.editing`, or something to be kept is damaged.
    """
    for value in (start_s, stop_s):
        if value is not None and not np.isfinite(value):
            raise BadInput(f"{value} s is no time; give a finite number of seconds")

    def window(first_ns: int) -> tuple[int | None, int | None]:
        return tuple(None if value is None else first_ns + round(value * _NS) for value in (start_s, stop_s))  # type: ignore[return-value]

    return _trim(store, episode_id, window)


def trim_stamps(store: EpisodeStore, episode_id: str, start_ns: int | None = None, stop_ns: int | None = None) -> bool:
    """As `trim`, but from the stamp `start_ns` until just before the stamp `stop_ns`."""
    return _trim(store, episode_id, lambda _: (start_ns, stop_ns))


def _trim(store: EpisodeStore, episode_id: str, window: Callable[[int], tuple[int | None, int | None]]) -> bool:
    with editing(store, episode_id) as edit:
        episode = store.open(episode_id)
        stamps = {name: episode.frames(name).stamps_ns for name in episode.cameras}
        values = {name: episode.stream(name)[0] for name in episode.streams}
        decided = _decision_stamps(edit.source / GROUP / "decisions", episode)
        logged = np.concatenate([*stamps.values(), *values.values()] or [np.zeros(0, np.int64)])
        logged = logged if len(logged) else decided
        if not len(logged):
            raise BadInput(f"episode {episode_id} holds nothing that could be trimmed")
        start_ns, stop_ns = window(int(logged.min()))

        def inside(times: NDArray[np.int64]) -> Indices:
            kept = np.ones(len(times), bool)
            if start_ns is not None:
                kept &= times >= start_ns
            if stop_ns is not None:
                kept &= times < stop_ns
            return np.flatnonzero(kept)

        unstamped = np.flatnonzero(decided == 0)
        cut = _Cut(
            frames={name: inside(times) for name, times in stamps.items()},
            streams={name: inside(times) for name, times in values.items()},
            decisions=np.union1d(inside(decided), unstamped),
        )
        kept = sum(map(len, [*cut.frames.values(), *cut.streams.values(), cut.decisions]))
        total = sum(map(len, [*stamps.values(), *values.values(), decided]))
        if not kept - len(unstamped):
            first, last = int(logged.min()), int(logged.max())
            raise BadInput(
                f"nothing of episode {episode_id} lies in that window; it goes from stamp {first} to {last} ns, "
                f"{(last - first) / _NS:.3f} s"
            )
        if kept == total:
            return False
        former = {"first_ns": int(logged.min()), "last_ns": int(logged.max())}
        root = edit.root()
        root = {
            **root,
            "streams": {name: {**root["streams"][name], "length": len(kept)} for name, kept in cut.streams.items()},
            "decisions": len(cut.decisions),
            "history": noted(root, "trim", former),
        }
        _write(edit.source / GROUP, edit.target / GROUP, episode, cut)
        write_group(edit.target / GROUP, root)
        edit.finish()
        return True


def _decision_stamps(folder: Path, episode: Episode) -> NDArray[np.int64]:
    """When decisions were made; 0 where neither they nor their frames tell."""
    stamps = episode.decisions.stamps_ns.copy()
    seen = {name: ArrayReader(folder / "cameras" / folder_name(name) / "stamps").values() for name in episode.cameras}
    for number, record in enumerate(read_attributes(folder)["records"]):
        if not stamps[number]:
            stamps[number] = min((int(seen[name][index]) for name, index in record["frames"]), default=0)
    return stamps


def _write(source: Path, target: Path, episode: Episode, cut: _Cut) -> None:
    for name, kept in cut.frames.items():
        part = Path("cameras") / folder_name(name)
        _copy_frames(source / part, target / part, kept)
    for name, kept in cut.streams.items():
        part = Path("streams") / folder_name(name)
        _copy_attributes(source / part, target / part, length=len(kept))
        for array in ("stamps", "values"):
            _copy_values(source / part / array, target / part / array, kept)
    _write_decisions(source / "decisions", target / "decisions", list(episode.cameras), cut.decisions)
    for folder in ("cameras", "streams", "decisions/cameras"):
        _copy_attributes(source / folder, target / folder)
    now = time.time_ns()  # finer than the file system's own clock: readers tell versions apart by it
    os.utime(target / MARKER, ns=(now, now))


def _write_decisions(source: Path, target: Path, cameras: Sequence[str], kept: Indices) -> None:
    logged = read_attributes(source)["records"]
    records = [logged[number] for number in kept]
    used = {
        name: sorted({i for record in records for camera, i in record["frames"] if camera == name}) for name in cameras
    }
    place = {name: {old: new for new, old in enumerate(numbers)} for name, numbers in used.items()}
    moved = [
        {**record, "frames": [[name, place[name][number]] for name, number in record["frames"]]} for record in records
    ]
    _copy_attributes(source, target, records=moved, length=len(moved))
    for array in ("stamps", "pick", "place"):
        _copy_values(source / array, target / array, kept)
    for name in cameras:
        part = Path("cameras") / folder_name(name)
        _copy_frames(source / part, target / part, np.array(used[name], np.intp))


def _copy_attributes(source: Path, target: Path, **changed: Any) -> None:
    write_group(target, {**read_attributes(source), **changed})


def _copy_values(source: Path, target: Path, kept: Indices) -> None:
    reader = ArrayReader(source)
    write_values(target, reader.spec, reader.values()[kept])


def _copy_frames(source: Path, target: Path, kept: Indices) -> None:
    _copy_attributes(source, target, length=len(kept))
    _copy_values(source / "stamps", target / "stamps", kept)
    for image in ("color", "depth"):
        reader = ArrayReader(source / image)
        if reader.spec.chunk != 1:
            raise EpisodeError(f"{source / image} holds {reader.spec.chunk} frames a chunk; only one can be cut")
        write_chunks(target / image, reader.spec, len(kept), _checked(reader, kept))


def _checked(reader: ArrayReader, kept: Indices) -> Iterator[bytes]:
    for number, sealed in reader.sealed([int(number) for number in kept]):
        unseal(sealed, f"{reader.folder}: chunk {number}")
        yield sealed

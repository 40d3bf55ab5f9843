"""From journal to episode: the one way an episode comes into being, for `close` and `repair` alike."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from embodied_vision.episodes.arrays import ArraySpec, write_chunks, write_group, write_values
from embodied_vision.episodes.codecs import BloscChunks
from embodied_vision.episodes.journal import JournalReader, Record
from embodied_vision.episodes.manifest import write_manifest
from embodied_vision.episodes.regular import check_own_folders
from embodied_vision.episodes.schema import (
    GROUP,
    POSES,
    STAMPS,
    UNITS,
    color_codec,
    color_spec,
    depth_spec,
    folder_name,
    plain,
    values_spec,
)
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.versions import upgrade
from embodied_vision.errors import EpisodeError
from embodied_vision.syncing import sync, sync_tree
from embodied_vision.types import Camera

JOURNAL = "journal"
_BUILD = "build"
_FROM_HEADER = (
    *("schema", "id", "task", "robot", "encoder_id", "policy_id", "attributes", "created_ns"),
    *("tags", "history"),
)

Blob = tuple[Record, int]
"""A record and the number of one of its blobs."""


def commit(store: EpisodeStore, episode_id: str, journal: JournalReader, outcome: Mapping[str, Any]) -> Path:
    """Write what the journal in staging holds as an episode, and let it appear in the store by one rename.

    Everything is on the disk when this returns. Staging is left as it is.

    Returns:
        the episode's folder.

    Raises:
        EpisodeError: the disk is full or fails; staging is untouched. Or the journal has no header.
    """
    target = store.episodes_path / episode_id
    build = store.staging_path / episode_id / _BUILD
    try:
        check_own_folders(store.path)
        _remove_build(build)  # an earlier attempt; the journal holds all of it
        folder = build / episode_id
        _write_episode(folder / GROUP, journal, outcome)
        sync_tree(folder)
        write_manifest(folder, episode_id)
        sync(folder / "manifest.json")
        sync(folder)
        store.episodes_path.mkdir(parents=True, exist_ok=True)
        os.rename(folder, target)
        sync(store.episodes_path)
        sync(store.path)
    except OSError as error:
        raise EpisodeError(
            f"{error.filename or build} cannot be written ({error.strerror}); episode {episode_id} stays in "
            f"{store.staging_path}: free space or fix the disk, then run `embodied-vision episodes repair {store.path}`"
        ) from error
    return target


def remove_staging(folder: Path) -> None:
    """Remove a staging folder that the caller has locked; the journal goes last, and with it the lock."""
    with suppress(OSError):
        _remove_build(folder / _BUILD)
    (folder / JOURNAL).unlink()
    try:
        folder.rmdir()
    except FileNotFoundError:
        return  # a repair saw the empty folder and removed it
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise  # what somebody else put there stays, and `repair` tells of it


def _remove_build(build: Path) -> None:
    """Remove what an attempt left; where it is a link, the link and not what it points to."""
    if build.is_dir() and not build.is_symlink():
        shutil.rmtree(build, ignore_errors=True)
    else:
        build.unlink(missing_ok=True)


def header(journal: JournalReader) -> dict[str, Any]:
    """What an episode starts with, as the newest schema has it.

    Raises:
        EpisodeError: there is none, or of an unknown schema.
    """
    for record in journal.records:
        if record.fields["kind"] == "header":
            return upgrade(record.fields, journal.path)
    raise EpisodeError(f"{journal.path} has no readable header; its episode cannot be brought back")


def final_outcome(journal: JournalReader) -> Mapping[str, Any] | None:
    """The outcome that `close` was given, or None where the writer died before."""
    outcomes = [record.fields["outcome"] for record in journal.records if record.fields["kind"] == "outcome"]
    return outcomes[-1] if outcomes else None


def _write_episode(root: Path, journal: JournalReader, outcome: Mapping[str, Any]) -> None:
    head = header(journal)
    cameras = [Camera.from_dict(data) for data in head["cameras"]]
    color = color_codec(head["color_codec"], head["quality"])
    frames: dict[str, list[tuple[int, Blob, Blob]]] = {camera.name: [] for camera in cameras}
    decision_frames: dict[str, list[tuple[int, Blob, Blob]]] = {camera.name: [] for camera in cameras}
    samples: dict[str, list[tuple[int, Blob]]] = {}
    decisions: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    closed_ns = time.time_ns()
    for record in journal.records:
        fields = record.fields
        if fields["kind"] == "frame":
            frames[fields["camera"]].append((fields["stamp"], (record, 0), (record, 1)))
        elif fields["kind"] == "sample":
            samples.setdefault(fields["stream"], []).append((fields["stamp"], (record, 0)))
        elif fields["kind"] == "note":
            notes[fields["name"]] = fields["value"]
        elif fields["kind"] == "outcome":
            closed_ns = fields.get("closed_ns", closed_ns)  # earlier writers did not log it
        elif fields["kind"] == "decision":
            seen = []
            for number, (camera, stamp) in enumerate(fields["frames"]):
                seen.append([camera, len(decision_frames[camera])])
                decision_frames[camera].append((stamp, (record, 2 * number), (record, 2 * number + 1)))
            decisions.append({"action": fields["action"], "info": fields["info"], "frames": seen})

    for camera in cameras:
        folder = root / "cameras" / folder_name(camera.name)
        _write_frames(folder, camera, journal, frames[camera.name], color_spec(camera, color))
        folder = root / "decisions" / "cameras" / folder_name(camera.name)
        _write_frames(folder, camera, journal, decision_frames[camera.name], color_spec(camera, BloscChunks(1)))
    streams = {}
    for name, entries in sorted(samples.items()):
        values = np.stack([np.frombuffer(journal.blob(*blob), "<f8") for _, blob in entries])
        streams[name] = {"length": len(values), "dimension": values.shape[1]}
        folder = root / "streams" / folder_name(name)
        write_group(folder, {"name": name, **streams[name]})
        write_values(folder / "stamps", STAMPS, np.array([stamp for stamp, _ in entries], np.int64))
        write_values(folder / "values", values_spec(values.shape[1]), values)
    _write_decisions(root / "decisions", decisions)

    write_group(root / "cameras", {})
    write_group(root / "streams", {})
    write_group(root / "decisions" / "cameras", {})
    attributes = {
        **{key: head[key] for key in _FROM_HEADER},
        "attributes": {**head["attributes"], **notes},
        "closed_ns": closed_ns,
        "cameras": [camera.to_dict() for camera in cameras],
        "streams": streams,
        "decisions": len(decisions),
        "units": UNITS,
        "outcome": plain(outcome, "outcome"),
    }
    write_group(root, attributes)


def _write_frames(
    folder: Path, camera: Camera, journal: JournalReader, entries: list[tuple[int, Blob, Blob]], color: ArraySpec
) -> None:
    def chunks(which: int) -> Iterator[bytes]:
        for entry in entries:
            record, number = entry[1:][which]
            yield journal.blob(record, number)

    write_group(folder, {"camera": camera.to_dict(), "length": len(entries)})
    write_values(folder / "stamps", STAMPS, np.array([stamp for stamp, _, _ in entries], np.int64))
    write_chunks(folder / "color", color, len(entries), chunks(0))
    write_chunks(folder / "depth", depth_spec(camera), len(entries), chunks(1))


def _write_decisions(folder: Path, decisions: list[dict[str, Any]]) -> None:
    actions = [decision["action"] for decision in decisions]
    records = [
        {
            **{key: plain(action[key], key) for key in ("primitive", "decision_id", "scores")},
            "info": decision["info"],
            "frames": decision["frames"],
        }
        for action, decision in zip(actions, decisions, strict=True)
    ]
    write_group(folder, {"records": records, "length": len(records)})
    write_values(folder / "stamps", STAMPS, np.array([action["stamp_ns"] for action in actions], np.int64))
    for name in ("pick", "place"):
        write_values(folder / name, POSES, np.array([action[name] for action in actions], float).reshape(-1, 4, 4))

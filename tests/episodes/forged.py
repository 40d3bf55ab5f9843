"""Stores made to mislead, every checksum in them right, and a process with little memory and time to read them in."""

from __future__ import annotations

import json
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.manifest import MANIFEST, write_manifest

from .samples import START_NS, Child, make_action, make_camera, make_frame

SPARE_MEMORY = 400 << 20


def write_small_episode(store: EpisodeStore) -> Path:
    """Folder of an episode of two frames, two samples and a decision."""
    camera = make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera]) as writer:
        for number in range(2):
            writer.append_frame(make_frame(camera, number))
            writer.append("joint_states", START_NS + number, [1.0, float(number)])
        writer.append_decision(make_action(), [make_frame(camera, 0)], {"number": 1})
        return store.episodes_path / writer.close({"reward": 1.0})


def reseal(folder: Path) -> None:
    """Make the manifest say that all files of an episode are as they should be."""
    (folder / MANIFEST).unlink(missing_ok=True)
    write_manifest(folder, folder.name)


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place; `change` returns what to write."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def journal_record(head: Any, body: bytes = b"") -> bytes:
    """A record of a journal with the right checksum; `head` is JSON's content, or its bytes."""
    data = head if isinstance(head, bytes) else json.dumps(head).encode()
    crc = google_crc32c.value(data + body)
    return struct.pack("<4sIII", b"\xeeEVJ", len(data), len(body), crc) + data + body


def bounded(work: Callable[[], object], memory: int = SPARE_MEMORY, seconds: int = 20) -> None:
    """Run `work` in a child that may take `memory` more bytes than this process and `seconds` of the clock.

    Raises:
        AssertionError: it failed, or took more.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        work()

    with Child(limited) as child:
        assert child.wait() == 0


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder and its contents; None for what is no regular file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }

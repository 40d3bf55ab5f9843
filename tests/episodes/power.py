"""What a disk may hold after the power went: a model of what was forced to it and what was only on its way.

    with recorded(root) as disk:
        work()
    for moment in range(disk.moments):
        disk.restore(moment, Luck.NOTHING, folder)     # a folder as it may look after a cut at that moment

Promised is only what POSIX does: `fsync` of a file forces its contents, `fsync` of a folder forces the names in it, and
a rename happens as a whole or not at all. Whatever else was on its way may be on the disk or not, in any order.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from .faults import Call, watched


class Luck(Enum):
    """What became of everything that was on its way."""

    NOTHING = "none of it is on the disk"
    ZEROS = "names and lengths are, contents are zeros"
    SOME = "some of it is, in any order"
    ALL = "all of it is"


@dataclass(eq=False)
class _Node:
    """A file or folder."""

    is_folder: bool
    contents: bytearray = field(default_factory=bytearray)
    forced: bytes = b""
    names: dict[str, _Node] = field(default_factory=dict)
    forced_names: dict[str, _Node] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)


@dataclass(eq=False)
class _Change:
    """What one call does to the names in folders: (folder, name, what it stands for now)."""

    entries: list[tuple[_Node, str, _Node | None]]
    done: bool = False

    def force(self) -> None:
        if not self.done:
            for folder, name, node in self.entries:
                _set(folder.forced_names, name, node)
        self.done = True


class Disk:
    """The calls that were made below a folder, and what may be left of them.

    Attributes:
        marks: (moment, text) of each `mark`.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._calls: list[tuple[Call, int]] = []
        self.marks: list[tuple[int, str]] = []

    @property
    def moments(self) -> int:
        """The power may go before the first call, and after each: moments 0 to this less one."""
        return len(self._calls) + 1

    @property
    def forcing(self) -> list[int]:
        """Moments right before and after a call that forces something: between them the worst case is the same."""
        syncs = [at for at, (call, _) in enumerate(self._calls) if call.name in ("fsync", "fdatasync")]
        return sorted({moment for at in syncs for moment in (at, at + 1)} | {len(self._calls)})

    def mark(self, text: str) -> None:
        """Note what was acknowledged by now."""
        self.marks.append((len(self._calls), text))

    def restore(self, moment: int, luck: Luck, target: Path, rng: random.Random) -> None:
        """Write what may be on the disk after a cut at `moment` to the new folder `target`."""
        root = _Node(is_folder=True)
        changes: list[_Change] = []
        for call, at in self._calls[:moment]:
            self._replay(root, changes, call, at)
        for change in changes:
            if luck in (Luck.ALL, Luck.ZEROS) or (luck is Luck.SOME and rng.random() < 0.5):
                change.force()
        _write(root, target, luck, rng)

    def _replay(self, root: _Node, changes: list[_Change], call: Call, at: int) -> None:
        parts = [self._parts(path) for path in call.paths]
        name = parts[0][-1] if parts[0] else ""
        if call.name in ("fsync", "fdatasync"):
            node = _find(root, parts[0])
            if node is None:
                return  # removed while it was open
            if node.is_folder:
                for change in node.pending:
                    change.force()
                node.pending = []
            else:
                node.forced = bytes(node.contents)
        elif call.name in ("write", "ftruncate"):
            node = _find(root, parts[0])
            if node is not None and call.name == "write":
                node.contents[at : at + len(call.data)] = call.data
            elif node is not None:
                del node.contents[at:]
        elif call.name in ("open", "mkdir"):
            folder = _find(root, parts[0][:-1])
            assert folder is not None
            if name not in folder.names:
                _change(changes, [(folder, name, _Node(is_folder=call.name == "mkdir"))])
        elif call.name in ("unlink", "rmdir"):
            folder = _find(root, parts[0][:-1])
            assert folder is not None
            _change(changes, [(folder, name, None)])
        elif call.name in ("rename", "replace"):
            source, target = _find(root, parts[0][:-1]), _find(root, parts[1][:-1])
            assert source is not None
            assert target is not None
            moved = source.names[name]
            _change(changes, [(source, name, None), (target, parts[1][-1], moved)])
        else:
            raise NotImplementedError(call.name)

    def _parts(self, path: str) -> list[str]:
        assert path == self._root or path.startswith(self._root + "/"), path
        return path[len(self._root) + 1 :].split("/") if path != self._root else []

    def _watch(self, call: Call, do: Callable[[], Any], half: Callable[[], Any]) -> Any:
        if call.name in ("fsync", "fdatasync") and not (call.paths[0] + "/").startswith(self._root + "/"):
            return do()  # a folder above, which is always there
        at = len(call.data)
        result = do()  # a call that fails changes nothing
        if call.name == "write":
            assert result == len(call.data)
            at = os.lseek(call.fd, 0, os.SEEK_CUR) - result
        elif call.name == "ftruncate":
            at = os.fstat(call.fd).st_size
        self._calls.append((call, at))
        return result


@contextmanager
def recorded(root: Path) -> Iterator[Disk]:
    """Record what this process does below the empty folder `root`."""
    disk = Disk(root)
    with watched(disk._watch):
        yield disk


def _change(changes: list[_Change], entries: list[tuple[_Node, str, _Node | None]]) -> None:
    change = _Change(entries)
    changes.append(change)
    for folder, name, node in entries:
        _set(folder.names, name, node)
        folder.pending.append(change)


def _set(names: dict[str, _Node], name: str, node: _Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _find(root: _Node, parts: list[str]) -> _Node | None:
    node: _Node | None = root
    for part in parts:
        if node is None:
            return None
        node = node.names.get(part)
    return node


def _write(folder: _Node, target: Path, luck: Luck, rng: random.Random) -> None:
    target.mkdir()
    for name, node in folder.forced_names.items():
        if node.is_folder:
            _write(node, target / name, luck, rng)
        else:
            (target / name).write_bytes(_left(node, luck, rng))


def _left(node: _Node, luck: Luck, rng: random.Random) -> bytes:
    """Contents of a file: what was forced, and what luck makes of the rest."""
    forced, written = node.forced, bytes(node.contents)
    if luck is Luck.NOTHING:
        return forced
    if luck is Luck.ALL or forced == written:
        return written
    if luck is Luck.ZEROS:
        return forced[: len(written)].ljust(len(written), b"\0")
    length = rng.randrange(min(len(forced), len(written)), len(written) + 1)
    left = bytearray(written[:length])
    for start in range(len(forced), length, 512):
        if rng.random() < 0.3:
            left[start : start + 512] = bytes(len(left[start : start + 512]))
    return bytes(left)

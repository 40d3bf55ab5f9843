"""Death at any call that changes the disk: counts such calls in a child process and kills it at one of them.

    calls = trace(work)                          # what `work` does to the disk, in order
    for number in range(len(calls)):
        killed_at(work, number, "torn")          # SIGKILL with half of a write on the disk

Seen are the calls made from Python through `os`, `open` and `io.open`: creating, writing (buffered files at the moment
their bytes go to the kernel), syncing, cutting, renaming, making and removing. Not seen are writes from within a C
library, such as SQLite's.
"""

from __future__ import annotations

import builtins
import io
import mmap
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from .samples import Child

How = Literal["before", "torn", "after"]
"""When the process dies: before the call, with half of a write done (other calls: before), or just after it."""

_PATH_CALLS = ("mkdir", "rmdir", "unlink", "remove", "link", "symlink", "rename", "replace", "truncate")
_FD_CALLS = ("fsync", "fdatasync", "ftruncate")


@dataclass(frozen=True)
class Call:
    """One call that changes the disk.

    Attributes:
        name: of the function in `os`; "open" is one that makes or empties a file.
        paths: what it works on, absolute; two for a rename.
        data: what is written.
        fd: the open file, if there is one.
    """

    name: str
    paths: tuple[str, ...]
    data: bytes = b""
    fd: int = -1


Around = Callable[[Call, Callable[[], Any], Callable[[], Any]], Any]
"""Told of each call, does it by its second argument, or half of it by the third; returns the call's result."""


@contextmanager
def watched(around: Around) -> Iterator[None]:
    """Every call of this process that changes the disk goes through `around` while the context lasts."""
    saved = {name: getattr(os, name) for name in (*_PATH_CALLS, *_FD_CALLS, "open", "write", "sendfile")}
    saved_open = builtins.open

    def path_call(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            ends = (("src_dir_fd", 0), ("dst_dir_fd", 1)) if name in ("rename", "replace", "link") else (("dir_fd", 0),)
            paths = tuple(_absolute(args[at], kwargs.get(key)) for key, at in ends)
            return around(Call(name, paths), lambda: saved[name](*args, **kwargs), lambda: None)

        return call

    def fd_call(name: str) -> Callable[..., Any]:
        def call(fd: int, *args: Any) -> Any:
            return around(Call(name, (_path_of(fd),), fd=fd), lambda: saved[name](fd, *args), lambda: None)

        return call

    def write(fd: int, data: Any) -> int:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return int(saved["write"](fd, data))
        content = bytes(data)
        half = content[: len(content) // 2]
        call = Call("write", (_path_of(fd),), content, fd)
        return int(around(call, lambda: saved["write"](fd, data), lambda: saved["write"](fd, half)))

    def sendfile(out: int, source: int, offset: int, count: int) -> int:
        """Copies of shutil: turned into plain writes, so that they are seen and can be torn."""
        return write(out, os.pread(source, count, offset))

    def opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if not flags & (os.O_CREAT | os.O_TRUNC):
            return int(saved["open"](path, flags, *args, **kwargs))
        call = Call("open", (_absolute(path, kwargs.get("dir_fd")),))
        return int(around(call, lambda: saved["open"](path, flags, *args, **kwargs), lambda: None))

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            return write(self.fileno(), data)

    def open_file(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        **kwargs: Any,
    ) -> Any:
        if not set(mode) & set("wxa+"):
            return saved_open(file, mode, buffering, encoding, errors, newline, **kwargs)
        kind = mode.replace("b", "").replace("t", "")
        if isinstance(file, int):
            raw = Raw(file, kind, **kwargs)
        else:
            raw = around(Call("open", (_absolute(file, None),)), lambda: Raw(file, kind, **kwargs), lambda: None)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    try:
        for name in _PATH_CALLS:
            setattr(os, name, path_call(name))
        for name in _FD_CALLS:
            setattr(os, name, fd_call(name))
        os.write, os.sendfile, os.open = write, sendfile, opened  # type: ignore[assignment]
        builtins.open = io.open = open_file
        yield
    finally:
        for name, function in saved.items():
            setattr(os, name, function)
        builtins.open = io.open = saved_open


class Notes:
    """Lines that outlive the process that wrote them, in memory shared with its children. Not thread safe."""

    def __init__(self, size: int = 1 << 16) -> None:
        self._memory = mmap.mmap(-1, size)

    def say(self, line: str) -> None:
        """Add a line."""
        self._memory.write(line.encode() + b"\n")

    def lines(self) -> list[str]:
        """All whole lines so far."""
        return bytes(self._memory[:]).split(b"\0", 1)[0].decode().split("\n")[:-1]


def trace(work: Callable[[], object]) -> list[str]:
    """Names of the calls by which `work` changes the disk, in order; it runs in a child.

    Raises:
        AssertionError: `work` fails.
    """
    notes = Notes()

    def around(call: Call, do: Callable[[], Any], half: Callable[[], Any]) -> Any:
        notes.say(call.name)
        return do()

    assert _run(work, around) == 0
    return notes.lines()


def killed_at(work: Callable[[], object], number: int, how: How = "before") -> bool:
    """Run `work` in a child that dies by SIGKILL at its call `number`; whether it came to that call.

    Raises:
        AssertionError: `work` fails otherwise.
    """
    count = 0

    def around(call: Call, do: Callable[[], Any], half: Callable[[], Any]) -> Any:
        nonlocal count
        at, count = count, count + 1
        if at != number:
            return do()
        try:
            if how == "torn":
                half()
            elif how == "after":
                do()
        finally:  # a call that fails is one to die after as well
            os.kill(os.getpid(), signal.SIGKILL)

    code = _run(work, around)
    assert code in (0, -signal.SIGKILL), f"exit code {code}"
    return code != 0


def kill_points(calls: list[str]) -> list[tuple[int, How]]:
    """Every way to die along `calls`: before the first, torn in every write, after each."""
    points: list[tuple[int, How]] = [(0, "before")]
    for number, name in enumerate(calls):
        if name in ("write", "sendfile"):
            points.append((number, "torn"))
        points.append((number, "after"))
    return points


def _run(work: Callable[[], object], around: Around) -> int:
    def watched_work() -> None:
        with watched(around):
            work()

    with Child(watched_work) as child:
        return child.wait()


def _path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def _absolute(path: Any, dir_fd: int | None) -> str:
    if isinstance(path, int):
        return _path_of(path)
    text = os.fsdecode(path)
    return os.path.join(_path_of(dir_fd), text) if dir_fd is not None else os.path.abspath(text)

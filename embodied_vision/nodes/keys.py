"""Keys from the standard input, one at a time. Who owns the terminal has put it into cbreak mode, see `cbreak`."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEYS = "space pauses and goes on, . or right steps, left goes back a second, + and - double and halve the rate, q ends"

_ARROWS = {b"\x1b[C": "right", b"\x1b[D": "left"}


@contextmanager
def cbreak() -> Iterator[None]:
    """Have the terminal hand over every key as it is pressed; as it was before, afterwards."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


class Keys:
    """Reads the standard input in a thread until `close` or its end.

    Args:
        pressed: told each key: a character, "left" or "right".
    """

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._fd = sys.stdin.fileno()
        self._end, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        os.close(self._wake)
        self._thread.join()
        os.close(self._end)

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._end], [], [])
            if self._end in ready:
                return
            data = os.read(self._fd, 64)
            if not data:
                return
            for key in split(data):
                self._pressed(key)


def split(data: bytes) -> list[str]:
    """The keys in what a terminal sent; escape sequences that mean nothing here are left out."""
    found = []
    while data:
        arrow = next((sequence for sequence in _ARROWS if data.startswith(sequence)), None)
        if arrow is not None:
            found.append(_ARROWS[arrow])
            data = data[len(arrow) :]
        elif data.startswith(b"\x1b["):
            end = next((i for i, byte in enumerate(data[2:], 2) if 0x40 <= byte <= 0x7E), len(data) - 1)
            data = data[end + 1 :]
        else:
            found.append(chr(data[0]))
            data = data[1:]
    return found

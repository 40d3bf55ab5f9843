"""One operating system process of a run: in a group of its own, with a log, bound to our life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from embodied_vision.launching import die_with_parent


class ManagedProcess:
    """A started process. Start it from a thread that lives as long as it: the kernel binds it to that thread.

    Attributes:
        name: for messages.
        log: file that its output is appended to.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, *, read: bool = False
    ) -> None:
        """Start it.

        Args:
            name: for messages.
            command: absolute path of the program, then its arguments.
            environment: the whole environment.
            log: file for its output.
            read: give its standard output to `output` instead of the log.
        """
        self.name = name
        self.log = log
        bound = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *command]
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                bound,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if read else file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, also the id of its group."""
        return self._process.pid

    @property
    def output(self) -> IO[bytes]:
        """Its standard output, when it was started with `read`."""
        assert self._process.stdout is not None
        return self._process.stdout

    def exit_code(self) -> int | None:
        """None while it runs, −N when signal N ended it."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal to its whole group; nothing when it has ended."""
        if self.exit_code() is None:
            os.killpg(self.pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within the time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_lines(self, count: int = 8) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-count:])


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code} ({signal.Signals(-code).name})"

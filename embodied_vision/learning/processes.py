"""Workers in processes of this machine, each on one thread, spoken to over a socket of its own.

They end with the process that started them, however that ends, and finish or discard what they were writing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from embodied_vision.launching.environment import THREAD_VARIABLES
from embodied_vision.learning.process_worker import PATIENCE_S
from embodied_vision.learning.workers import Job, Lost, Worker

MODULE = "embodied_vision.learning.process_worker"


class Processes:
    """Backend of fresh interpreters: nothing of this one's state, threads or main module is in them.

    Args:
        make: makes a worker's job; pickled, so from a module that can be imported.
    """

    def __init__(self, make: Callable[[], Job[Any, Any]]) -> None:
        self._make = make

    def start(self) -> ProcessWorker:
        """A new process."""
        return ProcessWorker(self._make)

    def wait(self, workers: Sequence[Worker]) -> Sequence[Worker]:
        """See `Backend`."""
        owners: dict[Any, Worker] = {worker.pipe: worker for worker in workers if isinstance(worker, ProcessWorker)}
        return [owners[pipe] for pipe in connection.wait(list(owners))]

    def close(self) -> None:
        """Nothing is left when the workers are stopped."""


class ProcessWorker:
    """A process that answers every item on its socket.

    Attributes:
        pipe: readable when there is a result, and when the process has ended.
    """

    def __init__(self, make: Callable[[], Job[Any, Any]]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**dict.fromkeys(THREAD_VARIABLES, "1"), **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=2,  # the simulator greets on stdout, which belongs to the reports of the command line
                start_new_session=True,  # Ctrl-C goes to this process alone, which decides what becomes of them
            )
        self.pipe: Connection[Any, Any] = Connection(ours.detach())
        self.give(sys.path)
        self.give(make)

    def give(self, item: Any) -> None:
        """See `Worker`."""
        with suppress(BrokenPipeError, ConnectionResetError):  # `take` tells
            self.pipe.send(item)

    def take(self) -> Any:
        """See `Worker`."""
        try:
            done, result = self.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise Lost(f"worker process {self._process.pid} {_ending(self._process.wait())}") from error
        if not done:
            raise result
        return result

    def kill(self) -> None:
        """End it at once, whatever it does; `take` tells. May be called from another thread than the others."""
        self._process.kill()

    def stop(self) -> None:
        """See `Worker`. The process sees its socket closed, and discards what it has begun."""
        self.pipe.close()
        try:
            self._process.wait(PATIENCE_S + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

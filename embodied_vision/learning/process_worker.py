"""The process of a worker: `python -m embodied_vision.learning.process_worker SOCKET`, started by `processes`.

It is sent the module search path, how to make its job, and then items; it answers (True, result) or
(False, exception). The end of the process at the other side of the socket is its end.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection

from embodied_vision.learning.workers import end, outcome

PATIENCE_S = 5.0
"""How long an item may take to discard what it has begun."""


def main() -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGTERM, _leave)
    handle = int(sys.argv[1])
    pipe: Connection = Connection(handle)
    threading.Thread(target=_end_with_parent, args=(handle,), daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError), ExitStack() as ending:
        ending.callback(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # the last thing: it is leaving already
        sys.path[:] = pipe.recv()
        done, job = outcome(pipe.recv())
        pipe.send((done, None if done else job))
        ending.callback(end, job)
        while done:
            item = pipe.recv()
            pipe.send(outcome(lambda: job(item)))  # noqa: B023 - called at once


def _leave(number: int, frame: object) -> None:
    raise SystemExit(0)


def _end_with_parent(handle: int) -> None:
    """Leave as soon as the other end of the socket is closed, also in the middle of an item."""
    poll = select.poll()
    poll.register(handle, 0)  # hang-ups are always reported
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os._exit(1)


if __name__ == "__main__":
    main()

"""Trying something without consequences: in a fork of this process, whose simulator is the exact state."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from embodied_vision.errors import RunFailed


def aside(job: Callable[[], Any]) -> Any:
    """What a job returns, JSON-ready, while everything that it changes in this process's memory stays as it was.

    PyBullet's own snapshots leave out contact anchors and sleeping bodies; a fork leaves out nothing. The job must
    not draw through EGL, whose context belongs to one process.

    Raises:
        RunFailed: the job raised; its traceback is on stderr.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _answer(job, writing)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise RunFailed(f"what was tried aside ended with code {code}; stderr tells why")
    return json.loads(text)


def _answer(job: Callable[[], Any], writing: int) -> None:
    """Do the job and end this process, running nothing that the other one will run as well."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with os.fdopen(writing, "w") as file:
            json.dump(job(), file)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

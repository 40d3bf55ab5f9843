"""The two-process image test: does the transport that we set bring camera images across?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from embodied_vision.errors import RunFailed

_MODULE = "embodied_vision.nodes.loopback"
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class LoopbackResult:
    """Best-effort images from one process to another.

    Attributes:
        sent, received: images.
        median_ms: from publish to callback; None when nothing came.
    """

    sent: int
    received: int
    median_ms: float | None


def image_loopback(environment: Mapping[str, str], width: int, height: int, count: int = 30) -> LoopbackResult:
    """Send images between two new processes in that environment.

    Raises:
        RunFailed: a process failed; the message ends with what it said.
    """
    arguments = [f"{width}x{height}", str(count)]
    command = [sys.executable, "-m", _MODULE]
    pipes = {"env": dict(environment), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    receiver: subprocess.Popen[str] = subprocess.Popen([*command, "receive", *arguments], **pipes)  # type: ignore[call-overload]
    sender: subprocess.Popen[str] = subprocess.Popen([*command, "send", *arguments], **pipes)  # type: ignore[call-overload]
    try:
        output, errors = receiver.communicate(timeout=_TIMEOUT_S)
        _, sender_errors = sender.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"the image test did not end within {_TIMEOUT_S:g} s; is the machine overloaded?") from error
    finally:
        for process in (receiver, sender):
            process.kill()
            process.wait()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise RunFailed(f"the image test failed: {(errors + sender_errors).strip()[-400:]}")
    return LoopbackResult(**json.loads(lines[-1]))

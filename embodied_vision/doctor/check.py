"""One line of the doctor's report, and a bound on how long it may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from embodied_vision.errors import EmbodiedVisionError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        ok: whether it will do.
        value: what was found.
        remedy: what to do; empty when nothing needs doing.
    """

    name: str
    ok: bool
    value: str
    remedy: str = ""


def bounded(name: str, look: Callable[[], Check | list[Check]], remedy: str, seconds: float = 10.0) -> list[Check]:
    """What a look finds, or that it has not come back: a disk that hangs holds up whoever asks it.

    Args:
        name: of the check when there is no result.
        look: makes one or several checks. What it raises becomes a failed check.
        remedy: for a failure and for a hang.
        seconds: how long it may take.
    """
    found: list[Check] = []

    def work() -> None:
        try:
            result = look()
        except (EmbodiedVisionError, OSError) as error:
            result = Check(name, False, str(error), remedy)
        except Exception as error:  # a doctor tells of everything
            result = Check(name, False, repr(error), remedy)
        found.extend(result if isinstance(result, list) else [result])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return found or [Check(name, False, f"no answer within {seconds:g} s", remedy)]

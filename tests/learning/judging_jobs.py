"""Jobs in place of a judge of outcomes, importable by other processes."""

from __future__ import annotations

import os
import time
from typing import Any

from embodied_vision.errors import CheckpointError
from embodied_vision.learning.outcomes_process import About
from embodied_vision.learning.outcomes_verdict import Verdict

NEVER = "never"
"""Id of the decision on which no verdict comes."""


def answer(item: Any) -> About | Verdict:
    """Success, and which process says so."""
    if item is None:
        return About("stacking", "c1")
    if item[2].decision_id == NEVER:
        time.sleep(3600.0)
    return Verdict("success", 0.97, str(os.getpid()))


def make() -> Any:
    """Make a judge that is quick."""
    return answer


def refuse() -> Any:
    """Make none."""
    raise CheckpointError("the outcome classifier of 'stacking' reads encoder a, given b; use its encoder")

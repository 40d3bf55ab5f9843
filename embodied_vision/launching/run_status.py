"""The file in a run's folder that tells how the run does: written by its supervisor, read by `launch status`."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from embodied_vision.errors import BadInput

_FILE = "status.json"
_OLD_S = 5.0

Phase = Literal["running", "ended", "gone"]


@dataclass(frozen=True)
class RunStatus:
    """How a run does.

    Attributes:
        phase: `running`, `ended`, or `gone` when the supervisor was killed.
        domain: ROS_DOMAIN_ID.
        namespace: of the nodes, without slashes at its ends.
        level: `ok`, `warning` or `error`: the worst of all.
        wrong: what is not well, in words.
        nodes: node → `state`, `pid` (None while it is dead), `restarts`.
        failure: why the run ended by itself; None otherwise.
    """

    phase: Phase
    domain: int
    namespace: str
    level: str
    wrong: list[str]
    nodes: dict[str, dict[str, Any]]
    failure: str | None = None


def write_status(run_dir: Path, status: RunStatus) -> None:
    """Replace the file of a run atomically. What cannot be written, on a full disk, is left out: the run goes on."""
    path = run_dir / _FILE
    content = {**asdict(status), "supervisor": os.getpid(), "monotonic_s": time.monotonic()}
    try:
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(content), encoding="utf-8")
        beside.replace(path)
    except OSError:
        path.unlink(missing_ok=True)


def check_free(run_dir: Path) -> None:
    """Two runs in one folder would write over each other's files.

    Raises:
        BadInput: another run that still goes on has this folder.
    """
    if (run_dir / _FILE).exists() and read_status(run_dir).phase == "running":
        raise BadInput(f"{run_dir} is the folder of a run that still goes on; end that one, or give another folder")


def read_status(run_dir: Path) -> RunStatus:
    """How a run on this machine does now.

    Raises:
        BadInput: the folder is not that of a run.
    """
    path = run_dir / _FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        supervisor, written_s = content.pop("supervisor"), content.pop("monotonic_s")
        status = RunStatus(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be read ({error}); give the folder of a run, as launch printed it") from error
    if status.phase != "running":
        return status
    if not Path(f"/proc/{supervisor}").exists():
        return replace(status, phase="gone", level="error", wrong=[f"its supervisor, process {supervisor}, is gone"])
    age_s = time.monotonic() - written_s
    if not 0.0 <= age_s < _OLD_S:
        return replace(status, level="error", wrong=[f"its supervisor has not written for {abs(age_s):.0f} s"])
    return status

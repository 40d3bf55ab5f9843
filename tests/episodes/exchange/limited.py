"""Imports hostile sources in a process that may take little memory, and tells what became of each.

Run as a script: reads JSON from stdin, {"format": …, "cases": {name: source}, "scratch": folder, "extra_mb": …}, and
prints for each case the error's class and message or how many episodes came in, and what was left in its store.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MB = 1024 * 1024
_TOGETHER = 200


@dataclass(frozen=True)
class Outcome:
    """What an import came to.

    Attributes:
        error: class of the error, empty when there was none.
        message: of the error.
        episodes: how many were yielded.
        whole: how many of the store's verify.
        staging: how many are in staging.
    """

    error: str
    message: str
    episodes: int
    whole: int
    staging: int


def import_limited(form: str, cases: dict[str, Path], scratch: Path, extra_mb: int = 500) -> dict[str, Outcome]:
    """Import every source into a store of its own, in a process that may take `extra_mb` more than at its start."""
    scratch.mkdir(exist_ok=True)
    if len(cases) > _TOGETHER:
        names = list(cases)
        parts = [names[begin : begin + _TOGETHER] for begin in range(0, len(names), _TOGETHER)]
        found = [import_limited(form, {name: cases[name] for name in part}, scratch, extra_mb) for part in parts]
        return {name: outcome for part in found for name, outcome in part.items()}
    asked = {"format": form, "cases": {name: str(path) for name, path in cases.items()}}
    run = subprocess.run(
        [sys.executable, "-m", "episodes.exchange.limited"],
        input=json.dumps({**asked, "scratch": str(scratch), "extra_mb": extra_mb}),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, (
        f"the importing process died with {run.returncode}: {run.stdout[-300:]} {run.stderr[-2000:]}"
    )
    return {name: Outcome(**found) for name, found in map(json.loads, run.stdout.splitlines())}


def main() -> None:
    """The script."""
    asked = json.loads(sys.stdin.read())
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from embodied_vision.episodes import EpisodeStore
    from embodied_vision.episodes.exchange import find_format
    from embodied_vision.episodes.verify import verify_episode

    os.fsync = os.fdatasync = lambda fd: None  # type: ignore[assignment] nothing here is about power cuts
    take_in = find_format(asked["format"]).import_
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limit = used + asked["extra_mb"] * MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, source in asked["cases"].items():
        store = EpisodeStore(Path(asked["scratch"]) / name)
        error, message, count = "", "", 0
        try:
            for _ in take_in(Path(source), store, task=None, topics=None):
                count += 1
        except Exception as failure:
            error, message = type(failure).__name__, str(failure)[:500]
        whole = sum(verify_episode(store, episode_id).ok for episode_id in store.ids())
        found = Outcome(error, message, count, whole, len(store.staging_ids()))
        print(json.dumps([name, vars(found)]), flush=True)


if __name__ == "__main__":
    main()

"""A store of 100,000 short episodes: how long its catalogue takes to build, and a filtered list and an episode to come.

`make bench-catalogue` makes them (some 10 GB, removed afterwards), `make bench-catalogue SMALL=1` 300. Every episode
has files of its own, as one that the writer wrote. Prints one JSON line a figure; the references are what is asked of
the store. Files are read from the system's cache, as far as they fit.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress

from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.manifest import MANIFEST
from embodied_vision.episodes.schema import GROUP
from embodied_vision.types import new_id

TASKS, POLICIES = 20, 5
BATCH = 500
RUNS, OPENED = 5, 100
ROOT = f"{GROUP}/zarr.json"


class Template:
    """An episode by its files, to be made again under other ids.

    Args:
        folder: of an episode that the writer wrote.
    """

    def __init__(self, folder: Path) -> None:
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
        self._files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}
        self._folders = sorted({str(Path(name).parent) for name in self._files})
        for name in [*self._folders]:
            self._folders += [str(parent) for parent in Path(name).parents if str(parent) != "."]
        self._folders = sorted(set(self._folders))
        self._root = json.loads(self._files.pop(ROOT))
        self._entries = {name: _entry(data) for name, data in self._files.items()}

    def make(self, folder: Path, number: int) -> None:
        """Make the episode `folder`, the `number`-th: task, policy and outcome follow from it."""
        root = {**self._root, "attributes": {**self._root["attributes"], "id": folder.name}}
        root["attributes"] |= {
            "task": f"task-{number % TASKS}",
            "policy_id": f"policy-{number // TASKS % POLICIES}",
            "outcome": {"reward": float(number % 3 > 0), "solved": number % 3 > 0},
        }
        data = json.dumps(root, indent=1).encode()
        entries = dict(sorted({**self._entries, ROOT: _entry(data)}.items()))
        content = {"schema": 1, "id": folder.name, "files": entries}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        folder.mkdir()
        for name in self._folders:
            os.mkdir(f"{folder}/{name}")
        manifest = json.dumps({**content, "sha256": digest}, indent=1).encode()
        for name, written in (*self._files.items(), (ROOT, data), (MANIFEST, manifest)):
            with open(f"{folder}/{name}", "xb", buffering=0) as file:
                file.write(written)


def _entry(data: bytes) -> dict[str, object]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _write_one(store: EpisodeStore) -> Path:
    with EpisodeWriter(store, task="task-0", robot="panda_suction", cameras=[]) as writer:
        for number in range(10):
            writer.append("joint_states", number * 10**8, [0.1 * number] * 7)
        return store.episodes_path / writer.close({"reward": 1.0, "solved": True})


def _make(job: tuple[Template, Path, Sequence[int]]) -> int:
    template, episodes, numbers = job
    for number in numbers:
        template.make(episodes / new_id(), number)
    return len(numbers)


def _cli(*arguments: object) -> float:
    """Seconds that a call of the command line takes, start of the interpreter included."""
    command = [sys.executable, "-m", "embodied_vision.cli.main", "episodes", *map(str, arguments)]
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _open(episodes: Sequence[Path]) -> float:
    """Median ms that opening takes, each for the first time in this process."""
    times = []
    for path in episodes:
        begun = time.perf_counter()
        Episode(path)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def _figure(figure: str, value: float, unit: str, limit: float, **more: object) -> None:
    line = {"bench": "catalogue", "figure": figure, "value": round(value, 4), "unit": unit, "reference": "asked for"}
    print(json.dumps({**line, "reference_value": limit, "ratio": round(value / limit, 4), **more}), flush=True)


def main(
    episodes: int = typer.Option(100_000, min=1, help="Episodes in the store."),
    workers: int = typer.Option(2, min=1, help="Processes that make them."),
    folder: Path | None = typer.Option(None, help="Where the store is made.", show_default="a temporary folder"),
) -> None:
    """Make the store, measure, and remove it."""
    with tempfile.TemporaryDirectory(prefix="bench-catalogue-", dir=folder) as scratch:
        template = Template(_write_one(EpisodeStore(Path(scratch) / "template")))
        store = EpisodeStore(Path(scratch) / "store")
        store.episodes_path.mkdir(parents=True)
        jobs = [
            (template, store.episodes_path, range(start, min(start + BATCH, episodes)))
            for start in range(0, episodes, BATCH)
        ]
        with get_context("spawn").Pool(workers) as pool, Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("making episodes", total=episodes)
            for made in pool.imap_unordered(_make, jobs):
                bar.advance(task, made)
        _figure("rebuild of the catalogue", _cli("catalogue", store.path, "--rebuild"), "s", 300.0, episodes=episodes)
        wanted = ("--task", "task-3", "--policy", "policy-1")
        listed = statistics.median(_cli("list", store.path, *wanted, "--json") for _ in range(RUNS))
        _figure("list with a filter", listed, "s", 1.0, episodes=episodes, listed=len(range(23, episodes, 100)))
        template.make(store.episodes_path / new_id(), episodes)
        again = _cli("list", store.path, *wanted, "--json")
        _figure("list with a filter, one episode new", again, "s", 1.0, episodes=episodes + 1)
        chosen = random.Random(0).sample(store.ids(), min(OPENED, episodes))
        _figure("opening an episode", _open([store.episodes_path / i for i in chosen]), "ms", 20.0, opened=len(chosen))


if __name__ == "__main__":
    typer.run(main)

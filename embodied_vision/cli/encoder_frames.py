"""Frames that encoders learn from and are probed on, rendered or read once and kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embodied_vision.errors import EncoderError, EpisodeError

if TYPE_CHECKING:
    from embodied_vision.encoders.views import ViewCache, ViewSet

TASKS = ("block-insertion", "place-red-in-green")
err = Console(stderr=True)


def progress_bar() -> Progress:
    """A bar with a note, `note`, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=err)


def _fill(cache: ViewCache, sets: Iterable[ViewSet], total: int | None, title: str) -> None:
    with progress_bar() as bar:
        task = bar.add_task(title, total=total, completed=len(cache), note="scenes")
        for count in cache.extend(sets):
            bar.update(task, completed=count)


def simulated_frames(folder: Path, tasks: Sequence[str], split: str, first: int, scenes: int, views: int) -> ViewCache:
    """Cached frames of simulated scenes; those that are there already are not rendered again."""
    from embodied_vision.encoders.simulated import simulated_views
    from embodied_vision.encoders.views import ViewCache
    from embodied_vision.learning.environments import make_env
    from embodied_vision.learning.seeds import Split, scene_seed

    chosen: Split = "train" if split == "train" else "validation"
    source = {"simulated": list(tasks), "split": chosen, "first": first, "scenes": scenes, "domes": views}
    cache = ViewCache(folder, source)
    done = len(cache)
    if done < scenes:
        # Scene i belongs to task i mod n, also when the rendering was cut off and goes on.
        # Software: it follows the light in all its parts, and gives the same pictures on every machine.
        environments = [make_env(tasks[(done + i) % len(tasks)], renderer="software") for i in range(len(tasks))]
        seeds = [scene_seed(chosen, first + i) for i in range(done, scenes)]
        try:
            _fill(cache, simulated_views(environments, seeds, domes=views), scenes, f"rendering {chosen} scenes")
        finally:
            for environment in environments:
                environment.close()
    return cache


def frames_in_looks(
    folder: Path, tasks: Sequence[str], split: str, first: int, scenes: int, views: int, looks: Sequence[str]
) -> ViewCache:
    """Cached frames of simulated scenes, each in several looks, which are presets of the domain randomisation."""
    from embodied_vision.encoders.simulated import simulated_looks
    from embodied_vision.encoders.views import ViewCache
    from embodied_vision.learning.environments import make_env
    from embodied_vision.learning.seeds import Split, scene_seed

    chosen: Split = "train" if split == "train" else "validation"
    source = {"simulated": list(tasks), "split": chosen, "first": first, "scenes": scenes, "domes": views}
    cache = ViewCache(folder, {**source, "looks": list(looks)})
    done = len(cache)
    if done < scenes:
        order = [tasks[(done + i) % len(tasks)] for i in range(min(len(tasks), scenes - done))]
        environments = [[make_env(task, renderer="software", randomisation=look) for look in looks] for task in order]
        seeds = [scene_seed(chosen, first + i) for i in range(done, scenes)]
        try:
            _fill(cache, simulated_looks(environments, seeds, domes=views), scenes, f"rendering {chosen} scenes")
        finally:
            for environment in (each for several in environments for each in several):
                environment.close()
    return cache


def _left_out(error: EpisodeError) -> None:
    err.print(f"left out: {error}", highlight=False)


def logged_frames(folder: Path, store: Path) -> ViewCache:
    """Cached frames of logged episodes, but for those of validation and test scenes."""
    from embodied_vision.encoders.logged import logged_views
    from embodied_vision.encoders.views import ViewCache
    from embodied_vision.episodes.store import EpisodeStore
    from embodied_vision.learning.dataset import may_teach

    episodes = EpisodeStore(store)
    whole = episodes.select(on_damaged=_left_out) if episodes.exists() else ()
    ids = [episode.id for episode in whole if may_teach(episode.attributes)]
    if not ids:
        raise EncoderError(
            f"no episodes to learn from in {store} (those of validation and test scenes never teach); log some with "
            "`embodied-vision launch` or `collect` first"
        )
    cache = ViewCache(folder, {"episodes": ids})
    marker = folder / "complete"
    if not marker.is_file():
        done = len(cache)
        sets = logged_views(episodes.open(name) for name in ids)
        _fill(cache, (views for i, views in enumerate(sets) if i >= done), None, "reading logged frames")
        marker.touch()
    return cache

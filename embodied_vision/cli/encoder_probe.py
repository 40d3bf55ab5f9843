"""`embodied-vision encoder probe`: what can be read out of encoders' features, clean and corrupted."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from embodied_vision import locks
from embodied_vision.cli.encoder_frames import progress_bar
from embodied_vision.errors import BadInput

if TYPE_CHECKING:
    from embodied_vision.encoders.base import Encoder
    from embodied_vision.encoders.probes import Condition, Probed, ProbeTable
    from embodied_vision.encoders.views import ViewCache, ViewSet

FIRST_INDEX, HELD_OUT = 700_000, 100_000
"""Number of the first validation scene that read-outs are fitted on, and how much later those come that they are
measured on: no training and no other probe uses them."""
DOMES = 4
"""Views of a scene by random cameras, besides the cell's own."""
TASKS = ("block-insertion", "place-red-in-green", "align-box-corner", "sort-striped")
"""Things of many colors, L-shapes whose turn can be told, and things that differ in their pattern alone."""


def _frames(folder: Path, tasks: Sequence[str], first: int, scenes: int) -> ViewCache:
    """Cached labelled frames of validation scenes from number `first` on, the tasks in turn."""
    from embodied_vision.encoders.simulated import simulated_views
    from embodied_vision.encoders.views import ViewCache
    from embodied_vision.learning.environments import make_env
    from embodied_vision.learning.seeds import scene_seed

    cache = ViewCache(folder, {"labelled": list(tasks), "first": first, "scenes": scenes, "domes": DOMES})
    done = len(cache)
    if done < scenes:
        # Software: it gives the same pictures on every machine.
        environments = [make_env(tasks[(done + i) % len(tasks)], renderer="software") for i in range(len(tasks))]
        seeds = [scene_seed("validation", first + i) for i in range(done, scenes)]
        try:
            sets = with_poses(environments, simulated_views(environments, seeds, domes=DOMES))
            with progress_bar() as bar:
                bar_id = bar.add_task("rendering", total=scenes, completed=done, note="scenes")
                for count in cache.extend(sets):
                    bar.update(bar_id, completed=count)
        finally:
            for environment in environments:
                environment.close()
    return cache


def with_poses(environments: Sequence[Any], sets: Iterable[ViewSet]) -> Iterator[ViewSet]:
    """The sets with the poses of their bodies, asked for as long as each scene stands in its environment."""
    for i, views in enumerate(sets):
        yield replace(views, poses=environments[i % len(environments)].unwrapped.poses())


def _beside(encoders: Sequence[Encoder], fit: ViewCache, seed: int, *, twin: bool, raw: bool) -> dict[str, Probed]:
    """What the encoders are compared with."""
    from embodied_vision.encoders.compact import Architecture, CompactArchitecture, CompactEncoder
    from embodied_vision.encoders.probe import random_twin
    from embodied_vision.encoders.probes import Probed

    others = {}
    if twin:
        compact = next((encoder for encoder in encoders if isinstance(encoder, CompactEncoder)), None)
        architecture: CompactArchitecture = compact.architecture if compact is not None else Architecture()
        others["random twin"] = Probed.of(random_twin(architecture, seed, fit))
    if raw:
        others |= {"raw RGB": Probed.raw(depth=False), "raw RGB-D": Probed.raw(depth=True)}
    return others


def _tables(table: ProbeTable) -> Iterator[Table]:
    """Clean pictures, and corrupted ones by severity."""
    from embodied_vision.encoders.probe_page import corruptions, text_of
    from embodied_vision.encoders.probes import ABOUT, CLEAN, MEAN

    for condition in table.conditions():
        if condition.corruption not in (CLEAN, MEAN):
            continue
        mean = f"mean over {', '.join(corruptions(table))}, severity {condition.severity}"
        shown = Table(title=f"{CLEAN if condition.corruption == CLEAN else mean}; 95 % intervals over scenes")
        for column in ("features", "read-out", *ABOUT):
            shown.add_column(column)
        for row in table.rows:
            if row.condition == condition:
                shown.add_row(row.encoder, row.readout, *(text_of(row.figures[name]) for name in ABOUT))
        yield shown


def probe_command(
    encoder: Annotated[
        list[str], typer.Argument(help="Encoders: `default`, a folder, or a hub name. Gains are those of the first.")
    ] = ["default"],  # noqa: B006 - typer copies it
    run: Annotated[Path, typer.Option("--run", help="Folder for frames and cached features.")] = Path(
        "runs/encoder/probe"
    ),
    task: Annotated[
        list[str], typer.Option("--task", help="Simulated task to take scenes from; repeat for several.")
    ] = list(TASKS),  # noqa: B006 - typer copies it
    scenes: Annotated[int, typer.Option(min=2, help="Scenes to fit on, and as many to measure on.")] = 60,
    corruption: Annotated[
        list[str] | None, typer.Option("--corruption", help="fog, low light, blur, noise, jpeg; `none` for none.")
    ] = None,
    severity: Annotated[list[int], typer.Option("--severity", min=1, max=5, help="Of corruptions; repeat it.")] = [  # noqa: B006
        1,
        3,
        5,
    ],
    twin: Annotated[bool, typer.Option(help="Beside a randomly initialised network of the compact encoder.")] = True,
    raw: Annotated[bool, typer.Option(help="Beside the pixels themselves: RGB, and RGB-D.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the twin, of points, neighbours and the bootstrap.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; the last bits of the result depend on it.")] = 2,
    report: Annotated[
        Path | None, typer.Option(help="Folder for a page with curves, index.html, and figures.json.")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Read segmentation, depth, identity and pose out of features, of clean and of corrupted pictures.

    Linear read-outs and nearest neighbours, fitted on clean simulated frames, measured on other scenes. Features are
    kept by encoder and condition: the same command goes on where it was stopped, and another encoder is added to the
    table at the cost of that encoder alone.
    """
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.corruptions import CORRUPTIONS
    from embodied_vision.encoders.probe_page import markdown, write_page
    from embodied_vision.encoders.probe_points import POINTS_VERSION
    from embodied_vision.encoders.probes import FeatureCache, Probed, conditions_of, probe_encoders
    from embodied_vision.encoders.registry import load_encoder

    use_cores(threads)
    chosen = list(CORRUPTIONS) if not corruption else [] if corruption == ["none"] else list(dict.fromkeys(corruption))
    for name in chosen:
        if name not in CORRUPTIONS:
            raise BadInput(f"corruption {name!r} is unknown; choose of {', '.join(CORRUPTIONS)}, or none")
    loaded = {name: load_encoder(name) for name in encoder}
    busy = f"another probe works in {run}: wait until it ends or name another --run"
    with locks.exclusive(run / "lock", busy):
        fit = _frames(run / "fit", task, FIRST_INDEX, scenes)
        held_out = _frames(run / "held_out", task, FIRST_INDEX + HELD_OUT, scenes)
        encoders = {name: Probed.of(each) for name, each in loaded.items()}
        encoders |= _beside(list(loaded.values()), fit, seed, twin=twin, raw=raw)
        conditions = conditions_of(chosen, sorted(set(severity)))
        caches = tuple(
            FeatureCache(run / "features", {"frames": frames.source, "points": POINTS_VERSION, "seed": seed + i})
            for i, frames in enumerate((fit, held_out))
        )
        with progress_bar() as bar:
            frames_a_scene = DOMES + 1
            total = len(encoders) * (len(fit) + len(held_out) * len(conditions)) * frames_a_scene
            bar_id = bar.add_task("probing", total=total, note="")

            def tick(name: str, condition: Condition, frames: int) -> None:
                bar.update(bar_id, advance=frames, note=f"{name}, {condition.corruption} {condition.severity or ''}")

            table = probe_encoders(
                encoders, fit, held_out, conditions=conditions, caches=(caches[0], caches[1]), seed=seed, tick=tick
            )
    if report is not None:
        write_page(report, table, shlex.join(["embodied-vision", *sys.argv[1:]]))
    if as_json:
        typer.echo(json.dumps(table.to_dict()))
    elif as_markdown:
        typer.echo(markdown(table), nl=False)
    else:
        for shown in _tables(table):
            Console().print(shown)
        if report is not None:
            typer.echo(f"report: {report / 'index.html'}")

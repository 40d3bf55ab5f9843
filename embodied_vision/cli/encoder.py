"""`embodied-vision encoder`: train, probe and describe encoders; the other verbs stand in files of their own."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from embodied_vision.cli.encoder_export import bench_command, export_command
from embodied_vision.cli.encoder_gate import gate_command
from embodied_vision.errors import BadInput, EncoderError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from embodied_vision.encoders.base import Encoder
    from embodied_vision.encoders.pretrain import Pretraining
    from embodied_vision.encoders.probe import ProbeReport
    from embodied_vision.encoders.views import ViewCache, ViewSet

app = typer.Typer(help="Train, probe, export, time and describe encoders.", no_args_is_help=True)
app.command("export")(export_command)
app.command("bench")(bench_command)
app.command("gate")(gate_command)

TASKS = ("block-insertion", "place-red-in-green")
PROBE_FIRST_INDEX = 500_000
SAVE_EVERY = 100
_err = Console(stderr=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=_err)


def _fill(cache: ViewCache, sets: Iterable[ViewSet], total: int | None, title: str) -> None:
    with _progress() as bar:
        task = bar.add_task(title, total=total, completed=len(cache), note="scenes")
        for count in cache.extend(sets):
            bar.update(task, completed=count)


def _simulated(folder: Path, tasks: Sequence[str], split: str, first: int, scenes: int, views: int) -> ViewCache:
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


def _logged(folder: Path, store: Path) -> ViewCache:
    """Cached frames of logged episodes."""
    from embodied_vision.encoders.logged import logged_views
    from embodied_vision.encoders.views import ViewCache
    from embodied_vision.episodes.store import EpisodeStore

    episodes = EpisodeStore(store)
    ids = list(episodes.ids())
    if not ids:
        raise EncoderError(f"no episodes in {store}; log some with `embodied-vision launch` or `collect` first")
    cache = ViewCache(folder, {"episodes": ids})
    marker = folder / "complete"
    if not marker.is_file():
        done = len(cache)
        sets = logged_views(episodes.open(name) for name in ids)
        _fill(cache, (views for i, views in enumerate(sets) if i >= done), None, "reading logged frames")
        marker.touch()
    return cache


def _board(folder: Path) -> AbstractContextManager[SummaryWriter | None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _err.print("tensorboard is not installed, no curves are written; `pip install tensorboard`")
        return nullcontext(None)
    return SummaryWriter(str(folder))


def _train(run: Pretraining, state: Path, board_folder: Path) -> float:
    """Train to the end, saving on the way and when interrupted; returns minutes."""
    started = time.monotonic()
    with _board(board_folder) as board, _progress() as bar:
        task = bar.add_task("training", total=run.settings.steps, completed=run.step, note="")
        try:
            for figures in run.advance():
                bar.update(task, completed=run.step, note=f"loss {figures['loss']:.3f}")
                if board is not None and run.step % 10 == 0:
                    for name, value in figures.items():
                        board.add_scalar(name, value, run.step)
                if run.step % SAVE_EVERY == 0:
                    run.save(state)
        finally:
            run.save(state)
    return (time.monotonic() - started) / 60


def _probe_frames(folder: Path, tasks: Sequence[str], scenes: int) -> tuple[ViewCache, ViewCache]:
    """Frames to fit the read-outs on and to measure them on: scenes that no training uses."""
    first = PROBE_FIRST_INDEX
    return (
        _simulated(folder / "probe_fit", tasks, "validation", first, scenes, 4),
        _simulated(folder / "probe_held_out", tasks, "validation", first + 100_000, scenes, 4),
    )


def _figures(report: ProbeReport) -> Table:
    from embodied_vision.encoders.probe import FIGURES

    table = Table(title=f"linear probe, {report.scenes[1]} held-out scenes, 95 % intervals over scenes")
    table.add_column("encoder")
    for about in FIGURES.values():
        table.add_column(about)
    for name, figures in report.figures.items():
        row = (f"{figures[k].value:.3f} [{figures[k].low:.3f}, {figures[k].high:.3f}]" for k in FIGURES)
        table.add_row(name, *row)
    for name, gains in report.gains.items():
        row = (f"{gains[k].value:+.3f} [{gains[k].low:+.3f}, {gains[k].high:+.3f}]" for k in FIGURES)
        table.add_row(f"gain over {name}", *row)
    return table


Tasks = Annotated[list[str], typer.Option("--task", help="Simulated task to take scenes from; repeat for several.")]
Run = Annotated[Path, typer.Option("--run", help="Folder for frames, training state and TensorBoard curves.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; the last bits of the result depend on it.")]


@app.command("pretrain")
def pretrain(
    output: Annotated[Path, typer.Option(help="Folder to write the encoder to.")] = Path("runs/encoder/encoder"),
    run: Run = Path("runs/encoder"),
    episodes: Annotated[
        Path | None, typer.Option(help="Train on the frames of this episode store instead of simulated scenes.")
    ] = None,
    task: Tasks = list(TASKS),  # noqa: B006 - typer copies it
    scenes: Annotated[int, typer.Option(min=1, help="Simulated scenes.")] = 200,
    views: Annotated[int, typer.Option(min=1, help="Views a scene from random cameras, besides the cell's own.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1000,
    learning_rate: Annotated[float, typer.Option(min=1e-6, help="Peak of the learning rate.")] = 3e-3,
    probe_scenes: Annotated[int, typer.Option(min=0, help="Scenes to fit and to measure the probe on; 0: none.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, crops and augmentations.")] = 0,
    threads: Threads = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the compact encoder without labels from frames with depth and camera poses."""
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.artefact import write_artefact
    from embodied_vision.encoders.card import card_of, manifest_of
    from embodied_vision.encoders.pretrain import Pretraining, PretrainSettings

    use_cores(threads)
    state = run / "state.safetensors"
    if state.exists() and not resume:
        raise BadInput(f"{state} is there from a former run; give --resume to go on or another --run folder")
    frames = (
        _simulated(run / "frames", task, "train", 0, scenes, views)
        if episodes is None
        else _logged(run / "frames", episodes)
    )
    training = Pretraining(PretrainSettings(steps=steps, seed=seed, learning_rate=learning_rate), frames)
    if resume:
        training.restore(state)
    minutes = _train(training, state, run / "tensorboard")
    encoder = training.encoder()
    report = None
    if probe_scenes and episodes is None:
        report = _measure({"trained": encoder}, run, task, probe_scenes, seed)
    command = shlex.join(["embodied-vision", *sys.argv[1:]])
    manifest = manifest_of(encoder, training.settings, frames.source, command, minutes, report)
    write_artefact(output, training.weights(), manifest, card_of(manifest, report))
    if as_json:
        result = {"encoder": str(output), "encoder_id": encoder.encoder_id, "minutes": round(minutes, 2)}
        typer.echo(json.dumps({**result, "probe": report and report.to_dict()}))
        return
    if report is not None:
        Console().print(_figures(report))
    typer.echo(f"{encoder.encoder_id} written to {output}")


def _measure(encoders: Mapping[str, Encoder], run: Path, tasks: Sequence[str], scenes: int, seed: int) -> ProbeReport:
    """Probe encoders beside the random twin of the compact one and the mean color."""
    from embodied_vision.encoders.compact import Architecture, CompactEncoder
    from embodied_vision.encoders.probe import MeanColor, probe, random_twin

    fit, held_out = _probe_frames(run, tasks, scenes)
    first = next(iter(encoders.values()))
    architecture = first.architecture if isinstance(first, CompactEncoder) else Architecture()
    others: dict[str, Encoder] = {"random twin": random_twin(architecture, seed, fit), "mean color": MeanColor()}
    with _err.status("probing"):
        return probe({**encoders, **others}, fit, held_out, seed=seed)


@app.command("probe")
def probe_command(
    encoder: Annotated[list[str], typer.Argument(help="Encoders: `default`, a folder, or a hub name.")] = ["default"],  # noqa: B006
    run: Run = Path("runs/encoder"),
    task: Tasks = list(TASKS),  # noqa: B006 - typer copies it
    scenes: Annotated[int, typer.Option(min=2, help="Scenes to fit on, and as many to measure on.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of the twin, the drawn patches and the bootstrap.")] = 0,
    threads: Threads = 2,
    as_json: AsJson = False,
) -> None:
    """Measure by linear read-outs what an encoder tells about things and places, against a random twin."""
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.registry import load_encoder

    use_cores(threads)
    report = _measure({name: load_encoder(name) for name in encoder}, run, task, scenes, seed)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        Console().print(_figures(report))


@app.command("info")
def info(
    encoder: Annotated[str, typer.Argument(help="`default`, a folder, or a hub name.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Say which encoder this is and what it gives for the cell's camera."""
    import numpy as np

    from embodied_vision.encoders.registry import load_encoder

    loaded = load_encoder(encoder)
    rows, columns = getattr(loaded, "image_size", None) or (240, 424)
    features = loaded.encode(np.zeros((rows, columns, 3), np.uint8))
    about = {
        "encoder_id": loaded.encoder_id,
        "artefact_id": loaded.artefact_id,
        "dimension": loaded.dimension,
        f"grid_of_{columns}x{rows}": list(features.grid.shape[:2]),
        "stride_px": list(features.stride),
    }
    if as_json:
        typer.echo(json.dumps(about))
        return
    for name, value in about.items():
        typer.echo(f"{name:16} {value}")

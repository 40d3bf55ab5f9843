"""`embodied-vision encoder pretrain`: train the compact encoder without labels."""

from __future__ import annotations

import json
import shlex
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from embodied_vision.cli.encoder_frames import TASKS, err, logged_frames, progress_bar, simulated_frames
from embodied_vision.errors import BadInput

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from embodied_vision.encoders.pretrain import Pretraining

SAVE_EVERY = 100

Tasks = Annotated[list[str], typer.Option("--task", help="Simulated task to take scenes from; repeat for several.")]
Run = Annotated[Path, typer.Option("--run", help="Folder for frames, training state and TensorBoard curves.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; the last bits of the result depend on it.")]


def _board(folder: Path) -> AbstractContextManager[SummaryWriter | None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        err.print("tensorboard is not installed, no curves are written; `pip install tensorboard`")
        return nullcontext(None)
    return SummaryWriter(str(folder))


def _train(run: Pretraining, state: Path, board_folder: Path) -> float:
    """Train to the end, saving on the way and when interrupted; returns minutes."""
    started = time.monotonic()
    with _board(board_folder) as board, progress_bar() as bar:
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


def pretrain_command(
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
    from embodied_vision.cli.encoder import _figures, _measure
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.artefact import write_artefact
    from embodied_vision.encoders.card import card_of, manifest_of
    from embodied_vision.encoders.pretrain import Pretraining, PretrainSettings

    use_cores(threads)
    state = run / "state.safetensors"
    if state.exists() and not resume:
        raise BadInput(f"{state} is there from a former run; give --resume to go on or another --run folder")
    frames = (
        simulated_frames(run / "frames", task, "train", 0, scenes, views)
        if episodes is None
        else logged_frames(run / "frames", episodes)
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

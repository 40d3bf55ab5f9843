"""`embodied-vision grasp`: a grasp policy from labelled grasps, and its success on unseen objects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embodied_vision.cli.conditions import Preset, RendererName
from embodied_vision.cli.evaluate import SplitName
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import provenance
from embodied_vision.learning.environments import FIRST_RENDERER
from embodied_vision.learning.evaluate import split_seeds
from embodied_vision.learning.grasp_dataset import load_grasps
from embodied_vision.learning.grasp_evaluate import TASK, GraspConditions, evaluate_grasps, grasp_figures
from embodied_vision.learning.grasp_train import GraspTrainConfig, train_grasps
from embodied_vision.learning.runs import CHECKPOINT, parameters
from embodied_vision.policies import grasp_checkpoint
from embodied_vision.policies.grasp_maps import BIN

DEFAULTS = GraspTrainConfig()

app = typer.Typer(help="Grasp unseen objects: train on labelled grasps, evaluate.", no_args_is_help=True)


@app.command("train")
def train(
    episodes: Path = typer.Option(..., help="Folder of the episode store with labelled grasps.", show_default=False),
    output: Path = typer.Option(..., help="Folder for checkpoint and state.", show_default=False),
    attempts: int = typer.Option(20_000, min=2, help="Grasps to learn from at most, the oldest ones."),
    steps: int = typer.Option(DEFAULTS.steps, min=1, help="Optimiser steps."),
    batch: int = typer.Option(DEFAULTS.batch, min=2, help="Grasps a step."),
    learning_rate: float = typer.Option(DEFAULTS.learning_rate, min=0.0, help="Highest learning rate."),
    seed: int = typer.Option(0, min=0, help="Seed of weights, order and augmentation."),
    threads: int = typer.Option(2, min=1, help="Threads of the arithmetic."),
    encoder: str = typer.Option("none", help="Name or folder of the encoder; `none` trains without features."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted run of the same settings stopped."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Train a grasp policy; writes OUTPUT/checkpoint."""
    torch.set_num_threads(threads)
    store = EpisodeStore(episodes)
    if not store.exists():
        raise BadInput(
            f"no episode store at {episodes}; make one: python -m embodied_vision_sim.grasp_labels --output {episodes}"
        )
    eyes = None if encoder == "none" else load_encoder(encoder)
    console = Console(stderr=True)
    with console.status("reading labelled grasps"):
        dataset = load_grasps(store, TASK, eyes, BIN, attempts)
    config = GraspTrainConfig(steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    mean = 0.7
    with Progress(*columns, console=console, transient=as_json) as progress:
        bar = progress.add_task("steps", total=steps, loss=mean)

        def report(step: int, loss: float) -> None:
            nonlocal mean
            mean = 0.98 * mean + 0.02 * loss
            progress.update(bar, completed=step, loss=mean)

        checkpoint = train_grasps(dataset, eyes, output, config, resume=resume, report=report)
    folder = output / CHECKPOINT
    result = {
        "task": TASK,
        "checkpoint": str(folder),
        "checkpoint_id": checkpoint.checkpoint_id,
        "encoder": checkpoint.encoder_id,
        "steps": steps,
        "parameters": parameters(checkpoint.weights),
        **{
            key: checkpoint.training[key]
            for key in ("attempts", "successes", "scenes", "checked", "minutes", "cpu_minutes")
        },
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(
        f"{result['attempts']} grasps in {result['scenes']} scenes, {steps} steps in {result['minutes']} minutes "
        f"({result['cpu_minutes']} of CPU): {folder} ({checkpoint.checkpoint_id})"
    )
    typer.echo(f"measure it: embodied-vision grasp evaluate --checkpoint {folder}")


@app.command("evaluate")
def evaluate(
    checkpoint: Path = typer.Option(..., help="Checkpoint folder.", show_default=False),
    scenes: int = typer.Option(100, min=1, help="Number of scenes."),
    split: SplitName = typer.Option(SplitName.TEST, help="Which scenes; those of test show held-out objects."),
    seed_offset: int = typer.Option(0, min=0, help="Number of the first scene within the split."),
    in_bin: int = typer.Option(5, min=1, help="Objects in the bin."),
    image_size: int | None = typer.Option(None, min=16, help="Rows and columns of the images; the task's own."),
    preset: Preset = typer.Option(Preset.NONE, help="Domain randomisation of the scenes."),
    renderer: RendererName | None = typer.Option(None, help="Who draws; left out, who drew the labelled grasps."),
    workers: int = typer.Option(1, min=1, help="Processes that run scenes at once."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder, where the policy reads features."),
    append: Path | None = typer.Option(None, help="File of JSON lines to add the figures to, with their provenance."),
    record: bool = typer.Option(False, "--record", help="Write the figures into the checkpoint's manifest and card."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Let a policy grasp once in each of some unseen scenes: share that lifts an object, with Wilson's interval."""
    manifest = grasp_checkpoint.read_manifest(checkpoint)
    commit = provenance.git_commit()  # before anything that is tracked changes
    drawer = renderer.value if renderer is not None else manifest["training"].get("renderer") or FIRST_RENDERER
    conditions = GraspConditions(in_bin, image_size, preset.value, drawer)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"{in_bin} in the bin ({split.value})", total=scenes)
        results = evaluate_grasps(
            checkpoint,
            split_seeds(split.value, scenes, seed_offset),
            conditions,
            encoder=encoder,
            workers=workers,
            report=lambda _: progress.advance(bar),
        )
    figures = {**grasp_figures(checkpoint, results, conditions), "split": split.value}
    if record:
        former = grasp_checkpoint.load(checkpoint)
        name = f"{split.value}, {in_bin} in the bin" + (f", {preset.value}" if preset is not Preset.NONE else "")
        grasp_checkpoint.save(replace(former, measured={**former.measured, name: figures}), checkpoint)
    if append is not None:
        line = {
            **figures,
            "checkpoint_id": manifest["checkpoint_id"],
            "attempts": manifest["training"].get("attempts"),
            "git_commit": commit,
            "command": provenance.command(),
        }
        append.parent.mkdir(parents=True, exist_ok=True)
        with open(append, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    if as_json:
        typer.echo(json.dumps(figures))
        return
    typer.echo(
        f"{in_bin} in the bin, {scenes} scenes of {split.value}, preset {preset.value}: first grasp lifts "
        f"{figures['solved']} ({figures['solved_low']:.1f} to {figures['solved_high']:.1f} %), "
        f"{1000 * figures['seconds_per_decision']:.0f} ms a decision"
    )
    if figures["failed_seeds"]:
        typer.echo(f"not lifted: seeds {', '.join(map(str, figures['failed_seeds']))}")

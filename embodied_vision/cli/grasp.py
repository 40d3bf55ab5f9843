"""`embodied-vision grasp`: a grasp policy from labelled grasps, and its success on unseen objects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embodied_vision.cli.conditions import Preset, RendererName
from embodied_vision.cli.evaluate import SplitName
from embodied_vision.cores import use_cores
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import json_lines, provenance
from embodied_vision.learning.dataset import renderer_of
from embodied_vision.learning.evaluate import split_seeds
from embodied_vision.learning.grasp_configuration import GraspRunConfig, GraspTrainConfig
from embodied_vision.learning.grasp_dataset import load_grasps
from embodied_vision.learning.grasp_evaluate import TASK, GraspConditions, evaluate_grasps, grasp_figures
from embodied_vision.learning.grasp_train import train_grasps
from embodied_vision.learning.results import result_line
from embodied_vision.learning.runs import CHECKPOINT, parameters
from embodied_vision.paths import shipped
from embodied_vision.policies import grasp_checkpoint
from embodied_vision.policies.grasp_maps import BIN

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

DEFAULTS = GraspTrainConfig()

app = typer.Typer(help="Grasp unseen objects: train on labelled grasps, evaluate.", no_args_is_help=True)


def _print_config(wanted: bool) -> None:
    if wanted:
        typer.echo(GraspRunConfig().to_yaml(), nl=False)
        raise typer.Exit


@app.command("train")
def train(
    episodes: Path = typer.Option(..., help="Folder of the episode store with labelled grasps.", show_default=False),
    output: Path = typer.Option(..., help="Folder for checkpoint, state and TensorBoard logs.", show_default=False),
    attempts: int = typer.Option(20_000, min=2, help="Grasps to learn from at most, the oldest ones."),
    config: Path | None = typer.Option(None, help="YAML file of settings; see --print-config.", show_default=False),
    settings: list[str] = typer.Option(
        [], "--set", metavar="SECTION.NAME=VALUE", help="Any one setting, over the file's.", show_default=False
    ),
    steps: int | None = typer.Option(
        None, min=1, help="Optimiser steps.", show_default=f"{DEFAULTS.steps}, or the file's"
    ),
    seed: int | None = typer.Option(
        None, min=0, help="Seed of weights, order and variation.", show_default=f"{DEFAULTS.seed}, or the file's"
    ),
    threads: int = typer.Option(2, min=1, help="Threads of the arithmetic."),
    encoder: str = typer.Option("none", help="Name or folder of the encoder; `none` trains without features."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted run of the same settings stopped."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
    print_config: bool = typer.Option(
        False, "--print-config", callback=_print_config, is_eager=True, help="Print all settings as YAML, and exit."
    ),
) -> None:
    """Train a grasp policy; writes OUTPUT/checkpoint."""
    run = GraspRunConfig.read(config) if config is not None else GraspRunConfig()
    for assignment in settings:
        run = run.assigned(assignment)
    given = {name: value for name, value in (("steps", steps), ("seed", seed)) if value is not None}
    run = replace(run, train=replace(run.train, **given))
    use_cores(threads)
    store = EpisodeStore(episodes)
    if not store.exists():
        raise BadInput(
            f"no episode store at {episodes}; make one: python -m embodied_vision_sim.grasp_labels --output {episodes}"
        )
    eyes = None if encoder == "none" else load_encoder(encoder)
    console = Console(stderr=True)
    with console.status("reading labelled grasps"):
        dataset = load_grasps(store, TASK, eyes, BIN, attempts)
    with _Monitor(console, output / "tensorboard", run) as monitor:
        checkpoint = train_grasps(dataset, eyes, output, run, resume=resume, report=monitor.report)
    folder, training = output / CHECKPOINT, checkpoint.training
    result = {
        "task": TASK,
        "checkpoint": str(folder),
        "checkpoint_id": checkpoint.checkpoint_id,
        "encoder": checkpoint.encoder_id,
        "parameters": parameters(checkpoint.weights),
        "loss": round(monitor.mean, 4),
        **{
            key: training[key]
            for key in ("attempts", "successes", "scenes", "checked", "steps", "minutes", "cpu_minutes")
        },
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(
        f"{training['attempts']} grasps in {training['scenes']} scenes, {training['steps']} steps in "
        f"{training['minutes']} minutes ({training['cpu_minutes']} of CPU): {folder} ({checkpoint.checkpoint_id})"
    )
    typer.echo(f"measure it: embodied-vision grasp evaluate --checkpoint {folder}")


class _Monitor:
    """A progress bar, the running mean of the loss, and TensorBoard where it is installed."""

    def __init__(self, console: Console, logs: Path, run: GraspRunConfig) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        self.mean = 0.0
        self._progress = Progress(*columns, console=console)
        self._bar = self._progress.add_task("grasp", total=run.train.steps, loss="")
        self._writer = _writer(logs, run, console)

    def report(self, step: int, loss: float) -> None:
        """Take down a step."""
        self.mean = 0.98 * self.mean + 0.02 * loss if self.mean else loss
        self._progress.update(self._bar, completed=step, loss=f"loss {self.mean:.3f}")
        if self._writer is not None and step % 10 == 0:
            self._writer.add_scalar("loss/grasp", loss, step)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()


def _writer(logs: Path, run: GraspRunConfig, console: Console) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        console.print("no TensorBoard logs: it is not installed (pip install tensorboard)", highlight=False)
        return None
    writer = SummaryWriter(str(logs))
    writer.add_text("configuration", f"```yaml\n{run.to_yaml()}```")
    return writer


@app.command("evaluate")
def evaluate(
    checkpoint: Path | None = typer.Option(None, help="Checkpoint folder; the shipped one when left out."),
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
    folder = checkpoint if checkpoint is not None else shipped(TASK)
    manifest = grasp_checkpoint.read_manifest(folder)
    commit = provenance.git_commit()  # before anything that is tracked changes
    drawer = renderer.value if renderer is not None else renderer_of(manifest["training"])
    conditions = GraspConditions(in_bin, image_size, preset.value, drawer)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"{in_bin} in the bin ({split.value})", total=scenes)
        results = evaluate_grasps(
            folder,
            split_seeds(split.value, scenes, seed_offset),
            conditions,
            encoder=encoder,
            workers=workers,
            report=lambda _: progress.advance(bar),
        )
    figures = {**grasp_figures(folder, results, conditions), "split": split.value}
    if record:
        former = grasp_checkpoint.load(folder)
        name = f"{split.value}, {in_bin} in the bin" + (f", {preset.value}" if preset is not Preset.NONE else "")
        grasp_checkpoint.save(replace(former, measured={**former.measured, name: figures}), folder)
    if append is not None:
        line = {
            **result_line(figures, manifest, git_commit=commit, command=provenance.command()),
            "attempts": manifest["training"].get("attempts"),
        }
        json_lines.append(append, line)
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

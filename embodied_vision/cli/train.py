"""`embodied-vision train`: a policy from logged demonstrations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.board import Board
from embodied_vision.learning.configuration import RunConfig, TrainConfig
from embodied_vision.learning.dataset import SOLVED_REWARD, Dataset, left_out_note, load_dataset, teaching_ids
from embodied_vision.learning.distributed import DEVICES, joined
from embodied_vision.learning.runs import CHECKPOINT, parameters, train_run
from embodied_vision.learning.stage import STAGES, Stage
from embodied_vision.learning.yaml_config import documentation
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.types import Workspace

DEFAULTS = TrainConfig()
_MEANING = documentation(TrainConfig)


def _print_config(wanted: bool) -> None:
    if wanted:
        typer.echo(RunConfig().to_yaml(), nl=False)
        raise typer.Exit


def _setting(name: str, lowest: float) -> Any:
    """An option that overrides what the configuration file says about a field of `TrainConfig`."""
    meaning = _MEANING[name]
    return typer.Option(
        None,
        min=lowest,
        help=meaning[:1].upper() + meaning[1:],
        show_default=f"{getattr(DEFAULTS, name)}, or the file's",
    )


def command(
    task: str = typer.Option(..., help="Name of the task, such as block-insertion.", show_default=False),
    episodes: Path = typer.Option(..., help="Folder of the episode store.", show_default=False),
    output: Path = typer.Option(..., help="Folder for checkpoint, state and TensorBoard logs.", show_default=False),
    demos: int = typer.Option(100, min=1, help="Demonstrations to learn from, the oldest ones."),
    config: Path | None = typer.Option(None, help="YAML file of settings; see --print-config.", show_default=False),
    settings: list[str] = typer.Option(
        [], "--set", metavar="SECTION.NAME=VALUE", help="Any one setting, over the file's.", show_default=False
    ),
    steps: int | None = _setting("steps", 1),
    batch: int | None = _setting("batch", 1),
    learning_rate: float | None = _setting("learning_rate", 0.0),
    seed: int | None = _setting("seed", 0),
    device: str = typer.Option(
        "auto", help=f"Where to compute: {', '.join(DEVICES)}; auto takes CUDA if there is any."
    ),
    threads: int | None = typer.Option(
        None, min=1, help="Threads that compute; the result is the same for any.", show_default="one a core"
    ),
    encoder: str = typer.Option("default", help="Name or folder of the encoder; `none` trains without features."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted run of the same settings stopped."),
    save_every: float = typer.Option(20.0, min=0.0, help="Seconds between two writings of what --resume needs."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
    print_config: bool = typer.Option(
        False, "--print-config", callback=_print_config, is_eager=True, help="Print all settings as YAML, and exit."
    ),
) -> None:
    """Train a pick-and-place policy on solved episodes; writes OUTPUT/checkpoint."""
    run = RunConfig.read(config) if config is not None else RunConfig()
    for assignment in settings:
        run = run.assigned(assignment)
    options = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    run = replace(run, train=replace(run.train, **given))
    with joined(device) as group:
        group.share(run.train.batch)
        console = Console(stderr=True, quiet=not group.leads)
        ids = _demonstrations(EpisodeStore(episodes), task, demos, console)
        eyes = None if encoder == "none" else load_encoder(encoder)
        with console.status("reading demonstrations"), group.leader_first():
            dataset = load_dataset(EpisodeStore(episodes), task, eyes, Workspace(), episode_ids=ids)
        if note := left_out_note(dataset.left_out):
            console.print(note, highlight=False)
        board = _board(output / "tensorboard", run, dataset, console) if group.leads else None
        with _Monitor(console, run.train.steps, board) as monitor:
            checkpoint = train_run(
                dataset,
                eyes,
                output,
                run.train,
                network=run.network,
                resume=resume,
                threads=threads or group.threads(),
                report=monitor.report if group.leads else None,
                save_every_s=save_every,
                group=group,
            )
        if group.leads:
            _tell(checkpoint, output, monitor.losses(), as_json)


def _demonstrations(store: EpisodeStore, task: str, demos: int, console: Console) -> list[str]:
    """Ids of the oldest demonstrations that may teach the task."""
    make_some = f"make some: embodied-vision collect --task {task} --output {store.path}"
    if not store.exists():
        raise BadInput(f"no episode store at {store.path}; {make_some}")
    ids = teaching_ids(store, task)
    if not ids:
        held = Counter(episode.task for episode in store.select())
        content = ", ".join(f"{count} of {name}" for name, count in sorted(held.items())) or "no episode"
        raise BadInput(
            f"no solved demonstration of {task!r} in {store.path}, which holds {content} (a total reward above "
            f"{SOLVED_REWARD} counts as solved; validation and test scenes never teach); {make_some}"
        )
    if len(ids) < demos:
        console.print(f"{len(ids)} demonstrations of {task} are there, {demos} were asked for", highlight=False)
    return ids[:demos]


def _tell(checkpoint: Checkpoint, output: Path, losses: Mapping[str, float], as_json: bool) -> None:
    training = checkpoint.training
    result: dict[str, Any] = {
        "task": checkpoint.task,
        "checkpoint": str(output / CHECKPOINT),
        "checkpoint_id": checkpoint.checkpoint_id,
        "encoder": checkpoint.encoder_id,
        "parameters": parameters(checkpoint.weights),
        **{
            name: training[name]
            for name in ("demos", "examples", "left_out", "steps", "minutes", "cpu_minutes", "device", "processes")
        },
        "losses": losses,
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(
        f"{checkpoint.task}: {training['demos']} demonstrations, {training['steps']} steps in {training['minutes']} "
        f"minutes ({training['cpu_minutes']} of CPU): {result['checkpoint']} ({checkpoint.checkpoint_id})"
    )
    typer.echo(f"measure it: embodied-vision evaluate --task {checkpoint.task} --checkpoint {result['checkpoint']}")


def _board(logs: Path, run: RunConfig, dataset: Dataset, console: Console) -> Board | None:
    try:
        return Board(logs, run, dataset)
    except ImportError:
        console.print("no TensorBoard logs: it is not installed (pip install tensorboard)", highlight=False)
        return None


class _Monitor:
    """Progress bars, one a stage, and running means of the losses."""

    def __init__(self, console: Console, steps: int, board: Board | None) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._bars = {stage: self._progress.add_task(stage, total=steps, losses="") for stage in STAGES}
        self._means: dict[Stage, dict[str, float]] = {stage: {} for stage in STAGES}
        self._board = board

    def report(self, stage: Stage, step: int, losses: Mapping[str, float]) -> None:
        """Runs on the stage's own thread."""
        means = self._means[stage]
        for name, value in losses.items():
            means[name] = 0.98 * means.get(name, value) + 0.02 * value
        text = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
        self._progress.update(self._bars[stage], completed=step, losses=text)
        if self._board is not None:
            self._board.report(stage, step, losses)

    def losses(self) -> dict[str, float]:
        """Running means of all losses."""
        return {name: round(value, 4) for means in self._means.values() for name, value in means.items()}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._board is not None:
            self._board.close()

"""`embodied-vision learn outcomes`: whether actions succeeded, told from the cameras."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from embodied_vision.cli.conditions import Preset, RendererName
from embodied_vision.cli.episodes.common import id_column
from embodied_vision.cores import use_cores
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.select import find_id
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError, RunFailed
from embodied_vision.learning import outcomes
from embodied_vision.learning.environments import Conditions
from embodied_vision.learning.outcomes import OutcomeConfig
from embodied_vision.learning.outcomes_judge import Judge, Measured, label
from embodied_vision.learning.outcomes_plot import plot
from embodied_vision.learning.outcomes_practice import MISTAKES, practise
from embodied_vision.learning.outcomes_views import Part, Transition, logged, part_of
from embodied_vision.learning.statistics import Interval
from embodied_vision.types import Workspace

DEFAULTS = OutcomeConfig()
app = typer.Typer(help="Judge from the cameras whether actions succeeded.", no_args_is_help=True)

TASK = typer.Option(..., help="Name of the task, such as block-insertion.", show_default=False)
STORE = typer.Option(..., help="Folder of the episode store.", show_default=False)
CLASSIFIER = typer.Option(..., help="Folder that `train` wrote.", show_default=False)
ENCODER = typer.Option("default", help="Name or folder of the encoder.")
CACHE = typer.Option(None, help="Folder for what was computed of episodes; may be deleted.", show_default="STORE/cache")
THREADS = typer.Option(1, min=1, help="CPU threads.")
JSON = typer.Option(False, "--json", help="Print JSON for scripts.")


class SplitName(StrEnum):
    """Scenes to collect from."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@app.callback()
def _root() -> None:
    pass


@app.command("collect")
def collect_command(
    task: str = TASK,
    output: Path = typer.Option(
        ..., help="Folder of the episode store; one of its own, since mistakes teach no policy.", show_default=False
    ),
    episodes: int = typer.Option(200, min=1, help="Scenes that the store shall hold."),
    split: SplitName = typer.Option(SplitName.TRAIN, help="Which scenes."),
    seed_offset: int = typer.Option(0, min=0, help="Number of the first scene within the split."),
    preset: Preset = typer.Option(Preset.NONE, help="Domain randomisation of the scenes."),
    renderer: RendererName = typer.Option(RendererName.AUTO, help="Who draws; auto: EGL where it is there."),
    as_json: bool = JSON,
) -> None:
    """Let the oracle act with mistakes in simulation, and log what each action earned. Stopped, it goes on."""
    use_cores(1)
    made: Counter[str] = Counter()
    good: Counter[str] = Counter()
    with _bars(as_json) as progress:
        bar = progress.add_task(task, total=episodes)
        scenes = practise(
            task,
            EpisodeStore(output),
            episodes,
            split=split.value,
            seed_offset=seed_offset,
            conditions=Conditions(preset.value, renderer.value),
        )
        for scene in scenes:
            progress.advance(bar)
            for mistake, reward in zip(scene.mistakes, scene.earned, strict=True):
                made[mistake] += 1
                good[mistake] += reward > 0
    if as_json:
        kinds = {kind: {"made": made[kind], "succeeded": good[kind]} for kind in MISTAKES}
        typer.echo(json.dumps({"task": task, "store": str(output), "actions": made.total(), "mistakes": kinds}))
        return
    table = Table("mistake", "made", "succeeded all the same")
    for kind in MISTAKES:
        table.add_row(kind, str(made[kind]), str(good[kind]))
    Console().print(table)


@app.command("train")
def train_command(
    task: str = TASK,
    store: list[Path] = typer.Option(..., help="Folder of an episode store; may be repeated.", show_default=False),
    output: Path = typer.Option(..., help="Folder to write; replaced when it is there.", show_default=False),
    steps: int = typer.Option(DEFAULTS.steps, min=1, help="Optimiser steps."),
    sure: float = typer.Option(
        DEFAULTS.sure, min=0.5, max=0.999, help="Probability from which on it commits itself; below, it is unsure."
    ),
    seed: int = typer.Option(DEFAULTS.seed, min=0, help="Seed of weights and order."),
    encoder: str = ENCODER,
    cache: Path | None = CACHE,
    threads: int = THREADS,
    as_json: bool = JSON,
) -> None:
    """Train a classifier on logged decisions whose reward is known, calibrate it, and measure it on held-out scenes.

    Scenes of the validation split calibrate, those of the test split are held out; of all others a fifth each.
    """
    use_cores(threads)
    config = OutcomeConfig(steps=steps, sure=sure, seed=seed)
    eyes, workspace = load_encoder(encoder), Workspace()
    with _bars(as_json) as progress:
        parts = _read(store, task, eyes, workspace, cache, progress)
        bar = progress.add_task("training", total=steps)
        classifier = outcomes.fit(
            task,
            eyes,
            workspace,
            parts["fit"],
            parts["calibrate"],
            config,
            lambda step, _: progress.update(bar, completed=step),
        )
    measured = None
    if any(transition.succeeded is not None for transition in parts["held-out"]):
        measured = Judge(classifier, eyes).measure(parts["held-out"])
        classifier = outcomes.with_measured(classifier, measured.to_dict())
    classifier_id = outcomes.save(classifier, output)
    if as_json:
        training = {key: classifier.training[key] for key in ("learnt_from", "successes", "calibrated_on")}
        about = {"classifier": classifier_id, "folder": str(output), "task": task, **training}
        typer.echo(json.dumps({**about, "measured": measured.to_dict() if measured else None}))
        return
    counts = classifier.training
    typer.echo(f"{classifier_id} learnt from {counts['learnt_from']} outcomes, calibrated on {counts['calibrated_on']}")
    if measured is None:
        typer.echo("no outcome was held out: measure it on other scenes, `embodied-vision learn outcomes evaluate`")
    else:
        _print(measured, sure)
    typer.echo(f"written to {output}")


@app.command("evaluate")
def evaluate_command(
    classifier: Path = CLASSIFIER,
    store: list[Path] = typer.Option(..., help="Folder of an episode store; may be repeated.", show_default=False),
    everything: bool = typer.Option(
        False, "--all", help="All episodes that it was not trained on, not only those that are held out."
    ),
    encoder: str = ENCODER,
    cache: Path | None = CACHE,
    record: bool = typer.Option(False, "--record", help="Write the figures into the classifier's manifest and card."),
    picture: Path | None = typer.Option(None, "--plot", help="Reliability diagram, .png, .pdf or .svg."),
    threads: int = THREADS,
    as_json: bool = JSON,
) -> None:
    """Compare verdicts with known outcomes of scenes that were held out: accuracy, calibration, what is left open."""
    use_cores(threads)
    loaded, eyes = outcomes.load(classifier), load_encoder(encoder)
    judge = Judge(loaded, eyes)
    with _bars(as_json) as progress:
        parts = _read(store, loaded.task, eyes, loaded.workspace, cache, progress)
    known = set(loaded.training.get("episodes", ()))
    chosen = parts["held-out"]
    if everything:
        chosen = [t for part in parts.values() for t in part]
    measured = judge.measure([t for t in chosen if t.source.split("/")[0] not in known])
    if record:
        outcomes.save(outcomes.with_measured(loaded, measured.to_dict()), classifier)
    if picture is not None:
        plot(measured.reliability, f"{loaded.task}, {measured.outcomes} held-out outcomes", picture)
    if as_json:
        about = {"classifier": loaded.classifier_id, "task": loaded.task, "sure": loaded.sure}
        typer.echo(json.dumps({**about, **measured.to_dict()}))
    else:
        _print(measured, loaded.sure)


@app.command("label")
def label_command(
    classifier: Path = CLASSIFIER,
    store: Path = STORE,
    ids: list[str] | None = typer.Argument(
        None, metavar="[ID]...", help="Ids, beginnings of ids, or 'latest'.", show_default="all not judged by it yet"
    ),
    encoder: str = ENCODER,
    cache: Path | None = CACHE,
    threads: int = THREADS,
    as_json: bool = JSON,
) -> None:
    """Write verdicts into logged episodes, as `judged` in their outcome.

    Where no reward was logged, `solved` and `reward` follow from them, unless an action is left open. Exit code 1 when
    one cannot be judged.
    """
    use_cores(threads)
    loaded, opened = outcomes.load(classifier), EpisodeStore(store)
    if not opened.exists():
        raise BadInput(f"no episode store at {store}; give the folder that the recorder wrote to")
    judge = Judge(loaded, load_encoder(encoder))
    kept = cache if cache is not None else opened.path / "cache"
    chosen = [find_id(opened, each) for each in ids] if ids else _not_judged(opened, loaded)
    rows: list[dict[str, Any]] = []
    with _bars(as_json) as progress:
        for episode_id in progress.track(chosen, description="judging"):
            try:
                outcome = label(opened, opened.open(episode_id), judge, kept)
            except BadInput as error:
                if len(chosen) == 1:
                    raise
                rows.append({"id": episode_id, "error": str(error)})
                continue
            rows.append({"id": episode_id, "solved": outcome.get("solved"), **outcome["judged"]})
    failed = [row for row in rows if "error" in row]
    if as_json:
        typer.echo(json.dumps({"classifier": loaded.classifier_id, "episodes": rows}))
    else:
        table = Table(id_column(), "successes", "failures", "unsure", "solved")
        for row in rows:
            names = ("error",) if "error" in row else ("successes", "failures", "unsure", "solved")
            table.add_row(row["id"], *(escape(str(row[name])) for name in names))
        Console().print(table if rows else "nothing to judge.")
    if failed:
        raise typer.Exit(RunFailed.exit_code)


def _not_judged(store: EpisodeStore, classifier: outcomes.Classifier) -> list[str]:
    found = store.select(task=classifier.task, on_damaged=lambda _: None)
    return [e.id for e in found if (e.outcome.get("judged") or {}).get("classifier") != classifier.classifier_id]


def _read(
    stores: list[Path], task: str, encoder: Any, workspace: Workspace, cache: Path | None, progress: Progress
) -> dict[Part, list[Transition]]:
    """Transitions by what they are for; damaged episodes are told of and left out."""
    parts: dict[Part, list[Transition]] = {"fit": [], "calibrate": [], "held-out": []}
    for path in stores:
        store = EpisodeStore(path)
        if not store.exists():
            raise BadInput(f"no episode store at {path}; collect some: embodied-vision learn outcomes collect")
        bar = progress.add_task(f"reading {path.name}", total=len(store.ids()))
        kept = cache if cache is not None else store.path / "cache"

        def damaged(error: EpisodeError) -> None:
            progress.console.print(f"left out: {error}", highlight=False, markup=False)

        for episode, found in logged(store, task, encoder, workspace, kept, damaged):
            parts[part_of(episode)] += found
            progress.advance(bar)
    return parts


def _print(measured: Measured, sure: float) -> None:
    console = Console()
    table = Table("said", "outcomes", "mean said", "succeeded", "95 %", title="how far it can be believed")
    for each in measured.reliability.bins:
        table.add_row(
            f"{each.low:.1f} to {each.high:.1f}",
            str(each.count),
            f"{each.mean_probability:.3f}",
            f"{each.share:.3f}",
            f"{each.ci_low:.2f} to {each.ci_high:.2f}",
        )
    console.print(table)
    shares = ("accuracy", "unsure", "wrong_successes", "wrong_failures")
    words = {name: _percent(getattr(measured, name)) for name in shares}
    auc = f"{measured.auc:.3f}" if math.isfinite(measured.auc) else "unknown"
    typer.echo(
        f"{measured.outcomes} held-out outcomes, {measured.successes} successes: {words['accuracy']} right at a "
        f"half, area under the curve {auc}, expected calibration error {measured.reliability.expected_error:.3f}, "
        f"Brier score {measured.reliability.brier:.3f}"
    )
    typer.echo(
        f"committing itself from {sure:g} on: unsure about {words['unsure']}; of those called successes "
        f"{words['wrong_successes']} were none, of those called failures {words['wrong_failures']}"
    )


def _percent(share: Interval) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


@contextmanager
def _bars(quiet: bool) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        yield progress

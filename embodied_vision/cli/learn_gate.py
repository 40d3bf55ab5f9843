"""`embodied-vision learn gate`: put any checkpoint to the gate."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.learning.decide import decide, start
from embodied_vision.learning.evaluate import SceneResult
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.promotion import Pointer
from embodied_vision.policies import checkpoint as checkpoints

DEFAULTS = LearnConfig()


def command(
    candidate: Path = typer.Argument(..., help="Folder of the candidate's checkpoint."),
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    store: Path | None = typer.Option(None, help="Folder of the episode store with logged episodes."),
    scenes: int = typer.Option(DEFAULTS.scenes, min=0, help="Validation scenes to compare on; 0 without a simulator."),
    margin: float = typer.Option(DEFAULTS.margin, help="Share of scenes that it may solve less."),
    level: float = typer.Option(DEFAULTS.level, help="Largest probability of promoting one that is worse by that."),
    latency_ratio: float = typer.Option(DEFAULTS.latency_ratio, help="Its decisions may take so many times as long."),
    latency_ms: float | None = typer.Option(None, help="Longest median decision, ms.", show_default=False),
    size_mb: float = typer.Option(DEFAULTS.size_mb, help="Largest weights, MB."),
    canary: int = typer.Option(DEFAULTS.canary, min=0, help="Episodes that it is watched for afterwards; 0 for none."),
    workers: int = typer.Option(DEFAULTS.workers, min=1, help="Processes that evaluate."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder that it reads."),
    baseline_encoder: str | None = typer.Option(
        None,
        help="Name or folder of the encoder that the policy in use reads; the same when left out. Where they differ, "
        "encoding an image counts as part of a decision.",
        show_default=False,
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Compare a checkpoint with the policy in use, and promote it or say why not. Exit code 1 when it is refused."""
    config = LearnConfig(
        scenes=scenes,
        margin=margin,
        level=level,
        latency_ratio=latency_ratio,
        latency_ms=latency_ms,
        size_mb=size_mb,
        canary=canary,
        workers=workers,
    )
    wanted = checkpoints.load(candidate)
    pointer, columns = Pointer(policies, wanted.task), (TextColumn("{task.description}"), BarColumn())
    with (
        pointer.locked(),
        Progress(
            *columns, MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
        ) as progress,
    ):
        start(pointer)
        bars = {who: progress.add_task(who, total=scenes) for who in ("candidate", "baseline")}

        def on_scene(who: str, _: SceneResult) -> None:
            progress.advance(bars[who])

        episodes = EpisodeStore(store) if store is not None else None
        outcome = decide(
            pointer,
            wanted,
            config,
            store=episodes,
            encoder=encoder,
            baseline_encoder=baseline_encoder,
            progress=on_scene,
        )
    if as_json:
        typer.echo(json.dumps(outcome.to_dict()))
    else:
        typer.echo(f"{outcome.task}: {outcome.candidate}: {outcome.decision}: {outcome.reason}")
        for finding in outcome.gate.get("findings", ()):
            typer.echo(f"  {'passed' if finding['passed'] else 'FAILED'}  {finding['name']}: {finding['words']}")
        if outcome.decision == "promoted" and baseline_encoder not in (None, encoder):
            typer.echo(
                f"it reads another encoder: a running cell goes on with {outcome.baseline} until it is launched with "
                f"--encoder {encoder}"
            )
    raise typer.Exit(0 if outcome.decision == "promoted" else 1)

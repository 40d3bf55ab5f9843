"""`embodied-vision collect`: oracle demonstrations into the episode store."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand

from embodied_vision.cli.conditions import Preset, RendererName
from embodied_vision.learning.collect import Demonstration, collect
from embodied_vision.learning.environments import Conditions


class Command(TyperCommand):
    """Takes `--ray` with and without an address; typer itself knows options only with one or without."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the address `local` after each `--ray` that has none."""
        bare = [i for i, arg in enumerate(args) if arg == "--ray" and (args[i + 1 : i + 2] or ["-"])[0].startswith("-")]
        for i in reversed(bare):
            args = [*args[: i + 1], "local", *args[i + 1 :]]
        return super().parse_args(ctx, args)


@dataclass
class _Tally:
    """What became of the scenes so far."""

    known: list[Demonstration] = field(default_factory=list)
    collected: list[Demonstration] = field(default_factory=list)
    failed: list[Demonstration] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def add(self, result: Demonstration) -> None:
        if result.episode_id is None:
            self.failed.append(result)
        else:
            (self.collected if result.steps else self.known).append(result)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def scenes_per_s(self) -> float:
        return (len(self.collected) + len(self.failed)) / max(self.seconds, 1e-9)


def command(
    task: str = typer.Option(..., help="Name of the task, such as block-insertion.", show_default=False),
    output: Path = typer.Option(..., help="Folder of the episode store.", show_default=False),
    episodes: int = typer.Option(100, min=1, help="Demonstrations that the store shall hold of these scenes."),
    seed_offset: int = typer.Option(0, min=0, help="Number of the first training scene."),
    preset: Preset = typer.Option(Preset.NONE, help="Domain randomisation of the scenes."),
    renderer: RendererName = typer.Option(
        RendererName.AUTO, help="Who draws; auto: as what the store holds, else EGL where it is there."
    ),
    workers: int = typer.Option(1, min=1, help="Scenes that run at once, each in a process of its own."),
    ray: str | None = typer.Option(
        None,
        metavar="[ADDRESS]",
        help="Run on a Ray cluster: auto, ray://HOST:PORT, or local, which is meant without an address.",
        show_default=False,
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Let the oracle solve training scenes and store its runs; scenes already stored are not run again.

    Stopped or killed at any moment, the same command goes on where it was.
    """
    console = Console(stderr=True)
    tally = _Tally()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.2f} scenes/s"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=as_json) as progress:
            bar = progress.add_task(task, total=episodes, rate=0.0)
            conditions = Conditions(preset.value, renderer.value)
            scenes = collect(
                task, output, episodes, conditions=conditions, seed_offset=seed_offset, workers=workers, ray=ray
            )
            with closing(scenes) as results:
                for result in results:
                    tally.add(result)
                    if result.episode_id is None:
                        left_out = f"seed {result.seed} is left out: {result.reason}"
                        console.print(left_out, highlight=False, markup=False)
                    done = len(tally.known) + len(tally.collected)
                    progress.update(bar, completed=done, rate=tally.scenes_per_s)
    except KeyboardInterrupt:
        console.print(
            f"stopped: {len(tally.collected)} demonstrations collected, they are in {output}; "
            "run the same command again to go on",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    if as_json:
        report = {
            "task": task,
            "preset": preset.value,
            "store": str(output),
            "episodes": len(tally.known) + len(tally.collected),
            "collected": len(tally.collected),
            "already_there": len(tally.known),
            "failed_seeds": [result.seed for result in tally.failed],
            "steps": sum(result.steps for result in tally.collected),
            "seconds": round(tally.seconds, 2),
            "scenes_per_s": round(tally.scenes_per_s, 3),
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(
        f"{len(tally.collected)} demonstrations collected in {tally.seconds:.0f} s "
        f"({tally.scenes_per_s:.2f} scenes/s), {len(tally.known)} were there, "
        f"{len(tally.failed)} scenes failed: {output}"
    )


app = typer.Typer()
app.command("collect", cls=Command)(command)

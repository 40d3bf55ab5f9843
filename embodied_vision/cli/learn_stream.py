"""`embodied-vision learn stream`: tasks learnt one after the other by several methods, and what is lost of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from embodied_vision.cli.evaluate import SplitName
from embodied_vision.learning.configuration import TrainConfig
from embodied_vision.learning.continual.methods import METHODS, method_of
from embodied_vision.learning.continual.page import write_page
from embodied_vision.learning.continual.stream import TASKS, Stream, StreamConfig, Watch
from embodied_vision.learning.continual.update import UpdateConfig
from embodied_vision.learning.stage import STAGES, Stage
from embodied_vision.policies.networks import NetworkConfig

RESULTS = Path("results/lifelong.jsonl")
PAGE = Path("docs/continual.md")
WORK = Path("runs/lifelong")
DEFAULTS = UpdateConfig()
PRODUCT = "product"
TINY = NetworkConfig(coarse_widths=(8, 8), embedding=4, fine_widths=(8,), fine_channels=3)

_NAMES, _TASKS = ", ".join(METHODS), ", ".join(TASKS)
app = typer.Typer(
    help="Learn tasks one after the other by several methods, and measure what is kept of each.", no_args_is_help=True
)


@app.command("run")
def run(
    method: list[str] = typer.Option(
        [], help=f"How to learn: {_NAMES}; may be given several times.", show_default="all of them"
    ),
    order: list[int] = typer.Option(
        [],
        min=0,
        help="Orders of the tasks: 0 as they are named, others drawn; may be given several times.",
        show_default=f"0, and for {PRODUCT} 0, 1 and 2",
    ),
    task: list[str] = typer.Option([], help="Tasks, in their first order.", show_default=_TASKS),
    demos: int = typer.Option(10, min=1, help="Demonstrations of each task."),
    steps: int = typer.Option(DEFAULTS.train.steps, min=1, help="Steps of each stage for a task."),
    checkpoints: int = typer.Option(DEFAULTS.checkpoints, min=1, help="States of a task's learning that are tried."),
    replay_share: float = typer.Option(
        DEFAULTS.replay_share, min=0.0, max=1.0, help="What is kept, as a share of the bytes of all episodes seen."
    ),
    ewc: float = typer.Option(DEFAULTS.ewc, min=0.0, help="Strength of EWC."),
    seed: int = typer.Option(DEFAULTS.train.seed, min=0, help="Seed of weights, order of examples, augmentation."),
    scenes: int = typer.Option(50, min=1, help="Scenes of each task that policies are tried on."),
    split: SplitName = typer.Option(SplitName.TEST, help="Which scenes; choose nothing on those of test."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder; `none` learns without features."),
    renderer: str = typer.Option("software", help="Who draws demonstrations and scenes: software or egl."),
    threads: int = typer.Option(2, min=1, help="Threads that train; the result is the same for any."),
    workers: int = typer.Option(2, min=1, help="Processes that collect and try."),
    work: Path = typer.Option(WORK, help="Working folder."),
    results: Path = typer.Option(RESULTS, help="File of JSON lines that gets one for every task of a stream."),
    small: bool = typer.Option(
        False, "--small", help="The smallest form: two tasks, one demonstration, two steps, one scene, a tiny network."
    ),
    list_only: bool = typer.Option(False, "--list", help="Only tell what is done."),
    as_json: bool = typer.Option(False, "--json", help="Print the line of every cell."),
) -> None:
    """Run streams of tasks; stopped or killed, the same command goes on where it was."""
    config = StreamConfig(
        work=work,
        results=results,
        tasks=tuple(task) or TASKS,
        demos=demos,
        update=UpdateConfig(
            train=TrainConfig(steps=steps, seed=seed), checkpoints=checkpoints, replay_share=replay_share, ewc=ewc
        ),
        encoder=encoder,
        split=split.value,
        scenes=scenes,
        renderer=renderer,
        threads=threads,
        workers=workers,
    )
    if small:
        update = replace(config.update, train=TrainConfig(steps=2, batch=2, tried=5), checkpoints=1)
        small_tasks = tuple(task) or TASKS[:2]
        config = replace(config, tasks=small_tasks, demos=1, update=update, network=TINY, scenes=1, workers=1)
    methods = [method_of(name) for name in method or METHODS]
    with _Bars(steps, scenes) as bars:
        stream = Stream(config, bars.watch())
        for chosen in methods:
            for number in order or ((0, 1, 2) if chosen.name == PRODUCT else (0,)):
                if list_only:
                    for cell in stream.cells(chosen, number):
                        typer.echo(f"{cell.name}: {'done' if stream.done(cell) is not None else 'to be done'}")
                    continue
                for cell, line, fresh in stream.run(chosen, number):
                    typer.echo(json.dumps(line) if as_json else f"{cell.name}: {_sentence(line, fresh)}")


def _sentence(line: Mapping[str, Any], fresh: bool) -> str:
    success = ", ".join(f"{100 * value:.0f}" for value in line["success"][-1])
    figures = "".join(f", {name.upper()} {line[name]['value']:.3f}" for name in ("fwt", "nbt", "auc") if name in line)
    return (
        f"success {success} %{figures}, {line['train_minutes'][-1]} minutes of training, {line['replay_bytes']} bytes "
        f"kept ({100 * line['replay_share']:.1f} % of those seen) ({'now' if fresh else 'was there'})"
    )


@app.command("table")
def table(
    results: Path = typer.Option(RESULTS, help="File of JSON lines with the results."),
    page: Path = typer.Option(PAGE, help="Page whose section of results is written anew, and a figure beside it."),
) -> None:
    """Write the table and the figure of the page from the file of results."""
    for path in write_page(results, page):
        typer.echo(str(path))


class _Bars:
    """Progress of training and of scenes."""

    def __init__(self, steps: int, scenes: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bars = {stage: self._progress.add_task(stage, total=steps) for stage in STAGES}
        self._scenes = self._progress.add_task("scenes", total=scenes)

    def watch(self) -> Watch:
        """What a stream is told to call."""

        def tell(sentence: str) -> None:
            self._progress.console.print(sentence, highlight=False, markup=False, soft_wrap=True)
            self._progress.update(self._scenes, completed=0)

        def step(stage: Stage, done: int, _: Mapping[str, float]) -> None:
            self._progress.update(self._bars[stage], completed=done)

        return Watch(tell, step, lambda _: self._progress.advance(self._scenes))

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

"""`embodied-vision results`: measure the cells of docs/results.md, and make the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from embodied_vision.cli.evaluate import SplitName
from embodied_vision.errors import RunFailed
from embodied_vision.learning.cells import read_declaration
from embodied_vision.learning.results_table import read_published, results_page
from embodied_vision.learning.sweep import Sweep, SweepConfig

app = typer.Typer(help="Measure the cells of docs/results.md, and make the page.", no_args_is_help=True)

CELLS = Path("results/cells.yaml")
RESULTS = Path("results/results.jsonl")
PUBLISHED = Path("results/published.yaml")
GRASPS = Path("results/grasps.jsonl")
PAGE = Path("docs/results.md")
WORK = Path("runs/results")


@app.command("run")
def run(
    cell: list[str] = typer.Option(
        [], help="Name of a cell, `*` stands for anything; may be given several times.", show_default="all cells"
    ),
    list_only: bool = typer.Option(False, "--list", help="Only tell how far every cell is."),
    split: SplitName = typer.Option(
        SplitName.TEST, help="Which scenes; results of others than test stay in the working folder."
    ),
    scenes: int | None = typer.Option(
        None,
        min=1,
        help="Number of scenes; with another than declared, results stay in the working folder.",
        show_default="as declared",
    ),
    workers: int = typer.Option(2, min=1, help="Processes that run scenes at once."),
    report: bool = typer.Option(False, "--report", help="Leave a report of every cell in the working folder."),
    again: bool = typer.Option(
        False,
        "--again",
        help="Evaluate measured cells again, such as after a change of the code; trains nothing again.",
    ),
    work: Path = typer.Option(WORK, help="Working folder: demonstrations, policies, results of single scenes."),
    cells: Path = typer.Option(CELLS, help="Declaration of the cells."),
    results: Path = typer.Option(RESULTS, help="File of JSON lines with the results."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON line for every cell."),
) -> None:
    """Collect, train and evaluate what is missing; stopped or killed, the same command goes on where it was."""
    declared = read_declaration(cells)
    chosen = declared.choose(cell)
    count = scenes or declared.scenes
    official = split is SplitName.TEST and count == declared.scenes
    config = SweepConfig(
        work=work,
        results=results if official else work / f"{split.value}-{count}.jsonl",
        split=split.value,
        scenes=count,
        renderer=declared.renderer,
        workers=workers,
        report=report,
        again=again,
    )
    console = Console(stderr=True)
    sweep = Sweep(config, lambda sentence: console.print(sentence, highlight=False, markup=False, soft_wrap=True))
    if list_only:
        for known in chosen:
            trained = sweep.checkpoint_id(known.training)
            state = "trained" if trained is not None else "to be trained"
            _tell(as_json, known.name, sweep.measured(known), state)
        return
    failed = 0
    for outcome in sweep.run(chosen):
        failed += bool(outcome.problem)
        state = f"failed: {outcome.problem}" if outcome.problem else "measured now" if outcome.fresh else "was there"
        _tell(as_json, outcome.cell.name, outcome.line, state)
    if failed:
        raise RunFailed(f"{failed} of {len(chosen)} cells failed, see above; the same command tries them again")


def _tell(as_json: bool, name: str, line: dict[str, Any] | None, state: str) -> None:
    if as_json:
        typer.echo(json.dumps({"cell": name, "state": state, "result": line}))
    elif line is None:
        typer.echo(f"{name}: {state}")
    else:
        typer.echo(
            f"{name}: score {line['score']:.1f} ({line['ci_low']:.1f} to {line['ci_high']:.1f}), solved "
            f"{line['solved']} of {line['scenes']}, {line['train_minutes']} minutes of training ({state})"
        )


@app.command("table")
def table(
    check: bool = typer.Option(False, "--check", help="Write nothing; exit with 1 when the page is out of date."),
    cells: Path = typer.Option(CELLS, help="Declaration of the cells."),
    results: Path = typer.Option(RESULTS, help="File of JSON lines with the results."),
    published: Path = typer.Option(PUBLISHED, help="Published figures and goals."),
    grasps: Path = typer.Option(GRASPS, help="File of JSON lines with what grasp policies reach."),
    output: Path = typer.Option(PAGE, help="The page, Markdown."),
) -> None:
    """Make the page of results from the file of results."""
    page = results_page(read_declaration(cells), results, read_published(published), grasps)
    if check:
        if not output.is_file() or output.read_text(encoding="utf-8") != page:
            raise RunFailed(f"{output} is out of date; run `embodied-vision results table`")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    typer.echo(str(output))

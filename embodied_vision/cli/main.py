"""`embodied-vision`: the one entry point, and how its errors reach the user."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

from embodied_vision import __version__
from embodied_vision.cli import (
    collect,
    compare,
    demo,
    doctor,
    encoder,
    episodes,
    evaluate,
    grasp,
    launch,
    learn,
    replay,
    results,
    train,
)
from embodied_vision.errors import EmbodiedVisionError

app = typer.Typer(
    name="embodied-vision",
    help="A control stack for robot arms that see: launch the nodes, train in simulation, replay and learn from logs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"embodied-vision {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command("demo")(demo.command)
app.add_typer(launch.app, name="launch")
app.command("collect", cls=collect.Command)(collect.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("compare")(compare.command)
app.add_typer(results.app, name="results")
app.add_typer(grasp.app, name="grasp")
app.add_typer(learn.app, name="learn")
app.command("replay")(replay.command)
app.add_typer(episodes.app, name="episodes")
app.add_typer(encoder.app, name="encoder")
app.command("doctor")(doctor.command)


def main() -> None:
    """Run the command line: exit code 2 for bad input, 1 for a failed run, a plain sentence for both."""
    try:
        app()
    except EmbodiedVisionError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

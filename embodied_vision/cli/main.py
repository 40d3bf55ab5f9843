"""`embodied-vision`: the one entry point, and how its errors reach the user."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

from embodied_vision import __version__
from embodied_vision.cli.lazy import lazy_group
from embodied_vision.errors import EmbodiedVisionError

_HERE = "embodied_vision.cli."
VERBS = {
    "demo": _HERE + "demo:command",
    "launch": _HERE + "launch:app",
    "collect": _HERE + "collect:app",
    "train": _HERE + "train:command",
    "evaluate": _HERE + "evaluate:command",
    "compare": _HERE + "compare:command",
    "results": _HERE + "results:app",
    "grasp": _HERE + "grasp:app",
    "learn": _HERE + "learn:app",
    "replay": _HERE + "replay:command",
    "calibrate": _HERE + "calibrate:app",
    "episodes": _HERE + "episodes:app",
    "encoder": _HERE + "encoder:app",
    "doctor": _HERE + "doctor:command",
}

app = typer.Typer(
    cls=lazy_group(VERBS),
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

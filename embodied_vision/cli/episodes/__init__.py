"""`embodied-vision episodes`: look at, check, change and exchange logged episodes."""

from __future__ import annotations

import typer

from embodied_vision.cli.episodes import check, look

app = typer.Typer(help="Look at, check and repair logged episodes.", no_args_is_help=True)

app.command("list")(look.list_)
app.command("show")(look.show)
app.command("verify")(check.verify)
app.command("repair")(check.repair)

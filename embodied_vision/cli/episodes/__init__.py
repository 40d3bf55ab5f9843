"""`embodied-vision episodes`: look at, check, change and exchange logged episodes.

A verb is imported when it is used, so that none waits for what another needs.
"""

from __future__ import annotations

import typer

from embodied_vision.cli.lazy import lazy_group

_HERE = "embodied_vision.cli.episodes."
VERBS = {
    "list": _HERE + "listing:list_",
    "show": _HERE + "look:show",
    "stats": _HERE + "stats:stats",
    "catalogue": _HERE + "listing:catalogue",
    "verify": _HERE + "check:verify",
    "repair": _HERE + "check:repair",
    "delete": _HERE + "edit:delete",
    "trim": _HERE + "edit:trim",
    "tag": _HERE + "edit:tag",
    "relabel": _HERE + "edit:relabel",
    "correct": "embodied_vision.cli.correct:command",
    "merge": _HERE + "edit:merge",
    "migrate": _HERE + "edit:migrate",
    "export": _HERE + "exchange:export",
    "import": _HERE + "exchange:import_",
    "features": _HERE + "features:features",
    "push": _HERE + "remote:push",
    "pull": _HERE + "remote:pull",
}

app = typer.Typer(
    cls=lazy_group(VERBS), help="Look at, check, change and exchange logged episodes.", no_args_is_help=True
)


@app.callback()
def _root() -> None:
    pass

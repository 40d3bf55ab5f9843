"""`embodied-vision encoder stability`: whether features stay the same when only the looks of a scene change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from embodied_vision.cli.encoder_frames import TASKS, err, frames_in_looks

FIRST_INDEX = 650_000
"""Of the validation scenes that are looked at: neither training nor the probe uses them."""


def stability_command(
    encoder: Annotated[list[str], typer.Argument(help="Encoders: `default`, a folder, or a hub name.")] = ["default"],  # noqa: B006
    run: Annotated[Path, typer.Option("--run", help="Folder for the frames.")] = Path("runs/encoder"),
    task: Annotated[
        list[str], typer.Option("--task", help="Simulated task to take scenes from; repeat for several.")
    ] = list(TASKS),  # noqa: B006 - typer copies it
    scenes: Annotated[int, typer.Option(min=2, help="Validation scenes.")] = 40,
    look: Annotated[str, typer.Option(help="Preset of the domain randomisation to compare none with.")] = "strong",
    seed: Annotated[int, typer.Option(min=0, help="Of the points and of the bootstrap.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Follow points of unseen scenes from their usual look into another one, by each encoder's features alone."""
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.probe import MeanColor
    from embodied_vision.encoders.registry import load_encoder
    from embodied_vision.encoders.stability import stability

    use_cores(threads)
    encoders = {name: load_encoder(name) for name in encoder}
    folder = run / f"stability_{look}"
    frames = frames_in_looks(folder, task, "validation", FIRST_INDEX, scenes, 1, ("none", look))
    with err.status("encoding"):
        report = stability({**encoders, "mean color": MeanColor()}, frames, seed=seed)
    if as_json:
        typer.echo(json.dumps({name: each.to_dict() for name, each in report.items()}))
        return
    table = Table(title=f"points of {scenes} validation scenes, from none to {look}")
    for column in ("encoder", "found within 15 mm", "cosine"):
        table.add_column(column)
    for name, each in report.items():
        table.add_row(name, f"{each.found:.3f} [{each.low:.3f}, {each.high:.3f}]", f"{each.cosine:.3f}")
    Console().print(table)

"""`embodied-vision encoder`: train, probe and describe encoders; the other verbs stand in files of their own."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embodied_vision.cli.encoder_bench import bench_command
from embodied_vision.cli.encoder_distill import distill_command
from embodied_vision.cli.encoder_export import export_command
from embodied_vision.cli.encoder_gate import gate_command
from embodied_vision.cli.encoder_pretrain import pretrain_command
from embodied_vision.cli.encoder_probe import probe_command
from embodied_vision.cli.encoder_stability import stability_command

app = typer.Typer(help="Train, probe, export, time and describe encoders.", no_args_is_help=True)
app.command("export")(export_command)
app.command("bench")(bench_command)
app.command("gate")(gate_command)
app.command("pretrain")(pretrain_command)
app.command("distill")(distill_command)
app.command("probe")(probe_command)
app.command("stability")(stability_command)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("info")
def info(
    encoder: Annotated[str, typer.Argument(help="`default`, a folder, or a hub name.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Say which encoder this is and what it gives for the cell's camera."""
    import numpy as np

    from embodied_vision.encoders.registry import load_encoder

    loaded = load_encoder(encoder)
    rows, columns = getattr(loaded, "image_size", None) or (240, 424)
    features = loaded.encode(np.zeros((rows, columns, 3), np.uint8))
    about = {
        "encoder_id": loaded.encoder_id,
        "artefact_id": loaded.artefact_id,
        "dimension": loaded.dimension,
        f"grid_of_{columns}x{rows}": list(features.grid.shape[:2]),
        "stride_px": list(features.stride),
    }
    if as_json:
        typer.echo(json.dumps(about))
        return
    for name, value in about.items():
        typer.echo(f"{name:16} {value}")

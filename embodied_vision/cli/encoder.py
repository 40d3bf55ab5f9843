"""`embodied-vision encoder`: train, probe and describe encoders; the other verbs stand in files of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from embodied_vision.cli.encoder_bench import bench_command
from embodied_vision.cli.encoder_distill import distill_command
from embodied_vision.cli.encoder_export import export_command
from embodied_vision.cli.encoder_frames import err, simulated_frames
from embodied_vision.cli.encoder_gate import gate_command
from embodied_vision.cli.encoder_pretrain import pretrain_command
from embodied_vision.cli.encoder_probe import probe_command
from embodied_vision.cli.encoder_stability import stability_command

if TYPE_CHECKING:
    from embodied_vision.encoders.base import Encoder
    from embodied_vision.encoders.probe import ProbeReport
    from embodied_vision.encoders.views import ViewCache

app = typer.Typer(help="Train, probe, export, time and describe encoders.", no_args_is_help=True)
app.command("export")(export_command)
app.command("bench")(bench_command)
app.command("gate")(gate_command)
app.command("pretrain")(pretrain_command)
app.command("distill")(distill_command)
app.command("probe")(probe_command)
app.command("stability")(stability_command)

PROBE_FIRST_INDEX = 500_000


def _probe_frames(folder: Path, tasks: Sequence[str], scenes: int) -> tuple[ViewCache, ViewCache]:
    """Frames to fit the read-outs on and to measure them on: scenes that no training uses."""
    first = PROBE_FIRST_INDEX
    return (
        simulated_frames(folder / "probe_fit", tasks, "validation", first, scenes, 4),
        simulated_frames(folder / "probe_held_out", tasks, "validation", first + 100_000, scenes, 4),
    )


def _figures(report: ProbeReport) -> Table:
    from embodied_vision.encoders.probe import FIGURES

    table = Table(title=f"linear probe, {report.scenes[1]} held-out scenes, 95 % intervals over scenes")
    table.add_column("encoder")
    for about in FIGURES.values():
        table.add_column(about)
    for name, figures in report.figures.items():
        row = (f"{figures[k].value:.3f} [{figures[k].low:.3f}, {figures[k].high:.3f}]" for k in FIGURES)
        table.add_row(name, *row)
    for name, gains in report.gains.items():
        row = (f"{gains[k].value:+.3f} [{gains[k].low:+.3f}, {gains[k].high:+.3f}]" for k in FIGURES)
        table.add_row(f"gain over {name}", *row)
    return table


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _measure(encoders: Mapping[str, Encoder], run: Path, tasks: Sequence[str], scenes: int, seed: int) -> ProbeReport:
    """Probe encoders beside the random twin of the compact one and the mean color."""
    from embodied_vision.encoders.compact import Architecture, CompactEncoder
    from embodied_vision.encoders.probe import MeanColor, probe, random_twin

    fit, held_out = _probe_frames(run, tasks, scenes)
    first = next(iter(encoders.values()))
    architecture = first.architecture if isinstance(first, CompactEncoder) else Architecture()
    others: dict[str, Encoder] = {"random twin": random_twin(architecture, seed, fit), "mean color": MeanColor()}
    with err.status("probing"):
        return probe({**encoders, **others}, fit, held_out, seed=seed)


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

"""`embodied-vision encoder bench`: what an encoding costs here, and which setting fits a budget of time."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from embodied_vision.cli.encoder_export import (
    AsJson,
    EncoderName,
    ImageSize,
    Margin,
    Region,
    Threads,
    image_size_of,
    views_for,
)
from embodied_vision.errors import EncoderError, RunFailed

if TYPE_CHECKING:
    from embodied_vision.encoders.budget import Search, Trial, Views

_FIGURES = ("median", "p95")


def bench_command(
    encoder: EncoderName = "default",
    image_size: ImageSize = "640x480",
    budget_ms: Annotated[
        float, typer.Option(min=0.0, help="Find the best setting that takes no longer, ms; 0: time the runtimes.")
    ] = 0.0,
    store: Annotated[Path | None, typer.Option(help="Episode store whose images settings are compared on.")] = None,
    region: Region = "",
    margin: Margin = 0.02,
    threads: Threads = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is timed.")] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Time an encoder from image to features: with torch, and with every runtime that it was or can be exported to.

    With --budget-ms smaller inputs, merged tokens, the workspace's region and less precision are tried as well, and the
    setting is named whose features are nearest to the encoder's among those that fit.
    """
    from embodied_vision.cores import use_cores

    use_cores(threads)
    size = image_size_of(image_size)
    views = views_for(size, store, region, margin)
    if budget_ms:
        _find(encoder, views, size, budget_ms, threads, seconds, store, region, as_json)
        return
    encoder_id, rows = _time(encoder, views, threads, seconds)
    if as_json:
        about = {"encoder_id": encoder_id, "image_size": [size[1], size[0]], "threads": threads}
        ms = {name: dict(zip(_FIGURES, row, strict=True)) for name, row in rows.items()}
        typer.echo(json.dumps({**about, "ms": ms}))
        return
    table = Table(Column("runtime", no_wrap=True), *(f"{name}, ms" for name in _FIGURES))
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.1f}" for value in row))
    Console().print(table)


def _time(encoder: str, views: Views, threads: int, seconds: float) -> tuple[str, dict[str, tuple[float, float]]]:
    """Id of the encoder; median and 95th percentile, ms, by artefact."""
    from embodied_vision.encoders.budget import settings_of, times_ms
    from embodied_vision.encoders.export import export
    from embodied_vision.encoders.exported import ExportedEncoder
    from embodied_vision.encoders.region import encode_seen
    from embodied_vision.encoders.registry import load_encoder

    loaded: Any = load_encoder(encoder)
    rows: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="encoder-bench-") as scratch, Console(stderr=True).status("timing"):
        folder = Path(encoder.split("+", 1)[0])
        if not isinstance(loaded, ExportedEncoder):
            rows[loaded.artefact_id] = times_ms(lambda: encode_seen(loaded, views.images[0], views.camera(0)), seconds)
            folder = Path(scratch) / "exported"
            try:
                export(loaded, folder, views.images[:1], threads=threads, source=encoder, reduced=True)
            except EncoderError as error:
                typer.echo(f"torch alone: {error}", err=True)
        for setting in settings_of(folder) if folder.is_dir() else []:
            try:
                one = ExportedEncoder.load(folder, setting.name, trial=True)
            except EncoderError as error:
                typer.echo(str(error), err=True)
                continue
            rows[one.artefact_id] = times_ms(
                lambda one=one: encode_seen(one, views.images[0], views.camera(0)),  # type: ignore[misc]
                seconds,
            )
    if not rows:
        raise RunFailed(f"nothing here can run {encoder}; pip install 'embodied-vision[onnx]'")
    return loaded.encoder_id, rows


def _find(
    name: str,
    views: Views,
    size: tuple[int, int],
    budget_ms: float,
    threads: int,
    seconds: float,
    store: Path | None,
    region: str,
    as_json: bool,
) -> None:
    from embodied_vision.encoders.budget import Search
    from embodied_vision.encoders.registry import load_encoder

    with Console(stderr=True).status("starting") as status:
        search = Search(name, load_encoder, views, budget_ms=budget_ms, threads=threads, seconds=seconds)
        search.run(status.update)
    best = search.best
    steps = [] if best is None else _steps(best, name, size, store, region)
    if as_json:
        rows = [{**trial.to_dict(), "fits": trial.fits(budget_ms)} for trial in search.trials]
        about = {"encoder": name, "image_size": [size[1], size[0]], "threads": threads, "budget_ms": budget_ms}
        typer.echo(json.dumps({**about, "trials": rows, "best": best and best.to_dict(), "use": steps}))
    else:
        Console().print(_table(search, budget_ms))
    if best is None:
        quickest = min((trial.median_ms for trial in search.trials if trial.median_ms is not None), default=0.0)
        raise RunFailed(
            f"no setting of {name} takes {budget_ms:g} ms or less here; the quickest takes {quickest:.1f} ms. Give a "
            "larger budget, a smaller --image-size or encoder, or more --threads"
        )
    if not as_json:
        typer.echo("nearest within the budget:\n" + "\n".join(f"  {step}" for step in steps))


def _table(search: Search, budget_ms: float) -> Table:
    table = Table("encoder", Column("setting", no_wrap=True), "median, ms", "p95, ms", "cosine", "least", "")
    for trial in sorted(search.trials, key=lambda one: -one.cosine):
        setting = "torch" if trial.setting is None else trial.setting.name
        if trial.median_ms is None:
            setting = setting.partition("-")[2] or setting
        times = (
            (f"{trial.median_ms:.1f}", f"{trial.p95_ms:.1f}")
            if trial.median_ms is not None
            else (f"about {trial.expected_ms:.0f}", "")
        )
        verdict = "fits" if trial.fits(budget_ms) else "" if trial.median_ms is not None else "not tried"
        verdict = "[bold green]nearest[/]" if trial is search.best else verdict
        table.add_row(trial.encoder, setting, *times, f"{trial.cosine:.5f}", f"{trial.least:.5f}", verdict)
    return table


def _steps(best: Trial, name: str, size: tuple[int, int], store: Path | None, region: str) -> list[str]:
    """Commands that make the setting, and the encoder to give then."""
    folder = Path(name.split("+", 1)[0])
    exported = (folder / "model.onnx").is_file()
    if best.setting is None:
        return [f"--encoder '{best.encoder}'"]
    command = [f"embodied-vision encoder export '{best.encoder}' --output FOLDER --image-size {size[1]}x{size[0]}"]
    if store is not None:
        command.append(f"--store {store}")
    if best.setting.merge:
        command.append(f"--merge {best.setting.merge}")
    if best.setting.region:
        command.append(f"--region {region}")
    if best.setting.precision != "float32":
        command.append("--reduced")
    steps = [] if exported else [" ".join(command)]
    target = str(folder) if exported else "FOLDER"
    if not best.setting.exact:
        steps.append(f"embodied-vision encoder gate {target} --runtime {best.setting.name} --task TASK")
    steps.append(f"--encoder {target}+runtime={best.setting.name}")
    if best.encoder != name:
        steps.append("(an input of another size is another encoder: train policies with it)")
    return steps

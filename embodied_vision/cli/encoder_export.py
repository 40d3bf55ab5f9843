"""`embodied-vision encoder export` and `encoder bench`: other runtimes for an encoder, and what they cost."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from embodied_vision.errors import BadInput, EncoderError, RunFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embodied_vision.encoders.base import Encoder

EncoderName = Annotated[str, typer.Argument(help="`default`, a folder, or a hub name.")]
ImageSize = Annotated[str, typer.Option(help="Width and height of the camera's images, px.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
LOGGED_FRAMES = 16


def _size(text: str) -> tuple[int, int]:
    """(rows, columns) of "640x480"."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or min(int(side) for side in found.groups()) < 1:
        raise BadInput(f"image size {text!r} is not understood; give width and height, such as 640x480")
    return int(found[2]), int(found[1])


def _images(size: tuple[int, int], store: Path | None) -> list[NDArray[np.uint8]]:
    """Images that the runtimes are compared on: logged ones of that size, else made-up ones."""
    from embodied_vision.encoders.export import sample_images

    if store is None:
        return sample_images(size)
    from embodied_vision.episodes.store import EpisodeStore

    found: list[NDArray[np.uint8]] = []
    for episode in EpisodeStore(store).select():
        for camera in episode.cameras:
            frames = episode.frames(camera)
            if len(frames) and (frames.camera.height, frames.camera.width) == size:
                found.append(frames.color(len(frames) // 2))
        if len(found) >= LOGGED_FRAMES:
            break
    if not found:
        raise BadInput(f"{store} holds no image of {size[1]}x{size[0]} px; give the --image-size of its cameras")
    return found[:LOGGED_FRAMES]


def export_command(
    encoder: EncoderName,
    output: Annotated[Path, typer.Option(help="Folder to write; replaced when it is there.")],
    image_size: ImageSize = "640x480",
    store: Annotated[Path | None, typer.Option(help="Episode store whose images the runtimes are compared on.")] = None,
    reduced: Annotated[bool, typer.Option("--reduced", help="Add bfloat16 and 8-bit integers, to be gated.")] = False,
    threads: Threads = 2,
    as_json: AsJson = False,
) -> None:
    """Write an encoder for ONNX Runtime and OpenVINO, where they compute the same features as torch.

    The folder is an encoder like any other, with the same id: give it where an encoder is asked for.
    """
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.export import export
    from embodied_vision.encoders.exported import ExportedEncoder
    from embodied_vision.encoders.registry import load_encoder
    from embodied_vision.encoders.runtimes import REDUCED

    use_cores(threads)
    loaded: Any = load_encoder(encoder)
    if isinstance(loaded, ExportedEncoder):
        raise EncoderError(f"{encoder} was exported already; export the encoder that it was made from")
    images = _images(_size(image_size), store)
    with Console(stderr=True).status("exporting and comparing"):
        found = export(loaded, output, images, threads=threads, source=encoder, reduced=reduced)
    rows = {
        name: {
            "cosine": measured.cosine,
            "max_error": measured.max_error,
            "exported": measured.near if name in REDUCED else measured.exact,
        }
        for name, measured in found.items()
    }
    if as_json:
        typer.echo(json.dumps({"folder": str(output), "encoder_id": loaded.encoder_id, "runtimes": rows}))
        return
    table = Table("runtime", "least cosine to torch", "largest error, share of RMS", "")
    for name, row in rows.items():
        same = "near: `encoder gate` decides" if name in REDUCED else "same"
        verdict = same if row["exported"] else "[red]differs: left out[/]"
        table.add_row(name, f"{row['cosine']:.7f}", f"{row['max_error']:.1e}", verdict)
    Console().print(table)
    typer.echo(f"{loaded.encoder_id} written to {output}")


def bench_command(
    encoder: EncoderName = "default",
    image_size: ImageSize = "640x480",
    threads: Threads = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is timed.")] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Time an encoder from image to features: with torch, and with every runtime that it was or can be exported to."""
    import tempfile

    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.export import export, sample_images
    from embodied_vision.encoders.exported import ExportedEncoder
    from embodied_vision.encoders.registry import load_encoder
    from embodied_vision.encoders.runtimes import EXACT, REDUCED, installed

    use_cores(threads)
    size = _size(image_size)
    image = sample_images(size, 1)[0]
    loaded: Any = load_encoder(encoder)
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="encoder-bench-") as scratch, Console(stderr=True).status("timing"):
        folder = Path(encoder)
        if not isinstance(loaded, ExportedEncoder):
            rows[loaded.artefact_id] = _times(loaded, image, seconds)
            folder = Path(scratch) / "exported"
            try:
                export(loaded, folder, [image], threads=threads, source=encoder, reduced=True)
            except EncoderError as error:
                typer.echo(f"torch alone: {error}", err=True)
        if folder.is_dir():
            for name in [name for name in (*EXACT, *REDUCED) if name.split("-")[0] in installed()]:
                try:
                    one = ExportedEncoder.load(folder, name, trial=True)
                except EncoderError as error:
                    typer.echo(str(error), err=True)
                    continue
                rows[one.artefact_id] = _times(one, image, seconds)
    if not rows:
        raise RunFailed(f"nothing here can run {encoder}; pip install 'embodied-vision[onnx]'")
    if as_json:
        about = {"encoder_id": loaded.encoder_id, "image_size": [size[1], size[0]], "threads": threads}
        typer.echo(
            json.dumps({**about, "ms": {name: dict(zip(_FIGURES, row, strict=True)) for name, row in rows.items()}})
        )
        return
    table = Table("runtime", *(f"{name}, ms" for name in _FIGURES))
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.1f}" for value in row))
    Console().print(table)


_FIGURES = ("median", "p95")


def _times(encoder: Encoder, image: NDArray[np.uint8], seconds: float) -> list[float]:
    """Median and 95th percentile of one encoding, ms."""
    import numpy as np

    encoder.encode(image)
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < 5:
        before = time.perf_counter()
        encoder.encode(image)
        times.append((time.perf_counter() - before) * 1e3)
    return [float(np.median(times)), float(np.percentile(times, 95))]

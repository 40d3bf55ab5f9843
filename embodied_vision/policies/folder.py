"""A folder of weights, manifest and card, written in one rename and read only as it was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from embodied_vision.digests import read_verified
from embodied_vision.errors import CheckpointError
from embodied_vision.renames import CANNOT_EXCHANGE, exchange
from embodied_vision.syncing import sync

WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"
CARD = "card.md"


def pack(weights: Mapping[str, Tensor]) -> bytes:
    """Weights as a safetensors file, the same bytes for the same weights."""
    packed: bytes = save_tensors({name: weights[name].contiguous() for name in sorted(weights)})
    return packed


def identify(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of a sha256 over settings and weights."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(pack(weights))
    return digest.hexdigest()[:16]


def write(folder: Path, weights: Mapping[str, Tensor], manifest: Mapping[str, Any], card: str) -> None:
    """Write weights, card and manifest, which gains their sha256, beside `folder`, and let them take its place.

    At any moment `folder` is the former one or the new one, whole: a process may be killed, or the disk be full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    contents = {WEIGHTS: pack(weights), CARD: card.encode()}
    full = {**manifest, "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}}
    contents[MANIFEST] = (json.dumps(full, indent=2, ensure_ascii=False) + "\n").encode()
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    try:
        for name, data in contents.items():
            with open(staging / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync(staging)
        _take_place(staging, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _take_place(staging: Path, folder: Path) -> None:
    """Afterwards `staging` is the former folder, or gone."""
    if not folder.exists():
        staging.rename(folder)
        return
    try:
        exchange(staging, folder)
    except OSError as error:
        if error.errno not in CANNOT_EXCHANGE:
            raise
        former = staging.with_name(staging.name + ".former")
        folder.rename(former)  # without a step for both, a kill here leaves the former one under this name
        staging.rename(folder)
        shutil.rmtree(former, ignore_errors=True)


def format_of(folder: Path) -> str:
    """The format that the manifest of a folder states, nothing else checked; empty where it states none.

    Raises:
        CheckpointError: there is no folder or no manifest.
    """
    return str(_manifest(folder, "checkpoint").get("format", ""))


def read_manifest(folder: Path, form: str, what: str) -> dict[str, Any]:
    """The manifest of a folder, nothing else checked.

    Args:
        folder: where it is.
        form: the format that it must state.
        what: what the folder holds, for messages, such as "policy checkpoint".

    Raises:
        CheckpointError: there is no folder, no manifest, or it is of another format.
    """
    manifest = _manifest(folder, what)
    if manifest.get("format") != form:
        raise CheckpointError(
            f"{folder / MANIFEST} has format {manifest.get('format')!r}, this reads {form!r}; "
            "give one of that format, or make it again"
        )
    return manifest


def _manifest(folder: Path, what: str) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"no {what} at {folder}: {MANIFEST} is missing; give its folder") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy the {what} again") from error
    return dict(manifest) if isinstance(manifest, dict) else {}


def read_weights(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights, after every file's sha256 was checked.

    Raises:
        CheckpointError: a file is missing or differs from what was written.
    """
    hashes = manifest.get("sha256")
    if not isinstance(hashes, Mapping) or not {WEIGHTS, CARD} <= set(hashes):
        raise CheckpointError(f"{folder / MANIFEST} lacks the sha256 of its files; copy the checkpoint again")
    return load_tensors(read_verified(folder, hashes, "checkpoint", CheckpointError)[WEIGHTS])

"""A policy's folder: `model.safetensors`, `manifest.json` and `card.md`; nothing in it is executed when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from embodied_vision.digests import read_verified
from embodied_vision.errors import CheckpointError
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.types import Primitive, Workspace

WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"
CARD = "card.md"
FORMAT = "embodied-vision-policy-2"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that a policy is.

    Attributes:
        task: name of the task it was trained for.
        encoder_id: the encoder whose features it reads, empty when it reads none.
        workspace: the map it works on.
        config: shapes of the networks.
        normalisation: of the encoder features.
        weights: state of `PolicyNetwork`.
        primitive: what is done with the two poses of an action.
        release_m: how far above its support an object is let go, as the demonstrations do.
        hang_m: how far the tip is above what carries an object when it is let go, where all are as thick.
        tip_m: heights of the tool's tip at start and end of a push, in the base frame.
        training: provenance, JSON-ready: data ids, seeds, settings, versions, git commit.
        measured: success by split, JSON-ready, with intervals; empty before any evaluation.
    """

    task: str
    encoder_id: str
    workspace: Workspace
    config: NetworkConfig
    normalisation: Normalisation
    weights: Mapping[str, Tensor]
    primitive: Primitive = "pick_place"
    release_m: float = 0.002
    hang_m: float | None = None
    tip_m: tuple[float, float] = (0.0, 0.0)
    training: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """All that shapes a decision besides the weights, JSON-ready."""
        return {
            "format": FORMAT,
            "task": self.task,
            "encoder_id": self.encoder_id,
            "workspace": self.workspace.to_dict(),
            "network": self.config.to_dict(),
            "normalisation": self.normalisation.to_dict(),
            "primitive": self.primitive,
            "release_m": self.release_m,
            "hang_m": self.hang_m,
            "tip_m": list(self.tip_m),
        }

    @property
    def checkpoint_id(self) -> str:
        """16 hex digits of a sha256 over the weights and all settings; measuring does not change it."""
        digest = hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode())
        digest.update(_pack(self.weights))
        return digest.hexdigest()[:16]

    def network(self) -> PolicyNetwork:
        """The networks with these weights, in evaluation mode.

        Raises:
            CheckpointError: the weights do not fit the shapes.
        """
        network = PolicyNetwork.seeded(self.config, 0)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointError(f"weights do not fit the network in the manifest: {error}; train again") from error
        return network.eval().requires_grad_(False)


def save(checkpoint: Checkpoint, folder: Path) -> str:
    """Write a checkpoint beside `folder` and rename it into place; returns its id."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    contents = {WEIGHTS: _pack(checkpoint.weights), CARD: _card(checkpoint).encode()}
    manifest = {
        **checkpoint.settings(),
        "checkpoint_id": checkpoint.checkpoint_id,
        "inputs": _inputs(checkpoint),
        "outputs": _OUTPUTS,
        "training": dict(checkpoint.training),
        "measured": dict(checkpoint.measured),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    contents[MANIFEST] = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    former = staging.with_name(staging.name + ".former")
    staging.mkdir()
    try:
        for name, data in contents.items():
            with open(staging / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(former)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
    return checkpoint.checkpoint_id


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint after every file's sha256 was checked.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    manifest = read_manifest(folder)
    contents = _verified(folder, manifest)
    try:
        checkpoint = Checkpoint(
            task=str(manifest["task"]),
            encoder_id=str(manifest["encoder_id"]),
            workspace=Workspace.from_dict(manifest["workspace"]),
            config=NetworkConfig.from_dict(manifest["network"]),
            normalisation=Normalisation.from_dict(manifest["normalisation"]),
            weights=load_tensors(contents[WEIGHTS]),
            primitive=manifest["primitive"],
            release_m=float(manifest["release_m"]),
            hang_m=None if manifest["hang_m"] is None else float(manifest["hang_m"]),
            tip_m=(float(manifest["tip_m"][0]), float(manifest["tip_m"][1])),
            training=manifest["training"],
            measured=manifest["measured"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is incomplete ({error!r}); copy the checkpoint again") from error
    if checkpoint.checkpoint_id != manifest["checkpoint_id"]:
        raise CheckpointError(
            f"{folder / MANIFEST} was changed: contents have id {checkpoint.checkpoint_id}, it says "
            f"{manifest['checkpoint_id']}; copy the checkpoint again"
        )
    return checkpoint


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder, nothing else checked.

    Raises:
        CheckpointError: there is no folder, no manifest, or it is of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"no policy checkpoint at {folder}: {MANIFEST} is missing; give its folder") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy the checkpoint again") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found!r}, this version reads {FORMAT!r}; train the policy again")
    return dict(manifest)


def _verified(folder: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    hashes = manifest.get("sha256")
    if not isinstance(hashes, Mapping) or not {WEIGHTS, CARD} <= set(hashes):
        raise CheckpointError(f"{folder / MANIFEST} lacks the sha256 of its files; copy the checkpoint again")
    return read_verified(folder, hashes, "checkpoint", CheckpointError)


def _pack(weights: Mapping[str, Tensor]) -> bytes:
    packed: bytes = save_tensors({name: weights[name].contiguous() for name in sorted(weights)})
    return packed


def _inputs(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    rows, columns = checkpoint.workspace.shape
    dimension = checkpoint.config.features
    return [
        {"name": "color", "shape": [rows, columns, 3], "dtype": "uint8", "unit": "RGB 0…255"},
        {"name": "height", "shape": [rows, columns], "dtype": "float32", "unit": "m above base z = 0"},
        {"name": "valid", "shape": [rows, columns], "dtype": "bool", "unit": "seen by a camera"},
        {"name": "features", "shape": [rows, columns, dimension], "dtype": "float32", "unit": "of the encoder"},
    ]


_OUTPUTS = [
    {"name": "pick", "shape": [4, 4], "dtype": "float64", "unit": "tool tip in the base frame, m"},
    {"name": "place", "shape": [4, 4], "dtype": "float64", "unit": "tool tip in the base frame, m"},
    {"name": "scores.pick", "shape": [], "dtype": "float64", "unit": "probability of the coarse cell"},
    {"name": "scores.place", "shape": [], "dtype": "float64", "unit": "probability near the chosen place"},
]


def _card(checkpoint: Checkpoint) -> str:
    training, lines = checkpoint.training, [f"# Pick-and-place policy for {checkpoint.task}", ""]
    lines += [
        "Reads the top-down map fused from calibrated RGB-D cameras (color, height, encoder features) and returns one",
        "pick pose and one place pose for a suction tool that looks straight down.",
        "",
        f"- Checkpoint: `{checkpoint.checkpoint_id}`, encoder `{checkpoint.encoder_id or 'none'}`",
        f"- Demonstrations: {training.get('demos', 'none')}, steps: {training.get('steps', 'none')}, "
        f"seed: {training.get('seed', 'none')}, minutes: {training.get('minutes', 'none')}",
        f"- Made by: `{training.get('command', 'unknown')}` at commit {training.get('git_commit', 'unknown')}",
        "",
        "## Measured",
        "",
    ]
    for split, result in checkpoint.measured.items():
        lines.append(
            f"- {split}: score {result['score']:.1f} ({result['ci_low']:.1f} to {result['ci_high']:.1f}, 95 % "
            f"bootstrap), fully solved {result['solved']} of {result['scenes']} scenes "
            f"({result['solved_low']:.1f} to {result['solved_high']:.1f} %, Wilson), seeds {result['seeds']}"
        )
    if not checkpoint.measured:
        lines.append("Not measured yet: `embodied-vision evaluate`.")
    lines += [
        "",
        "## Limits",
        "",
        "Trained in simulation with one camera pose and one renderer; single-coloured rigid objects. It takes the",
        "object under the pick to be the cells of like height and color, and does not look again while the arm moves.",
        "",
    ]
    return "\n".join(lines)

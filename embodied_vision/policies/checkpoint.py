"""A policy's folder: `model.safetensors`, `manifest.json` and `card.md`; nothing in it is executed when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from embodied_vision.errors import CheckpointError
from embodied_vision.policies import folder as folders
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.types import Primitive, Workspace

FORMAT = "embodied-vision-policy-5"


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
        return folders.identify(self.settings(), self.weights)

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
    manifest = {
        **checkpoint.settings(),
        "checkpoint_id": checkpoint.checkpoint_id,
        "inputs": _inputs(checkpoint),
        "outputs": _OUTPUTS,
        "training": dict(checkpoint.training),
        "measured": dict(checkpoint.measured),
    }
    folders.write(folder, checkpoint.weights, manifest, _card(checkpoint))
    return checkpoint.checkpoint_id


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint after every file's sha256 was checked.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    manifest, path = read_manifest(folder), folder / folders.MANIFEST
    weights = folders.read_weights(folder, manifest)
    try:
        checkpoint = Checkpoint(
            task=str(manifest["task"]),
            encoder_id=str(manifest["encoder_id"]),
            workspace=Workspace.from_dict(manifest["workspace"]),
            config=NetworkConfig.from_dict(manifest["network"]),
            normalisation=Normalisation.from_dict(manifest["normalisation"]),
            weights=weights,
            primitive=manifest["primitive"],
            release_m=float(manifest["release_m"]),
            hang_m=None if manifest["hang_m"] is None else float(manifest["hang_m"]),
            tip_m=(float(manifest["tip_m"][0]), float(manifest["tip_m"][1])),
            training=manifest["training"],
            measured=manifest["measured"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is incomplete ({error!r}); copy the checkpoint again") from error
    if checkpoint.checkpoint_id != manifest["checkpoint_id"]:
        raise CheckpointError(
            f"{path} was changed: contents have id {checkpoint.checkpoint_id}, it says "
            f"{manifest['checkpoint_id']}; copy the checkpoint again"
        )
    return checkpoint


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder, nothing else checked.

    Raises:
        CheckpointError: there is no folder, no manifest, or it is of another format.
    """
    return folders.read_manifest(folder, FORMAT)


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

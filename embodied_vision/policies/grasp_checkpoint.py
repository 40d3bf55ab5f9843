"""A grasp policy's folder: `model.safetensors`, `manifest.json` and `card.md`; nothing in it is executed when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from embodied_vision.errors import CheckpointError
from embodied_vision.policies import folder as folders
from embodied_vision.policies.grasp_network import GraspConfig, GraspNet
from embodied_vision.policies.maps import Normalisation
from embodied_vision.types import Workspace

FORMAT = "embodied-vision-grasp-2"


@dataclass(frozen=True, eq=False)
class GraspCheckpoint:
    """Everything that a grasp policy is.

    Attributes:
        task: name of the task it was trained for.
        encoder_id: the encoder whose features it reads, empty when it reads none.
        workspace: the map it works on.
        config: shape of the network.
        normalisation: of the encoder features.
        weights: state of `GraspNet`.
        lift_m: height that the tip is raised to after closing, as in the labelled grasps.
        floor_m: least height of the tip.
        training: provenance, JSON-ready.
        measured: success by conditions, JSON-ready, with intervals; empty before any evaluation.
    """

    task: str
    encoder_id: str
    workspace: Workspace
    config: GraspConfig
    normalisation: Normalisation
    weights: Mapping[str, Tensor]
    lift_m: float
    floor_m: float = 0.008
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
            "lift_m": self.lift_m,
            "floor_m": self.floor_m,
        }

    @property
    def checkpoint_id(self) -> str:
        """16 hex digits of a sha256 over the weights and all settings; measuring does not change it."""
        return folders.identify(self.settings(), self.weights)

    def network(self) -> GraspNet:
        """The network with these weights, in evaluation mode.

        Raises:
            CheckpointError: the weights do not fit the shapes.
        """
        network = GraspNet.seeded(self.config, 0)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointError(f"weights do not fit the network in the manifest: {error}; train again") from error
        return network.eval().requires_grad_(False)


def save(checkpoint: GraspCheckpoint, folder: Path) -> str:
    """Write a checkpoint beside `folder` and rename it into place; returns its id."""
    manifest = {
        **checkpoint.settings(),
        "checkpoint_id": checkpoint.checkpoint_id,
        "training": dict(checkpoint.training),
        "measured": dict(checkpoint.measured),
    }
    folders.write(folder, checkpoint.weights, manifest, _card(checkpoint))
    return checkpoint.checkpoint_id


def load(folder: Path) -> GraspCheckpoint:
    """Read a checkpoint after every file's sha256 was checked.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    manifest = read_manifest(folder)
    weights = folders.read_weights(folder, manifest)
    path = folder / folders.MANIFEST
    try:
        checkpoint = GraspCheckpoint(
            task=str(manifest["task"]),
            encoder_id=str(manifest["encoder_id"]),
            workspace=Workspace.from_dict(manifest["workspace"]),
            config=GraspConfig.from_dict(manifest["network"]),
            normalisation=Normalisation.from_dict(manifest["normalisation"]),
            weights=weights,
            lift_m=float(manifest["lift_m"]),
            floor_m=float(manifest["floor_m"]),
            training=manifest["training"],
            measured=manifest["measured"],
        )
        known = str(manifest["checkpoint_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is incomplete ({error!r}); copy the checkpoint again") from error
    if checkpoint.checkpoint_id != known:
        raise CheckpointError(
            f"{path} was changed: contents have id {checkpoint.checkpoint_id}, it says {known}; copy it again"
        )
    return checkpoint


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a grasp checkpoint, nothing else checked.

    Raises:
        CheckpointError: there is no folder, no manifest, or it is of another format.
    """
    return folders.read_manifest(folder, FORMAT)


def _card(checkpoint: GraspCheckpoint) -> str:
    training = checkpoint.training
    lines = [
        f"# Grasp policy for {checkpoint.task}",
        "",
        "Reads the top-down map of a bin fused from calibrated RGB-D cameras and returns a tip pose, looking straight",
        "down, at which a parallel jaw is closed.",
        "",
        f"- Checkpoint: `{checkpoint.checkpoint_id}`, encoder `{checkpoint.encoder_id or 'none'}`",
        f"- Labelled grasps: {training.get('attempts', 'none')} in {training.get('scenes', 'no')} scenes, "
        f"steps: {training.get('steps', 'none')}, seed: {training.get('seed', 'none')}, "
        f"minutes: {training.get('minutes', 'none')}",
        f"- Made by: `{training.get('command', 'unknown')}` at commit {training.get('git_commit', 'unknown')}",
        "",
        "## Measured",
        "",
    ]
    for name, figures in checkpoint.measured.items():
        lines.append(
            f"- {name}: first grasps that lift {figures['solved']} of {figures['scenes']} "
            f"({figures['solved_low']:.1f} to {figures['solved_high']:.1f} %, Wilson 95 %), seeds {figures['seeds']}"
        )
    if not checkpoint.measured:
        lines.append("Not measured yet: `embodied-vision grasp evaluate`.")
    lines += [
        "",
        "## Limits",
        "",
        "Trained in simulation, with one camera pose, one jaw and one bin; grasps from straight above only.",
        "",
    ]
    return "\n".join(lines)

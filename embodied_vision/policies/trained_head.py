"""What all trained heads have in common: weights, what they are bound to, an id, and a folder.

The folder holds `model.safetensors`, `manifest.json` and `card.md`; nothing in it is executed when read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from torch import Tensor, nn

from embodied_vision.errors import CheckpointError
from embodied_vision.policies import folder as folders
from embodied_vision.types import Workspace

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class TrainedHead(ABC, Generic[Network]):
    """A network on the map of a workspace, as it was trained for a task.

    Attributes:
        task: name of the task it was trained for.
        encoder_id: the encoder whose features it reads, empty when it reads none.
        workspace: the map it works on.
        weights: state of its network.
        training: provenance, JSON-ready: data ids, seeds, settings, versions, git commit.
        measured: figures, JSON-ready, with intervals; empty before any evaluation.
    """

    form: ClassVar[str]
    """Format that its manifest states."""
    what: ClassVar[str]
    """What messages call it."""
    id_name: ClassVar[str] = "checkpoint_id"
    """What its manifest calls its id."""

    task: str
    encoder_id: str
    workspace: Workspace
    weights: Mapping[str, Tensor] = field(kw_only=True)
    training: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    measured: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def read_manifest(cls, folder: Path) -> dict[str, Any]:
        """The manifest in a folder, nothing else checked.

        Raises:
            CheckpointError: there is no folder, no manifest, or it is of another format.
        """
        return folders.read_manifest(folder, cls.form, cls.what)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it after every file's sha256 was checked.

        Raises:
            CheckpointError: it is missing, damaged or of another format.
        """
        manifest, path = cls.read_manifest(folder), folder / folders.MANIFEST
        weights = folders.read_weights(folder, manifest)
        try:
            head = cls(
                task=str(manifest["task"]),
                encoder_id=str(manifest["encoder_id"]),
                workspace=Workspace.from_dict(manifest["workspace"]),
                weights=weights,
                training=manifest["training"],
                measured=manifest["measured"],
                **cls._own_fields(manifest),
            )
            stated = str(manifest[cls.id_name])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is incomplete ({error!r}); copy the {cls.what} again") from error
        if head.checkpoint_id != stated:
            raise CheckpointError(
                f"{path} was changed: contents have id {head.checkpoint_id}, it says {stated}; "
                f"copy the {cls.what} again"
            )
        return head

    def save(self, folder: Path) -> str:
        """Write it beside `folder` and rename it into place; returns its id."""
        manifest = {
            **self.settings(),
            self.id_name: self.checkpoint_id,
            **self._interface(),
            "training": dict(self.training),
            "measured": dict(self.measured),
        }
        folders.write(folder, self.weights, manifest, self._card())
        return self.checkpoint_id

    def settings(self) -> dict[str, Any]:
        """All that shapes what it says besides the weights, JSON-ready."""
        return {
            "format": self.form,
            "task": self.task,
            "encoder_id": self.encoder_id,
            "workspace": self.workspace.to_dict(),
            **self._own_settings(),
        }

    @property
    def checkpoint_id(self) -> str:
        """16 hex digits of a sha256 over the weights and all settings; measuring does not change it."""
        return folders.identify(self.settings(), self.weights)

    def network(self) -> Network:
        """The network with these weights, in evaluation mode.

        Raises:
            CheckpointError: the weights do not fit the shapes.
        """
        network = self._untrained()
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointError(
                f"weights of the {self.what} do not fit the network in its manifest: {error}; train it again"
            ) from error
        return network.eval().requires_grad_(False)

    @abstractmethod
    def _own_settings(self) -> dict[str, Any]:
        """What `settings` holds of this kind alone."""

    @classmethod
    @abstractmethod
    def _own_fields(cls, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of this kind alone, from what `_own_settings` wrote."""

    @abstractmethod
    def _untrained(self) -> Network:
        """The network with any weights."""

    @abstractmethod
    def _card(self) -> str:
        """What a reader should know, in Markdown."""

    def _interface(self) -> dict[str, Any]:
        """Names, shapes, dtypes and units of inputs and outputs, JSON-ready."""
        return {}

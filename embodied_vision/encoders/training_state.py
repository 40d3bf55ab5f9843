"""The state of an encoder's training on disk, from which it goes on bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from embodied_vision.errors import EncoderError, RunFailed

OPTIMISER = "optimiser"


@dataclass(frozen=True)
class Done:
    """How far a run is.

    Attributes:
        step: steps done.
        seconds: that they took, over all its processes.
    """

    step: int = 0
    seconds: float = 0.0


def save_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    identity: Mapping[str, str],
    done: Done,
) -> None:
    """Write weights, averages and moments; a reader sees the old or the new state, whole.

    Args:
        path: of the file.
        modules: whatever has weights, by name.
        optimiser: of the parameters.
        parameters: in the order in which `restore_state` will be given them.
        identity: of the run, which `restore_state` compares.
        done: how far the run is.

    Raises:
        RunFailed: it cannot be written.
    """
    tensors = {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for i, parameter in enumerate(parameters):
        for name, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{OPTIMISER}.{i}.{name}"] = value
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {**identity, "step": str(done.step), "seconds": repr(done.seconds)}
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, part, metadata=metadata)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise RunFailed(f"{path} cannot be written ({error}); make room and go on with --resume") from error


def restore_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    identity: Mapping[str, str],
) -> Done:
    """Set everything to what `save_state` wrote and return how far the run was.

    Raises:
        EncoderError: there is no state, it is damaged, or it belongs to another run.
    """
    if not path.is_file():
        raise EncoderError(f"no training state at {path}; start without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        done = Done(int(metadata["step"]), float(metadata.get("seconds", 0)))
    except Exception as error:  # safetensors raises its own untyped error from Rust
        raise EncoderError(f"{path} cannot be read ({error}); start again without --resume") from error
    for name, value in identity.items():
        if metadata.get(name) != value:
            raise EncoderError(
                f"{path} belongs to a run with {name} {metadata.get(name)}, this one has {value}; "
                "resume with the same options, or start again in another folder"
            )
    for name, module in modules.items():
        module.load_state_dict({k: tensors[f"{name}.{k}"] for k in module.state_dict()})
    optimiser.state.clear()
    for i, parameter in enumerate(parameters):
        head = f"{OPTIMISER}.{i}."
        kept = {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}
        if kept:  # the count of steps is a scalar and stays where AdamW wants it, on the CPU
            optimiser.state[parameter] = {k: v.to(parameter.device) if v.ndim else v for k, v in kept.items()}
    return done

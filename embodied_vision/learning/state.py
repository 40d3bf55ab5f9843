"""The state of a training run on disk: weights, their average and the optimiser, from which it goes on exactly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from embodied_vision.errors import BadInput

_OPTIMISER = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        step: steps done.
        average: the averaged weights.
    """

    step: int
    average: dict[str, Tensor]


def save_state(path: Path, net: nn.Module, optimiser: torch.optim.AdamW, state: State, fingerprint: str) -> None:
    """Write everything that `restore_state` needs, in one rename.

    Args:
        path: of the file.
        net, optimiser: as they stand.
        state: the rest.
        fingerprint: of data and settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"weights.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for name, parameter in net.named_parameters():
        for key, value in optimiser.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    staging = path.with_name(f".{path.name}")  # one name: a killed run leaves no heap of them
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, staging, metadata={"step": str(state.step), "fingerprint": fingerprint})
    os.replace(staging, path)


def restore_state(path: Path, net: nn.Module, optimiser: torch.optim.AdamW, fingerprint: str, data: str) -> State:
    """Go on from what `save_state` wrote; net and optimiser stay on their device.

    Args:
        path: of the file.
        net, optimiser: set to what was written.
        fingerprint: of data and settings now.
        data: what is learnt from, for the message: demonstrations, say.

    Raises:
        BadInput: it belongs to other data or settings, is damaged, or there is none.
    """
    if not path.is_file():
        raise BadInput(f"nothing to resume at {path}; leave out --resume to start anew")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(f"{path} is damaged ({error}); leave out --resume to start anew") from error
    if metadata["fingerprint"] != fingerprint:
        raise BadInput(
            f"{path} belongs to other {data} or settings; pass those of the first run, or leave out "
            "--resume to start anew"
        )
    net.load_state_dict(_under("weights.", tensors))
    device = next(net.parameters()).device
    for name, parameter in net.named_parameters():
        kept = {key: tensors[f"{key}.{name}"] for key in _OPTIMISER if f"{key}.{name}" in tensors}
        # The optimiser counts steps on the CPU wherever the weights are.
        optimiser.state[parameter] = {k: v if k == "step" else v.to(device) for k, v in kept.items()}
    average = {name: value.to(device) for name, value in _under("average.", tensors).items()}
    return State(int(metadata["step"]), average)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

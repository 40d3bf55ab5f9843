"""Where a torch encoder computes: on a CUDA device that works, or on the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from embodied_vision.errors import EncoderError

AUTO = "auto"


def choose_device(asked: str = AUTO) -> torch.device:
    """The device to compute on.

    Args:
        asked: `auto` for the first CUDA device if it computes, else the CPU; `cpu`; `cuda` or `cuda:1`.
            CUDA_VISIBLE_DEVICES hides and orders devices.

    Raises:
        EncoderError: no such device, or one was asked for that does not compute.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise EncoderError(f"device {asked!r} is unknown; give auto, cpu, cuda or cuda:NUMBER")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == AUTO and count == 0):
        return torch.device("cpu")
    number = int(asked.partition(":")[2] or 0)
    if number >= count:
        raise EncoderError(
            f"device {asked!r}: torch {torch.__version__} sees {count} CUDA devices here; give device=cpu, another "
            "number, or install a CUDA build of torch with a driver that fits"
        )
    device = torch.device("cuda", number)
    problem = _problem(device)
    if problem and asked != AUTO:
        raise EncoderError(
            f"device {asked!r} does not compute: {problem}; install a torch that knows it, or give device=cpu"
        )
    return torch.device("cpu") if problem else device


def _problem(device: torch.device) -> str:
    """Why a device that torch sees does not compute, such as one too old for its kernels; empty where it does."""
    try:
        torch.ones(8, 8, device=device).matmul(torch.ones(8, 8, device=device)).cpu()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """New tensors lie on a device, and its products are those of float32.

    cuDNN's convolutions would round their inputs to 10 bits (TF32).
    """
    if device.type == "cpu":
        yield
        return
    with device, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield

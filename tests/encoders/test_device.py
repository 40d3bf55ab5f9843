"""Which device a torch encoder computes on; machines with and without CUDA are made up."""

from __future__ import annotations

import pytest
import torch

from embodied_vision.encoders import device as devices
from embodied_vision.encoders.device import choose_device, computing_on
from embodied_vision.errors import EncoderError


def _machine(patch: pytest.MonkeyPatch, count: int, problem: str = "") -> None:
    patch.setattr(torch.cuda, "is_available", lambda: count > 0)
    patch.setattr(torch.cuda, "device_count", lambda: count)
    patch.setattr(devices, "_problem", lambda device: problem)


@pytest.mark.parametrize(
    ("asked", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_cuda_is_taken_where_there_is_any(
    asked: str, count: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, count)
    assert choose_device(asked) == torch.device(expected)


@pytest.mark.parametrize(
    ("asked", "count", "words"),
    [
        ("cuda", 0, "sees 0 CUDA devices.*device=cpu"),
        ("cuda:2", 2, "sees 2 CUDA devices"),
        ("tpu", 1, "give auto, cpu, cuda or cuda:NUMBER"),
        ("cuda:", 1, "is unknown"),
        ("cuda:-1", 1, "is unknown"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    asked: str, count: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, count)
    with pytest.raises(EncoderError, match=words):
        choose_device(asked)


def test_a_device_that_torch_sees_but_cannot_use_is_passed_over_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _machine(monkeypatch, 1, "CUDA error: no kernel image is available for execution on the device")
    assert choose_device() == torch.device("cpu")
    with pytest.raises(EncoderError, match=r"does not compute: CUDA error.*device=cpu"):
        choose_device("cuda")


def test_what_keeps_a_device_from_computing_is_found_by_trying_it() -> None:
    assert devices._problem(torch.device("cpu")) == ""
    if not torch.cuda.is_available():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "ones", _refuse)
            assert devices._problem(torch.device("cuda", 0)) == "CUDA error: out of memory"


def _refuse(*_: object, **__: object) -> torch.Tensor:
    raise RuntimeError("CUDA error: out of memory\nmore lines")


def test_products_on_cuda_are_float32_and_nothing_is_left_changed() -> None:
    former = torch.backends.cudnn.allow_tf32
    with computing_on(torch.device("cuda", 0)):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == former
    with computing_on(torch.device("meta")):
        assert torch.zeros(1).device.type == "meta"
    with computing_on(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32 == former
        assert torch.zeros(1).device.type == "cpu"

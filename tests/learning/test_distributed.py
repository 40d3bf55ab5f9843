"""Processes share a batch evenly or not at all; a device that is not there is refused."""

from __future__ import annotations

import pytest
import torch

from embodied_vision.errors import BadInput
from embodied_vision.learning.distributed import Group, joined


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_every_example_of_a_batch_is_one_process_s(size: int) -> None:
    shares = [Group(rank, size).share(6) for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(6))
    assert len({len(share) for share in shares}) == 1


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(BadInput, match="batch of 4 examples cannot be shared evenly by 3 processes"):
        Group(0, 3).share(4)


def test_processes_share_the_cores_of_their_machine() -> None:
    assert Group(0, 2, local_size=10_000).threads() == 1
    assert Group().threads() >= Group(0, 2, local_size=2).threads() >= 1


def test_without_torchrun_a_process_is_alone() -> None:
    with joined("cpu", {}) as group:
        assert (group.leads, group.size, group.device.type) == (True, 1, "cpu")


def test_an_unknown_or_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="'tpu' is unknown; give one of auto, cpu, cuda"), joined("tpu", {}):
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="sees 0"), joined("cuda", {}):
        pass
    with joined("auto", {}) as group:
        assert group.device.type == "cpu"


def test_each_process_of_a_machine_has_a_cuda_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with joined("auto", {"LOCAL_RANK": "1"}) as group:
        assert group.device == torch.device("cuda", 1)
    with pytest.raises(BadInput, match="sees 2; start at most 2"), joined("cuda", {"LOCAL_RANK": "2"}):
        pass

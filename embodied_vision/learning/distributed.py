"""Where training runs: the device, and the processes that share the work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as fellows

from embodied_vision.errors import BadInput, RunFailed

DEVICES = ("auto", "cpu", "cuda")
PATIENCE = timedelta(minutes=30)
"""How long processes wait for one that lives and says nothing, as while it encodes; a dead one is noticed at once."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Group:
    """The processes that train one policy together, seen from one of them.

    Attributes:
        rank: number of this process; number 0 leads: it alone writes and reports.
        size: number of processes.
        local_size: how many of them share this machine.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = _CPU

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def threads(self) -> int:
        """This process's share of the cores that it may use."""
        return max(1, len(os.sched_getaffinity(0)) // self.local_size)

    def share(self, batch: int) -> range:
        """Which examples of a batch are this process's.

        Raises:
            BadInput: the batch cannot be shared evenly.
        """
        if batch % self.size:
            raise BadInput(
                f"a batch of {batch} examples cannot be shared evenly by {self.size} processes; make the batch a "
                f"multiple of {self.size}, or start fewer"
            )
        each = batch // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def add(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place, the same everywhere to the last bit.

        Raises:
            RunFailed: another process has gone.
        """
        if self.size > 1:
            with self._together():
                fellows.all_reduce(values)
        return values

    def require_same(self, digest: bytes, what: str) -> None:
        """Check that all processes hold the same.

        Args:
            digest: of what they hold.
            what: it is, for the error.

        Raises:
            RunFailed: they do not, or another process has gone.
        """
        if self.size == 1:
            return
        own = torch.tensor(list(digest), dtype=torch.int32, device=self.device)
        lowest, highest = own.clone(), own.clone()
        with self._together():
            fellows.all_reduce(lowest, fellows.ReduceOp.MIN)
            fellows.all_reduce(highest, fellows.ReduceOp.MAX)
        if not torch.equal(lowest, highest):
            raise RunFailed(
                f"the {self.size} processes do not hold the same {what}; give all the same arguments and a folder "
                "that all of them see"
            )

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader goes through the body before the others do: what it caches is made once.

        Raises:
            RunFailed: another process has gone.
        """
        if not self.leads:
            self._wait()
        yield
        if self.leads:
            self._wait()

    def _wait(self) -> None:
        self.add(torch.zeros(1, device=self.device))

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunFailed(
                f"process {self.rank} of {self.size} has lost the others ({reason}); see their messages, then start "
                "again with --resume"
            ) from error


@contextmanager
def joined(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """The group that `torchrun` started this process in; a group of one without it.

    Args:
        device: auto, cpu or cuda; auto takes CUDA where there is any.
        environment: variables that `torchrun` sets.

    Raises:
        BadInput: no such device.
        RunFailed: the others cannot be reached.
    """
    size, rank = int(environment.get("WORLD_SIZE", "1")), int(environment.get("RANK", "0"))
    local_rank, local_size = (int(environment.get(f"LOCAL_{name}", "0")) for name in ("RANK", "WORLD_SIZE"))
    group = Group(rank, size, max(1, local_size), _device(device, local_rank))
    if size == 1:
        yield group
        return
    with group._together():
        fellows.init_process_group("nccl" if group.device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield group
    finally:
        fellows.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    if name not in DEVICES:
        raise BadInput(f"device {name!r} is unknown; give one of {', '.join(DEVICES)}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    if local_rank >= count:
        raise BadInput(
            f"process {local_rank} of this machine asks for a CUDA device of its own and torch {torch.__version__} "
            f"sees {count}; start at most {max(count, 1)}, give --device cpu, or install a CUDA build of torch"
        )
    return torch.device("cuda", local_rank)

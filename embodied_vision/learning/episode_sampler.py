"""The order in which samples are drawn: shuffled anew each epoch, shared by ranks, resumed in the middle.

The order is computed place by place and never held: it takes no memory, however many samples there are, and the
samples of any place are known at once. A Feistel network over the bits of the place permutes the next power of four;
what falls outside the samples is permuted again until it does not (cycle walking: Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from embodied_vision.errors import BadInput

_ROUNDS = 8
_BLOCK = 4096


class ShuffledSampler(Sampler[int]):
    """Numbers of samples for one rank, from where it stands to the end of the epoch.

    Iterating does not move it, for a loader draws ahead of the training: `advance` does, with what was trained on.

    Args:
        length: number of samples of all ranks.
        seed: of the order; epochs are shuffled each in its own.
        shuffle: off, the samples come in their order.
        rank, ranks: this process among those that train together.
        even: all ranks get as many samples: at most `ranks` - 1 of an epoch, others each time, are left out. Off, all
            are drawn and some ranks draw one more.

    Raises:
        BadInput: arguments that do not fit.

    Attributes:
        epoch: number of the epoch, from 0 on.
        position: samples of this epoch that this rank is done with.
    """

    def __init__(
        self, length: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, ranks: int = 1, even: bool = True
    ) -> None:
        if not 0 <= rank < ranks:
            raise BadInput(f"rank {rank} of {ranks} is none; ranks are numbered from 0")
        if length < ranks:
            raise BadInput(f"{length} samples cannot be shared by {ranks} ranks; start fewer")
        if seed < 0:
            raise BadInput(f"seed {seed} is negative; give 0 or more")
        self._length, self._rank, self._ranks, self._even = length, rank, ranks, even
        self._seed, self._shuffle = seed, shuffle
        self.epoch = self.position = 0

    @property
    def share(self) -> int:
        """Samples of this rank in a whole epoch."""
        if self._even:
            return self._length // self._ranks
        return -(-(self._length - self._rank) // self._ranks)

    def __len__(self) -> int:
        return self.share - self.position

    def __iter__(self) -> Iterator[int]:
        epoch, start = self.epoch, self.position
        for first in range(start, self.share, _BLOCK):
            places = np.arange(first, min(first + _BLOCK, self.share), dtype=np.int64) * self._ranks + self._rank
            yield from self._drawn(places, epoch).tolist()

    def advance(self, count: int) -> None:
        """`count` more samples are done with; at the end of the epoch the next one begins.

        Raises:
            BadInput: the epoch has fewer left.
        """
        if not 0 <= count <= len(self):
            raise BadInput(f"{count} samples cannot be done with: {len(self)} are left of epoch {self.epoch}")
        self.position += count
        if self.position == self.share:
            self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, plain numbers; the same for all ranks that have done as much."""
        return {**self._identity(), "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a sampler of the same arguments stood.

        Raises:
            BadInput: it had others.
        """
        mine = self._identity()
        theirs = {key: state.get(key) for key in mine}
        if theirs != mine:
            raise BadInput(f"the state is of a sampler with {theirs}, this one has {mine}; give the same arguments")
        epoch, position = int(state["epoch"]), int(state["position"])
        if epoch < 0 or not 0 <= position < self.share:
            raise BadInput(f"the state stands at sample {position} of epoch {epoch}, an epoch has {self.share}")
        self.epoch, self.position = epoch, position

    def _identity(self) -> dict[str, Any]:
        return {
            "length": self._length,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "ranks": self._ranks,
            "even": self._even,
        }

    def _drawn(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        return permute(places, self._length, self._seed, epoch) if self._shuffle else places


def permute(places: NDArray[np.int64], length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where a pseudo-random permutation of `length` numbers takes some of them.

    Args:
        places: int64 (N,), each in [0, length).
        length: of the permutation.
        seed, epoch: choose it.
    """
    half = np.uint64(max(1, ((length - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)
    result = places.astype(np.uint64)
    outside = np.ones(len(places), bool)
    while outside.any():
        left, right = result[outside] >> half, result[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        result[outside] = (left << half) | right
        outside = result >= length
    return result.astype(np.int64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit of the value: the finaliser of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

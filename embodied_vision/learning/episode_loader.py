"""Batches of windows for training: prefetched by workers, in a shuffled order that can be resumed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from embodied_vision.errors import BadInput
from embodied_vision.learning.episode_dataset import SKIPPED, EpisodeDataset, Skipped, collate
from embodied_vision.learning.episode_sampler import ShuffledSampler

_log = logging.getLogger(__name__)
_MOST_WORKERS = 8
_SHARED_MEMORY = "/dev/shm"


class EpisodeLoader:
    """Goes through a dataset in batches. The order depends on the seed and the epoch alone, not on the workers.

    Each pass goes through what is left of the epoch; at its end the next epoch begins. `state_dict` after a batch,
    given to a new loader of the same arguments, lets it go on with the next batch.

    Args:
        dataset: what to read.
        batch_size: samples a batch; the last of an epoch may have fewer.
        seed: of the order.
        shuffle: off, the samples come in the order of the episodes.
        rank, ranks: this process among those that train together; each has batches of its own.
        workers: processes that read ahead; 0 reads in this process. One less than its cores, at most 8, without it.
        prefetch: batches that each worker has ready. With 16 images of 640 × 480 a sample and 32 samples a batch that
            is half a gigabyte each, in shared memory.
        context: how workers are started: fork, spawn or forkserver; the system's default without it.
        pin_memory: batches lie in memory that the GPU reads; where there is one, without it.

    Raises:
        BadInput: arguments that do not fit, or batches that do not fit into shared memory: PyTorch would be killed.
        EpisodeError: with workers, the first sample is damaged, and the dataset does not skip them.

    Attributes:
        sampler: the order, and where in it the training stands.
        skipped: by id of the episode, how many samples could not be read so far.
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        ranks: int = 1,
        workers: int | None = None,
        prefetch: int = 2,
        context: Literal["fork", "spawn", "forkserver"] | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        if batch_size < 1 or prefetch < 1:
            raise BadInput(f"batches of {batch_size} and {prefetch} of them ahead must be at least 1")
        if workers is not None and workers < 0:
            raise BadInput(f"{workers} workers cannot read; give 0 or more")
        if workers is None:
            workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)) - 1)
        if workers:
            _require_shared_memory(dataset, batch_size, prefetch * workers + 1)
        self.sampler = ShuffledSampler(len(dataset), seed=seed, shuffle=shuffle, rank=rank, ranks=ranks)
        self.skipped: Counter[str] = Counter()
        self._dataset, self._batch_size = dataset, batch_size
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=self.sampler,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            persistent_workers=workers > 0,
            multiprocessing_context=context if workers else None,
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            collate_fn=collate,
        )

    def __len__(self) -> int:
        """Batches that are left of this epoch."""
        return -(-len(self.sampler) // self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches up to the end of the epoch.

        Raises:
            EpisodeError: an episode is damaged, and the dataset does not skip them.
        """
        left = len(self.sampler)
        for batch in self._loader:
            drawn = min(self._batch_size, left)
            left -= drawn
            self.sampler.advance(drawn)
            self._count(batch.pop(SKIPPED, ()))
            if batch:
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands: after the last batch that was handed out, however many were read ahead."""
        return {"dataset": self._dataset.digest(), "batch_size": self._batch_size, **self.sampler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a loader of the same arguments stood.

        Raises:
            BadInput: it had another dataset, batch size, seed or number of ranks.
        """
        mine = {"dataset": self._dataset.digest(), "batch_size": self._batch_size}
        theirs = {key: state.get(key) for key in mine}
        if theirs != mine:
            raise BadInput(
                f"the state is of a loader with {theirs}, this one has {mine}; give the same episodes (by their ids), "
                "samplings and batch size"
            )
        self.sampler.load_state_dict(state)

    def _count(self, skipped: Any) -> None:
        for sample in skipped:
            if sample.episode_id not in self.skipped:
                _log.warning("samples of episode %s are skipped: %s", sample.episode_id, sample.reason)
            self.skipped[sample.episode_id] += 1


def _require_shared_memory(dataset: EpisodeDataset, batch_size: int, batches: int) -> None:
    sample = dataset[0]
    if isinstance(sample, Skipped):
        return
    needed = sum(part.nbytes for part in sample.values() if isinstance(part, Tensor)) * batch_size * batches
    free = _shared_memory_free()
    if free is not None and needed > free:
        raise BadInput(
            f"{batches} batches of {batch_size} samples, as many as workers read ahead, take {needed / 1e6:.0f} MB of "
            f"shared memory, and {_SHARED_MEMORY} has {free / 1e6:.0f} MB free; take smaller batches, fewer workers "
            "or prefetch less, give workers=0, or enlarge it (containers: --shm-size)"
        )


def _shared_memory_free() -> int | None:
    """Bytes; None where the system has no such folder."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize

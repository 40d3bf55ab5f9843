"""Windows of logged episodes as a PyTorch dataset: picked by what the episodes are, read where the training draws.

dataset = EpisodeDataset(
    store,
    {
        "cameras/front/color": Sampling.at(0),
        "streams/joint_states": Sampling.every(30, first=-15, length=16),
        "streams/commands": Sampling.every(30, first=1, length=8, fill="edge"),
    },
    wanted=Filter(task="block-insertion", outcome={"solved": True}),
)
for batch in EpisodeLoader(dataset, batch_size=32, seed=1):
    batch["streams/commands"], batch["streams/commands/padded"]
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from embodied_vision.episodes.catalogue import Catalogue
from embodied_vision.episodes.features import FeatureCache
from embodied_vision.episodes.filters import Filter
from embodied_vision.episodes.sources import stamps_of
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.summary import Summary
from embodied_vision.episodes.windows import Sampling, Window, Windows
from embodied_vision.errors import BadInput, EpisodeError

Sample = dict[str, Any]
OnDamaged = Literal["raise", "skip"]

SKIPPED = "skipped"
"""Key of a batch under which `collate` puts what was left out."""


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be read.

    Attributes:
        episode_id: whose.
        reason: what was wrong.
    """

    episode_id: str
    reason: str


class EpisodeDataset(Dataset[Sample | Skipped]):
    """Windows around the samples of a reference stream, of many episodes.

    Which episodes it has, in which order and how many windows each, is settled when it is made: episodes that are
    logged later do not move the others. Around `decisions` there are windows for those alone that the arm began. Files
    are opened where they are read, so it may be used in workers of any kind. A sample is a dictionary of tensors:

        KEY               (K, …), values; images uint8 (K, H, W, 3), depth uint16 mm, numbers float64
        KEY/padded        bool (K,), True where there is no sample
        KEY/stamps_ns     int64 (K,), of the samples taken
        KEY/ages_ns       int64 (K,), how much older they are than the times asked for
        anchor_ns         int64, the time the window is around
        episode           int64, place of the episode in `episode_id`

    Args:
        store: where the episodes lie.
        samplings: what is sampled when, by key; see `episodes.windows`.
        wanted: conditions on the episodes; all when empty.
        ids: only these episodes; all when None.
        reference: key whose samples are the anchors; the first one of `samplings` without it.
        stride: every so many of them is one.
        features: cache that `cameras/NAME/features` are read from.
        on_damaged: `raise` ends the training at the first episode that is damaged, gone or changed; `skip` leaves
            its samples out and says which.
        transform: applied to each sample where it was read.
        open_episodes: so many stay open in each process: opening one costs about as much as decoding an image.

    Raises:
        BadInput: nothing is left to read, an episode lacks the reference, or the first one a key.
        EpisodeError: an episode is damaged, and they are not skipped.

    Attributes:
        store: where the episodes lie.
        unreadable: episodes that were left out when the dataset was made, with the reason.
        left_out: decisions that the arm never began, around which there is no window.
    """

    def __init__(
        self,
        store: EpisodeStore,
        samplings: Mapping[str, Sampling],
        *,
        wanted: Filter | None = None,
        ids: Iterable[str] | None = None,
        reference: str | None = None,
        stride: int = 1,
        features: FeatureCache | None = None,
        on_damaged: OnDamaged = "raise",
        transform: Callable[[Sample], Sample] | None = None,
        open_episodes: int = 256,
    ) -> None:
        if on_damaged not in ("raise", "skip"):
            raise BadInput(f"on_damaged {on_damaged!r} is unknown; give raise or skip")
        if not samplings:
            raise BadInput("a dataset of nothing; name at least one stream with its sampling")
        if stride < 1 or open_episodes < 1:
            raise BadInput(f"stride {stride} and open episodes {open_episodes} must be at least 1")
        self.store = store
        self._samplings = dict(samplings)
        self._reference = reference if reference is not None else next(iter(samplings))
        self._stride, self._features, self._skip = stride, features, on_damaged == "skip"
        self._transform, self._open_episodes = transform, open_episodes
        self._opened: OrderedDict[int, Windows] = OrderedDict()
        self.unreadable: list[Skipped] = []
        self.left_out = 0
        self._begun: dict[int, NDArray[np.int64]] = {}
        names: list[str] = []
        lengths: list[int] = []
        anchors: list[int] = []
        for episode_id, length in self._lengths(wanted or Filter(), ids):
            begun = self._which_begun(episode_id, length) if self._reference == "decisions" else None
            if count := length if begun is None else len(begun):
                if begun is not None and count < length:
                    self._begun[len(names)] = begun
                names.append(episode_id)
                lengths.append(length)
                anchors.append(count)
        if not names:
            raise BadInput(f"{store.location} holds no episode that meets the conditions and has {self._reference}")
        # For 100,000 episodes 5 MB, and no object that a forked worker would copy by looking at it.
        self._ids: NDArray[np.bytes_] = np.array([name.encode() for name in names])
        self._samples: NDArray[np.int64] = np.array(lengths, np.int64)
        self._ends: NDArray[np.int64] = np.cumsum(-(-np.array(anchors, np.int64) // stride))
        self._check_first()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def episodes(self) -> int:
        """How many episodes it has."""
        return len(self._ids)

    def episode_id(self, number: int) -> str:
        """Id of an episode, by its place."""
        return bytes(self._ids[number]).decode()

    def locate(self, index: int) -> tuple[str, int]:
        """Which episode a sample is of, and around which sample of the reference.

        Raises:
            IndexError: there is no such sample.
        """
        number, anchor = self._place(index)
        return self.episode_id(number), anchor

    def digest(self) -> str:
        """16 hex digits that name the samples and their order: episodes, their lengths, what is read of them."""
        text = repr((sorted(self._samplings.items()), self._reference, self._stride))
        parts = [self._ids.tobytes(), self._samples.tobytes(), text.encode()]
        parts += [begun.tobytes() for begun in self._begun.values()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def __getitem__(self, index: int) -> Sample | Skipped:
        """The sample `index`.

        Raises:
            IndexError: there is no such sample.
            EpisodeError: its episode is damaged, gone or changed, and they are not skipped.
        """
        number, anchor = self._place(index)
        try:
            windows, window = self._read(number, anchor)
        except EpisodeError as error:
            self._opened.pop(number, None)
            if self._skip:
                return Skipped(self.episode_id(number), str(error))
            raise EpisodeError(
                f"sample {index} of the dataset, episode {self.episode_id(number)}: {error}; or leave the episode out, "
                "or let damaged ones be skipped (on_damaged='skip')"
            ) from error
        sample = _tensors(window)
        sample["anchor_ns"] = torch.tensor(int(windows.anchors_ns[anchor]))
        sample["episode"] = torch.tensor(number)
        return sample if self._transform is None else self._transform(sample)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict()}

    def _check_first(self) -> None:
        """A wrong key or a cache that was not filled is told now, and not by a worker."""
        try:
            self._windows(0)
        except EpisodeError:
            if not self._skip:
                raise

    def _place(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        anchor = (index - first) * self._stride
        return number, int(self._begun[number][anchor]) if number in self._begun else anchor

    def _read(self, number: int, anchor: int) -> tuple[Windows, dict[str, Window]]:
        if number in self._opened:
            self._opened.move_to_end(number)
            try:
                return self._opened[number], self._opened[number][anchor]
            except EpisodeError:
                del self._opened[number]  # it may have been edited since it was opened: look again
        windows = self._windows(number)
        window = windows[anchor]
        self._opened[number] = windows
        if len(self._opened) > self._open_episodes:
            self._opened.popitem(last=False)
        return windows, window

    def _windows(self, number: int) -> Windows:
        windows = Windows(
            self.store.open(self.episode_id(number)),
            self._samplings,
            reference=self._reference,
            threads=1 if get_worker_info() is not None else None,  # the workers share the cores already
            features=None if self._features is None else self._features.open,
        )
        if len(windows) != self._samples[number]:
            raise EpisodeError(
                f"{self._reference} has {len(windows)} samples and had {self._samples[number]} when the dataset was "
                "made: the episode was edited; make the dataset anew"
            )
        return windows

    def _lengths(self, wanted: Filter, ids: Iterable[str] | None) -> Iterator[tuple[str, int]]:
        """Id and samples of the reference of each episode, oldest first."""
        if ids is None and isinstance(self.store.location, Path):
            with Catalogue(self.store.location) as catalogue:
                found = sorted(catalogue.find(wanted), key=lambda entry: entry.id)
            for entry in found:
                if isinstance(entry, Summary):
                    yield entry.id, _logged(entry, self._reference)
                else:
                    self._refuse(entry.id, entry.error)
            return
        for episode_id in sorted(set(self.store.ids() if ids is None else ids)):
            try:
                episode = self.store.open(episode_id)
                if wanted.accepts(episode):
                    yield episode_id, len(stamps_of(episode, self._reference))
            except EpisodeError as error:
                self._refuse(episode_id, str(error))

    def _which_begun(self, episode_id: str, length: int) -> NDArray[np.int64]:
        """Numbers of the decisions that the arm began; none of a damaged episode, where such are skipped."""
        try:
            begun = np.flatnonzero(self.store.open(episode_id).begun)
        except EpisodeError as error:
            self._refuse(episode_id, str(error))
            return np.zeros(0, np.int64)
        self.left_out += length - len(begun)
        return begun

    def _refuse(self, episode_id: str, reason: str) -> None:
        if not self._skip:
            raise EpisodeError(f"episode {episode_id}: {reason}; or let damaged ones be skipped (on_damaged='skip')")
        self.unreadable.append(Skipped(episode_id, reason))


def _logged(entry: Summary, reference: str) -> int:
    """Samples of the reference in an episode, as the catalogue has them."""
    if reference == "decisions":
        return entry.decisions
    kind, _, rest = reference.partition("/")
    name, counts = (rest.rpartition("/")[0], entry.frames) if kind == "cameras" else (rest, entry.samples)
    if name not in counts:
        raise BadInput(
            f"episode {entry.id} has no {reference!r}, which the windows are to be around; it has cameras "
            f"{sorted(entry.frames)} and streams {sorted(entry.samples)}: leave it out by a filter or by ids"
        )
    return counts[name]


def _tensors(window: Mapping[str, Window]) -> Sample:
    sample: Sample = {}
    for key, found in window.items():
        sample[key] = torch.from_numpy(found.values)
        sample[f"{key}/padded"] = torch.from_numpy(found.padded)
        sample[f"{key}/stamps_ns"] = torch.from_numpy(found.stamps_ns)
        sample[f"{key}/ages_ns"] = torch.from_numpy(found.ages_ns)
    return sample


def collate(samples: Sequence[Sample | Skipped]) -> dict[str, Any]:
    """Stack samples (B, K, …); what was skipped is under `SKIPPED`, and nothing else when all were.

    Raises:
        BadInput: samples of different shapes.
    """
    skipped = [sample for sample in samples if isinstance(sample, Skipped)]
    whole = [sample for sample in samples if not isinstance(sample, Skipped)]
    for key in whole[0] if whole else ():
        shapes = {tuple(sample[key].shape) for sample in whole if isinstance(sample[key], Tensor)}
        if len(shapes) > 1:
            raise BadInput(
                f"{key} has shapes {sorted(shapes)} in different episodes, which cannot be stacked; choose episodes "
                "that agree, or give a transform that makes them"
            )
    batch: dict[str, Any] = default_collate(whole) if whole else {}
    return {**batch, SKIPPED: skipped} if skipped else batch

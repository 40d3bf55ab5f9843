"""Which scene seeds belong to which split: training, validation and test scenes never meet."""

from __future__ import annotations

from typing import Literal, get_args

from embodied_vision.errors import BadInput

Split = Literal["train", "validation", "test"]
SPLIT_SIZE = 1_000_000
_FIRST: dict[str, int] = {"train": 0, "validation": SPLIT_SIZE, "test": 2 * SPLIT_SIZE}


def scene_seed(split: Split, index: int) -> int:
    """Seed of the scene number `index` of a split.

    Raises:
        BadInput: unknown split, or an index outside [0, 1,000,000).
    """
    if split not in _FIRST:
        raise BadInput(f"split {split!r} is unknown; choose one of {', '.join(get_args(Split))}")
    if not 0 <= index < SPLIT_SIZE:
        raise BadInput(f"scene index {index} lies outside [0, {SPLIT_SIZE}); lower the offset or the number of scenes")
    return _FIRST[split] + index


def split_of(seed: int) -> Split:
    """The split that a scene seed belongs to.

    Raises:
        BadInput: the seed belongs to none.
    """
    for name in get_args(Split):
        if _FIRST[name] <= seed < _FIRST[name] + SPLIT_SIZE:
            split: Split = name
            return split
    raise BadInput(f"seed {seed} belongs to no split; use seeds in [0, {3 * SPLIT_SIZE})")

"""Decisions wait for the frames that they were made from, which may arrive after them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from embodied_vision.episodes.frames import RawFrame
from embodied_vision.types import PickPlace

LONGEST_WAIT_S = 1.0

_Key = tuple[str, int]


@dataclass(frozen=True)
class _Pending:
    action: PickPlace
    info: Mapping[str, Any]
    keys: list[_Key]
    deadline_s: float


class DecisionLog:
    """Keeps the newest frames and hands on every decision with its own.

    Args:
        capacity: frames kept over all cameras.
        hand_on: gets a decision, its frames that came, its JSON, and (camera, stamp in ns) of the frames that did not.
    """

    def __init__(
        self,
        capacity: int,
        hand_on: Callable[[PickPlace, list[RawFrame], Mapping[str, Any], list[_Key]], None],
    ) -> None:
        self._capacity = capacity
        self._hand_on = hand_on
        self._recent: OrderedDict[_Key, RawFrame] = OrderedDict()
        self._pending: list[_Pending] = []

    def add_frame(self, frame: RawFrame) -> None:
        """A frame came."""
        self._recent[frame.camera.name, frame.stamp_ns] = frame
        while len(self._recent) > self._capacity:
            self._recent.popitem(last=False)
        if self._pending:
            self.look()

    def add(self, decision: Mapping[str, Any]) -> None:
        """A decision came, the JSON of `policy/decision`.

        Raises:
            BadInput, KeyError, TypeError, ValueError: it is none.
        """
        keys = [(str(entry["camera"]), int(entry["stamp_ns"])) for entry in decision["frames"]]
        action = PickPlace.from_dict(decision)
        self._pending.append(_Pending(action, decision, keys, time.monotonic() + LONGEST_WAIT_S))
        self.look()

    def look(self, *, all_of_them: bool = False) -> None:
        """Hand on what is complete or has waited too long, or everything."""
        now, waiting = time.monotonic(), []
        for pending in self._pending:
            missing = [key for key in pending.keys if key not in self._recent]
            if missing and now <= pending.deadline_s and not all_of_them:
                waiting.append(pending)
                continue
            frames = [self._recent[key] for key in pending.keys if key in self._recent]
            self._hand_on(pending.action, frames, pending.info, missing)
        self._pending = waiting

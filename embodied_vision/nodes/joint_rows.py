"""Rows of joint states whose messages may each carry some of the joints, for the recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

HELD_NS = 1_000_000_000
"""So long a joint that does not come counts as where it was; then it is NaN."""


class JointRows:
    """Puts the messages of one topic together.

    What has one stamp is one row. It is closed as soon as every joint that was ever heard is in it, or else by the next
    message of another stamp, as when arm and gripper publish at rates of their own; then the others are as they were.

    Args:
        fields: arrays of the message that make up a row, one after the other.
        topic: for errors.

    Attributes:
        names: joints in the order of every array, as they were first heard.
    """

    def __init__(self, fields: Sequence[str], topic: str) -> None:
        self._fields = tuple(fields)
        self._topic = topic
        self.names: list[str] = []
        self._values: dict[str, NDArray[np.float64]] = {}
        self._stamps: dict[str, int] = {}
        self._fresh: set[str] = set()
        self._stamp_ns = 0

    def add(self, message: Any, stamp_ns: int) -> list[tuple[int, NDArray[np.float64]]]:
        """Take a message; returns the rows that it closes, each with its stamp.

        Raises:
            BadInput: an array has another length than the names.
        """
        arrays = np.array([self._array(message, field) for field in self._fields]).T
        rows = [self._close()] if self._fresh and stamp_ns != self._stamp_ns else []
        self._stamp_ns = stamp_ns
        for name, values in zip(message.name, arrays, strict=True):
            if name not in self._values:
                self.names.append(name)
            self._values[name], self._stamps[name] = values, stamp_ns
            self._fresh.add(name)
        if self._fresh and len(self._fresh) == len(self.names):
            rows.append(self._close())
        return rows

    def _array(self, message: Any, field: str) -> Sequence[float]:
        """One array of a message; NaN where the driver leaves it out."""
        values: Sequence[float] = getattr(message, field)
        count = len(message.name)
        if not len(values) and field != "position":
            return [np.nan] * count
        if len(values) != count:
            raise BadInput(f"{self._topic} names {count} joints, {len(values)} of {field}; check the driver")
        return values

    def _close(self) -> tuple[int, NDArray[np.float64]]:
        lost = np.full(len(self._fields), np.nan)
        held = [self._values[n] if self._stamp_ns - self._stamps[n] <= HELD_NS else lost for n in self.names]
        self._fresh.clear()
        return self._stamp_ns, np.array(held).T.ravel()

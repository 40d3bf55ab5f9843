"""How often the watch cries wolf, and how late it is: tried on streams in which nothing changes, and ones that do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embodied_vision.errors import BadInput
from embodied_vision.learning.drift import PATIENCE, Channel, Watch
from embodied_vision.learning.drift_known import Reference
from embodied_vision.learning.statistics import Interval, bootstrap, wilson

SHIFT = 1.5
"""Change of the mean of every number that describes scene and action, in standard deviations."""
GOOD, BAD = 0.95, 0.6
"""Share of solved episodes before and after."""


@dataclass(frozen=True)
class Checked:
    """What became of one channel.

    Attributes:
        channel: what is watched.
        false_per_1000: false alarms in a thousand values while nothing changes, with a bootstrap interval over streams.
        detected: share of changes that gave an alarm within the stream.
        delay: median number of values from the change to the alarm, of those detected; NaN where none was.
    """

    channel: Channel
    false_per_1000: Interval
    detected: Interval
    delay: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "delay": self.delay if np.isfinite(self.delay) else None}


def check(
    *,
    streams: int = 40,
    length: int = 500,
    episodes: int = 100,
    dimension: int = 72,
    patience: float = PATIENCE,
    seed: int = 0,
    report: Callable[[int], None] | None = None,
) -> list[Checked]:
    """Simulate. Every stream has a reference of its own, fitted on so many training episodes of one decision each.

    Scenes are described by correlated normal numbers, actions by uniform ones, scores by Beta(8, 2), outcomes by coins.

    Args:
        streams: of each kind.
        length: values of each; the change comes in the middle of the ones that have a change.
        episodes: of training.
        dimension: numbers that describe a scene.
        patience: see `drift`.
        seed: of everything.
        report: called with the number of streams that are through.

    Raises:
        BadInput: too little of something.
    """
    if streams < 1 or length < 2:
        raise BadInput(f"{streams} streams of {length} values; give at least 1 of 2")
    false: dict[Channel, list[float]] = {name: [] for name in ("scene", "action", "score", "outcome")}
    delays: dict[Channel, list[float]] = {name: [] for name in false}
    for stream in range(streams):
        world = _World(np.random.default_rng([seed, stream]), episodes, dimension)
        for change in (False, True):
            watch, first = Watch(patience), dict[Channel, float]()
            counts: dict[Channel, int] = dict.fromkeys(false, 0)
            for number in range(length):
                late = change and number >= length // 2
                for alarm in watch.update(world.draw(late), str(number)):
                    counts[alarm.channel] += 1
                    if late:
                        first.setdefault(alarm.channel, number - length // 2 + 1)
            for name in false:
                if change:
                    delays[name].append(first.get(name, np.inf))
                else:
                    false[name].append(1000 * counts[name] / length)
        if report is not None:
            report(stream + 1)
    found = []
    for name, waited in delays.items():
        there = [delay for delay in waited if np.isfinite(delay)]
        median = float(np.median(there)) if there else float("nan")
        found.append(Checked(name, bootstrap(false[name]), wilson(len(there), len(waited)), median))
    return found


class _World:
    """What scenes and actions are like, and what is known of them."""

    def __init__(self, rng: np.random.Generator, episodes: int, dimension: int) -> None:
        self._rng = rng
        self._mix = rng.normal(size=(dimension, dimension)) * np.linspace(1.0, 0.05, dimension)
        groups = [str(i) for i in range(episodes)]
        self._scenes = Reference.fit([self._scene() for _ in groups], groups)
        self._actions = Reference.fit([self._action() for _ in groups], groups)
        self._spread = np.sqrt((self._mix**2).sum(1))

    def _scene(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.asarray(self._mix @ self._rng.normal(size=self._mix.shape[1]))

    def _action(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self._rng.uniform(-0.3, 0.3, 6)

    def draw(self, changed: bool) -> dict[Channel, float]:
        rng = self._rng
        scene, action = self._scene(), self._action()
        if changed:
            scene, action = scene + SHIFT * self._spread, action + SHIFT * 0.6 / np.sqrt(12)
        return {
            "scene": self._scenes.p_value(scene),
            "action": self._actions.p_value(action),
            "score": float(rng.beta(*((4, 4) if changed else (8, 2)))),
            "outcome": float(rng.uniform() < (BAD if changed else GOOD)),
        }

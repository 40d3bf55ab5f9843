"""Watches features, actions and outcomes: an alarm when the scene leaves what the policy knows, or work gets worse.

Each p value of a scene or an action is a bet against its being usual; what many bets in a row have won is a sum that
starts again from zero when it would fall below (CUSUM of a conformal martingale, after Volkhonskiy et al., "Inductive
conformal martingales for change-point detection", 2017). While nothing changes it
takes `PATIENCE` decisions and more, in the mean, until a false alarm, as far as few training episodes tell what is
usual; `drift_check` measures it. Scores and outcomes
go to ADWIN (Bifet and Gavaldà, 2007), of which falls count.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from embodied_vision.errors import BadInput

Channel = Literal["scene", "action", "score", "outcome"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
PATIENCE = 2000.0
"""Least mean number of decisions until a false alarm of one conformal channel."""
BET = 0.4
"""Exponent of the bet ε · p^(ε − 1): the smaller, the more is put on very small p values."""
DELTA = 0.002
"""Of ADWIN."""
REMEMBERED = 500

_MEANING: dict[Channel, str] = {
    "scene": "scenes look unlike those that the policy learnt from",
    "action": "actions go where the policy was never taught to go",
    "score": "the policy is less sure of its decisions than before",
    "outcome": "work succeeds less often than before",
}


@dataclass(frozen=True)
class Alarm:
    """Something changed.

    Attributes:
        channel: what is watched.
        number: of the value that gave the alarm, from 0 within its channel.
        source: where that value comes from.
        evidence: logarithm of what the bets won, or by how much the mean fell.
        sources: what shows it, oldest first: what came since the change, as far as it is remembered.
    """

    channel: Channel
    number: int
    source: str
    evidence: float
    sources: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """In words."""
        return _MEANING[self.channel]

    @property
    def episodes(self) -> list[str]:
        """The episodes that show it, oldest first."""
        return list(dict.fromkeys(source.split("/")[0] for source in self.sources))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "sources": list(self.sources), "meaning": self.meaning, "episodes": self.episodes}


@dataclass
class Bets:
    """A channel of p values.

    Attributes:
        channel: its name.
        patience: see `PATIENCE`.
        won: logarithm of what the bets won since they last came to nothing.
    """

    channel: Channel
    patience: float = PATIENCE
    won: float = 0.0
    _number: int = 0
    _since: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def update(self, p: float, source: str) -> Alarm | None:
        """Take a p value; after an alarm it starts anew.

        Raises:
            BadInput: it is none.
        """
        if not 0 < p <= 1:
            raise BadInput(f"p value of {source} is {p}; give one in (0, 1]")
        number, self._number = self._number, self._number + 1
        if self.won <= 0:
            self.won = 0.0
            self._since.clear()
        self.won += math.log(BET) + (BET - 1) * math.log(p)
        self._since.append(source)
        if self.won < math.log(self.patience):
            return None
        alarm = Alarm(self.channel, number, source, self.won, tuple(self._since))
        self.won = 0.0
        return alarm


class Falls:
    """A channel of values in [0, 1] whose mean should not fall."""

    def __init__(self, channel: Channel, delta: float = DELTA) -> None:
        """Watch a channel; ADWIN is looked up here, so that others need not install it.

        Raises:
            BadInput: it is not installed.
        """
        try:
            from river.drift import ADWIN
        except ImportError as error:
            raise BadInput(
                "drift is watched by river, which is missing; pip install 'embodied-vision[learn]'"
            ) from error
        self._channel = channel
        self._adwin = ADWIN(delta=delta, clock=1)
        self._number = 0
        self._recent: deque[tuple[float, str]] = deque(maxlen=REMEMBERED)

    def update(self, value: float, source: str) -> Alarm | None:
        """Take a value; one that is not finite is left out."""
        if not math.isfinite(value):
            return None
        number, self._number = self._number, self._number + 1
        self._recent.append((value, source))
        before = self._adwin.width
        self._adwin.update(min(max(value, 0.0), 1.0))
        if not self._adwin.drift_detected:
            return None
        kept = max(1, min(int(self._adwin.width), len(self._recent)))
        values = list(self._recent)
        new, old = values[-kept:], values[max(0, len(values) - before - 1) : -kept]
        self._recent = deque(new, maxlen=REMEMBERED)
        fall = _mean(old) - _mean(new) if old else 0.0
        if fall <= 0:
            return None
        return Alarm(self._channel, number, source, fall, tuple(name for _, name in new))


def _mean(values: Sequence[tuple[float, str]]) -> float:
    return sum(value for value, _ in values) / len(values)


class Watch:
    """All channels of one policy; feed it what happens, in the order in which it happens."""

    def __init__(self, patience: float = PATIENCE, delta: float = DELTA) -> None:
        """Start to watch.

        Args:
            patience: of the scenes and of the actions, decisions.
            delta: of ADWIN.
        """
        if not patience > 1:
            raise BadInput(f"patience is {patience}; give more than 1 decision")
        self._bets = {name: Bets(name, patience) for name in ("scene", "action")}
        self._falls = {name: Falls(name, delta) for name in ("score", "outcome")}

    def update(self, values: Mapping[Channel, float], source: str) -> list[Alarm]:
        """Take what is known of a decision or of an episode.

        Args:
            values: p values of `scene` and `action`, `score` and `outcome` in [0, 1]; any of them.
            source: episode id, or episode id and number of the decision.
        """
        found: Iterable[Alarm | None] = (
            (self._bets[name] if name in self._bets else self._falls[name]).update(value, source)
            for name, value in values.items()
        )
        return [alarm for alarm in found if alarm is not None]

"""What the driver says about the arm: whether it may be moved, and how fast it runs. No ROS."""

from __future__ import annotations

from collections.abc import Iterable

from embodied_vision.errors import BadInput


class DriverState:
    """Reasons why the arm may not be moved, and the pace of the driver's own time.

    A driver that scales speed, such as the scaled joint trajectory controller of a UR, runs through a trajectory at
    `pace` times its speed, on the same path.

    Args:
        sources: who must have said that the arm is ready before it is, such as `robot_mode`.
    """

    def __init__(self, sources: Iterable[str] = ()) -> None:
        self._problems = {name: f"{name} was never heard" for name in sources}
        self._pace = 1.0

    def report(self, source: str, problem: str = "") -> None:
        """`source` says what keeps the arm from moving, in words; empty when nothing does."""
        self._problems[source] = problem

    @property
    def problems(self) -> dict[str, str]:
        """Who keeps the arm from moving, each with the reason in words."""
        return {name: words for name, words in self._problems.items() if words}

    @property
    def pace(self) -> float:
        """How much of a trajectory's time goes by in a second, 0 … 1."""
        return self._pace

    def set_speed_scaling(self, percent: float) -> None:
        """Take the driver's speed scaling, 100 for full speed.

        Raises:
            BadInput: not within 0 … 100; the pace stays as it was.
        """
        if not 0.0 <= percent <= 100.0:
            raise BadInput(f"speed scaling is {percent} %; the driver must publish 0 to 100")
        self._pace = percent / 100.0

"""What the arm works with: the tools' common interface, and the way from a name to a tool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from embodied_vision.errors import BadInput
from embodied_vision_sim.parallel_jaw import ParallelJaw
from embodied_vision_sim.robot import Arm
from embodied_vision_sim.suction import Suction


class Tool(Protocol):
    """A tool at an arm's tip.

    Attributes:
        holding: body id of the object held, or None.
    """

    @property
    def holding(self) -> int | None: ...

    def set(self, opening: float) -> None:
        """Open or close, 0 closed … 1 open; a suction cup sucks when closed."""

    def update(self) -> None:
        """Once after every physics step."""


class Passive:
    """A tool without moving parts, such as a spatula: it holds nothing."""

    holding: int | None = None

    def set(self, opening: float) -> None:
        """Nothing to open or close."""

    def update(self) -> None:
        """Nothing to do after a physics step."""


def make_tool(client: int, arm: Arm, can_hold: Callable[[int], bool]) -> Tool:
    """The tool that the arm's model names.

    Args:
        client: PyBullet client.
        arm: with the tool's links.
        can_hold: whether a body may be taken.

    Raises:
        BadInput: no simulation of the tool is known.
    """
    if arm.model.tool == "suction":
        return Suction(client, arm, can_hold)
    if arm.model.tool == "parallel_jaw":
        return ParallelJaw(client, arm, can_hold)
    if arm.model.tool == "spatula":
        return Passive()
    raise BadInput(f"tool {arm.model.tool!r} has no simulation; use suction, parallel_jaw or spatula")

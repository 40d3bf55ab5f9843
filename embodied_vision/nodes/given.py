"""The parameters that a process was started with: where each stands, and whether a node knows it.

ROS ignores a parameter that nobody declares, so that a slip of the pen leaves the default without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rclpy.exceptions import ParameterException
from rclpy.node import Node

from embodied_vision.errors import BadInput
from embodied_vision.launching.parameters import Setting, nearest, read_params_file


class Given:
    """Parameter files and assignments of a command line.

    Args:
        arguments: as in sys.argv.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._files = [Path(after) for word, after in _pairs(arguments) if word == "--params-file"]
        self._assigned = [after for word, after in _pairs(arguments) if word in ("-p", "--param")]
        self._settings: list[Setting] = []

    def read(self) -> None:
        """Read the files.

        Raises:
            BadInput: one of them is no parameter file; the message names the line.
        """
        self._settings = [setting for file in self._files for setting in read_params_file(file)]

    def check_known(self, node: Node) -> None:
        """Compare what was given to a node with what it declares.

        What stands in a section for every node, such as `/**`, may be meant for others: that is a warning.

        Raises:
            BadInput: a parameter given to this very node is not declared; the message names every one and its place.
        """
        full, names = node.get_fully_qualified_name(), node.list_parameters([], 0).names
        wrong = []
        for name in sorted(set(node._parameter_overrides) - set(names)):
            if name.startswith("qos_overrides."):
                continue
            said = f"node {node.get_name()!r} has no parameter {name!r}; {nearest(name, names)}"
            places = [s for s in self._settings if s.name == name and s.holds_for(full)]
            if places and not any(setting.names_a_node for setting in places):
                node.get_logger().warning(f"{places[-1].place}: {said}")
            else:
                wrong.append(f"{places[-1].place if places else 'command line'}: {said}")
        if wrong:
            raise BadInput("\n".join(wrong))

    def place_of(self, error: ParameterException) -> str:
        """Where the value stands that rclpy refused."""
        name = str(error).rsplit(": ", 1)[-1]
        places = [setting.place for setting in self._settings if setting.name == name]
        if any(f"{name}:=" in assignment for assignment in self._assigned):
            places.append("command line")
        return f"it stands in {', '.join(places)}" if places else "docs/parameters.md says what is allowed"


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(words))

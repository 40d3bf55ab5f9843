"""What a launch would use: the nodes' parameters, from files and, where a graph runs, from the nodes themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_vision.launching.graph import PARAMETERS
from embodied_vision.launching.parameters import read_params_file


@dataclass(frozen=True)
class Expected:
    """Parameters by node.

    Attributes:
        values: node → parameter → value.
        namespace: of the nodes, such as `/left`; empty for none.
    """

    values: Mapping[str, Mapping[str, Any]]
    namespace: str = ""

    def value(self, node: str, parameter: str, otherwise: Any = None) -> Any:
        """A node's parameter."""
        return self.values.get(node, {}).get(parameter, otherwise)

    def names(self, node: str, parameter: str) -> list[str]:
        """A parameter that lists names; an empty name stands for none."""
        return [str(name) for name in self.value(node, parameter, []) if name]

    @property
    def transports(self) -> tuple[str, str]:
        """How color and depth images travel to the nodes: raw, or the end of the topic."""
        color = str(self.value("encoder", "image_transport", "raw"))
        return color, str(self.value("policy", "depth_image_transport", "raw"))

    def updated(self, live: Mapping[str, Mapping[str, Any]]) -> Expected:
        """The same, but what running nodes say of themselves wins."""
        merged = {node: {**self.values.get(node, {}), **live.get(node, {})} for node in {*self.values, *live}}
        return Expected(merged, self.namespace)


def expected(files: Iterable[Path], namespace: str = "") -> Expected:
    """Parameters of the shipped file and of those on top of it, the last wins.

    Raises:
        BadInput: a file is missing or no parameter file.
    """
    values: dict[str, dict[str, Any]] = {}
    space = namespace.strip("/")
    settings = [setting for file in (PARAMETERS, *files) for setting in read_params_file(file)]
    nodes = {setting.section.rsplit("/", 1)[1] for setting in settings if setting.names_a_node}
    for node in nodes:
        full = f"/{space}/{node}" if space else f"/{node}"
        values[node] = {setting.name: setting.value for setting in settings if setting.holds_for(full)}
    return Expected(values, f"/{space}" if space else "")

"""Parameters as nodes declare them: described, within bounds, one of their choices, and finite."""

from __future__ import annotations

import math
from array import array
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter


class Declarations:
    """Declares the parameters of one node, and refuses values that they cannot have.

    Attributes:
        choices: of each parameter that must be one of them.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.choices: dict[str, tuple[str, ...]] = {}
        node.add_on_set_parameters_callback(_refuse_non_finite)
        node.add_on_set_parameters_callback(self._refuse_other_choices)

    def declare(
        self,
        name: str,
        default: Any,
        description: str,
        bounds: tuple[float, float] | None,
        choices: tuple[str, ...],
        read_only: bool,
    ) -> None:
        """Declare a parameter; see `ManagedNode.param`."""
        descriptor = ParameterDescriptor(name=name, description=description, read_only=read_only)
        if choices:
            self.choices[name] = choices
            descriptor.additional_constraints = f"one of {', '.join(choices)}"
        if bounds is not None and isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(bounds[0]), to_value=int(bounds[1]))]
        elif bounds is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(bounds[0]), to_value=float(bounds[1]))
            ]
        self._node.declare_parameter(name, default, descriptor)

    def _refuse_other_choices(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            choices = self.choices.get(parameter.name, ())
            if choices and parameter.value not in choices:
                reason = f"{parameter.name} must be one of {', '.join(choices)}, not {parameter.value!r}"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)


def _refuse_non_finite(parameters: list[Parameter[Any]]) -> SetParametersResult:
    """Ranges refuse NaN; lists and numbers without a range would take it."""
    for parameter in parameters:
        values = parameter.value if isinstance(parameter.value, list | array) else [parameter.value]
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            return SetParametersResult(
                successful=False, reason=f"{parameter.name} must be a finite number, not {parameter.value}"
            )
    return SetParametersResult(successful=True)

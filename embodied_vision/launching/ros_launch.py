"""A graph as actions of the official `launch` and `launch_ros`, for the files in launch/.

The nodes start by `python -m`, so that the files work for pip and colcon installs alike: launch_ros finds an
executable by package and name only where colcon puts it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from embodied_vision.launching.environment import PROFILE, PROFILE_VARIABLES, THREAD_VARIABLES
from embodied_vision.launching.graph import LOG_LEVELS, PARAMETERS, NodeSpec

_SWITCH = ["true", "false"]
_RESPAWN_DELAY_S = 4.0
"""Longer than the lease of a participant: until then the others write into the ports of the one that died, and a new
one that comes up on them may hear nobody."""


def _common_arguments() -> list[DeclareLaunchArgument]:
    """Launch arguments with the names that users of nav2 know."""
    return [
        DeclareLaunchArgument("namespace", default_value="", description="ROS namespace of all nodes"),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=_SWITCH, description="nodes follow /clock"
        ),
        DeclareLaunchArgument(
            "params_file", default_value="", description=f"parameter YAML on top of the shipped {PARAMETERS}"
        ),
        DeclareLaunchArgument(
            "autostart", default_value="true", choices=_SWITCH, description="nodes configure and activate themselves"
        ),
        DeclareLaunchArgument(
            "use_respawn", default_value="false", choices=_SWITCH, description="start nodes that die again"
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", choices=list(LOG_LEVELS), description="least severity that is logged"
        ),
    ]


def _environment() -> list[Action]:
    """What every node needs, unless the user has set it."""
    wanted = {name: "1" for name in THREAD_VARIABLES} | {"PYTHONUNBUFFERED": "1"}
    if not any(name in os.environ for name in PROFILE_VARIABLES):
        wanted[PROFILE_VARIABLES[0]] = str(PROFILE)
    return [SetEnvironmentVariable(name, value) for name, value in wanted.items() if name not in os.environ]


class _Starter:
    """Makes the actions for one set of launch arguments."""

    def __init__(self, context: LaunchContext) -> None:
        self._context = context

    def argument(self, name: str) -> str:
        """Value of a launch argument."""
        return str(LaunchConfiguration(name).perform(self._context))

    def node(self, spec: NodeSpec, parameters: Mapping[str, Any], *, respawn: bool) -> Node:
        """The process of a node."""
        common = {name: self.argument(name) == "true" for name in ("use_sim_time", "autostart")}
        files = [str(PARAMETERS), *([self.argument("params_file")] if self.argument("params_file") else [])]
        return Node(
            executable=sys.executable,
            arguments=["-m", spec.module],
            exec_name=spec.name,
            name=spec.name,
            namespace=self.argument("namespace"),
            parameters=[*files, {**common, **parameters}],
            ros_arguments=["--log-level", self.argument("log_level")],
            output="screen",
            emulate_tty=True,
            respawn=respawn,
            respawn_delay=_RESPAWN_DELAY_S,
        )

    def actions(self, spec: NodeSpec, parameters: Mapping[str, Any]) -> list[Action]:
        """A node that is started again as wanted, with its respawn parameters when it has some."""
        wanted = self.argument("use_respawn") == "true"
        if not (wanted and spec.respawn):
            return [self.node(spec, parameters, respawn=wanted)]
        first = self.node(spec, parameters, respawn=False)

        def again(_event: ProcessExited, context: LaunchContext) -> list[Action]:
            if context.is_shutdown:
                return []
            node = self.node(spec, {**parameters, **spec.respawn}, respawn=True)
            return [TimerAction(period=_RESPAWN_DELAY_S, actions=[node])]

        return [first, RegisterEventHandler(OnProcessExit(target_action=first, on_exit=again))]


def describe(
    nodes: Sequence[NodeSpec], arguments: Mapping[str, str], parameters: Mapping[str, Mapping[str, str]]
) -> LaunchDescription:
    """Describe a graph.

    Args:
        nodes: the processes.
        arguments: launch arguments besides the common ones, name → description; empty by default.
        parameters: node → parameter → launch argument that sets it unless it is empty.
    """

    def start(context: LaunchContext) -> list[Action]:
        starter = _Starter(context)
        actions: list[Action] = []
        for spec in nodes:
            wanted = {name: starter.argument(source) for name, source in parameters.get(spec.name, {}).items()}
            actions += starter.actions(spec, {name: value for name, value in wanted.items() if value})
        return actions

    own = [DeclareLaunchArgument(name, default_value="", description=text) for name, text in arguments.items()]
    return LaunchDescription([*_common_arguments(), *own, *_environment(), OpaqueFunction(function=start)])

"""A graph as actions of the official `launch` and `launch_ros`, for the files in launch/.

The nodes start by `python -m`, so that the files work for pip and colcon installs alike: launch_ros finds an
executable by package and name only where colcon puts it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from embodied_vision.launching import die_with_parent
from embodied_vision.launching.arguments import COMMON, LAUNCHABLE, Argument
from embodied_vision.launching.environment import PROFILE, PROFILE_VARIABLES, RANGE, REACH, THREAD_VARIABLES
from embodied_vision.launching.graph import PARAMETERS, ProcessSpec, active_before, processes, write_parameters
from embodied_vision.launching.heartbeats import MODULE as MONITOR
from embodied_vision.launching.parameters import check_files

_RESTARTS = 3
_RESPAWN_DELAY_S = 4.0
"""Longer than the lease of a participant: until then the others write into the ports of the one that died, and a new
one that comes up on them may hear nobody."""


def _declare(argument: Argument) -> DeclareLaunchArgument:
    choices = list(argument.choices)
    if choices and not argument.default:
        choices.append("")
    return DeclareLaunchArgument(
        argument.name,
        default_value=argument.default,
        description=argument.description
        if argument.default
        else f"{argument.description}; empty: as in the parameters",
        choices=choices or None,
    )


def _environment() -> list[Action]:
    """What every node needs, unless the user has set it."""
    wanted = {name: "1" for name in THREAD_VARIABLES} | {"PYTHONUNBUFFERED": "1"}
    if not any(name in os.environ for name in PROFILE_VARIABLES):
        wanted[PROFILE_VARIABLES[0]] = str(PROFILE)
    if not any(name in os.environ for name in REACH):
        wanted[RANGE] = "LOCALHOST"
    return [SetEnvironmentVariable(name, value) for name, value in wanted.items() if name not in os.environ]


def _bound(*words: str) -> list[str]:
    """Arguments of a Python that ends with this process, and becomes a Python with these arguments."""
    return ["-I", "-S", die_with_parent.__file__, str(os.getpid()), sys.executable, *words]


class _Starter:
    """Makes the actions for one set of launch arguments.

    Raises:
        BadInput: an argument or a parameter file that the nodes do not take.
    """

    def __init__(self, name: str, context: LaunchContext) -> None:
        self._context = context
        texts = {argument.name: self.argument(argument.name) for argument in LAUNCHABLE[name].arguments}
        self._nodes = LAUNCHABLE[name].started(texts)
        self._files = [Path(self.argument("params_file"))] if self.argument("params_file") else []
        check_files(self._files, [node.name for node in self._nodes])
        self._parameters = LAUNCHABLE[name].parameters(texts)

    def argument(self, name: str) -> str:
        """Value of a launch argument."""
        return str(LaunchConfiguration(name).perform(self._context))

    def switch(self, name: str) -> bool:
        """Value of one that is true or false."""
        return self.argument(name) == "true"

    def _overrides(self, process: ProcessSpec, *, again: bool) -> Path:
        """The parameter file of a process: launch_ros deletes none of its own either."""
        values: dict[str, Mapping[str, Any]] = {
            "/**": {name: self.switch(name) for name in ("use_sim_time", "autostart")}
        }
        for node in process.nodes:
            first = active_before(node, self._nodes)
            values[f"/**/{node.name}"] = {
                **({"after": first} if first else {}),
                **self._parameters.get(node.name, {}),
                **(node.respawn if again else {}),
            }
        with tempfile.NamedTemporaryFile(prefix="embodied_vision_", suffix=".yaml", delete=False) as file:
            return write_parameters(Path(file.name), values)

    def _node(self, process: ProcessSpec, *, again: bool, respawn: bool) -> Node:
        return Node(
            executable=sys.executable,
            arguments=_bound(*process.arguments),
            exec_name=process.name,
            name=process.nodes[0].name if len(process.nodes) == 1 else None,
            namespace=self.argument("namespace"),
            parameters=[str(path) for path in (PARAMETERS, *self._files, self._overrides(process, again=again))],
            ros_arguments=["--log-level", self.argument("log_level")],
            output="screen",
            emulate_tty=True,
            respawn=respawn,
            respawn_delay=_RESPAWN_DELAY_S,
            respawn_max_retries=_RESTARTS,
        )

    def _process(self, process: ProcessSpec) -> list[Action]:
        """A process that is started again with its respawn parameters, or whose end is the end of all."""
        first = self._node(process, again=False, respawn=False)

        def ended(event: ProcessExited, context: LaunchContext) -> list[Action]:
            if context.is_shutdown:
                return []
            if not self.switch("use_respawn"):
                return [EmitEvent(event=Shutdown(reason=f"{process.name} ended with exit code {event.returncode}"))]
            return [TimerAction(period=_RESPAWN_DELAY_S, actions=[self._node(process, again=True, respawn=True)])]

        return [first, RegisterEventHandler(OnProcessExit(target_action=first, on_exit=ended))]

    def actions(self) -> list[Action]:
        """All processes, and the monitor that tells the health of the graph."""
        monitor = Node(
            executable=sys.executable,
            arguments=_bound("-m", MONITOR, *(node.name for node in self._nodes)),
            exec_name="monitor",
            name="monitor",
            namespace=self.argument("namespace"),
            output="log",
            respawn=True,
            respawn_delay=_RESPAWN_DELAY_S,
        )
        spread = processes(self._nodes, use_composition=self.switch("use_composition"))
        return [monitor, *(action for process in spread for action in self._process(process))]


def describe(name: str) -> LaunchDescription:
    """Describe the graph of this name, see `LAUNCHABLE`."""
    declared = [_declare(argument) for argument in (*COMMON, *LAUNCHABLE[name].arguments)]
    start = OpaqueFunction(function=lambda context: _Starter(name, context).actions())
    return LaunchDescription([*declared, *_environment(), start])

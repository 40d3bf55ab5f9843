"""DDS Security as ROS sets it up (SROS 2): asked for means enforced, or nothing starts. Never silently unprotected.

ROS itself goes on without protection when ROS_SECURITY_ENABLE is anything but `true`, and, unless the strategy is
`Enforce`, when it finds no keys.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from embodied_vision.errors import BadInput

ENABLE, STRATEGY, KEYSTORE, OVERRIDE = (
    "ROS_SECURITY_ENABLE",
    "ROS_SECURITY_STRATEGY",
    "ROS_SECURITY_KEYSTORE",
    "ROS_SECURITY_ENCLAVE_OVERRIDE",
)
VARIABLES = (ENABLE, STRATEGY, KEYSTORE, OVERRIDE)
_OFF = ("", "false")
_PROBE_S = 30.0
_PROBE = """
import sys, rclpy
rclpy.init(args=["--ros-args", "--enclave", sys.argv[1]])
rclpy.create_node("security_probe")
"""


def is_asked_for(variables: Mapping[str, str], enclave: str) -> bool:
    """Whether the graph shall be protected: by the environment, or by naming an enclave.

    Raises:
        BadInput: ROS would take the environment for a no that is surely none.
    """
    value = variables.get(ENABLE, "")
    if value not in (*_OFF, "true"):
        raise BadInput(f"{ENABLE}={value} is no yes to ROS, which would run unprotected; set it to true, or unset it")
    return value == "true" or bool(enclave)


def require_enforced(variables: Mapping[str, str]) -> None:
    """For a node: protection that is asked for is enforced by ROS.

    Raises:
        BadInput: ROS might run unprotected.
    """
    if is_asked_for(variables, "") and variables.get(STRATEGY) != "Enforce":
        found = variables.get(STRATEGY, "Permissive, the default")
        raise BadInput(f"{ENABLE}=true with {STRATEGY}={found} goes on without keys; set it to Enforce")


def enclave_of(enclave: str, process: str) -> str:
    """Enclave of a process: keys of its own below the graph's, so that each may do no more than it needs."""
    return f"/{enclave.strip('/')}/{process.replace('+', '_')}"


def enclave_arguments(enclave: str, process: str) -> list[str]:
    """ROS arguments that put a process into its enclave; none where the graph has none."""
    return ["--enclave", enclave_of(enclave, process)] if enclave else []


def secure(variables: Mapping[str, str], enclave: str, processes: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The environment of a protected graph, after it was tried; unchanged where no protection is asked for.

    Args:
        variables: environment of the processes.
        enclave: parent of the processes' enclaves, such as `/cell`; empty puts all into ROS' own default.
        processes: their names.

    Returns:
        The environment, and what was changed in it, in words.

    Raises:
        BadInput: protection is asked for and there is no keystore, an enclave is missing, or the middleware that is
            installed cannot protect.
    """
    made: dict[str, str] = dict(variables)
    notes: list[str] = []
    if not is_asked_for(variables, enclave):
        return made, notes
    made[ENABLE] = "true"
    if made.get(STRATEGY) != "Enforce":
        notes.append(f"{STRATEGY}=Enforce instead of {made.get(STRATEGY, 'Permissive, the default')}")
        made[STRATEGY] = "Enforce"
    store = made.get(KEYSTORE, "")
    if not store or not Path(store).is_dir():
        raise BadInput(f"{KEYSTORE}={store!r} is no folder; make one by `ros2 security create_keystore`")
    override = made.get(OVERRIDE, "")
    wanted = [enclave_of(enclave, process) for process in processes] if enclave else ["/"]
    wanted = [override] if override else wanted
    missing = [name for name in wanted if not (Path(store) / "enclaves" / name.strip("/")).is_dir()]
    if missing:
        raise BadInput(
            f"the keystore {store} has no enclave {', '.join(missing)}; make each with "
            f"`ros2 security create_enclave {store} {missing[0]}`"
        )
    _probe(made, wanted[0])
    return made, notes


def _probe(variables: Mapping[str, str], enclave: str) -> None:
    """Start a protected node: what the middleware cannot do it says then."""
    command = [sys.executable, "-c", _PROBE, enclave]
    try:
        done = subprocess.run(
            command, env=dict(variables), capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"a protected node did not come up within {_PROBE_S:g} s; check the keystore") from error
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if "RCLError" in line), done.stderr.strip()[-300:])
        raise BadInput(
            f"security is asked for, but a node in the enclave {enclave} does not start: {said.strip()}. Nothing was "
            f"started. Use a ROS whose middleware has DDS Security, such as the Debian packages, or unset {ENABLE}"
        )

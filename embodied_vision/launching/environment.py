"""The environment of every process that the product starts: ROS domain, transport, threads, logs."""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embodied_vision.errors import BadInput
from embodied_vision.launching.security import OVERRIDE as ENCLAVE_OVERRIDE
from embodied_vision.launching.security import VARIABLES as SECURITY_VARIABLES
from embodied_vision.launching.security import enclave_of, secure
from embodied_vision.launching.shared_memory import FOLDER as SHARED_MEMORY
from embodied_vision.launching.shared_memory import free_bytes
from embodied_vision.paths import PACKAGE

PROFILE = PACKAGE / "config" / "fastdds.xml"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

NAMESPACE_VARIABLE = "EMBODIED_VISION_NAMESPACE"
"""Tells `embodied-vision launch trigger` where the nodes of a run are."""

PARTICIPANTS = 12
"""Processes of a cell with tools beside it: they share /dev/shm."""

SMALLEST_SEGMENT = 1 << 20
"""Less than this does not hold one 640×480 image."""

_SOURCED = (
    "AMENT_PREFIX_PATH",
    "AMENT_CURRENT_PREFIX",
    "COLCON_PREFIX_PATH",
    "ROS_DISTRO",
    "ROS_VERSION",
    "ROS_PYTHON_VERSION",
    "ROS_PACKAGE_PATH",
    "ROS_ETC_DIR",
    "ROS_MASTER_URI",
)
REACH = ("ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
"""What makes a graph reach further than its range says, or less far."""

_SEARCH_PATHS = ("PYTHONPATH", "LD_LIBRARY_PATH")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
RANGE, PEERS = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS"
_SHOWN = ("ROS_DOMAIN_ID", RANGE, PEERS, "RMW_IMPLEMENTATION", *PROFILE_VARIABLES, *SECURITY_VARIABLES)

DISCOVERY = ("localhost", "subnet", "system_default")
"""How far a graph may be found; what each means is written in docs/security.md."""

_LOOPBACK = "<interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>"


@dataclass(frozen=True)
class Environment:
    """What a process is started with.

    Attributes:
        variables: the whole environment.
        notes: what was changed, kept or cleared against the user's own, one sentence each.
        enclave: parent of the processes' enclaves, empty where DDS Security is off.
    """

    variables: Mapping[str, str]
    notes: tuple[str, ...]
    enclave: str = ""

    def secured(self, enclave: str, processes: Sequence[str]) -> Environment:
        """The same, protected by DDS Security where that is asked for.

        Raises:
            BadInput: it cannot be; see `secure`.
        """
        variables, notes = secure(self.variables, enclave, processes)
        return Environment(variables, (*self.notes, *notes), enclave)

    @property
    def joined(self) -> Mapping[str, str]:
        """The environment of a tool beside the graph: it has an enclave of its own."""
        return {**self.variables, **({ENCLAVE_OVERRIDE: enclave_of(self.enclave, "tools")} if self.enclave else {})}

    def exports(self, namespace: str = "") -> str:
        """Shell lines that let a terminal join the same graph."""
        shown = {name: self.joined[name] for name in _SHOWN if name in self.joined}
        if namespace:
            shown[NAMESPACE_VARIABLE] = namespace
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in shown.items())


def rclpy_is_ours() -> bool:
    """Whether rclpy comes from wheels in this interpreter's own environment, not from a ROS installation."""
    return any((Path(sysconfig.get_path(key)) / "rclpy").is_dir() for key in ("purelib", "platlib"))


def _foreign_prefixes(variables: Mapping[str, str]) -> list[Path]:
    """Prefixes of ROS installations and workspaces outside our own environment."""
    named = [variables.get(name, "") for name in ("AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH")]
    prefixes = {Path(part) for value in named for part in value.split(os.pathsep) if part}
    return [*(p for p in prefixes if p.resolve() != Path(sys.prefix).resolve()), Path("/opt/ros")]


def _clear_sourced(variables: dict[str, str]) -> list[str]:
    """Take a sourced ROS, built for another Python, out of the environment."""
    notes = []
    foreign = _foreign_prefixes(variables)
    for name in _SEARCH_PATHS:
        parts = [part for part in variables.get(name, "").split(os.pathsep) if part]
        kept = [part for part in parts if not any(Path(part).is_relative_to(prefix) for prefix in foreign)]
        if len(kept) < len(parts):
            notes.append(f"cleared from {name}: {', '.join(part for part in parts if part not in kept)}")
            variables[name] = os.pathsep.join(kept)
            if not kept:
                del variables[name]
    for name in _SOURCED:
        value = variables.get(name)
        if value is not None and not (name == "AMENT_PREFIX_PATH" and Path(value) == Path(sys.prefix)):
            del variables[name]
            notes.append(f"cleared {name}={value}")
    rmw = variables.get("RMW_IMPLEMENTATION")
    if rmw is not None and not (Path(sys.prefix) / "lib" / f"lib{rmw}.so").exists():
        del variables["RMW_IMPLEMENTATION"]
        notes.append(f"cleared RMW_IMPLEMENTATION={rmw}: it is not installed in {sys.prefix}")
    if str(Path(sys.prefix) / "lib") not in variables.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        variables.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)  # the wheels find their libraries again
    if notes:
        notes.append("those belong to a sourced ROS; the ROS in use here comes from wheels in " + sys.prefix)
    return notes


def segment_bytes(free: int, wanted: int) -> int:
    """Shared-memory segment that leaves room for every participant; 0 where none is of use."""
    size = min(wanted, free * 8 // 10 // PARTICIPANTS)
    return size if size >= SMALLEST_SEGMENT else 0


def _profile(run_dir: Path, free: int, *, confined: bool) -> tuple[Path, list[str]]:
    """The shipped profile, or one in the run folder: its segments fit into /dev/shm, its sockets hear this machine."""
    text = PROFILE.read_text(encoding="utf-8")
    found = re.search(r"<segment_size>(\d+)</segment_size>", text)
    if found is None:
        raise BadInput(f"{PROFILE} lacks <segment_size>; install the package again")
    wanted = int(found.group(1))
    notes = []
    if confined:
        text = text.replace("<type>UDPv4</type>", f"<type>UDPv4</type>\n        {_LOOPBACK}", 1)
    size = segment_bytes(free, wanted)
    if size == wanted:
        note = ""
    elif size:
        text = text.replace(found.group(0), f"<segment_size>{size}</segment_size>")
        note = f"{SHARED_MEMORY} has {free >> 20} MB free: shared-memory segments of {size >> 10} kB instead of 64 MB"
    else:
        text = text.replace("<transport_id>shared_memory</transport_id>\n          ", "", 1)
        note = f"{SHARED_MEMORY} has {free >> 20} MB free: images go over UDP, and large ones may get lost"
    if note:
        notes.append(note + "; give the container more, such as --shm-size=1g")
    elif not confined:
        return PROFILE, []
    path = run_dir / "fastdds.xml"
    path.write_text(text, encoding="utf-8")
    return path, notes


def _transport(variables: dict[str, str], run_dir: Path) -> list[str]:
    rmw = variables.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    notes = []
    if "fastrtps" not in rmw:
        notes.append(f"RMW_IMPLEMENTATION={rmw} was kept: the Fast DDS profile has no effect, check that images arrive")
    for name in PROFILE_VARIABLES:
        given = variables.get(name)
        if given and not Path(given).is_file():
            raise BadInput(
                f"{name}={given} names no file, with which Fast DDS silently loses images; name a profile that is "
                f"there, or `unset {name}` for the shipped one"
            )
        if given:
            return [*notes, f"{name}={given} was kept instead of the shipped profile"]
    confined = variables[RANGE] == "LOCALHOST" and not any(variables.get(name) for name in REACH)
    path, profile_notes = _profile(run_dir, free_bytes(), confined=confined)
    variables[PROFILE_VARIABLES[0]] = str(path)
    return notes + profile_notes


def _reach(variables: dict[str, str], discovery: str, peers: Sequence[str]) -> list[str]:
    """Set how far the graph may be found."""
    notes = []
    cleared = {"localhost": REACH, "subnet": REACH[:1]}.get(discovery, ())
    for name in cleared:
        if name in variables:
            notes.append(f"cleared {name}={variables.pop(name)}: the graph is to be found by {discovery}")
    if discovery:
        variables[RANGE] = discovery.upper()
    else:
        variables.setdefault(RANGE, "LOCALHOST")
    if peers:
        variables[PEERS] = ";".join(peers)
    if variables[RANGE] not in ("LOCALHOST", "OFF") or variables.get(PEERS):
        others = f" and {variables[PEERS]}" if variables.get(PEERS) else ""
        notes.append(f"nodes on other machines can join: discovery {variables[RANGE]}{others}; see docs/security.md")
    return notes


def process_environment(
    run_dir: Path,
    domain: int,
    *,
    isolated: bool = True,
    discovery: str = "",
    peers: Sequence[str] = (),
    base: Mapping[str, str] | None = None,
) -> Environment:
    """Build the environment for the processes of one run.

    Args:
        run_dir: existing folder of the run; logs go below it.
        domain: ROS_DOMAIN_ID, held by the caller.
        isolated: keep the graph on this machine. Otherwise the user's discovery settings stay.
        discovery: one of `DISCOVERY`, wins over both; empty for neither.
        peers: hosts that may be found beside those.
        base: what to start from, the own environment by default.

    Raises:
        BadInput: there is no such discovery, or the user's Fast DDS profile is not there.
    """
    if discovery not in ("", *DISCOVERY):
        raise BadInput(f"discovery {discovery!r} is unknown; give one of {', '.join(DISCOVERY)}")
    variables = dict(os.environ if base is None else base)
    notes = _clear_sourced(variables) if rclpy_is_ours() else []
    if variables.get("ROS_DOMAIN_ID", str(domain)) != str(domain):
        notes.append(f"ROS_DOMAIN_ID={domain} instead of {variables['ROS_DOMAIN_ID']}")
    variables["ROS_DOMAIN_ID"] = str(domain)
    notes += _reach(variables, discovery or ("localhost" if isolated and not peers else ""), peers)
    notes += _transport(variables, run_dir)
    logs = run_dir / "logs" / "ros"
    logs.mkdir(parents=True, exist_ok=True)
    variables["ROS_LOG_DIR"] = str(logs)
    for name in THREAD_VARIABLES:
        variables.setdefault(name, "1")
    variables["PYTHONUNBUFFERED"] = "1"
    return Environment(variables, tuple(notes))

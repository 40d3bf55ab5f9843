"""All of the doctor's checks, in an order in which the first that fails explains later ones."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embodied_vision import topics
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.expected import Expected, expected
from embodied_vision.doctor.files import check_files
from embodied_vision.doctor.graph import check_graph
from embodied_vision.doctor.machine import check_machine, check_protection, check_transport
from embodied_vision.doctor.observation import Observation, observe
from embodied_vision.doctor.store import check_store
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import NAMESPACE_VARIABLE, process_environment
from embodied_vision.launching.parameters import check_files as check_parameters
from embodied_vision.launching.parameters import declared
from embodied_vision.launching.run_status import read_status


@dataclass(frozen=True)
class Run:
    """A graph that was launched here, or the terminal's own ROS environment.

    Attributes:
        variables: of the environment that joins it.
        namespace: of its nodes.
        params_files: parameters that the launch wrote down.
        folder: of the launch, None for a terminal's environment.

    Raises:
        BadInput: ROS_DOMAIN_ID is none.
    """

    variables: Mapping[str, str]
    namespace: str = ""
    params_files: Sequence[Path] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        text = self.variables.get("ROS_DOMAIN_ID", "") or "0"
        if not text.isdigit() or int(text) > 232:
            raise BadInput(f"ROS_DOMAIN_ID={text!r} is no ROS domain; give 0 to 232")

    @property
    def domain(self) -> int:
        """ROS domain of the graph."""
        return int(self.variables.get("ROS_DOMAIN_ID", "") or "0")


def run_at(run_dir: Path | None) -> Run:
    """The run of a folder that `launch` printed; without one, what this terminal is set up for.

    Raises:
        BadInput: the folder is of no run.
    """
    if run_dir is None:
        return Run(os.environ, os.environ.get(NAMESPACE_VARIABLE, ""))
    file = run_dir / "environment.sh"
    if not file.is_file():
        raise BadInput(f"{file} does not exist; give the folder of a run that was launched on this machine")
    words = shlex.split(file.read_text(encoding="utf-8"))
    exported = dict(word.split("=", 1) for word in words if "=" in word)
    overrides = run_dir / "overrides.yaml"
    files = (overrides,) if overrides.is_file() else ()
    return Run({**os.environ, **exported}, exported.get(NAMESPACE_VARIABLE, ""), files, run_dir)


def checks(run: Run, params_files: Sequence[Path], seconds: float) -> Iterator[Check]:
    """Everything: the machine, what the nodes will read, and a running graph.

    Args:
        run: where to look for a graph.
        params_files: parameter files on top of the shipped one, as for `launch`.
        seconds: how long to listen to the graph; 0 leaves it alone.

    Raises:
        BadInput: a parameter file cannot be read, or holds what no node takes.
    """
    check_parameters((*params_files, *run.params_files), list(declared()))
    wanted = expected((*params_files, *run.params_files), run.namespace)
    yield from check_machine()
    transport = _transport()
    yield from transport
    yield check_protection(run.variables)
    runs = True
    if run.folder is not None:
        state, runs = _state(run.folder)
        yield state
    seen: Observation | None = None
    if seconds > 0 and runs and all(check.ok for check in transport if check.name == "rclpy"):
        found = _look(run, wanted, seconds)
        if isinstance(found, Check):
            yield found
        else:
            seen, wanted = found, wanted.updated(found.parameters)
    yield from check_files(wanted)
    yield from check_store(wanted, {} if seen is None else _rates(seen))
    if seen is not None:
        yield from check_graph(seen, wanted)


def _transport() -> list[Check]:
    try:
        with hold_free_domain() as lock, tempfile.TemporaryDirectory() as folder:
            return list(check_transport(process_environment(Path(folder), lock.domain)))
    except (EmbodiedVisionError, OSError) as error:
        remedy = "free space for temporary files, or set TMPDIR" if isinstance(error, OSError) else ""
        return [Check("rclpy", False, f"cannot be tried: {error}", remedy)]


def _state(folder: Path) -> tuple[Check, bool]:
    """How a launch does, by its own account, and whether its domain is still its own."""
    try:
        status = read_status(folder)
    except BadInput as error:
        return Check("run", False, str(error), "is its disk full?"), True
    if status.phase != "running":
        value = f"{folder} {status.phase}: {status.failure or 'stopped'}"
        return Check("run", False, value, "launch it again; its domain may be another graph's by now"), False
    wrong = "; ".join(status.wrong)
    return Check("run", status.level != "error", wrong or "all nodes are well", "see below" if wrong else ""), True


def _look(run: Run, wanted: Expected, seconds: float) -> Observation | Check:
    """What was seen of the graph; a check where there is none or it cannot be looked at."""
    reach = run.variables.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    where = f"ROS domain {run.domain}, discovery {reach}"
    cameras = sorted({*wanted.names("arm", "cameras"), *wanted.names("encoder", "cameras")})
    try:
        with tempfile.TemporaryDirectory() as folder:
            joined = process_environment(Path(folder), run.domain, isolated=False, base=run.variables)
            seen = observe(joined.variables, wanted.namespace, cameras, seconds, wanted.transports)
    except (EmbodiedVisionError, OSError) as error:
        return Check("graph", False, str(error), "look at the checks of rclpy, the profile and shared memory")
    if seen.nodes:
        return seen
    remedy = "start one with `embodied-vision launch` and give its folder with --run, or source its environment.sh"
    return Check("graph", True, f"nobody in {where}", remedy)


def _rates(seen: Observation) -> dict[str, float]:
    """Camera → frames a second."""
    end = topics.color_info("")
    return {t.removesuffix(end): heard.rate_hz for t, heard in seen.streams.items() if t.endswith(end)}

"""The table of faults: what breaks, what the graph does then, within which time. Tests and docs/faults.md hold to it.

`python -m tests.system.faults_table RESULTS` prints what a run measured beside it, and fails where a fault was not
tried; `python -m tests.system.faults_table --write` puts the table into docs/faults.md.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- table of faults: begin -->", "<!-- table of faults: end -->"
ALL = "EMBODIED_VISION_FAULTS"
"""With the value `all` this environment variable has every fault tried, else those of the ordinary test run."""
RESULTS = "EMBODIED_VISION_FAULT_RESULTS"
"""A file to which every fault that was tried adds a JSON line."""

GONE_S = 0.25
"""Longest time from the end of a process, or of the joint states, to the last trajectory that is sent."""
BLIND_S = 3 / 15 + 0.1
"""The same for a camera: three periods and 0.1 s, at the simulated camera's 15 frames a second."""
STANDS_S = 0.5
"""Longest time from a fault to the standstill of the arm, at the driver."""
DISK_S = 1.0
"""A full disk is noticed when the writer's next file fails; then the recorder ends."""

HALTS = "halts; goes on where it was when all is well within 3 s"
RESTARTS = "halts; the node is started again, the arm goes home and the scene begins again"
PAST_BRAKE = "halts; the driver then ends the horizon it had, beyond the brake, and the scene begins again"
LATCHES = "halts and stays stopped until `arm/resume`"
UNHARMED = "goes on"


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Attributes:
        name: of the fault, as the tests call it.
        what: breaks, in words.
        reaction: of the graph, in words.
        halt_s: longest time to the last trajectory; None where nothing has to halt.
        stands_s: longest time to standstill; None where nothing has to halt or nobody is left to tell.
        often: tried in every test run, not in `make faults` alone.
        says: what the arm gives as the reason.
    """

    name: str
    what: str
    reaction: str
    halt_s: float | None = None
    stands_s: float | None = None
    often: bool = False
    says: str = ""


def _halt(name: str, what: str, says: str, halt_s: float, reaction: str = HALTS, *, often: bool = False) -> Fault:
    return Fault(name, what, reaction, halt_s, STANDS_S, often, says)


FAULTS = (
    _halt("kill encoder", "`kill -9` of the encoder", "encoder", GONE_S, RESTARTS, often=True),
    _halt("kill policy", "of the policy", "policy", GONE_S, RESTARTS),
    _halt("kill recorder", "of the recorder", "recorder", GONE_S, RESTARTS),
    _halt("kill task", "of the task node", "task", GONE_S, "halts; the run is over, `task/run` begins a new one"),
    _halt(
        "kill arm",
        "of the arm node",
        "started again",
        GONE_S,
        "brakes by the horizon sent last; " + LATCHES,
        often=True,
    ),
    Fault("kill cell", "of cameras and driver", RESTARTS + "; no trajectory before that", GONE_S, says="joint_states"),
    Fault("kill monitor", "of the supervisor's monitor", UNHARMED + "; the monitor is started again"),
    _halt(
        "kill supervisor", "of the supervisor", "", GONE_S, "brakes by the horizon sent last; all nodes end", often=True
    ),
    _halt("stop encoder", "`kill -STOP` of the encoder for 1 s", "encoder", GONE_S),
    _halt("stop policy", "of the policy", "policy", GONE_S),
    _halt("stop recorder", "of the recorder", "recorder", GONE_S),
    _halt("stop task", "of the task node", "task", GONE_S),
    _halt("stop arm", "of the arm node", "", GONE_S, "brakes by the horizon sent last; goes on where it was"),
    Fault("stop cell", "of cameras and driver", PAST_BRAKE, GONE_S, says="joint_states"),
    Fault("stop monitor", "of the supervisor's monitor", UNHARMED + "; the monitor is replaced"),
    Fault("stop supervisor", "of the supervisor for 3 s", UNHARMED),
    _halt("hang encoder", "`kill -STOP` of the encoder for good", "encoder", GONE_S, "as for `kill -9`, after 15 s"),
    _halt("camera silent", "the camera falls silent", "camera", BLIND_S, often=True),
    _halt("camera image silent", "`camera_info` comes on, but no image", "no image", BLIND_S + 1 / 15),
    _halt("camera frozen", "the same picture again, under new stamps", "stays the same", BLIND_S, often=True),
    _halt("camera stuck", "the same message again, stamp and all", "stand still", BLIND_S),
    _halt("camera black", "black pictures", "black", BLIND_S),
    _halt("camera cropped", "pictures of another size", "calibrate at the size", BLIND_S),
    _halt("camera encoding", "pictures in an encoding that is no color", "encoding", BLIND_S),
    _halt("camera truncated", "fewer bytes than the picture's size needs", "too few", BLIND_S),
    _halt("camera back", "stamps jump back by 10 s", "went back", BLIND_S),
    _halt("camera slow", "1 frame a second", "camera", BLIND_S),
    Fault("camera depthless", "no returns in the depth image", "no decision, until they are back", says="no returns"),
    _halt("joints silent", "the joint states fall silent", "joint_states", GONE_S, often=True),
    _halt("joints nan", "a joint is at NaN", "joint", GONE_S, "halts; gives the motion up", often=True),
    _halt("joints missing", "a joint is missing", "joint_states", GONE_S),
    _halt("joints unknown", "joints of other names", "joint_states", GONE_S),
    _halt("joints back", "stamps of joint states jump back by 10 s", "joint", GONE_S),
    Fault("joints permuted", "joints in another order", UNHARMED),
    Fault("joints split", "joints in several messages, beside those of others", UNHARMED, often=True),
    Fault("joints two topics", "joints on two topics (`joint_state_topics`)", UNHARMED),
    Fault(
        "policy nan", "a decision with NaN in it", "refuses it, sends nothing; the scene counts as failed", often=True
    ),
    Fault(
        "policy outside", "a decision outside the workspace", "refuses it, sends nothing; the scene counts as failed"
    ),
    Fault("policy hasty", "50 decisions a second while the arm moves", "refuses them; goes on with the first"),
    _halt(
        "second driver", "somebody else publishes on `arm/joint_trajectory`", "publishes", STANDS_S, LATCHES, often=True
    ),
    _halt("second policy", "somebody else publishes decisions", "publishes", STANDS_S, LATCHES),
    _halt("clock set", "the system's clock is set back by 5 s", "clock", GONE_S),
    _halt("full disk", "the disk takes no more", "recorder", GONE_S + DISK_S, RESTARTS, often=True),
    _halt("other domain", "the encoder comes up in another ROS domain", "encoder", GONE_S, "halts and begins nothing"),
    _halt("cell unreachable", "nothing of cameras and driver arrives", "joint_states", BLIND_S),
    _halt("clock stands", "`/clock` stands still under `use_sim_time`", "clock", GONE_S),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


def tried(*prefixes: str, unless: Callable[[Fault], object] = lambda _fault: False) -> Callable[..., Any]:
    """Has a test try the faults whose names begin so: those of the ordinary run, or all where that is asked for.

    A test of none of them is no test then.
    """
    everything = os.environ.get(ALL) == "all"
    names = [
        fault.name
        for fault in FAULTS
        if fault.name.startswith(prefixes) and not unless(fault) and (fault.often or everything)
    ]
    return pytest.mark.parametrize("name", names) if names else lambda _test: None


def note(name: str, halt_s: float, stands_s: float) -> None:
    """Keep what was measured for a fault, where a file for it is named."""
    if path := os.environ.get(RESULTS):
        line = {"fault": name, "halt_s": round(halt_s, 3), "stands_s": round(stands_s, 3)}
        with Path(path).open("a", encoding="utf-8") as file:
            print(json.dumps(line), file=file)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def markdown() -> str:
    """The table as it stands in docs/faults.md."""
    rows = [
        f"| {fault.what} | {fault.reaction} | {_seconds(fault.halt_s)} | {_seconds(fault.stands_s)} |"
        for fault in FAULTS
    ]
    return "\n".join(["| fault | the graph | halt within | arm stands within |", "| --- | --- | --- | --- |", *rows])


def with_table(page: str) -> str:
    """A page with the table between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


def report(lines: Iterable[str]) -> tuple[str, list[str]]:
    """What was measured beside what is allowed, and the names of the faults that were not tried."""
    measured: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        result = json.loads(line)
        measured[result["fault"]] = result
    rows = [f"{'fault':22} {'halt':>8} {'within':>7} {'stands':>7} {'within':>7}  reaction"]
    for fault in FAULTS:
        result = measured.get(fault.name)
        if result is None:
            halt, stands = "untried", ""
        elif fault.halt_s is None:
            halt, stands = "-", "-"
        else:
            halt, stands = f"{result['halt_s']:.2f}", f"{result['stands_s']:.2f}"
        bounds = ["-" if bound is None else f"{bound:.2f}" for bound in (fault.halt_s, fault.stands_s)]
        rows.append(f"{fault.name:22} {halt:>8} {bounds[0]:>7} {stands:>7} {bounds[1]:>7}  {fault.reaction}")
    return "\n".join(rows), [fault.name for fault in FAULTS if fault.name not in measured]


def main(arguments: list[str]) -> int:
    """See the module's first lines."""
    if arguments == ["--write"]:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    text, untried = report(Path(arguments[0]).read_text(encoding="utf-8").splitlines())
    print(text)
    if untried:
        print(f"not tried, or failed: {', '.join(untried)}", file=sys.stderr)
    return 1 if untried else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

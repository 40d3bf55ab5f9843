"""The guard against random and adversarial commands, each judged by a check that is written in another way.

`make bench-guard` tries 100,000 commands over eight seeds and five robots, `make bench-guard SMALL=1` 400. A command
that breaks a rule by more than the stated margin must be refused, one that keeps all rules by the margin must be
accepted, and a refusal must name a rule that is broken or nearly so. It fails when one of them is not so.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
import typer
from fuzz.commands import Command, Commands, random_boxes
from fuzz.judge import Judge, Verdict
from rich.console import Console
from rich.table import Table

from embodied_vision.control.guard import Guard, GuardSettings
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import Refused
from embodied_vision.types import PickPlace, Workspace

ROBOTS = ("panda_suction", "panda_parallel_jaw", "kuka_iiwa_spatula", "kuka_iiwa_parallel_jaw", "ur5e_parallel_jaw")
BOXES = 3
DECISIONS = 0.3
"""Share of the commands that are decisions; the others are trajectories."""
TIGHT, WIDE = GuardSettings(), GuardSettings(ceiling_m=2.0, path_margin_m=2.0, clearance_m=0.01, body_height_m=0.001)
"""With the second the bodies are what ends most ways, not the box of the tip."""
START_NS = 1_700_000_000_000_000_000
SPACE = {"table": "table", "self_collision": "contact", "keep_out": "contact", "workspace": "workspace"}
SAME = {"stale_observation": "stale", "stale_joint_state": "stale", **SPACE}


@dataclass
class Tally:
    """How the commands of a seed went.

    Attributes:
        by_kind: commands by kind and outcome: refused, accepted.
        by_rule: refusals by rule.
        undecided: commands within the margins of these rules and no others, where either answer is right.
        wrong: what went wrong, in words.
        seconds: processor time in the guard of each command as planned.
    """

    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_rule: Counter[str] = field(default_factory=Counter)
    undecided: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Trial:
    """One guard, its commands and its judge."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        name = ROBOTS[seed % len(ROBOTS)]
        keep_out = random_boxes(rng, BOXES) if seed % 2 else []
        self.seed, self.rng, self.settings = seed, rng, TIGHT if seed % 8 < 4 else WIDE
        self.guard = Guard(RobotModel.load(name), Workspace(), self.settings, keep_out)
        self.judge = Judge(name, Workspace(), self.settings, keep_out)
        self.commands = Commands(RobotModel.load(name), keep_out, self.settings.clearance_m, rng)
        self.now_ns, self.newest_ns = START_NS, {"decision": -1, "trajectory": -1}
        self.tally = Tally()

    def run(self, count: int) -> Tally:
        """Try so many commands."""
        for number in range(count):
            self.now_ns += int(self.rng.integers(50_000_000, 300_000_000))
            if self.rng.random() < DECISIONS:
                self._decide(
                    number, self.commands.decision(self.now_ns - int(self.rng.integers(0, 10**8)), self.now_ns)
                )
            else:
                self._move(number, self.commands.draw())
        return self.tally

    def _decide(self, number: int, action: PickPlace) -> None:
        refusal = _answer(lambda: self.guard.check_action(action, self.now_ns))
        verdict = self.judge.decision(action, self.now_ns, self.newest_ns["decision"])
        self._note(number, "decision", refusal, verdict, action.stamp_ns)

    def _move(self, number: int, command: Command) -> None:
        stamp_ns = self.now_ns - command.age_ns
        given = Trajectory(*(part.copy() for part in command.parts))
        begun = time.thread_time()
        refusal = _answer(
            lambda: self.guard.check_trajectory(given, command.q_now, stamp_ns, self.now_ns, command.brake_s)
        )
        if command.kind == "as planned":
            self.tally.seconds.append(time.thread_time() - begun)
        in_space = refusal is not None and refusal.rule in SPACE
        newest_ns = self.newest_ns["trajectory"]
        verdict = self.judge.trajectory(
            command.parts, command.q_now, stamp_ns, self.now_ns, newest_ns, command.brake_s, in_space
        )
        self._note(number, command.kind, refusal, verdict, stamp_ns)

    def _note(self, number: int, kind: str, refusal: Refused | None, verdict: Verdict, stamp_ns: int) -> None:
        tally, place = self.tally, f"seed {self.seed}, command {number} ({kind})"
        tally.by_kind[kind, "accepted" if refusal is None else "refused"] += 1
        if verdict.near and not verdict.violated:
            tally.undecided[", ".join(sorted(set(verdict.near)))] += 1
        if refusal is None:
            self.newest_ns["decision" if kind == "decision" else "trajectory"] = stamp_ns
            if verdict.violated:
                tally.wrong.append(f"{place}: accepted, though it breaks {sorted(set(verdict.violated))}")
            return
        tally.by_rule[refusal.rule] += 1
        if SAME.get(refusal.rule, refusal.rule) not in verdict.near:
            tally.wrong.append(f"{place}: refused, though it keeps the rule by the margin: {refusal}")


def _answer(check: Callable[[], None]) -> Refused | None:
    try:
        check()
    except Refused as refusal:
        return refusal
    return None


def run_seed(seed: int, count: int) -> Tally:
    """A trial in a process of its own."""
    with np.errstate(all="ignore"):
        return Trial(seed).run(count)


def main(
    commands: int = typer.Option(100_000, min=8, help="Commands altogether."),
    seeds: int = typer.Option(8, min=1, help="Number of seeds among which they are divided."),
    first_seed: int = typer.Option(0, min=0, help="The first of them."),
    workers: int = typer.Option(1, min=1, help="Processes at once."),
) -> None:
    """Try the guard and print one JSON line a figure; exit code 1 when it was wrong once."""
    console = Console(stderr=True)
    jobs = [(first_seed + index, commands // seeds) for index in range(seeds)]
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            tallies = list(pool.map(run_seed, *zip(*jobs, strict=True)))
    else:
        tallies = [run_seed(*job) for job in jobs]
    by_kind, by_rule, undecided = (
        sum((getattr(tally, name) for tally in tallies), Counter()) for name in ("by_kind", "by_rule", "undecided")
    )
    table = Table("command", "accepted", "refused")
    for kind in sorted({kind for kind, _ in by_kind}):
        table.add_row(kind, str(by_kind[kind, "accepted"]), str(by_kind[kind, "refused"]))
    console.print(table)
    console.print("refused by " + ", ".join(f"{rule} {count}" for rule, count in by_rule.most_common()))
    console.print("either is right at " + "; ".join(f"{rules} {count}" for rules, count in undecided.most_common()))
    wrong = [words for tally in tallies for words in tally.wrong]
    for words in wrong[:20]:
        console.print(words)
    tried = sum(by_kind.values())
    _print("commands judged wrongly", len(wrong), "1", "commands", tried)
    _print("commands where either answer is right", undecided.total(), "1", "commands", tried)
    accepted = sum(count for (_, outcome), count in by_kind.items() if outcome == "accepted")
    _print("commands accepted", accepted, "1", "commands", tried)
    milliseconds = 1e3 * np.percentile(np.concatenate([t.seconds for t in tallies]), [50, 99])
    _print("processor time in the guard, median", float(milliseconds[0]), "ms", "budget of a horizon", 3.0)
    _print("processor time in the guard, p99", float(milliseconds[1]), "ms", "budget of a horizon", 3.0)
    sys.exit(1 if wrong else 0)


def _print(figure: str, value: float, unit: str, reference: str, reference_value: float) -> None:
    line = {"bench": "guard", "figure": figure, "value": round(value, 3), "unit": unit}
    line |= {"reference": reference, "reference_value": reference_value}
    print(json.dumps({**line, "ratio": round(value / reference_value, 6)}), flush=True)


if __name__ == "__main__":
    typer.run(main)

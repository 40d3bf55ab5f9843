"""A learner beside the work: takes closed episodes as they come, has them learnt from, and tells what came of it.

It waits until enough episodes have arrived that teach, then has `learner_round` learn from them in a process of its
own that gives way to everything else. Any of the two may be killed at any time: `watch.Journal` tells what is done.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from embodied_vision import locks
from embodied_vision.episodes.space import free_bytes
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EmbodiedVisionError, RunFailed
from embodied_vision.launching.environment import THREAD_VARIABLES
from embodied_vision.launching.process import ManagedProcess, describe_exit
from embodied_vision.learning import canary
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner_round import RoundSpec
from embodied_vision.learning.promotion import CURRENT, Pointer
from embodied_vision.learning.watch import STREAK, Arrivals, Choice, Journal, choose
from embodied_vision.policies import checkpoint as checkpoints

ROUND = "embodied_vision.learning.learner_round"
MOST_PATIENCE_S = 900.0
"""After failed rounds the next one waits longer and longer, up to this."""

_MB = 1_000_000
State = Literal["watching", "learning", "short of room", "failed"]


@dataclass(frozen=True)
class LearnerConfig:
    """When to learn, and how.

    Attributes:
        tasks: names of the tasks to learn; empty for all whose episodes come.
        every: so many episodes must wait before a round begins, see `watch.choose`.
        streak: so many solved episodes in a row show that a policy has nothing to learn from its own work.
        poll_s: time between two looks at the store.
        retry_s: after a failed round the next one waits so long, twice as long after the second, and so on.
        min_free_mb: no round begins with less room on the disk of the policies.
        learn: of a round.
    """

    tasks: tuple[str, ...] = ()
    every: int = 5
    streak: int = STREAK
    poll_s: float = 1.0
    retry_s: float = 30.0
    min_free_mb: float = 200.0
    learn: LearnConfig = field(default_factory=lambda: LearnConfig(threads=1))

    def __post_init__(self) -> None:
        for name in ("every", "streak", "poll_s", "retry_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} is {getattr(self, name)}; give more than 0")


@dataclass(frozen=True)
class Status:
    """How it goes.

    Attributes:
        state: what it does.
        task: that is being learnt, empty between rounds.
        phase: of the round, with its `done` of `total` steps or scenes.
        seen, waiting: task → closed episodes, and those of them that wait to be learnt from.
        rounds, promoted, refused, failed: rounds that ended since the start, and how.
        outcome: of the last round that came to one.
        canaries: task → how the policy that was promoted last stands its test in use, see `canary`.
        error: what is wrong, and the remedy; empty when nothing is.
        damaged: number of episodes that cannot be read.
    """

    state: State = "watching"
    task: str = ""
    phase: str = ""
    done: int = 0
    total: int = 0
    seen: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    rounds: int = 0
    promoted: int = 0
    refused: int = 0
    failed: int = 0
    outcome: Mapping[str, Any] = field(default_factory=dict)
    canaries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    error: str = ""
    damaged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


class Learner:
    """Watches one store, inside a `with` block; of several learners all but the first are refused.

    Args:
        store: folder of the episodes.
        policies: folder of pointers and checkpoints, see `promotion`.
        config: when and how.
        encoder: name or folder of the encoder.
        on_status: called from `run` with every change.
        on_outcome: called from `run` when a round came to an outcome.
    """

    def __init__(
        self,
        store: Path,
        policies: Path,
        config: LearnerConfig,
        *,
        encoder: str = "default",
        on_status: Callable[[Status], None] = lambda _: None,
        on_outcome: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> None:
        self._store, self._policies = EpisodeStore(store.absolute()), policies.absolute()
        self._config, self._encoder = config, encoder
        self._on_status, self._on_outcome = on_status, on_outcome
        self._arrivals = Arrivals(self._store)
        self._status = Status()
        self._stop, self._now = threading.Event(), threading.Event()
        self._failures, self._not_before_s, self._looked_s = 0, 0.0, 0.0
        self._choices: dict[str, Choice] = {}
        self._basis: tuple[str | None, ...] = ()
        """What the choices stand on beside the episodes; empty when they are to be made anew."""
        self._held = ExitStack()

    def __enter__(self) -> Learner:
        """Keep other learners out.

        Raises:
            RunFailed: another one watches this store.
            BadInput: the store's folder cannot be written.
        """
        busy = f"another learner watches {self._store.path}; end it, or give this one a store of its own"
        self._held.enter_context(locks.exclusive(self._store.path / "locks" / "learner", busy))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def stop(self) -> None:
        """Have `run` return soon, a running round being broken off; may be called from any thread."""
        self._stop.set()

    def learn_now(self) -> None:
        """Begin a round at the next look with whatever waits, without waiting for more; from any thread."""
        self._now.set()

    def run(self, *, once: bool = False) -> Status:
        """Watch and learn until `stop`; a round's process ends with the thread that calls this.

        Args:
            once: return as soon as nothing is left that would begin a round.

        Raises:
            EmbodiedVisionError: with `once`, a round failed.
        """
        while not self._stop.is_set():
            try:
                worked = self._look()
            except EmbodiedVisionError as error:
                if once:
                    raise
                self._failed(error)
                worked = False
            if once and not worked:
                break
            if not worked:
                self._stop.wait(self._config.poll_s)
        return self._status

    # ---- one look

    @property
    def _tasks(self) -> tuple[str, ...]:
        return self._config.tasks or tuple(sorted(self._arrivals.seen))

    def _take_arrivals(self) -> None:
        """See what was closed, and take a promoted policy back if its episodes speak against it."""
        self._looked_s = time.monotonic()
        if not self._arrivals.look():
            return
        self._basis = ()
        for task in self._tasks:
            pointer = Pointer(self._policies, task)
            if pointer.current is not None:
                state = canary.check(pointer, self._store)
                self._say(canaries={**self._status.canaries, task: {"word": state.word, "reason": state.reason}})

    def _look(self) -> bool:
        """Learn from what waits, if that is enough; whether there was a round."""
        self._take_arrivals()
        tasks = self._tasks
        basis = tuple(Pointer(self._policies, task).current for task in tasks)
        if basis != self._basis or not basis:
            self._choices, self._basis = {task: self._choice(task) for task in tasks}, basis
        choices = self._choices
        self._say(
            seen={task: len(episodes) for task, episodes in self._arrivals.seen.items()},
            waiting={task: len(choice.new) for task, choice in choices.items()},
            damaged=len(self._arrivals.damaged),
        )
        asked = self._now.is_set()
        if not asked and time.monotonic() < self._not_before_s:
            return False
        self._now.clear()
        least = 1 if asked else self._config.every
        ready = [task for task in tasks if len(choices[task].new) >= least]
        if not ready:
            if self._status.state != "watching":
                self._say(state="watching", error="")
            return False
        free = free_bytes(self._policies)
        if free < self._config.min_free_mb * _MB:
            self._say(
                state="short of room",
                error=f"no round begins: {free // _MB} MB are free for {self._policies}, {self._config.min_free_mb:g} "
                "are asked for (min_free_mb); free space",
            )
            return False
        for task in ready:
            if not self._stop.is_set():
                self._round(task, choices[task])
        return True

    def _choice(self, task: str) -> Choice:
        folder = self._policies / task
        current = folder / CURRENT
        training = checkpoints.read_manifest(current).get("training", {}) if current.exists() else {}
        done = set(training.get("episodes", ())) | Journal(folder).consumed()
        return choose(
            self._arrivals.seen.get(task, ()), done, streak=self._config.streak, holdout=self._config.learn.holdout
        )

    # ---- one round

    def _round(self, task: str, choice: Choice) -> None:
        journal = Journal(self._policies / task)
        self._basis = ()
        round_id = journal.begin(choice.new)
        spec = RoundSpec(
            task=task,
            store=str(self._store.path),
            policies=str(self._policies),
            encoder=self._encoder,
            fresh=list(choice.fresh),
            rehearsal=list(choice.rehearsal),
            failed=list(choice.failed),
            # What the policy in use did before its trouble is no measure for the one that is to end it.
            config=replace(self._config.learn, canary=0) if choice.trouble else self._config.learn,
        )
        self._say(state="learning", task=task, phase="loading", done=0, total=0, error="")
        try:
            outcome = self._process(spec)
        except EmbodiedVisionError as error:
            if not self._stop.is_set():
                with suppress(BadInput):  # a full disk: the round counts as broken off, which is the same
                    journal.fail(round_id, str(error))
            raise
        if outcome is None:
            return
        journal.end(round_id, choice.new, outcome)
        self._failures = 0
        decision = str(outcome["decision"])
        self._say(
            state="watching",
            task="",
            phase="",
            rounds=self._status.rounds + 1,
            promoted=self._status.promoted + (decision == "promoted"),
            refused=self._status.refused + (decision != "promoted"),
            outcome=outcome,
        )
        self._on_outcome(outcome)

    def _process(self, spec: RoundSpec) -> dict[str, Any] | None:
        """The outcome of a round in a process of its own; None when `stop` broke it off.

        Raises:
            RunFailed: it died, or said that it failed.
        """
        folder = self._policies / spec.task
        log, wanted = folder / "learner.log", folder / "learner_round.json"
        try:
            log.write_bytes(b"")  # of the last round alone
            wanted.write_text(spec.to_json(), encoding="utf-8")
        except OSError as error:
            raise RunFailed(f"{folder} cannot be written ({error.strerror}); free space or fix the disk") from error
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        child = ManagedProcess(
            f"learner of {spec.task}", [sys.executable, "-m", ROUND, str(wanted)], environment, log, read=True
        )
        try:
            last = self._follow(child)
        except EmbodiedVisionError:
            child.send(signal.SIGKILL)
            raise
        if self._stop.is_set() or not child.wait(10.0):
            child.send(signal.SIGKILL)
            child.wait(10.0)
        child.output.close()
        if "outcome" in last:
            return dict(last["outcome"])
        if self._stop.is_set():
            return None
        if "error" in last:
            raise RunFailed(str(last["error"]))
        code = child.exit_code()
        how = describe_exit(code) if code is not None else "it does not end"
        raise RunFailed(f"the round of {spec.task} died ({how}) and is done again; {log} ends: {child.last_lines(3)}")

    def _follow(self, child: ManagedProcess) -> dict[str, Any]:
        """The last report of a round, when it ends or `stop` is asked for; the store is watched meanwhile."""
        last: dict[str, Any] = {}
        pipe, half = child.output.fileno(), b""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not self._stop.is_set():
                if time.monotonic() > self._looked_s + self._config.poll_s:
                    self._take_arrivals()
                if not selector.select(0.2):
                    continue
                read = os.read(pipe, 1 << 16)  # not readline, which keeps further lines where select does not see them
                if not read:
                    break
                *lines, half = (half + read).split(b"\n")
                for line in lines:
                    last = _report(line) or last
                if "phase" in last:
                    self._say(phase=last["phase"], done=last["done"], total=last["total"])
        return last

    def _failed(self, error: EmbodiedVisionError) -> None:
        """Try again later, and ever later."""
        self._failures += 1
        patience_s = min(self._config.retry_s * 2 ** (self._failures - 1), MOST_PATIENCE_S)
        self._not_before_s = time.monotonic() + patience_s
        again = f"{error}; tried again in {patience_s:g} s"
        self._say(state="failed", task="", phase="", failed=self._status.failed + 1, error=again)

    def _say(self, **changes: Any) -> None:
        new = replace(self._status, **changes)
        if new != self._status:
            self._status = new
            self._on_status(new)


def _report(line: bytes) -> dict[str, Any] | None:
    try:
        report = json.loads(line)
    except ValueError:
        return None  # what a library printed
    return report if isinstance(report, dict) else None

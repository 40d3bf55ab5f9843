"""The loop of work: decisions until a scene is solved, its outcome, the next scene; and a way on when it breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from embodied_vision.errors import RunFailed

PASSING = frozenset({"stale_observation", "stale_joint_state", "lost", "moving", "busy", "jump"})
"""Rules that a decision breaks by coming at the wrong moment, not by what it asks for: decide again."""

ROUNDS = 5
"""Decisions in a row that may come at the wrong moment before the episode counts as interrupted."""


KEPT = 100
"""Scenes whose seeds and results `Progress` names one by one: it is told with every step, of runs of any length."""


class Interrupted(RunFailed):
    """Something that the episode depends on failed; the scene can be tried again."""


@dataclass(frozen=True)
class Outcome:
    """What the cell says about its scene, at rest.

    Attributes:
        seed: of the scene.
        reward: score of the task, 0 … 1.
        solved: whether nothing is left to do.
        stamp_ns: when it was judged.
        max_steps: how many actions the task allows.
        raw: the cell's own words, kept with the episode.
        over: why the scene ends here though it is not solved, as when nobody knows how it stands; empty to go on.
    """

    seed: int
    reward: float
    solved: bool
    stamp_ns: int
    max_steps: int
    raw: Mapping[str, Any] = field(default_factory=dict)
    over: str = ""


@dataclass(frozen=True)
class MotionResult:
    """How a decision's motion ended.

    Attributes:
        done: it was executed completely.
        refused: the rule by which the guard or the planner refused it, so that the arm never moved; else empty.
        reason: why, where it was not done.
        last_sent_ns: when the last of it was sent; an outcome of later was judged after the motion.
        failed: `grasp_missed` or `dropped` when the arm came home without what it was to carry, else empty.
    """

    done: bool
    refused: str
    reason: str
    last_sent_ns: int
    failed: str = ""


class Cell(Protocol):
    """What the loop needs of the graph. Every call ends within a bound of its own.

    All raise `Interrupted` when the graph cannot do it now.
    """

    def wait_ready(self) -> None:
        """Wait until everything that takes part is there and the arm may move."""

    def reset(self, task: str, seed: int) -> Outcome:
        """Build the scene of `seed` and wait until it rests."""

    def home(self) -> None:
        """Move the arm home and let go of what it holds."""

    def start_episode(self, event: Mapping[str, Any]) -> str:
        """Announce the episode and wait until it is recorded; its id, empty when nobody records."""

    def end_episode(self, event: Mapping[str, Any]) -> None:
        """Announce the end of the episode and its outcome, and wait until it is logged. Raises nothing."""

    def decide(self) -> str:
        """Ask for a decision on what the cameras see now; its id."""

    def execute(self, decision_id: str) -> MotionResult:
        """Wait until the arm is done with the decision."""

    def outcome_after(self, stamp_ns: int) -> Outcome:
        """Wait for an outcome that was judged after `stamp_ns`."""


@dataclass(frozen=True)
class SceneResult:
    """How one scene went, in the attempt that counts.

    Attributes:
        seed: of the scene.
        reward, solved: of its last outcome.
        steps: decisions executed, or refused for what they ask; those whose grasp failed are not counted.
        attempts: how often it was begun.
        episode: id of its record.
        decisions: ids of all decisions, those that came at the wrong moment too.
        reason: why it ended unsolved, empty otherwise.
    """

    seed: int
    reward: float
    solved: bool
    steps: int
    attempts: int
    episode: str
    decisions: tuple[str, ...]
    reason: str = ""


State = Literal["idle", "running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        state: `finished` when every scene had its turn, `failed` when the graph did not recover.
        task: name of the task.
        seeds: the first `KEPT` scenes of the run.
        scenes: how many it has.
        phase: what is being done, in a word.
        seed, step, attempt: the scene in hand.
        interrupted: what ended the attempt before this one, empty in the first.
        through, solved: how many scenes are through, and how many of them were solved.
        results: of the last `KEPT` scenes that are through.
        error: why the run failed, empty otherwise.
    """

    state: State = "idle"
    task: str = ""
    seeds: tuple[int, ...] = ()
    scenes: int = 0
    phase: str = ""
    seed: int = -1
    step: int = 0
    attempt: int = 0
    interrupted: str = ""
    through: int = 0
    solved: int = 0
    results: tuple[SceneResult, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


class TaskLoop:
    """Runs a task on a row of scenes.

    Args:
        cell: the graph.
        report: called with every change of progress.
        retries: how often a scene is begun again after an interruption.
        max_steps: decisions a scene; 0 takes what the task allows.
        grasps: grasps in a row that may fail, each followed by a new decision, before the scene ends unsolved.
    """

    def __init__(
        self,
        cell: Cell,
        report: Callable[[Progress], None],
        *,
        retries: int = 3,
        max_steps: int = 0,
        grasps: int = 3,
    ) -> None:
        self._cell = cell
        self._grasps = grasps
        self._report = report
        self._retries = retries
        self._max_steps = max_steps
        self._progress = Progress()

    def run(self, task: str, seeds: Sequence[int]) -> Progress:
        """Work through the scenes; the last progress, whose state is `finished` or `failed`."""
        self._progress = Progress()
        self._say(state="running", task=task, seeds=tuple(seeds[:KEPT]), scenes=len(seeds))
        try:
            for seed in seeds:
                result = self._scene(task, seed)
                self._say(
                    through=self._progress.through + 1,
                    solved=self._progress.solved + result.solved,
                    results=(*self._progress.results, result)[-KEPT:],
                )
        except RunFailed as error:
            self._say(state="failed", phase="", error=str(error))
            return self._progress
        self._say(state="finished", phase="")
        return self._progress

    def _say(self, **changes: Any) -> None:
        self._progress = Progress(**{**self._progress.__dict__, **changes})
        self._report(self._progress)

    def _scene(self, task: str, seed: int) -> SceneResult:
        """One scene, begun again after an interruption."""
        reason = ""
        for attempt in range(1, self._retries + 2):
            self._say(seed=seed, attempt=attempt, interrupted=reason, step=0, phase="waiting")
            try:
                self._cell.wait_ready()
                if attempt > 1:
                    self._say(phase="home")
                    self._cell.home()
                return self._episode(task, seed, attempt)
            except Interrupted as error:
                reason = str(error)
        raise RunFailed(f"scene {seed} was interrupted {self._retries + 1} times, at last: {reason}")

    def _episode(self, task: str, seed: int, attempt: int) -> SceneResult:
        self._say(phase="reset")
        outcome = self._cell.reset(task, seed)
        max_steps = self._max_steps or outcome.max_steps
        common = {"task": task, "seed": seed, "scene": outcome.raw.get("scene", ""), "attempt": attempt}
        if "renderer" in outcome.raw:  # who drew the pictures of a simulated cell
            common["renderer"] = outcome.raw["renderer"]
        decisions: list[str] = []
        steps, late, missed = 0, 0, 0
        reason = ""
        try:
            episode = self._cell.start_episode({"event": "start", **common})
            while not (outcome.solved or reason):
                if steps >= max_steps:
                    reason = f"not solved after {max_steps} decisions"
                    break
                self._say(phase="deciding", step=steps + 1)
                decision = self._cell.decide()
                decisions.append(decision)
                self._say(phase="executing")
                motion = self._cell.execute(decision)
                late = late + 1 if motion.refused in PASSING else 0
                if 0 < late < ROUNDS:
                    self._cell.wait_ready()
                    continue
                if late:
                    raise Interrupted(motion.reason)
                missed = missed + 1 if motion.failed else 0
                steps += not motion.failed
                if motion.refused or missed >= self._grasps:
                    reason = motion.reason
                elif not (motion.done or motion.failed):
                    raise Interrupted(motion.reason)
                else:
                    self._say(phase="judging")
                    outcome = self._cell.outcome_after(motion.last_sent_ns)
                    reason = outcome.over
        except RunFailed as error:
            aborted = {"reward": outcome.reward, "solved": outcome.solved, "aborted": True, "reason": str(error)}
            self._cell.end_episode({"event": "end", **common, "outcome": aborted})
            raise
        final: dict[str, Any] = {"reward": outcome.reward, "solved": outcome.solved}
        if reason:
            final["reason"] = reason
        self._cell.end_episode({"event": "end", **common, "outcome": final})
        return SceneResult(
            seed=seed,
            reward=outcome.reward,
            solved=outcome.solved,
            steps=steps,
            attempts=attempt,
            episode=episode,
            decisions=tuple(decisions),
            reason=reason,
        )

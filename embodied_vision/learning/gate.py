"""Whether a candidate may take the place of the policy in use: what is asked of it, and a refusal that explains itself.

Three kinds of evidence, all of them pairs: scenes of a simulator that both policies ran, held-out logged episodes that
both decided again, and decisions of a candidate in the shadow of the policy that acted. Where there is a simulator its
scenes decide, and logged episodes may object; in a real cell logged episodes and shadow decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from embodied_vision.errors import BadInput
from embodied_vision.learning.non_inferiority import LEVEL, NonInferiority, fewest_scenes, non_inferior
from embodied_vision.learning.statistics import Interval, bootstrap

Source = Literal["simulation", "logged", "shadow"]
WORDS: dict[Source, str] = {
    "simulation": "validation scenes in simulation",
    "logged": "held-out logged episodes",
    "shadow": "episodes in the shadow",
}


@dataclass(frozen=True)
class Limits:
    """What is asked of a candidate.

    Attributes:
        margin: share of scenes of a task that it may solve less, at most.
        level: largest probability of promoting one that is worse by the margin.
        latency_ratio: its median decision may take so many times that of the policy in use.
        latency_ms: and no longer than this; None for no such budget.
        size_mb: its weights may take so much, MB.
    """

    margin: float = 0.05
    level: float = LEVEL
    latency_ratio: float = 1.3
    latency_ms: float | None = None
    size_mb: float = 64.0


@dataclass(frozen=True)
class Pairs:
    """How candidate and policy in use did on the same scenes or episodes, in the same order.

    Attributes:
        task: of the scenes.
        source: where they come from.
        names: scene seeds or episode ids.
        candidate, baseline: whether each was solved.
        candidate_score, baseline_score: rewards in [0, 1] where there are any.
        is_new: whether the task is what the candidate was trained for now; an old one must only not be lost.
    """

    task: str
    source: Source
    names: Sequence[str]
    candidate: Sequence[bool]
    baseline: Sequence[bool]
    candidate_score: Sequence[float] = ()
    baseline_score: Sequence[float] = ()
    is_new: bool = True


@dataclass(frozen=True)
class Cost:
    """What a policy takes.

    Attributes:
        decision_ms: median of a decision of the head, and of encoding an image where the two that are compared read
            different encoders; NaN where it was not measured.
        size_bytes: of the weights.
    """

    decision_ms: float
    size_bytes: int


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        name: of the rule, such as "non-inferior".
        passed: whether the candidate fulfils it.
        words: what was found, in a sentence.
        details: figures, JSON-ready.
    """

    name: str
    passed: bool
    words: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        findings: everything that was examined, in order.
    """

    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def reason(self) -> str:
        """Why not, or what speaks for it."""
        chosen = [f.words for f in self.findings if f.passed is self.passed]
        return "; ".join(chosen)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"passed": self.passed, "reason": self.reason, "findings": [asdict(f) for f in self.findings]}


def judge(
    evidence: Sequence[Pairs],
    limits: Limits,
    *,
    broken: Sequence[str] = (),
    cost: tuple[Cost, Cost] | None = None,
) -> Verdict:
    """Judge a candidate.

    Every task must pass at the level of a single test: a candidate that is worse in any of them by the margin is then
    promoted no more often than that, however many there are (intersection–union test, Berger (1982)). Which tasks it
    is *better* in is told at a level corrected for their number (Holm (1979)).

    Args:
        evidence: outcomes, one entry a task and source.
        limits: what is asked.
        broken: hard rules that the candidate broke, each in words; any refuses it.
        cost: of candidate and policy in use, where both were measured.

    Raises:
        BadInput: no evidence.
    """
    if not evidence:
        raise BadInput("nothing to judge a candidate by; run validation scenes, or log episodes to decide again")
    findings = [Finding("hard rules", False, words) for words in broken]
    tested = [(pairs, non_inferior(pairs.candidate, pairs.baseline, limits.margin, limits.level)) for pairs in evidence]
    better = _better(tested, limits.level)
    simulated = {pairs.task for pairs in evidence if pairs.source == "simulation"}
    for pairs, test in tested:
        decides = pairs.source == "simulation" or pairs.task not in simulated
        findings += _compared(pairs, test, limits, decides=decides, better=pairs in better)
    if cost is not None:
        findings += _within(*cost, limits)
    return Verdict(findings)


def _better(tested: Sequence[tuple[Pairs, NonInferiority]], level: float) -> list[Pairs]:
    """The evidence in which the candidate is better, by Holm's step-down procedure."""
    found = []
    for rank, (pairs, test) in enumerate(sorted(tested, key=lambda entry: entry[1].better_p)):
        if test.better_p > level / (len(tested) - rank):
            break
        found.append(pairs)
    return found


def _compared(pairs: Pairs, test: NonInferiority, limits: Limits, *, decides: bool, better: bool) -> list[Finding]:
    where = f"{test.scenes} {WORDS[pairs.source]} of {pairs.task}"
    counted = f"{test.wins} won, {test.losses} lost on {where}"
    details = {"task": pairs.task, "source": pairs.source, "new": pairs.is_new, **test.to_dict()}
    details |= {"only_candidate": _only(pairs, True), "only_baseline": _only(pairs, False)}
    if not decides:
        is_worse = test.worse_p <= limits.level
        words = f"candidate is worse: {counted}" if is_worse else f"no objection: {counted}"
        return [Finding("logged episodes", not is_worse, words, {**details, "better": better})]
    findings = []
    if test.shown:
        findings.append(Finding("non-inferior", True, ("better: " if better else "no worse: ") + counted, details))
    else:
        findings.append(Finding("non-inferior", False, _not_shown(test, counted, limits), details))
    if pairs.is_new and test.wins < test.losses:
        findings.append(Finding("new work", False, f"candidate solves fewer: {counted}", details))
    if pairs.candidate_score:
        findings.append(_scores(pairs, limits, where))
    return findings


def _not_shown(test: NonInferiority, counted: str, limits: Limits) -> str:
    fewest = fewest_scenes(limits.margin, limits.level)
    p_value = f"p = {test.p_value:.3f}, asked {limits.level:g}"
    words = f"candidate may be worse by more than {100 * limits.margin:g} %: {counted} ({p_value})"
    if test.scenes < fewest:
        return f"{words}; fewer than {fewest} scenes cannot show less"
    if test.losses > test.wins:
        return words
    return f"{words}; if it is as good, about {test.needed} scenes show it four times in five"


def _scores(pairs: Pairs, limits: Limits, where: str) -> Finding:
    interval = score_difference(pairs)
    passed = interval.low >= -limits.margin and not (pairs.is_new and interval.value < 0)
    shown = f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f}) × 0.01 on {where}"
    details = {"difference": interval.value, "ci_low": interval.low, "ci_high": interval.high}
    return Finding("score", passed, f"score {shown}" if passed else f"candidate scores lower: {shown}", details)


def score_difference(pairs: Pairs) -> Interval:
    """Mean reward of the candidate less that of the other, with its paired 95 % bootstrap interval."""
    return bootstrap([ours - theirs for ours, theirs in zip(pairs.candidate_score, pairs.baseline_score, strict=True)])


def _only(pairs: Pairs, candidate: bool) -> list[str]:
    """Scenes that one of the two alone solved."""
    outcomes = zip(pairs.names, pairs.candidate, pairs.baseline, strict=True)
    return [name for name, ours, theirs in outcomes if ours is candidate and theirs is not candidate]


def _within(candidate: Cost, baseline: Cost, limits: Limits) -> list[Finding]:
    allowed = limits.latency_ratio * baseline.decision_ms
    if limits.latency_ms is not None:
        allowed = min(allowed, limits.latency_ms)
    fast, size_mb = candidate.decision_ms <= allowed, candidate.size_bytes / 1e6
    details = {"candidate": asdict(candidate), "baseline": asdict(baseline)}
    return [
        Finding(
            "latency",
            fast,
            f"a decision takes {candidate.decision_ms:.0f} ms, {'within' if fast else 'above'} {allowed:.0f} ms",
            {**details, "allowed_ms": allowed},
        ),
        Finding(
            "size",
            size_mb <= limits.size_mb,
            f"weights take {size_mb:.1f} MB of {limits.size_mb:g} MB allowed",
            {**details, "allowed_mb": limits.size_mb},
        ),
    ]

"""How scenes went, and a log of it on disk, so that no scene is run twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embodied_vision.learning import json_lines

LOG = "scenes.jsonl"
"""Usual name of a log."""
_KEPT = ("reward", "solved", "steps", "refused", "failed", "decision_s")


@dataclass(frozen=True)
class SceneResult:
    """How one scene went.

    Attributes:
        seed: of the scene.
        reward: total, in [0, 1].
        solved: whether the task was solved.
        steps: actions taken.
        actions: the decisions, JSON-ready; none when the result comes from a log.
        refused: what the guard said to actions that it refused.
        failed: why the scene ended early, such as an object that does not come to rest; usually empty.
        decision_s: seconds that each decision took, encoder included.
        renderer: who drew what the policy saw, where the environment says so.
    """

    seed: int
    reward: float
    solved: bool
    steps: int
    actions: Sequence[dict[str, Any]] = field(default_factory=tuple)
    refused: Sequence[str] = field(default_factory=tuple)
    failed: str = ""
    decision_s: Sequence[float] = field(default_factory=tuple)
    renderer: str = ""


@dataclass(frozen=True)
class Examined:
    """What was evaluated, under what conditions: all that decides how a scene of a given seed goes.

    Attributes:
        checkpoint_id: of the policy.
        task: name of the task.
        preset: of the domain randomisation.
        renderer: who draws.
        code: digest of the sources that run a scene, see `provenance.scene_code`.
    """

    checkpoint_id: str
    task: str
    preset: str
    renderer: str
    code: str


class SceneLog:
    """Results of scenes in files of JSON lines, each added as soon as it is there.

    Args:
        path: of the file that results are added to and read from.
        more: of other files to read.
    """

    def __init__(self, path: Path, *more: Path) -> None:
        self.path = path
        self._paths = (path, *more)

    def known(self, examined: Examined) -> dict[int, SceneResult]:
        """Results of this examination by seed, the newest of each.

        Raises:
            BadInput: a file cannot be read.
        """
        wanted = asdict(examined)
        return {
            line["seed"]: SceneResult(
                seed=line["seed"], renderer=line["renderer"], **{name: line[name] for name in _KEPT}
            )
            for path in self._paths
            for line in json_lines.read(path)
            if all(line.get(name) == value for name, value in wanted.items()) and set(_KEPT) | {"seed"} <= set(line)
        }

    def add(self, examined: Examined, result: SceneResult) -> None:
        """Keep a result.

        Raises:
            BadInput: the file cannot be written.
        """
        kept = {name: getattr(result, name) for name in _KEPT}
        kept |= {"refused": list(result.refused), "decision_s": [round(s, 4) for s in result.decision_s]}
        json_lines.append(self.path, {**asdict(examined), "seed": result.seed, **kept})

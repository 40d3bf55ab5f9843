"""The scenario drawn: success over episodes, what was promoted when, and what the policies did on the trial scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embodied_vision.learning.scenario import Plan, Worked

WINDOW = 10
"""Episodes over which success is averaged."""


def draw(path: Path, plan: Plan, worked: Sequence[Worked], figures: Mapping[str, Any]) -> None:
    """Write the picture."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2.4, 1))
    numbers = np.arange(len(worked))
    rewards = np.array([w.reward for w in worked])
    left.axvspan(plan.change_at - 0.5, len(worked) - 0.5, color="tab:orange", alpha=0.12, label="evening, other parts")
    left.plot(numbers, rewards, ".", color="0.6", label="score of an episode")
    means = [rewards[max(0, n - WINDOW + 1) : n + 1].mean() for n in numbers]
    left.plot(numbers, means, color="tab:blue", label=f"mean of the last {WINDOW}")
    for n in numbers[1:]:
        if worked[n].checkpoint != worked[n - 1].checkpoint:
            left.axvline(n - 0.5, color="tab:green", linestyle="--", linewidth=1)
    left.plot([], [], color="tab:green", linestyle="--", linewidth=1, label="another policy in use")
    left.set(
        xlabel="episode", ylabel="score", ylim=(-0.05, 1.08), title=f"{figures['task']}, through {figures['through']}"
    )
    left.legend(loc="lower right", fontsize=8)
    names = {
        "former_level": "before",
        "after_the_change": "changed",
        "recovered_level": "recovered",
        "last_level": "last",
    }
    for x, name in enumerate(names):
        level = figures[name]
        error = [[level["score"] - level["ci_low"]], [level["ci_high"] - level["score"]]]
        right.bar(x, level["score"], yerr=error, color="tab:blue" if x == 0 else "tab:orange", alpha=0.7, capsize=4)
    right.axhline(0.95 * figures["former_level"]["score"], color="0.4", linestyle=":")
    right.set_xticks(range(len(names)), list(names.values()), fontsize=8)
    right.set(ylim=(0, 1.08), title=f"{figures['trial_scenes']} trial scenes")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

"""The reliability diagram: what was said against what happened."""

from __future__ import annotations

from pathlib import Path

from embodied_vision.learning.calibrated import Reliability


def plot(found: Reliability, title: str, path: Path) -> None:
    """Draw the bins with their 95 % intervals beside the diagonal, and how many outcomes lie in each.

    Args:
        found: what was compared.
        title: of the picture.
        path: where to write it; the ending says in which format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    said = [each.mean_probability for each in found.bins]
    share = [each.share for each in found.bins]
    low = [max(each.share - each.ci_low, 0.0) for each in found.bins]
    high = [max(each.ci_high - each.share, 0.0) for each in found.bins]
    above.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    above.errorbar(said, share, yerr=(low, high), fmt="o", markersize=4, capsize=2)
    above.set(title=title, ylabel="succeeded, share with 95 %", ylim=(-0.03, 1.03), xlim=(0, 1))
    below.bar(
        [each.low for each in found.bins],
        [each.count for each in found.bins],
        width=[each.high - each.low for each in found.bins],
        align="edge",
    )
    below.set(xlabel="said probability of success", ylabel="outcomes")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)

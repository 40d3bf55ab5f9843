"""An episode over time: joints, gripper, reward, whatever else was logged, and what was decided when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from embodied_vision.episodes.picture import first_stamp_ns
from embodied_vision.episodes.reader import Episode

_JOINTS = ("joint_state", "joint_states")
_PARTS = (("positions", "rad"), ("velocities", "rad/s"), ("efforts", "Nm"))
_COMMANDS = "joint_trajectory/"
_HELD = ("gripper", "reward")
"""Streams whose value holds until the next one."""
_LAST = "reward"
_MOST_LINES, _MOST_STREAMS, _MOST_NUMBERS = 16, 30, 100
_MARK, _COMMAND = "tab:red", "0.6"


@dataclass(frozen=True)
class _Panel:
    """One plot: stamps (T,) in ns, values (T, D), and what to call them."""

    title: str
    unit: str
    stamps_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    names: tuple[str, ...]
    held: bool


def plots(episode: Episode) -> Figure:
    """Draw every stream of an episode over time, with a line where a decision was made.

    Raises:
        EpisodeError: its data are damaged.
    """
    start_ns = first_stamp_ns(episode)
    names = _ordered(episode)
    panels = [panel for name in names[:_MOST_STREAMS] for panel in _panels(episode, name)]
    commands = [episode.stream(name)[0] for name in episode.streams if name.startswith(_COMMANDS)]
    sent_ns = np.sort(np.concatenate(commands)) if commands else np.zeros(0, np.int64)
    decided_ns = np.array([episode.decisions.action(i).stamp_ns for i in range(len(episode.decisions))], np.int64)
    count = max(1, len(panels) + bool(len(decided_ns)))
    figure = Figure(figsize=(11, 1.1 + 1.8 * count), layout="constrained")
    FigureCanvasAgg(figure)
    left_out = f"; the first {_MOST_STREAMS} of {len(names)} streams" if len(names) > _MOST_STREAMS else ""
    figure.suptitle(f"{episode.task}, {episode.id}\n{_told(episode.outcome)}{left_out}", fontsize=10)
    axes: list[Axes] = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, start_ns)
    if len(decided_ns):
        _draw_decisions(axes[-1], episode, _seconds(decided_ns, start_ns))
    elif not panels:
        axes[0].text(0.5, 0.5, "no streams and no decisions", ha="center", va="center", transform=axes[0].transAxes)
    for axis in axes:
        across = axis.get_xaxis_transform()
        axis.vlines(_seconds(sent_ns, start_ns), 0, 1, _COMMAND, transform=across, linewidth=0.6, zorder=0)
        axis.vlines(_seconds(decided_ns, start_ns), 0, 1, _MARK, "--", transform=across, linewidth=0.8, zorder=1)
    if len(decided_ns):
        axes[0].set_title(axes[0].get_title(), fontsize=9, pad=14)  # room for the numbers
    for number, second in enumerate(_seconds(decided_ns[:_MOST_NUMBERS], start_ns)):
        axes[0].annotate(
            f"{number + 1}",
            (second, 1),
            (0, 2),
            xycoords=axes[0].get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            color=_MARK,
            fontsize=7,
        )
    told = "time since the first stamp, s"
    told += ";  red: decisions" if len(decided_ns) else ""
    axes[-1].set_xlabel(told + (";  grey: commands sent" if len(sent_ns) else ""), fontsize=8)
    return figure


def _ordered(episode: Episode) -> list[str]:
    """Joints first, the reward last, commands left out: they are marks."""
    names = [name for name in sorted(episode.streams) if not name.startswith(_COMMANDS)]
    return sorted(names, key=lambda name: (name not in _JOINTS, name == _LAST))


def _panels(episode: Episode, name: str) -> list[_Panel]:
    stamps_ns, values = episode.stream(name)
    order = np.argsort(stamps_ns, kind="stable")
    stamps_ns, values = stamps_ns[order], values[order]
    names = _names(episode, values.shape[1])
    if name not in _JOINTS or values.shape[1] % len(names) or values.shape[1] // len(names) > len(_PARTS):
        columns = tuple(str(number) for number in range(values.shape[1]))
        return [_Panel(name, "", stamps_ns, values, columns, name in _HELD)]
    parts = np.split(values, values.shape[1] // len(names), axis=1)
    return [
        _Panel(f"{name}, {title}", unit, stamps_ns, part, names, held=False)
        for (title, unit), part in zip(_PARTS, parts, strict=False)
        if np.isfinite(part).any()
    ]


def _names(episode: Episode, dimension: int) -> tuple[str, ...]:
    """Of the joints: as they were logged, else numbered, of an arm of 7 or 6."""
    names = episode.attributes.get("joint_names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    joints = next((count for count in (7, 6) if dimension % count == 0), dimension)
    return tuple(f"joint {number + 1}" for number in range(joints))


def _draw(axis: Axes, panel: _Panel, start_ns: int) -> None:
    seconds = _seconds(panel.stamps_ns, start_ns)
    style: dict[str, Any] = {"drawstyle": "steps-post"} if panel.held else {}
    style["marker"] = "." if len(seconds) <= 60 else None
    shown = min(panel.values.shape[1], _MOST_LINES)
    for column in range(shown):
        axis.plot(seconds, panel.values[:, column], linewidth=1, markersize=4, label=panel.names[column], **style)
    left_out = panel.values.shape[1] - shown
    axis.set_title(panel.title + (f" (the first {shown} of {shown + left_out})" if left_out else ""), fontsize=9)
    axis.set_ylabel(panel.unit, fontsize=8)
    _finish(axis, legend=panel.values.shape[1] > 1)


def _draw_decisions(axis: Axes, episode: Episode, seconds: NDArray[np.float64]) -> None:
    actions = [episode.decisions.action(number) for number in range(len(seconds))]
    colors = ("tab:blue", "tab:orange", "tab:green")
    for poses, marker, title in (([a.pick for a in actions], "o", "pick"), ([a.place for a in actions], "s", "place")):
        for row, (name, color) in enumerate(zip("xyz", colors, strict=True)):
            values = [float(pose[row, 3]) for pose in poses]
            face = color if marker == "o" else "none"
            axis.plot(seconds, values, marker, color=color, markersize=5, markerfacecolor=face, label=f"{title} {name}")
    axis.set_title("decisions: pick and place in the base frame", fontsize=9)
    axis.set_ylabel("m", fontsize=8)
    _finish(axis, legend=True)


def _finish(axis: Axes, *, legend: bool) -> None:
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)
    if legend:
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _seconds(stamps_ns: NDArray[np.int64], start_ns: int) -> NDArray[np.float64]:
    return (stamps_ns - start_ns) / 1e9


def _told(outcome: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in outcome.items())[:120] or "no outcome"

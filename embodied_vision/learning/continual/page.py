"""The results of docs/continual.md: a table of all methods, and a figure of how success goes along the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied_vision.errors import BadInput
from embodied_vision.learning import json_lines
from embodied_vision.learning.continual.methods import METHODS

BEGIN, END = "<!-- results begin -->", "<!-- results end -->"
FIGURE = Path("images/continual.svg")


def write_page(results: Path, page: Path) -> list[Path]:
    """Write the section of results of a page anew, and the figure that it shows; returns both.

    Raises:
        BadInput: there are no results, the page has no such section, or matplotlib is not installed.
    """
    lines = newest(json_lines.read(results))
    if not lines:
        raise BadInput(f"no results in {results}; make some: embodied-vision learn stream run")
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{page} cannot be read ({error.strerror}); name the page") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"{page} has no section between {BEGIN} and {END}; put both lines into it")
    figure = page.parent / FIGURE
    _draw(lines, figure)
    page.write_text(f"{before}{BEGIN}\n{section(lines)}{END}{after}", encoding="utf-8")
    return [page, figure]


def newest(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The furthest, newest line of every stream, in the order of the methods."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        key = (str(line["method"]), int(line["order"]))
        if key not in found or len(line["tasks"]) >= len(found[key]["tasks"]):
            found[key] = dict(line)
    order = list(METHODS)
    return sorted(found.values(), key=lambda line: (order.index(line["method"]), line["order"]))


def section(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: conditions, the table, the figure, and the success matrices."""
    first = lines[0]
    rows = [
        f"{first['scenes']} scenes of {first['split']} a task (seeds {first['seeds'][0]} to {first['seeds'][1]}), "
        f"{first['demos']} demonstrations and {first['steps']} steps a task, encoder `{first['encoder'] or 'none'}`. "
        "Success is the share of scenes that are solved; 95 % intervals by bootstrap over scenes. Minutes are those of "
        "the CPU, mean over the tasks: two cores take half of them.",
        "",
        "| method | order | tasks learnt | FWT | NBT | AUC | success at the end | kept, bytes (share of those seen) | "
        "CPU minutes a task |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [_row(line) for line in lines]
    rows += ["", f"![Success on each task along the stream]({FIGURE})", "", "What was measured on which commit:", ""]
    rows += [f"- {line['method']}, order {line['order']}: {line['git_commit']}, `{line['command']}`" for line in lines]
    rows += ["", "Success, %, on the tasks of each column after learning the one of the row:", ""]
    for line in lines:
        rows += [f"**{line['method']}, order {line['order']}**", "", *_matrix(line), ""]
    return "\n".join(rows)


def _row(line: Mapping[str, Any]) -> str:
    cells = [line["method"], str(line["order"]), f"{len(line['tasks'])} of {line['tasks_in_all']}"]
    cells += [_interval(line.get(name)) for name in ("fwt", "nbt", "auc")]
    last = line["success"][-1]
    cells += [_interval(line["final"]) if "final" in line else f"{sum(last) / len(last):.3f}"]
    cells += [f"{line['replay_bytes']} ({100 * line['replay_share']:.1f} %)"]
    cells += [f"{sum(line['train_cpu_minutes']) / len(line['tasks']):.1f}"]
    return f"| {' | '.join(cells)} |"


def _interval(figure: Mapping[str, float] | None) -> str:
    return "" if figure is None else f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _matrix(line: Mapping[str, Any]) -> list[str]:
    tasks = line["tasks"]
    names = [tasks[-1]] if len(line["success"]) == 1 and len(tasks) > 1 else tasks
    rows = [f"| after | {' | '.join(tasks)} |", "| --- |" + " --- |" * len(tasks)]
    for name, row in zip(names, line["success"], strict=True):
        shown = [f"{100 * value:.0f}" for value in row] + [""] * (len(tasks) - len(row))
        rows.append(f"| {name if len(names) > 1 else 'all'} | {' | '.join(shown)} |")
    return rows


def _draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Mean success on the tasks learnt so far, and success on each task, along the stream."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInput("the figure needs matplotlib; install it: pip install 'embodied_vision[viz]'") from error
    streams = [line for line in lines if len(line["success"]) == len(line["tasks"])]
    with matplotlib.rc_context({"svg.hashsalt": "embodied-vision", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        mean, each = figure.subplots(1, 2)
        for line in streams:
            matrix = line["success"]
            ks = range(1, len(matrix) + 1)
            label = f"{line['method']} ({line['order']})"
            mean.plot(ks, [sum(row) / len(row) for row in matrix], marker="o", label=label)
            lost = [max(0.0, sum(matrix[j][j] - row[j] for j in range(k)) / max(1, k)) for k, row in enumerate(matrix)]
            each.plot(ks, lost, marker="o", label=label)
        mean.set(xlabel="tasks learnt", ylabel="mean success on them", ylim=(-0.03, 1.03))
        each.set(xlabel="tasks learnt", ylabel="lost of earlier tasks since they were learnt")
        mean.legend(fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})

"""`embodied-vision learn scenes`: how many scenes the gate needs, and how often it errs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from embodied_vision.learning.gate import Limits
from embodied_vision.learning.non_inferiority import POWER, fewest_scenes, scenes_needed, table

DISCORDANT = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
DEFAULTS = Limits()


def command(
    margin: float = typer.Option(DEFAULTS.margin, help="Share of scenes that a candidate may solve less."),
    level: float = typer.Option(DEFAULTS.level, help="Largest probability of promoting one that is worse by that."),
    power: float = typer.Option(POWER, help="Wanted probability of promoting one that is as good."),
    tasks: int = typer.Option(1, min=1, help="Tasks that must all pass."),
    scenes: int | None = typer.Option(
        None, min=1, help="Scenes to tell the error rates of; those needed when left out."
    ),
    simulate: int = typer.Option(
        0, min=0, help="Simulate so many comparisons for each rate, beside the exact probabilities; 0 for none."
    ),
    seed: int = typer.Option(0, min=0, help="Of the simulation."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON line a rate."),
) -> None:
    """Tell how many scenes a comparison needs, by how often two equally good policies differ on a scene."""
    rows = list(_rows(margin, level, power, tasks, scenes, simulate, np.random.default_rng(seed)))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    shown = Table("differ on", "scenes needed", "scenes", "as good passes", "worse by the margin passes")
    for row in rows:
        passes = [f"{100 * row['passes']:.1f} %", f"{100 * row['false_promotions']:.2f} %"]
        if simulate:
            passes[0] += f" (simulated {100 * row['simulated_passes']:.1f} %)"
            passes[1] += f" (simulated {100 * row['simulated_false_promotions']:.2f} %)"
        needed = row["needed"] if row["needed"] is not None else "too many"
        shown.add_row(f"{100 * row['discordant']:g} %", str(needed), str(row["scenes"]), *passes)
    Console().print(shown)
    fewest = fewest_scenes(margin, level)
    typer.echo(f"A margin of {100 * margin:g} % takes at least {fewest} scenes, and then not one may be lost.")


def _rows(
    margin: float,
    level: float,
    power: float,
    tasks: int,
    scenes: int | None,
    simulate: int,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    for discordant in DISCORDANT:
        needed = scenes_needed(margin, discordant, power=power, level=level, tasks=tasks)
        count = scenes or needed or fewest_scenes(margin, level)
        equal = (discordant / 2, discordant / 2)
        worse = (discordant / 2, discordant / 2 + margin)
        outcomes = table(count, margin)
        row = {
            "margin": margin,
            "level": level,
            "tasks": tasks,
            "discordant": discordant,
            "needed": needed,
            "scenes": count,
            "passes": outcomes.passes(*equal, level) ** tasks,
            "false_promotions": outcomes.passes(*worse, level),
        }
        if simulate:
            row["simulated_passes"] = _simulated(count, margin, level, equal, simulate, rng) ** tasks
            row["simulated_false_promotions"] = _simulated(count, margin, level, worse, simulate, rng)
        yield row


def _simulated(
    scenes: int, margin: float, level: float, rates: tuple[float, float], times: int, rng: np.random.Generator
) -> float:
    """Share of simulated comparisons that pass."""
    outcomes = table(scenes, margin)
    passes = np.zeros((scenes + 1, scenes + 1), bool)
    passes[outcomes.wins, outcomes.losses] = outcomes.p_value <= level
    wins, losses, _ = rng.multinomial(scenes, [*rates, 1 - sum(rates)], times).T
    return float(passes[wins, losses].mean())

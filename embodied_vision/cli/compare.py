"""`embodied-vision compare`: two policies, or one under two conditions, on the same scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from embodied_vision.cli.conditions import Preset, RendererName
from embodied_vision.cli.evaluate import SplitName, bars
from embodied_vision.errors import BadInput
from embodied_vision.learning.compare import compare
from embodied_vision.learning.evaluate import evaluate, examined, split_seeds
from embodied_vision.learning.scene_results import Examined, SceneLog, SceneResult


def command(
    a: Path = typer.Argument(..., help="Checkpoint folder of A.", show_default=False),
    b: Path | None = typer.Argument(None, help="Checkpoint folder of B.", show_default="A under --preset-b"),
    task: str = typer.Option(..., help="Name of the task, such as block-insertion.", show_default=False),
    scenes: int = typer.Option(100, min=1, help="Number of scenes."),
    split: SplitName = typer.Option(SplitName.VALIDATION, help="Which scenes; those of test are not to choose on."),
    seed_offset: int = typer.Option(0, min=0, help="Number of the first scene within the split."),
    preset: Preset = typer.Option(Preset.NONE, help="Domain randomisation of the scenes."),
    preset_b: Preset | None = typer.Option(None, help="The same for B.", show_default="that of A"),
    renderer: RendererName | None = typer.Option(
        None, help="Who draws; left out, the renderer that each policy was trained with."
    ),
    workers: int = typer.Option(1, min=1, help="Processes that run scenes at once."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder, for those that read features."),
    keep: list[Path] = typer.Option(
        [],
        help="File of JSON lines with results of scenes, such as `evaluate` keeps; those that it holds are not run "
        "again, new ones go into the first. May be given several times.",
        show_default=False,
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Compare B with A scene by scene: paired bootstrap of the scores, exact McNemar test of the solved scenes."""
    other, preset_other = b or a, preset_b or preset
    drawer = renderer.value if renderer is not None else None
    seeds = split_seeds(split.value, scenes, seed_offset)
    log = SceneLog(*keep) if keep else None
    sides = [
        (folder, examined(task, folder, which.value, drawer)) for folder, which in ((a, preset), (other, preset_other))
    ]
    if sides[0][1] == sides[1][1]:
        raise BadInput(
            f"A and B are both checkpoint {sides[0][1].checkpoint_id} under preset {preset.value}; "
            "name another checkpoint, or another --preset-b"
        )
    results: list[list[SceneResult]] = []
    with bars() as progress:
        for name, (folder, what) in zip("AB", sides, strict=True):
            bar = progress.add_task(f"{name}: {task} ({split.value}, {what.preset})", total=scenes)
            results.append(
                evaluate(
                    task,
                    folder,
                    seeds,
                    encoder=encoder,
                    preset=what.preset,
                    renderer=what.renderer,
                    workers=workers,
                    log=log,
                    report=lambda _, bar=bar: progress.advance(bar),  # type: ignore[misc]
                )
            )
    figures = {
        "task": task,
        "split": split.value,
        "seeds": [seeds[0], seeds[-1]],
        **{name: _side(folder, what) for name, (folder, what) in zip("ab", sides, strict=True)},
        **compare(*results).to_dict(),
    }
    typer.echo(json.dumps(figures) if as_json else _text(figures))


def _side(folder: Path, what: Examined) -> dict[str, str]:
    return {
        "checkpoint": str(folder),
        "checkpoint_id": what.checkpoint_id,
        "preset": what.preset,
        "renderer": what.renderer,
    }


def _text(figures: dict[str, Any]) -> str:
    a, b = figures["a"], figures["b"]
    lines = [
        f"{figures['task']}, {figures['scenes']} scenes of {figures['split']}, B less A",
        f"A: {a['checkpoint']} ({a['checkpoint_id']}), preset {a['preset']}: score {figures['score_a']:.1f}, "
        f"solved {figures['solved_a']}",
        f"B: {b['checkpoint']} ({b['checkpoint_id']}), preset {b['preset']}: score {figures['score_b']:.1f}, "
        f"solved {figures['solved_b']}",
        f"difference of the scores: {figures['difference']:+.1f} ({figures['ci_low']:+.1f} to "
        f"{figures['ci_high']:+.1f}, paired bootstrap 95 %)",
        f"solved by A alone {figures['only_a']}, by B alone {figures['only_b']}: p = {figures['p_value']:.3g} "
        "(exact McNemar, two-sided)",
    ]
    differing = [r for r in figures["results"] if r["difference"] or r["solved_a"] != r["solved_b"]]
    if not differing:
        return "\n".join([*lines, "every scene went alike"])
    lines += ["", f"{'seed':>8}  {'A':>6}  {'B':>6}  {'B − A':>6}"]
    lines += [
        f"{r['seed']:>8}  {100 * r['reward_a']:6.1f}  {100 * r['reward_b']:6.1f}  {100 * r['difference']:+6.1f}"
        for r in differing
    ]
    alike = figures["scenes"] - len(differing)
    return "\n".join([*lines, f"{alike} other scene{'s' * (alike != 1)} went alike"])

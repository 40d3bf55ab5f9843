"""The command that labels grasps: see `grasp_labelling`.

python -m embodied_vision_sim.grasp_labels --output grasps --scenes 1000 --workers 2
"""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_vision.errors import EmbodiedVisionError
from embodied_vision.policies.locate import locate
from embodied_vision_sim.diverse import IN_BIN
from embodied_vision_sim.grasp_labelling import Labelled, label


def command(
    output: Path = typer.Option(..., help="Folder of the episode store.", show_default=False),
    scenes: int = typer.Option(100, min=1, help="Scenes that the store shall hold."),
    grasps: int = typer.Option(8, min=1, help="Grasps tried in each scene."),
    split: str = typer.Option("train", help="train, validation or test; test scenes show held-out objects."),
    seed_offset: int = typer.Option(0, min=0, help="Number of the first scene of the split."),
    image_size: int = typer.Option(128, min=16, help="Rows and columns of the images, px."),
    in_bin: int = typer.Option(IN_BIN, min=1, help="Objects in the bin."),
    policy: Path | None = typer.Option(
        None, help="Grasp policy that proposes what to try: folder, or `grasp-diverse`."
    ),
    workers: int = typer.Option(1, min=1, help="Scenes that run at once."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Try grasps on diverse objects in simulation and store them labelled; scenes already stored are not run again."""
    console = Console(stderr=True)
    results: list[Labelled] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=as_json) as progress:
        bar = progress.add_task("scenes", total=scenes)
        options = {
            "grasps": grasps,
            "seed_offset": seed_offset,
            "image_size": image_size,
            "in_bin": in_bin,
            "policy": None if policy is None else locate(policy),
        }
        for result in label(output, scenes, split=split, **options):  # type: ignore[arg-type]
            results.append(result)
            progress.advance(bar)
            if result.episode_id is None:
                console.print(f"seed {result.seed} is left out: {result.reason}", highlight=False, markup=False)
    tried, succeeded = sum(r.grasps for r in results), sum(r.succeeded for r in results)
    report = {
        "store": str(output),
        "scenes": sum(r.episode_id is not None for r in results),
        "labelled": sum(r.grasps > 0 for r in results),
        "grasps": tried,
        "succeeded": succeeded,
        "failed_seeds": [r.seed for r in results if r.episode_id is None],
    }
    typer.echo(
        json.dumps(report)
        if as_json
        else f"{tried} grasps tried in {report['labelled']} scenes, {succeeded} lifted an object: {output}"
    )


def main() -> None:
    """Run the command; bad input and failed runs end with a plain message and their exit code."""
    try:
        typer.run(command)
    except EmbodiedVisionError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()

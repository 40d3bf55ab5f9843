"""`embodied-vision encoder gate`: whether a policy works as well with an encoder that computes less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from embodied_vision.errors import BadInput, RunFailed


def gate_command(
    folder: Annotated[
        Path, typer.Argument(help="Folder that `encoder export` wrote with --reduced, --merge or --region.")
    ],
    runtime: Annotated[
        str, typer.Option(help="Setting that computes less, such as openvino-int8 or openvino-merge8-region.")
    ],
    task: Annotated[str, typer.Option(help="Task of the policy.")],
    checkpoint: Annotated[
        str, typer.Option(help="Policy that reads this encoder: a folder, or the name of a shipped one.")
    ] = "",
    scenes: Annotated[int, typer.Option(min=2, help="Validation scenes that it is tried in, twice.")] = 100,
    margin: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="By how much the mean score may be worse, of 1.")
    ] = 0.02,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run scenes at once.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Try a policy on the same scenes with the exact encoder and with the reduced one, and let that one pass or not.

    It passes when the 95 % interval of the paired difference lies above the margin; the folder then lists the policy.
    """
    from embodied_vision.cli.evaluate import bars
    from embodied_vision.encoders.artefact import read_manifest as read_artefact
    from embodied_vision.encoders.export import note_passed, read_reduced
    from embodied_vision.encoders.region import Part
    from embodied_vision.encoders.runtimes import read_setting
    from embodied_vision.learning.compare import compare
    from embodied_vision.learning.evaluate import evaluate, split_seeds
    from embodied_vision.policies.checkpoint import read_manifest
    from embodied_vision.policies.locate import locate
    from embodied_vision.types import Workspace

    reduced = read_reduced(folder)
    if runtime not in reduced:
        raise BadInput(f"{folder} was not exported for {runtime!r}; it has {', '.join(reduced) or 'none'} to be gated")
    name = checkpoint or task
    policy = locate(name)
    manifest = read_manifest(policy)
    if not manifest.get("encoder_id"):
        raise BadInput(f"policy {name} reads no encoder, so that there is nothing to gate; give one that does")
    if read_setting(runtime).region:
        region, workspace = (
            Part.from_dict(read_artefact(folder)["part"]).region,
            Workspace.from_dict(manifest["workspace"]),
        )
        if not region.covers(workspace):
            raise BadInput(
                f"{folder} computes the region {region.workspace.to_dict()}, policy {name} maps "
                f"{workspace.to_dict()}, which reaches beyond it; export the encoder with the --region of the policy"
            )
    seeds = split_seeds("validation", scenes, 0)
    results = []
    with bars() as progress:
        for words, encoder in (("exact", str(folder)), (runtime, f"{folder}+runtime={runtime}+trial=yes")):
            bar = progress.add_task(f"{task}, {words}", total=scenes)
            results.append(
                evaluate(
                    task,
                    policy,
                    seeds,
                    encoder=encoder,
                    workers=workers,
                    report=lambda _, bar=bar: progress.advance(bar),  # type: ignore[misc]
                )
            )
    found = compare(*results)
    about: dict[str, Any] = {
        "checkpoint_id": manifest["checkpoint_id"],
        "task": task,
        "margin": margin,
        "seeds": [seeds[0], seeds[-1]],
        **{key: value for key, value in found.to_dict().items() if key != "results"},
    }
    passed = found.difference.low >= -margin
    if passed:
        note_passed(folder, runtime, about)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "runtime": runtime, "passed": passed, **about}))
    else:
        typer.echo(
            f"{task}, {scenes} scenes: {about['solved_a']} solved exactly, {about['solved_b']} with {runtime}; "
            f"difference of the scores {about['difference']:+.2f} "
            f"[{about['ci_low']:+.2f}, {about['ci_high']:+.2f}] of 100"
        )
    if not passed:
        raise RunFailed(
            f"{runtime} does not pass: its score may be worse by more than {100 * margin:g} of 100. Export it anew on "
            "logged images (--store), use another runtime, or more --scenes for a narrower interval"
        )
    if not as_json:
        typer.echo(f"passed: {folder}+runtime={runtime} may be used")

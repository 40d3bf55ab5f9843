"""What is written beside a low-rank adapter: the manifest for programs, the card for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embodied_vision.encoders.adapters import write_adapter
from embodied_vision.encoders.adapting import AdapterStudent
from embodied_vision.encoders.artefact import ADAPTER
from embodied_vision.encoders.card import SCHEMA, how_trained, limits_of, probe_table
from embodied_vision.encoders.probe import ProbeReport


def write_student(
    folder: Path, student: AdapterStudent, training: Mapping[str, Any], report: ProbeReport | None
) -> None:
    """Write the averaged updates as an adapter.

    Args:
        folder: where to; an adapter that is there is replaced.
        student: that was trained.
        training: as `card.training_record` gives it.
        report: what the probe found, if it ran.
    """
    trained, tensors = student.trained, student.average.tensors()
    manifest = {
        "schema": SCHEMA,
        "kind": ADAPTER,
        "encoder_id": student.encoder().encoder_id,
        "base": asdict(trained.base),
        "rank": trained.rank,
        "layers": len(tensors) // 2,
        "parameters": sum(value.numel() for value in tensors.values()),
        "dimension": student.dimension,
        "training": dict(training),
        "measured": None if report is None else report.to_dict(),
    }
    write_adapter(folder, trained.config, tensors, manifest, adapter_card(manifest, report))


def adapter_card(manifest: Mapping[str, Any], report: ProbeReport | None) -> str:
    """The card of a low-rank adapter, Markdown."""
    training, base = manifest["training"], manifest["base"]
    options = "".join(f"+{name}={value}" for name, value in base["options"].items())
    text = f"""# Low-rank adapter `{manifest["encoder_id"]}`

Updates of rank {manifest["rank"]} for {manifest["layers"]} linear layers of `{base["name"]}{options}`
(`{base["encoder_id"]}`, sha256 of the weights {base["weights_sha256"]}):
{manifest["parameters"]:,} parameters, merged into that model's weights when they are loaded. The model itself
is not here. Where it lies elsewhere, give this folder with `+base=NAME`.

{how_trained(training)}

"""
    limits = f"## Limits\n\n{limits_of(training['frames'])}\n"
    if report is None:
        return text + f"Not probed: `embodied-vision encoder probe` does it in simulation.\n\n{limits}"
    return (
        text
        + f"""## Linear probe

Ridge read-outs fitted on {report.patches[0]} patches of {report.scenes[0]} scenes, measured on {report.patches[1]}
patches of {report.scenes[1]} other scenes, none of them used for training. Brackets: 95 % bootstrap interval over
scenes. `base` is the model without the adapter, `random twin` the compact network with random weights, `mean color`
the patch's mean color. Kinds: {", ".join(report.kinds)}.

{probe_table(report)}

{limits}"""
    )

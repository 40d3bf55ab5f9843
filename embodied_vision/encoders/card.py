"""What is written beside an encoder's weights: the manifest for programs, the card for people."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embodied_vision.encoders.compact import KIND, LAYER, PREPROCESSING, STRIDE, CompactEncoder, initialised
from embodied_vision.encoders.pretrain import PretrainSettings
from embodied_vision.encoders.probe import FIGURES, ProbeReport

SCHEMA = 1
_VERSIONS = (
    "embodied_vision",
    "torch",
    "transformers",
    "peft",
    "numpy",
    "opencv-python-headless",
    "pybullet",
    "gymnasium",
)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str:
    """Commit of the checkout that this code runs from, empty where it is none."""
    try:
        out = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return out.stdout.strip()


def training_record(
    settings: PretrainSettings,
    source: Mapping[str, Any],
    command: str,
    minutes: float,
    teacher: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """How an encoder was trained, for its manifest.

    Args:
        settings: of the training.
        source: where the frames came from.
        command: what was typed.
        minutes: time the optimiser took.
        teacher: name and id of the encoder that it was distilled from.
    """
    return {
        "settings": asdict(settings),
        "frames": dict(source),
        "teacher": None if teacher is None else dict(teacher),
        "minutes": round(minutes, 2),
        "command": command,
        "versions": _versions(),
        "git_commit": _git_commit(),
    }


def manifest_of(encoder: CompactEncoder, training: Mapping[str, Any], report: ProbeReport | None) -> dict[str, Any]:
    """The manifest of a trained compact encoder, less the files' hashes.

    Args:
        encoder: as trained.
        training: as `training_record` gives it.
        report: what the probe found, if it ran.
    """
    d = encoder.dimension
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "encoder_id": encoder.encoder_id,
        "architecture": asdict(encoder.architecture),
        "parameters": sum(int(p.numel()) for p in initialised(encoder.architecture, 0).parameters()),
        "preprocessing": PREPROCESSING,
        "layer": LAYER,
        "inputs": [{"name": "color", "shape": ["H", "W", 3], "dtype": "uint8", "unit": "sRGB 0 … 255"}],
        "outputs": [
            {
                "name": "features",
                "shape": [f"ceil(H/{STRIDE})", f"ceil(W/{STRIDE})", d],
                "dtype": "float32",
                "unit": f"none; every patch has the Euclidean norm sqrt({d})",
            }
        ],
        "stride_px": [STRIDE, STRIDE],
        "training": dict(training),
        "measured": None if report is None else report.to_dict(),
    }


def probe_table(report: ProbeReport) -> str:
    """Figures and gains with their intervals, Markdown."""
    lines = ["| encoder | " + " | ".join(FIGURES.values()) + " |", "| --- |" + " --- |" * len(FIGURES)]
    for name, figures in report.figures.items():
        cells = (f"{figures[key].value:.3f} [{figures[key].low:.3f}, {figures[key].high:.3f}]" for key in FIGURES)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, gains in report.gains.items():
        cells = (f"{gains[key].value:+.3f} [{gains[key].low:+.3f}, {gains[key].high:+.3f}]" for key in FIGURES)
        lines.append(f"| gain over {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_MEANING = {
    "match": "the same point of a scene, found in two views through depth and camera poses, has the same features, and "
    "other ones than the scene's other points",
    "describe": "a linear read-out tells a point's height and color",
    "masked": "a linear read-out tells the pixels of hidden patches out of what is around them",
    "self-distillation": "a point falls into the same soft cluster in two views",
    "teacher": "a linear read-out tells the features of the teacher",
}
"""What each objective asks for."""


def trained_for(training: Mapping[str, Any]) -> str:
    """Objectives with their weights and what they ask for, Markdown."""
    weights = training["settings"]["objectives"]
    lines = [f"- {name}, weight {weights[name]:g}: {_MEANING[name]}" for name in sorted(weights)]
    teacher = training.get("teacher")
    taught = f" The teacher was `{teacher['name']}` (`{teacher['encoder_id']}`)." if teacher else ""
    return (
        "\n".join(lines) + f"\n\nLight, size, noise and blur changed between the views, appearance "
        f"`{training['settings']['appearance']}`.{taught}"
    )


def source_of(frames: Mapping[str, Any]) -> str:
    """Where the frames came from; ids of many episodes stand in the manifest alone."""
    if "episodes" in frames:
        return f"{len(frames['episodes'])} logged episodes, named in the manifest"
    return str(dict(frames))


def limits_of(frames: Mapping[str, Any]) -> str:
    """What an encoder of such frames cannot be trusted with, Markdown."""
    if "episodes" in frames:
        return (
            f"Trained on frames of {len(frames['episodes'])} logged episodes: of a cell that looks otherwise it knows "
            "nothing. An encoder of another id needs policies of its own."
        )
    looks = " and ".join(frames.get("looks", ["none"]))
    return (
        f"Trained on simulated scenes of {len(frames.get('simulated', []))} tasks, domain randomisation {looks}. On "
        "photographs of a real\ncell, train it again on your own logs: `embodied-vision encoder pretrain --episodes "
        "STORE`. An encoder of another\nid needs policies of its own."
    )


def how_trained(training: Mapping[str, Any]) -> str:
    """What an encoder was trained for, by which command, from what: a part of its card."""
    if not training["settings"]["steps"]:
        return f"""The weights are those of ImageNet. The last layer gives the principal components of what the others
compute at stride 8 and at stride 16, half of the channels each, as found on frames of
{source_of(training["frames"])}. Nothing was trained.

Made by

    {training["command"]}"""
    return f"""Trained without labels, for:

{trained_for(training)}

Made in {training["minutes"]:.1f} minutes (frames not counted) by

    {training["command"]}

from frames of {source_of(training["frames"])}, seed {training["settings"]["seed"]},
{training["settings"]["steps"]} steps."""


def card_of(manifest: Mapping[str, Any], report: ProbeReport | None) -> str:
    """The card of a trained compact encoder, Markdown."""
    training = manifest["training"]
    dimension = manifest["outputs"][0]["shape"][2]
    kind = (
        "EfficientNet-Lite0 up to stride 16: a network" if "trunk" in manifest["architecture"] else "A residual network"
    )
    text = f"""# Compact encoder `{manifest["encoder_id"]}`

{kind} of {manifest["parameters"] / 1e6:.2f} million parameters that describes each {STRIDE} × {STRIDE} px
patch of a color image by {dimension} numbers. It runs on one CPU core; images of any size are taken as they are.

{how_trained(training)}

"""
    limits = f"## Limits\n\n{limits_of(training['frames'])}\n"
    if report is None:
        return text + f"Not probed: `embodied-vision encoder probe` does it in simulation.\n\n{limits}"
    return (
        text
        + f"""## Linear probe

Ridge read-outs fitted on {report.patches[0]} patches of {report.scenes[0]} scenes, measured on {report.patches[1]}
patches of {report.scenes[1]} other scenes, none of them used for training, every view under its own light. Brackets:
95 % bootstrap interval over scenes. `random twin` is the same network with random weights and batch norms that know
the images; `mean color` is the patch's mean color. Kinds: {", ".join(report.kinds)}.

{probe_table(report)}

{limits}"""
    )

"""What `encoder pretrain` and `encoder distill` share: options, the run with its bar and its log, what is written."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from embodied_vision.cli.encoder_frames import err, frames_in_looks, logged_frames, progress_bar, simulated_frames
from embodied_vision.errors import BadInput

if TYPE_CHECKING:
    from embodied_vision.encoders.base import Encoder
    from embodied_vision.encoders.board import EncoderBoard
    from embodied_vision.encoders.pretrain import Pretraining, PretrainSettings
    from embodied_vision.encoders.probe import ProbeReport
    from embodied_vision.encoders.students import Trained
    from embodied_vision.encoders.views import ViewCache

STATE = "state.safetensors"
FRAMES = "frames"
PLAIN = ("none",)
PROBE_FIRST_INDEX = 500_000

Output = Annotated[Path, typer.Option(help="Folder to write the encoder to.")]
Run = Annotated[Path, typer.Option("--run", help="Folder for frames, training state and TensorBoard curves.")]
Episodes = Annotated[
    Path | None,
    typer.Option(help="Train on the frames of this episode store instead of simulated scenes.", show_default=False),
]
Tasks = Annotated[list[str], typer.Option("--task", help="Simulated task to take scenes from; repeat for several.")]
Looks = Annotated[
    list[str],
    typer.Option(
        "--look",
        help="Preset of the domain randomisation in which each simulated scene is seen; repeat for several, and a "
        "point keeps its features from one look to another.",
    ),
]
Scenes = Annotated[int, typer.Option(min=1, help="Simulated scenes.")]
Views = Annotated[
    int, typer.Option(min=1, help="Views a scene from random cameras in each look, besides the cell's own.")
]
Steps = Annotated[
    int, typer.Option(min=0, help="Optimiser steps; 0, with a --trunk alone: the principal components of its features.")
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=1e-6,
        help="Peak of the learning rate.",
        show_default="0.003, of an adapter 0.001, with weights of ImageNet 0.0005",
    ),
]
AppearanceName = Annotated[
    str,
    typer.Option(
        help="What may differ between two crops of a point: `mild` is light and sensor; `strong` also color and "
        "texture of the table, found by its height, and a lamp to one side."
    ),
]
Poses = Annotated[
    bool,
    typer.Option(help="Whether frames have depth and camera poses, and crops come from different views of a scene."),
]
Dimension = Annotated[
    int | None, typer.Option(min=4, help="Feature channels of the compact network.", show_default="32")
]
Trunk = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Begin with a network that knows photographs: `efficientnet-lite0` up to stride 16 with the weights of "
        "ImageNet, which pip brings. Without it the residual network begins with random weights.",
        show_default=False,
    ),
]
Backbone = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Train a low-rank adapter of this transformers model, a folder or a hub name with options such as "
        "facebook/dinov2-small+size=238x420, instead of the compact network. The model itself stays as it is.",
        show_default=False,
    ),
]
AdapterRank = Annotated[
    int | None, typer.Option(min=1, help="Rank of the adapter of the --backbone.", show_default="8")
]
ProbeScenes = Annotated[int, typer.Option(min=0, help="Scenes to fit and to measure the probe on; 0: none.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights, crops and augmentations.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; the last bits of the result depend on it.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --run.")]
SaveEvery = Annotated[float, typer.Option(min=0.0, help="Seconds between two writings of what --resume needs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def what_is_trained(backbone: str, rank: int | None, dimension: int | None, trunk: str = "") -> Trained:
    """A compact network, or an adapter of a transformers model.

    Raises:
        BadInput: options that do not go together.
        EncoderError: the model cannot be loaded, or takes no adapter.
    """
    from embodied_vision.encoders.adapting import RANK, LowRank
    from embodied_vision.encoders.compact import Architecture, LiteArchitecture
    from embodied_vision.encoders.lite_network import NAME

    if trunk not in ("", NAME):
        raise BadInput(f"--trunk {trunk}: there is {NAME}; a transformers model is a --backbone")
    if backbone and trunk:
        raise BadInput(f"--trunk {trunk} and --backbone {backbone}: a run trains one of them")
    if not backbone and rank is not None:
        raise BadInput(
            f"--adapter-rank {rank} without a model to adapt; give --backbone NAME, a folder or a hub name of a "
            "transformers model. The compact network is trained whole"
        )
    if not backbone:
        shape = LiteArchitecture if trunk else Architecture
        try:
            return shape() if dimension is None else shape(dimension=dimension)
        except ValueError as error:
            raise BadInput(f"--trunk {trunk}: {error}") from error
    if dimension is not None:
        raise BadInput(f"--dimension {dimension} is of the compact network; {backbone} has channels of its own")
    return LowRank(backbone, rank or RANK)


def settings_for(
    trained: Trained,
    *,
    steps: int,
    seed: int,
    appearance: str,
    poses: bool,
    learning_rate: float | None,
    objectives: Mapping[str, float],
) -> PretrainSettings:
    """Settings of a run, with the size of crops and the learning rate that suit what is trained."""
    from embodied_vision.encoders.pretrain import PretrainSettings
    from embodied_vision.encoders.students import crop_px_for, usual_learning_rate

    return PretrainSettings(
        steps=steps,
        seed=seed,
        crop_px=crop_px_for(trained),
        appearance=appearance,
        poses=poses,
        learning_rate=learning_rate or usual_learning_rate(trained),
        objectives=objectives,
    )


def weights_of_objectives(given: Sequence[str], usual: Mapping[str, float]) -> dict[str, float]:
    """Weights by name out of `name=weight` or `name`, which has the weight 1; `usual` where none are given.

    Raises:
        BadInput: a weight is no number above 0, or a name comes twice.
    """
    weights: dict[str, float] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            weight = float(value or 1)
        except ValueError as error:
            raise BadInput(f"objective {text!r} is not understood; give NAME=WEIGHT, such as masked=0.3") from error
        if not (math.isfinite(weight) and weight > 0):
            raise BadInput(f"objective {name} has the weight {value}; give a number above 0, or leave it out")
        if name in weights:
            raise BadInput(f"objective {name} is given twice; give it once")
        weights[name] = weight
    return weights or dict(usual)


def check_run(run: Path, resume: bool) -> Path:
    """Where the state lies.

    Raises:
        BadInput: there is one of a former run, and it is not to be resumed.
    """
    state = run / STATE
    if state.exists() and not resume:
        raise BadInput(f"{state} is there from a former run; give --resume to go on or another --run folder")
    return state


def frames_of(
    run: Path, episodes: Path | None, tasks: Sequence[str], scenes: int, views: int, looks: Sequence[str]
) -> ViewCache:
    """The frames to learn from, rendered or read once and kept in the run's folder."""
    folder = run / FRAMES
    if episodes is not None:
        return logged_frames(folder, episodes)
    if tuple(looks) == PLAIN:
        return simulated_frames(folder, tasks, "train", 0, scenes, views)
    return frames_in_looks(folder, tasks, "train", 0, scenes, views, looks)


def train(training: Pretraining, state: Path, logs: Path, save_every_s: float) -> None:
    """Train to the end, saving on the way and when interrupted."""
    saved = time.monotonic()
    board = _board(logs, training)
    with progress_bar() as bar:
        task = bar.add_task("training", total=training.settings.steps, completed=training.step, note="")
        try:
            for figures in training.advance():
                bar.update(task, completed=training.step, note=f"loss {figures['loss']:.3f}")
                if board is not None:
                    board.report(training.step, figures)
                    if board.wants_picture(training.step):
                        board.show(training.step, training.encoder())
                if time.monotonic() - saved > save_every_s:
                    training.save(state)
                    saved = time.monotonic()
        finally:
            training.save(state)
            if board is not None:
                board.close()


def _board(logs: Path, training: Pretraining) -> EncoderBoard | None:
    from embodied_vision.encoders.board import EncoderBoard

    try:
        return EncoderBoard(logs, training.sets, training.settings.steps, training.step)
    except ImportError:
        err.print("tensorboard is not installed, no curves are written; `pip install tensorboard`")
        return None


def finish(
    training: Pretraining,
    output: Path,
    run: Path,
    source: Mapping[str, Any],
    *,
    tasks: Sequence[str],
    probe_scenes: int,
    as_json: bool,
    teacher: Mapping[str, str] | None = None,
) -> None:
    """Probe the encoder, write its folder and say so.

    Args:
        training: that is done.
        output: folder of the encoder.
        run: folder of the run.
        source: where the frames came from.
        tasks: whose scenes it is probed on.
        probe_scenes: how many; 0 probes nothing.
        as_json: print JSON.
        teacher: what it was distilled from, for the record.
    """
    from embodied_vision.encoders.adapter_card import write_student
    from embodied_vision.encoders.adapting import AdapterStudent
    from embodied_vision.encoders.artefact import write_artefact
    from embodied_vision.encoders.card import card_of, manifest_of, training_record

    student, minutes = training.student, training.seconds / 60
    encoder = student.encoder()
    report = None
    if probe_scenes:
        probed: dict[str, Encoder] = {"trained": encoder}
        if isinstance(student, AdapterStudent):
            probed["base"] = student.trained.encoder
        report = measure(probed, run, tasks, probe_scenes, training.settings.seed)
    command = shlex.join(["embodied-vision", *sys.argv[1:]])
    record = training_record(training.settings, source, command, minutes, teacher)
    if isinstance(student, AdapterStudent):
        write_student(output, student, record, report)
    else:
        manifest = manifest_of(student.encoder(), record, report)
        write_artefact(output, training.weights(), manifest, card_of(manifest, report))
    if as_json:
        result = {"encoder": str(output), "encoder_id": encoder.encoder_id, "minutes": round(minutes, 2)}
        typer.echo(json.dumps({**result, "probe": report and report.to_dict()}))
        return
    if report is not None:
        Console().print(figures_table(report))
    typer.echo(f"{encoder.encoder_id} written to {output}")


def _probe_frames(folder: Path, tasks: Sequence[str], scenes: int) -> tuple[ViewCache, ViewCache]:
    """Frames to fit the read-outs on and to measure them on: scenes that no training uses."""
    first = PROBE_FIRST_INDEX
    return (
        simulated_frames(folder / "probe_fit", tasks, "validation", first, scenes, 4),
        simulated_frames(folder / "probe_held_out", tasks, "validation", first + 100_000, scenes, 4),
    )


def figures_table(report: ProbeReport) -> Table:
    """What the probe found."""
    from embodied_vision.encoders.probe import FIGURES

    table = Table(title=f"linear probe, {report.scenes[1]} held-out scenes, 95 % intervals over scenes")
    table.add_column("encoder")
    for about in FIGURES.values():
        table.add_column(about)
    for name, figures in report.figures.items():
        row = (f"{figures[k].value:.3f} [{figures[k].low:.3f}, {figures[k].high:.3f}]" for k in FIGURES)
        table.add_row(name, *row)
    for name, gains in report.gains.items():
        row = (f"{gains[k].value:+.3f} [{gains[k].low:+.3f}, {gains[k].high:+.3f}]" for k in FIGURES)
        table.add_row(f"gain over {name}", *row)
    return table


def measure(encoders: Mapping[str, Encoder], run: Path, tasks: Sequence[str], scenes: int, seed: int) -> ProbeReport:
    """Probe encoders beside the random twin of the compact one and the mean color."""
    from embodied_vision.encoders.compact import Architecture, CompactArchitecture, CompactEncoder
    from embodied_vision.encoders.probe import MeanColor, probe, random_twin

    fit, held_out = _probe_frames(run, tasks, scenes)
    first = next(iter(encoders.values()))
    architecture: CompactArchitecture = first.architecture if isinstance(first, CompactEncoder) else Architecture()
    others: dict[str, Encoder] = {"random twin": random_twin(architecture, seed, fit), "mean color": MeanColor()}
    with err.status("probing"):
        return probe({**encoders, **others}, fit, held_out, seed=seed)

"""`embodied-vision episodes show`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from embodied_vision.cli.episodes.common import JSON, STORE, open_store, pairs, time_of
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.schema import plain
from embodied_vision.episodes.select import LATEST, find_episode
from embodied_vision.errors import BadInput, EmbodiedVisionError


def show(
    store: Path = STORE,
    episode_id: str = typer.Argument(LATEST, metavar="[ID]", help="Id, the beginning of one, or 'latest'."),
    picture: Path | None = typer.Option(
        None, help="Write a contact sheet, frames and decisions with pick and place, to this image file."
    ),
    plots: Path | None = typer.Option(
        None, help="Write plots of joints, gripper, reward and decisions over time to this .png, .pdf or .svg."
    ),
    video: Path | None = typer.Option(None, help="Write a video of all cameras with their stamps to this .mp4."),
    as_json: bool = JSON,
) -> None:
    """Show what one episode holds."""
    episode = find_episode(open_store(store), episode_id)
    details = _details(episode)
    if picture is not None:
        from embodied_vision.episodes.picture import contact_sheet

        with _written(picture, ".png") as beside:
            contact_sheet(episode).save(beside)
    if plots is not None:
        with _written(plots, ".png") as beside, _needs("matplotlib"):
            from embodied_vision.episodes import plots as drawn

            drawn.plots(episode).savefig(beside, dpi=120)
    if video is not None:
        with _written(video, ".mp4") as beside, _needs("av"):
            _write_video(episode, beside)
    if as_json:
        typer.echo(json.dumps(plain(details, "episode")))
        return
    console = Console()
    about = Table("", "", title=escape(f"episode {episode.id}"), show_header=False)
    for key in ("task", "robot", "encoder_id", "policy_id", "outcome", "attributes", "path"):
        value = details[key]
        about.add_row(key, escape(pairs(value) if isinstance(value, dict) else str(value)))
    about.add_row("started", time_of(episode.created_ns))
    console.print(about)
    streams = Table("stream", "length", "shape", "duration s", "rate Hz", title="streams")
    for name, stream in details["streams"].items():
        streams.add_row(
            escape(name),
            str(stream["length"]),
            "×".join(map(str, stream["shape"])),
            f"{stream['duration_s']:.2f}",
            f"{stream['rate_hz']:.1f}" if stream["rate_hz"] is not None else "-",
        )
    console.print(streams)
    decisions = Table("decision", "primitive", "pick x y z m", "place x y z m", "scores", title="decisions")
    for decision in details["decisions"]:
        decisions.add_row(
            decision["decision_id"],
            decision["primitive"],
            " ".join(f"{v:.3f}" for v in decision["pick"]),
            " ".join(f"{v:.3f}" for v in decision["place"]),
            escape(pairs(decision["scores"])),
        )
    console.print(decisions)
    for what, path in (("contact sheet", picture), ("plots", plots), ("video", video)):
        if path is not None:
            console.print(f"{what}: {escape(str(path))}")


def _write_video(episode: Episode, path: Path) -> None:
    from embodied_vision.episodes.video import video

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("writing the video")
        video(episode, path, lambda done, total: bar.update(task, completed=done, total=total))


@contextmanager
def _written(path: Path, suffix: str) -> Iterator[Path]:
    """A path of the same suffix beside `path`, which it replaces when all went well."""
    if not path.suffix:
        raise BadInput(f"{path} has no suffix that says what to write; give a path that ends in {suffix}")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield Path(folder) / path.name
            os.replace(Path(folder) / path.name, path)
    except (OSError, ValueError) as error:
        if isinstance(error, EmbodiedVisionError):
            raise
        raise BadInput(f"{path} cannot be written ({error}); give a writable path that ends in {suffix}") from error


@contextmanager
def _needs(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise BadInput(f"this needs {package}; install it by `pip install 'embodied_vision[all]'`") from error


def _summary(episode: Episode) -> dict[str, Any]:
    return {
        "id": episode.id,
        "task": episode.task,
        "robot": episode.robot,
        "created_ns": episode.created_ns,
        "encoder_id": episode.encoder_id,
        "policy_id": episode.policy_id,
        "frames": {name: len(episode.frames(name)) for name in episode.cameras},
        "decisions": len(episode.decisions),
        "outcome": dict(episode.outcome),
    }


def _details(episode: Episode) -> dict[str, Any]:
    streams = {}
    for name, camera in episode.cameras.items():
        stamps = episode.frames(name).stamps_ns
        streams[f"{name} (camera)"] = _stream(stamps, (camera.height, camera.width))
    for name in episode.streams:
        stamps, values = episode.stream(name)
        streams[name] = _stream(stamps, values.shape[1:])
    actions = [episode.decisions.action(number) for number in range(len(episode.decisions))]
    return {
        **_summary(episode),
        "path": str(episode.location),
        "attributes": dict(episode.attributes),
        "streams": streams,
        "decisions": [
            {
                "decision_id": action.decision_id,
                "primitive": action.primitive,
                "stamp_ns": action.stamp_ns,
                "pick": action.pick[:3, 3].tolist(),
                "place": action.place[:3, 3].tolist(),
                "scores": dict(action.scores),
            }
            for action in actions
        ],
    }


def _stream(stamps: NDArray[np.int64], shape: tuple[int, ...]) -> dict[str, Any]:
    duration = float(np.ptp(stamps)) / 1e9 if len(stamps) else 0.0
    rate = (len(stamps) - 1) / duration if duration > 0 else None
    return {"length": len(stamps), "shape": list(shape), "duration_s": duration, "rate_hz": rate}

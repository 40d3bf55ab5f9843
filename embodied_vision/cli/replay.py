"""`embodied-vision replay`: a logged episode on topics again, or its decisions made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.select import find_episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import RunFailed
from embodied_vision.launching.environment import process_environment
from embodied_vision.learning.replay import Comparison, replay_decisions
from embodied_vision.policies.locate import locate
from embodied_vision.policies.policy import Policy


def command(
    episode: str = typer.Argument(..., help="Id of the episode, its beginning, or `latest`.", show_default=False),
    store: Path = typer.Option(Path("episodes"), help="Folder of the episode store."),
    rate: float = typer.Option(1.0, min=0.01, max=100.0, help="Speed on topics; 1 is as it happened."),
    topics: bool | None = typer.Option(
        None,
        "--topics/--no-topics",
        "--ros/--no-ros",
        help="Publish the streams under replay/.",
        show_default="unless --policy is given",
    ),
    policy: str | None = typer.Option(
        None, help="Checkpoint (folder or shipped name) that decides again on the logged frames.", show_default="none"
    ),
    encoder: str = typer.Option("default", help="Name or folder of the encoder for --policy."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Put an episode back on topics with its own timing, or compare a policy with what was decided, bit for bit.

    Exit code 1 when the same checkpoint and encoder come to another action.
    """
    found = find_episode(EpisodeStore(store), episode)
    if topics or (topics is None and policy is None):
        _on_topics(found, rate)
    if policy is not None:
        _decide_again(found, policy, encoder, as_json)
    elif as_json:
        typer.echo(json.dumps({"episode": found.id, "rate": rate}))


def _on_topics(episode: Episode, rate: float) -> None:
    values = {"store": str(episode.path.parents[1].resolve()), "episode": episode.id, "rate": rate, "play": True}
    values |= {"exit_when_done": True}
    parameters = [part for name, value in values.items() for part in ("-p", f"{name}:={json.dumps(value)}")]
    with tempfile.TemporaryDirectory(prefix="embodied-vision-replay-") as folder:
        environment = process_environment(Path(folder), int(os.environ.get("ROS_DOMAIN_ID", "0")), isolated=False)
        command = [sys.executable, "-m", "embodied_vision.nodes.replay", "--ros-args", *parameters]
        done = subprocess.run(command, env=dict(environment.variables), check=False)
    if done.returncode:
        raise RunFailed(f"the replay node ended with exit code {done.returncode}; its message stands above")


def _decide_again(episode: Episode, checkpoint: str, encoder_name: str, as_json: bool) -> None:
    encoder = load_encoder(encoder_name)
    policy = Policy.load(locate(checkpoint), encoder)
    steps = track(
        replay_decisions(episode, policy, encoder),
        "deciding again",
        total=len(episode.decisions),
        console=Console(stderr=True),
        transient=True,
    )
    comparisons = list(steps)
    faults = [c for c in comparisons if c.is_fault]
    if as_json:
        summary = {
            "episode": episode.id,
            "checkpoint": policy.checkpoint_id,
            "encoder": encoder.encoder_id,
            "decisions": len(comparisons),
            "identical": sum(c.identical for c in comparisons),
            "faults": len(faults),
            "comparisons": [asdict(c) for c in comparisons],
        }
        typer.echo(json.dumps(summary))
    else:
        Console().print(_table(episode, comparisons))
    if faults:
        raise RunFailed(
            f"{len(faults)} of {len(comparisons)} decisions of episode {episode.id} differ although checkpoint "
            f"{policy.checkpoint_id} and encoder {encoder.encoder_id} made them; was the log made on another machine, "
            "runtime or number of threads?"
        )


def _table(episode: Episode, comparisons: list[Comparison]) -> Table:
    table = Table("decision", "made by this checkpoint", "action", "pick", "place", title=f"episode {episode.id}")
    for c in comparisons:
        action = "identical" if c.identical else "[red]differs[/]" if c.same_ids else "differs"
        if c.pick_mm is None or c.place_mm is None:
            table.add_row(c.decision_id, "yes" if c.same_ids else "no", action, escape(c.error), "")
            continue
        table.add_row(
            c.decision_id,
            "yes" if c.same_ids else "no",
            action,
            f"{c.pick_mm:.3f} mm, {c.pick_deg:.3f}°",
            f"{c.place_mm:.3f} mm, {c.place_deg:.3f}°",
        )
    return table

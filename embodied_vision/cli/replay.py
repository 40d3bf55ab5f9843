"""`embodied-vision replay`: logged episodes on topics again, in a viewer, or their decisions made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console

from embodied_vision.cli.episodes.common import open_store
from embodied_vision.cli.episodes.wanted import SINCE, SOLVED, TAG, TASK, UNTIL, filter_of, wanted_ids
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.remote import is_url
from embodied_vision.episodes.select import find_id
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.launching.environment import process_environment
from embodied_vision.nodes.keys import KEYS, cbreak

StepBy = Literal["frame", "decision"]


def command(
    episode: str | None = typer.Argument(
        None, help="Id of the episode, its beginning, or `latest`.", show_default=False
    ),
    store: str = typer.Option("episodes", help="Folder of the episode store, or its URL in object storage."),
    every: bool = typer.Option(False, "--all", help="All episodes that meet the conditions, for --policy."),
    rate: float = typer.Option(1.0, min=0.01, max=100.0, help="Speed on topics; 1 is as it happened."),
    start: float = typer.Option(0.0, min=0.0, help="Where playing begins, s since the first message."),
    end: float | None = typer.Option(
        None, min=0.0, help="Where it ends, s since the first message.", show_default="end"
    ),
    loop: bool = typer.Option(False, "--loop", help="Begin anew at the end."),
    step: bool = typer.Option(False, "--step", help="Begin paused; keys or ~/step go on one by one."),
    step_by: StepBy = typer.Option("frame", help="What a step goes to."),
    topics: bool | None = typer.Option(
        None,
        "--topics/--no-topics",
        "--ros/--no-ros",
        help="Publish the streams under replay/.",
        show_default="unless --policy, --viewer or --save is given",
    ),
    viewer: str | None = typer.Option(None, help="Show it in this viewer: rerun.", show_default="none"),
    save: Path | None = typer.Option(None, help="Write a recording for rerun to this .rrd file.", show_default="none"),
    policy: str | None = typer.Option(
        None, help="Checkpoint (folder or shipped name) that decides again on the logged frames.", show_default="none"
    ),
    encoder: str = typer.Option("default", help="Name or folder of the encoder for --policy."),
    report: Path | None = typer.Option(
        None, help="Folder for a page that shows where the actions of --policy differ.", show_default="none"
    ),
    task: str | None = TASK,
    policy_id: str | None = typer.Option(
        None, "--policy-id", help="Only episodes in which the policy of this id acted.", show_default="any"
    ),
    solved: bool | None = SOLVED,
    tag: list[str] | None = TAG,
    since: datetime | None = SINCE,
    until: datetime | None = UNTIL,
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Put an episode back on topics with its own timing, show it in rerun, or compare a policy with what was decided.

    In a terminal: space pauses and goes on, . or → steps, ← goes back a second, + and - double and halve the rate,
    q ends. --policy compares bit for bit; exit code 1 when the same checkpoint and encoder come to another action.
    """
    conditions = filter_of(task=task, policy_id=policy_id, solved=solved, tags=tag, since=since, until=until)
    if every == (episode is not None):
        raise BadInput("give one episode, such as `latest`, or --all")
    if every and (policy is None or topics or viewer is not None or save is not None):
        raise BadInput("--all is for --policy; topics and viewers take one episode at a time")
    if report is not None and policy is None:
        raise BadInput("--report shows what --policy decides; give a checkpoint")
    if not every and not conditions.is_empty:
        raise BadInput("conditions such as --task choose among --all; one episode is chosen by its id")
    opened = open_store(store)
    if every:
        ids = wanted_ids(opened, None, conditions)
    else:
        assert episode is not None
        ids = [find_id(opened, episode) if opened.can_list else episode]
    viewed = viewer is not None or save is not None
    on_topics = topics or (topics is None and policy is None and not viewed)
    if on_topics or viewed:
        found = opened.open(ids[0])
        if viewed:
            _in_viewer(found, viewer, save, start, end)
        if on_topics:
            _on_topics(store, found, rate=rate, start=start, end=end, loop=loop, step=step, step_by=step_by)
    if policy is not None:
        from embodied_vision.cli.replay_decisions import decide_again

        decide_again(opened, ids, policy, encoder, report, as_json, single=not every)
    elif as_json:
        typer.echo(json.dumps({"episode": ids[0], "rate": rate, "saved": str(save) if save is not None else None}))


def _in_viewer(episode: Episode, viewer: str | None, save: Path | None, start: float, end: float | None) -> None:
    from embodied_vision.cli.tips import tip_path
    from embodied_vision.episodes.rerun_log import save_recording, show_recording

    if viewer not in (None, "rerun"):
        raise BadInput(f"viewer {viewer!r} is unknown; give rerun, or see `embodied-vision episodes export` for others")
    tip = tip_path(episode)
    if save is not None:
        save_recording(episode, save, tip=tip, start_s=start, end_s=end)
        Console(stderr=True).print(f"recording: {save}", highlight=False, soft_wrap=True)
    if viewer is not None:
        show_recording(episode, tip=tip, start_s=start, end_s=end)


def _on_topics(
    store: str,
    episode: Episode,
    *,
    rate: float,
    start: float,
    end: float | None,
    loop: bool,
    step: bool,
    step_by: StepBy,
) -> None:
    keyboard = sys.stdin.isatty()
    if keyboard:
        Console(stderr=True).print(KEYS, highlight=False)
    elif step:
        Console(stderr=True).print("paused, and no terminal to press keys in: go on by replay/step or replay/play")
    values = {"store": store if is_url(store) else str(Path(store).expanduser().resolve()), "episode": episode.id}
    options: dict[str, object] = {"rate": rate, "start_at": start, "end_at": -1.0 if end is None else end, "loop": loop}
    options |= {"paused": step, "step_by": step_by, "keyboard": keyboard, "play": True, "exit_when_done": True}
    parameters = [part for name, value in (values | options).items() for part in ("-p", f"{name}:={json.dumps(value)}")]
    with tempfile.TemporaryDirectory(prefix="embodied-vision-replay-") as folder:
        environment = process_environment(Path(folder), int(os.environ.get("ROS_DOMAIN_ID", "0")), isolated=False)
        command = [sys.executable, "-m", "embodied_vision.nodes.replay", "--ros-args", *parameters]
        with cbreak() if keyboard else nullcontext():
            done = subprocess.run(command, env=dict(environment.variables), check=False)
    if done.returncode:
        raise RunFailed(f"the replay node ended with exit code {done.returncode}; its message stands above")

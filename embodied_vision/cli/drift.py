"""`embodied-vision learn drift`: whether what an arm sees, does and achieves is still what its policy learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from embodied_vision.cores import use_cores
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import drift_known
from embodied_vision.learning.dataset import load_dataset, teaching_ids
from embodied_vision.learning.drift import PATIENCE
from embodied_vision.learning.drift_known import Known, beside
from embodied_vision.learning.drift_report import Drift, look, plot
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.locate import locate

app = typer.Typer(
    help="Watch what the arm sees, does and achieves beside what its policy learnt.", invoke_without_command=True
)
CHECKPOINT = typer.Option(
    ..., help="Policy: a folder, a pointer to one, or the name of a shipped one.", show_default=False
)
KNOWN = typer.Option(None, help="Folder of what the policy knows.", show_default="CHECKPOINT.known")
CACHE = typer.Option(None, help="Folder for what was computed of episodes; may be deleted.", show_default="STORE/cache")
JSON = typer.Option(False, "--json", help="Print JSON for scripts.")
MOST_LINKS = 8


@app.callback()
def command(
    context: typer.Context,
    store: Path | None = typer.Option(None, help="Folder of the episode store to look at.", show_default=False),
    checkpoint: Path | None = typer.Option(
        None, help="Policy: a folder, a pointer to one, or the name of a shipped one.", show_default=False
    ),
    known: Path | None = KNOWN,
    everybody: bool = typer.Option(False, "--all", help="What other policies did in this task, too."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder."),
    patience: float = typer.Option(
        PATIENCE, min=2.0, help="Mean number of decisions until a false alarm about scenes, or about actions."
    ),
    picture: Path | None = typer.Option(None, "--plot", help="Picture of all channels, .png, .pdf or .svg."),
    cache: Path | None = CACHE,
    threads: int = typer.Option(1, min=1, help="CPU threads."),
    as_json: bool = JSON,
) -> None:
    """Go through logged episodes, oldest first, and tell where scenes, actions, scores or outcomes changed.

    `learn drift fit` says what the policy knows, once. Exit code 0 whether or not there is an alarm.
    """
    if context.invoked_subcommand is not None:
        return
    if store is None or checkpoint is None:
        raise BadInput("give --store with the logged episodes and --checkpoint with the policy that made them")
    use_cores(threads)
    folder = locate(checkpoint)
    manifest = checkpoints.read_manifest(folder)
    loaded = _known(known if known is not None else beside(folder), str(manifest["checkpoint_id"]), checkpoint)
    opened = EpisodeStore(store)
    if not opened.exists():
        raise BadInput(f"no episode store at {store}; log episodes with `embodied-vision launch cell`")
    policy = checkpoints.load(folder)
    eyes = load_encoder(encoder) if loaded.encoder_id else None
    with _bars(as_json) as progress:
        bar = progress.add_task(f"looking at {store.name}", total=len(opened.ids()))
        found = look(
            opened,
            loaded,
            eyes,
            policy.workspace,
            policy_id=None if everybody else loaded.checkpoint_id,
            patience=patience,
            cache=cache,
            report=lambda _: progress.advance(bar),
        )
    if picture is not None:
        plot(found, f"{loaded.task}, policy {loaded.checkpoint_id}, {found.episodes} episodes", picture)
    if as_json:
        about = {"checkpoint": loaded.checkpoint_id, "task": loaded.task, "store": str(store)}
        typer.echo(json.dumps({**about, **found.to_dict()}))
    else:
        _print(found, store)


@app.command("fit")
def fit_command(
    checkpoint: Path = CHECKPOINT,
    store: Path = typer.Option(..., help="Store with the episodes that it was trained on.", show_default=False),
    known: Path | None = KNOWN,
    encoder: str = typer.Option("default", help="Name or folder of the encoder."),
    cache: Path | None = CACHE,
    similar: bool = typer.Option(
        False, "--similar", help="Take the solved training scenes of the store, where its own data are gone."
    ),
    threads: int = typer.Option(1, min=1, help="CPU threads."),
    as_json: bool = JSON,
) -> None:
    """Say once what a policy knows, from the episodes that it was trained on; it is written beside its folder."""
    use_cores(threads)
    folder = locate(checkpoint)
    if known is None and not checkpoint.is_dir():
        raise BadInput(f"{checkpoint} ships with the package, where nothing is written; name a folder by --known")
    policy = checkpoints.load(folder)
    opened = EpisodeStore(store)
    there = set(opened.ids()) if opened.exists() else set()
    ids = sorted(there & set(policy.training.get("episodes", ())))
    if similar:
        ids = teaching_ids(opened, policy.task) if opened.exists() else []
    if not ids:
        raise BadInput(
            f"{store} holds none of the {len(policy.training.get('episodes', ()))} episodes that {checkpoint} was "
            "trained on; name their store, or take others of its task by --similar"
        )
    eyes = load_encoder(encoder) if policy.encoder_id else None
    if eyes is not None and eyes.encoder_id != policy.encoder_id:
        raise BadInput(
            f"{checkpoint} reads encoder {policy.encoder_id}, {encoder} is {eyes.encoder_id}; give its encoder"
        )
    with Console(stderr=True).status(f"reading {len(ids)} episodes"):
        dataset = load_dataset(opened, policy.task, eyes, policy.workspace, episode_ids=ids, cache=cache)
        sources = [example.source.partition("/") for example in dataset.examples]
        actions = [opened.open(episode_id).decisions.action(int(number)) for episode_id, _, number in sources]
        made = Known.of(dataset, actions, policy.checkpoint_id)
    target = known if known is not None else beside(folder)
    drift_known.save(made, target)
    if as_json:
        about = {"known": str(target), "checkpoint": made.checkpoint_id, "episodes": len(ids)}
        typer.echo(json.dumps({**about, "decisions": len(dataset)}))
    else:
        typer.echo(f"{target}: what {made.checkpoint_id} knows, {len(dataset)} decisions of {len(ids)} episodes")


@app.command("check")
def check_command(
    streams: int = typer.Option(40, min=1, help="Simulated streams."),
    length: int = typer.Option(500, min=2, help="Values of each."),
    episodes: int = typer.Option(100, min=10, help="Training episodes behind what is known."),
    patience: float = typer.Option(PATIENCE, min=2.0, help="See `learn drift`."),
    seed: int = typer.Option(0, min=0, help="Seed of everything."),
    as_json: bool = JSON,
) -> None:
    """Simulate streams in which nothing changes, and ones that do: how many alarms are false, how late the others."""
    from embodied_vision.learning.drift_check import check

    with _bars(as_json) as progress:
        bar = progress.add_task("simulating", total=streams)
        found = check(
            streams=streams,
            length=length,
            episodes=episodes,
            patience=patience,
            seed=seed,
            report=lambda done: progress.update(bar, completed=done),
        )
    if as_json:
        typer.echo(json.dumps({"streams": streams, "length": length, "channels": [each.to_dict() for each in found]}))
        return
    table = Table("channel", "false alarms in 1000 values", "changes found", "median delay, values")
    for each in found:
        false, share = each.false_per_1000, each.detected
        table.add_row(
            each.channel,
            f"{false.value:.2f} ({false.low:.2f} to {false.high:.2f})",
            f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})",
            f"{each.delay:.0f}",
        )
    Console().print(table)


def _known(folder: Path, checkpoint_id: str, checkpoint: Path) -> Known:
    if not folder.is_dir():
        raise BadInput(
            f"nobody said yet what {checkpoint} knows; with the store of its training episodes, {folder} is written by "
            f"`embodied-vision learn drift fit --checkpoint {checkpoint} --store STORE`"
        )
    loaded = drift_known.load(folder)
    if loaded.checkpoint_id != checkpoint_id:
        raise BadInput(
            f"{folder} is about policy {loaded.checkpoint_id}, {checkpoint} is {checkpoint_id}; fit it again"
        )
    return loaded


def _print(found: Drift, store: Path) -> None:
    console = Console()
    about = found.to_dict()
    console.print(
        f"{found.episodes} episodes, {about['decisions']} decisions; as unusual as one in twenty of training: "
        f"{about['scene_outside']} scenes, {about['action_outside']} actions",
        highlight=False,
    )
    for alarm in found.alarms:
        links: list[Any] = alarm.episodes
        console.print(f"[bold red]{alarm.channel}[/]: {alarm.meaning}, seen at {escape(alarm.source)}", highlight=False)
        for episode_id in links[-MOST_LINKS:]:
            console.print(f"    embodied-vision episodes show {store} {episode_id}", highlight=False, soft_wrap=True)
        if len(links) > MOST_LINKS:
            console.print(f"    and {len(links) - MOST_LINKS} before")
    if not found.alarms:
        console.print("no alarm")
    for name, problem in found.damaged:
        console.print(f"left out {name}: {problem}", highlight=False, markup=False)


def _bars(quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet)

"""`embodied-vision learn`: fine-tune on newly logged episodes, promote or refuse, and the way back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from embodied_vision.cli.lazy import lazy_group
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.decide import Outcome
from embodied_vision.learning.evaluate import SceneResult
from embodied_vision.learning.learn import learn
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.lessons import note
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.train import STAGES, Stage

DEFAULTS = LearnConfig()
_HERE = "embodied_vision.cli."
VERBS = {
    "begin": _HERE + "learn_begin:command",
    "gate": _HERE + "learn_gate:command",
    "scenes": _HERE + "learn_scenes:command",
    "canary": _HERE + "learn_canary:command",
    "shadow": _HERE + "learn_shadow:command",
    "history": _HERE + "learn_history:command",
    "lineage": _HERE + "learn_lineage:command",
    "forget": _HERE + "learn_forget:command",
    "outcomes": _HERE + "outcomes:app",
    "drift": _HERE + "drift:app",
    "stream": _HERE + "learn_stream:app",
    "report": _HERE + "life_report:command",
}
app = typer.Typer(
    cls=lazy_group(VERBS),
    help="Learn from newly logged episodes: fine-tune, compare on validation scenes, promote or refuse.",
    invoke_without_command=True,
)


@app.callback()
def command(
    context: typer.Context,
    store: Path | None = typer.Option(None, help="Folder of the episode store with new episodes.", show_default=False),
    policies: Path | None = typer.Option(
        None, help="Folder of checkpoints and `current` pointers.", show_default=False
    ),
    task: str | None = typer.Option(None, help="Name of the task; every task in the store when left out."),
    replay: Path | None = typer.Option(None, help="Store of older episodes, when they lie elsewhere."),
    minutes: float = typer.Option(DEFAULTS.minutes, min=0.0, help="Longest fine-tuning of a task, minutes."),
    steps: int = typer.Option(DEFAULTS.steps, min=1, help="Fine-tuning steps of each stage."),
    failed: float = typer.Option(
        DEFAULTS.failed, min=0.0, max=1.0, help="Weight of actions that failed, which are avoided; 0 leaves them out."
    ),
    scenes: int = typer.Option(DEFAULTS.scenes, min=0, help="Validation scenes to compare on; 0 without a simulator."),
    margin: float = typer.Option(DEFAULTS.margin, help="Share of scenes that a candidate may solve less."),
    holdout: float = typer.Option(DEFAULTS.holdout, help="Share of the episodes that is kept to try candidates on."),
    canary: int = typer.Option(DEFAULTS.canary, min=0, help="Episodes for which what is promoted is watched; 0: none."),
    seed: int = typer.Option(DEFAULTS.seed, min=0, help="Seed of order and augmentation."),
    threads: int = typer.Option(DEFAULTS.threads, min=1, max=2, help="2 trains both stages side by side."),
    workers: int = typer.Option(DEFAULTS.workers, min=1, help="Processes that evaluate."),
    encoder: str = typer.Option("default", help="Name or folder of the encoder."),
    watch: bool = typer.Option(False, "--watch", help="Go on learning as episodes are closed, at a low priority."),
    every: int = typer.Option(5, min=1, help="With --watch: a round begins when so many episodes wait."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON line a task."),
) -> None:
    """Fine-tune the policy in use on episodes that it has not learnt from, and promote it if it does no worse."""
    if context.invoked_subcommand is not None:
        return
    if store is None or policies is None:
        raise BadInput("give --store with the logged episodes and --policies with the checkpoints")
    config = LearnConfig(
        steps=steps,
        minutes=minutes,
        failed=failed,
        scenes=scenes,
        margin=margin,
        holdout=holdout,
        canary=canary,
        seed=seed,
        threads=threads,
        workers=workers,
    )
    if watch:
        from embodied_vision.cli.learn_watch import watch as go_on

        go_on(store, policies, task, config, every=every, encoder=encoder, as_json=as_json)
        return
    episodes = EpisodeStore(store)
    if not episodes.exists():
        raise BadInput(f"no episode store at {store}; log episodes with `embodied-vision launch cell`")
    tasks = [task] if task is not None else sorted({e.task for e in episodes.select()})
    for name in tasks:
        outcome = _learn(name, episodes, policies, config, encoder, EpisodeStore(replay) if replay else None)
        typer.echo(json.dumps(outcome.to_dict()) if as_json else _sentence(outcome, policies))


def _learn(
    task: str,
    store: EpisodeStore,
    policies: Path,
    config: LearnConfig,
    encoder: str,
    replay: EpisodeStore | None,
) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars = {stage: progress.add_task(f"{task}: {stage}", total=config.steps) for stage in STAGES}
        compared = {who: progress.add_task(f"{task}: {who}", total=config.scenes) for who in ("candidate", "baseline")}

        def on_step(stage: Stage, step: int, _: Mapping[str, float]) -> None:
            progress.update(bars[stage], completed=step)

        def on_scene(who: str, _: SceneResult) -> None:
            progress.advance(compared[who])

        return learn(task, store, policies, config, encoder=encoder, replay=replay, report=on_step, progress=on_scene)


def _sentence(outcome: Outcome, policies: Path) -> str:
    lines = [f"{outcome.task}: {outcome.decision}: {outcome.reason}"]
    if beside := note(outcome.to_dict()):
        lines.append(beside)
    if outcome.decision == "promoted":
        lines.append(
            f"{policies / outcome.task / 'current'} is {outcome.candidate}, before {outcome.baseline}; a running "
            "policy node takes it up before its next decision, `embodied-vision learn rollback` goes back"
        )
    return "\n".join(lines)


@app.command("rollback")
def rollback(
    policies: Path = typer.Option(..., help="Folder of checkpoints and `current` pointers.", show_default=False),
    task: str = typer.Option(..., help="Name of the task.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="Print JSON for scripts."),
) -> None:
    """Use the former checkpoint of a task again."""
    pointer = Pointer(policies, task)
    before, now = pointer.current, pointer.rollback()
    encoder = pointer.release["encoder"]
    if as_json:
        typer.echo(json.dumps({"task": task, "current": now, "former": before, "encoder": encoder}))
    else:
        reads = encoder["name"] or encoder["id"] or "none"
        typer.echo(f"{task}: {now} is in use again, encoder {reads}; {before} is kept as the former one")

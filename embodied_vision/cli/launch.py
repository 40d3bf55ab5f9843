"""`embodied-vision launch`: start a graph of nodes, watch it until Ctrl-C, and talk to it from another terminal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import StrEnum
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.launching.arguments import COMMON, LAUNCHABLE, SWITCH, Argument, named
from embodied_vision.launching.environment import NAMESPACE_VARIABLE
from embodied_vision.launching.events import Event
from embodied_vision.launching.graph import PARAMETERS, GraphConfig
from embodied_vision.launching.run_status import read_status
from embodied_vision.launching.supervisor import Supervisor

app = typer.Typer(help="Start the nodes, each a process of its own, and watch them until Ctrl-C.", no_args_is_help=True)

Start = tuple[dict[str, str], str | None]
"""Launch arguments that were given, and the service that is called once all nodes are active."""


class Discovery(StrEnum):
    """How far a graph may be found."""

    LOCALHOST = "localhost"
    SUBNET = "subnet"
    SYSTEM_DEFAULT = "system_default"


class LogLevel(StrEnum):
    """Least severity that nodes log."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    FATAL = "fatal"


def option(argument: Argument, default: Any = None, **more: Any) -> Any:
    """The option that stands for a launch argument; `default` None leaves the parameter files alone."""
    flag = f"--{argument.name.replace('_', '-')}"
    names = (f"{flag}/--no-{flag.removeprefix('--')}",) if argument.choices == SWITCH else (flag,)
    if default is None and argument.default:
        default = argument.default == "true" if argument.choices == SWITCH else argument.default
    more.setdefault("show_default", "as in the parameters" if default is None else True)
    return typer.Option(default, *names, help=sentence(argument.description), **more)


def sentence(text: str) -> str:
    """As an option's help is written."""
    return f"{text[0].upper()}{text[1:]}."


_CELL = named(LAUNCHABLE["cell"].arguments)
_ARM = named(LAUNCHABLE["arm"].arguments)
_CAMERA = named(LAUNCHABLE["camera"].arguments)
_COMMON = named(COMMON)


def _common(
    namespace: str = option(_COMMON["namespace"], "", show_default="none"),
    params_file: list[Path] = option(_COMMON["params_file"], [], show_default="none; may be repeated, the last wins"),
    use_sim_time: bool = option(_COMMON["use_sim_time"]),
    autostart: bool = option(_COMMON["autostart"]),
    use_respawn: bool = option(_COMMON["use_respawn"]),
    use_composition: bool = option(_COMMON["use_composition"]),
    log_level: LogLevel = option(_COMMON["log_level"], LogLevel.INFO),
    run_dir: Path | None = typer.Option(None, help="Folder for the logs of this run.", show_default="runs/launch-TIME"),
    domain_id: int | None = typer.Option(
        None,
        envvar="ROS_DOMAIN_ID",
        min=0,
        max=232,
        help="ROS domain id. Without one a free domain is held, and the graph stays on this machine.",
        show_default="a free one",
    ),
    discovery: Discovery | None = typer.Option(
        None,
        help="How far the graph may be found: localhost, subnet or system_default; see docs/security.md.",
        show_default="localhost, or as the environment says with a domain id",
    ),
    peer: list[str] = typer.Option([], help="Host that may join beside those; may be repeated.", show_default="none"),
    enclave: str = typer.Option(
        "", help="Parent of the nodes' SROS 2 enclaves, such as /cell; security is then enforced.", show_default="none"
    ),
    timeout: float = typer.Option(90.0, min=1.0, help="How long all nodes may take to become active, s."),
) -> tuple[dict[str, Any], float]:
    """Options of every verb that starts a graph.

    Returns:
        What GraphConfig takes of them, and the time that the nodes have.
    """
    config = {
        "run_dir": run_dir or _new_run_dir(),
        "namespace": namespace,
        "params_files": (PARAMETERS, *params_file),
        "use_sim_time": use_sim_time,
        "autostart": autostart,
        "use_respawn": use_respawn,
        "use_composition": use_composition,
        "log_level": log_level.value,
        "domain": domain_id,
        "discovery": discovery.value if discovery else "",
        "peers": tuple(peer),
        "enclave": enclave,
    }
    return config, timeout


def _launches(name: str) -> Callable[[Callable[..., Start]], Callable[..., None]]:
    """Make a verb that starts the graph of this name: the options of `_common` follow its own."""

    def decorate(own: Callable[..., Start]) -> Callable[..., None]:
        shared = signature(_common).parameters

        @wraps(own)
        def verb(**given: Any) -> None:
            config, timeout_s = _common(**{each: given.pop(each) for each in shared})
            texts, service = own(**given)
            graph = LAUNCHABLE[name]
            nodes, parameters = graph.started(texts), graph.parameters(texts)
            _watch(GraphConfig(nodes=nodes, parameters=parameters, **config), timeout_s, service)

        parameters = [*signature(own).parameters.values(), *shared.values()]
        verb.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what typer reads options from
        verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return app.command(name)(verb)

    return decorate


@_launches("cell")
def cell(
    task: str | None = option(_CELL["task"]),
    policy: str | None = option(_CELL["policy"]),
    shadow: Path | None = option(_CELL["shadow"]),
    encoder: str | None = option(_CELL["encoder"]),
    store: Path | None = option(_CELL["store"]),
    learn: Path | None = option(_CELL["learn"], show_default="no learner"),
    first_seed: int | None = option(_CELL["first_seed"], min=0),
    scenes: int | None = option(_CELL["scenes"], min=1),
    run: bool = typer.Option(False, "--run", help="Work on scenes as soon as all nodes are active."),
) -> Start:
    """Start the simulated cell: cell, encoder, policy, arm, recorder, task."""
    texts = _texts(
        task=task,
        policy=_path(policy),
        shadow=_absolute(shadow),
        encoder=_path(encoder),
        store=_absolute(store),
        learn=_absolute(learn),
        first_seed=first_seed,
        scenes=scenes,
    )
    return texts, "task/run" if run else None


@_launches("arm")
def arm(
    robot: str | None = option(_ARM["robot"]),
    calibration: Path | None = option(_ARM["calibration"]),
    task: str | None = option(_ARM["task"]),
    policy: str | None = option(_ARM["policy"]),
    shadow: Path | None = option(_ARM["shadow"]),
    encoder: str | None = option(_ARM["encoder"]),
    store: Path | None = option(_ARM["store"]),
    judge: Path | None = option(_ARM["judge"], show_default="no task node"),
    scenes: int | None = option(_ARM["scenes"], min=1),
    learn: Path | None = option(_ARM["learn"], show_default="no learner"),
    speed: float | None = option(_ARM["speed"], min=0.05, max=1.0),
    dry_run: bool | None = option(_ARM["dry_run"]),
) -> Start:
    """Drive a real arm whose drivers run in this ROS domain: encoder, policy, arm, recorder; see docs/real_robot.md."""
    texts = _texts(
        robot=_path(robot),
        calibration=_absolute(calibration),
        task=task,
        policy=_path(policy),
        shadow=_absolute(shadow),
        encoder=_path(encoder),
        store=_absolute(store),
        judge=_absolute(judge),
        scenes=scenes,
        learn=_absolute(learn),
        speed=speed,
        dry_run=dry_run,
    )
    return texts, None


@_launches("camera")
def camera(
    source: str = option(_CAMERA["source"], ..., show_default=False),
    calibration: Path | None = option(_CAMERA["calibration"]),
    rate: float | None = option(_CAMERA["rate"], min=0.1, max=240.0),
    loop: bool | None = option(_CAMERA["loop"]),
    resize: bool | None = option(_CAMERA["resize"]),
    encoder: str | None = option(_CAMERA["encoder"]),
    store: Path | None = option(_CAMERA["store"]),
    record: bool = typer.Option(True, help="Log an episode as soon as all nodes are active."),
) -> Start:
    """Publish, encode and log real images: camera, encoder, recorder. No arm moves."""
    texts = _texts(
        source=_path(source),
        calibration=_absolute(calibration),
        rate=rate,
        loop=loop,
        resize=resize,
        encoder=encoder,
        store=_absolute(store),
    )
    return texts, "recorder/start" if record else None


@app.command("status")
def status(
    run_dir: Path = typer.Argument(..., help="Folder of the run, as launch printed it.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Tell how a run does: its nodes, and what is wrong. Exit code 1 when something is, or when it has ended."""
    found = read_status(run_dir)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        console = Console(highlight=False, soft_wrap=True)
        table = Table("node", "state", "process", "restarts")
        for name, node in found.nodes.items():
            table.add_row(name, node["state"], str(node["pid"] or "none"), str(node["restarts"]))
        console.print(table)
        where = f" in namespace /{found.namespace}" if found.namespace else ""
        console.print(f"{found.phase}, ROS domain {found.domain}{where}: {found.level}")
        for words in (*([found.failure] if found.failure else []), *found.wrong):
            console.print(f"- {words}", markup=False)
    raise typer.Exit(0 if found.phase == "running" and found.level == "ok" else 1)


@app.command("trigger")
def trigger(
    run_dir: Path = typer.Argument(..., help="Folder of the run to talk to, as launch printed it.", show_default=False),
    service: str = typer.Argument(
        ..., help="Such as arm/stop, arm/resume, task/run, policy/reload, recorder/stop.", show_default=False
    ),
    values: list[str] = typer.Argument(
        None, metavar="[NODE.PARAMETER=VALUE]...", help="Parameters to set first, such as task.scenes=5."
    ),
) -> None:
    """Set parameters and call a service of a running graph, where there are no ROS command line tools."""
    file = run_dir / "environment.sh"
    if not file.is_file():
        raise BadInput(f"{file} does not exist; give the folder of a run that was launched on this machine")
    words = shlex.split(file.read_text(encoding="utf-8"))
    exported = dict(word.split("=", 1) for word in words if word != "export")
    raise typer.Exit(
        _call([service, *(values or [])], {**os.environ, **exported}, exported.get(NAMESPACE_VARIABLE, ""))
    )


def _call(arguments: list[str], environment: Mapping[str, str], namespace: str) -> int:
    command = [sys.executable, "-m", "embodied_vision.nodes.call", *arguments]
    if namespace:
        command += ["--ros-args", "-r", f"__ns:=/{namespace}"]
    return subprocess.run(command, env=dict(environment), check=False).returncode


def _texts(**values: object) -> dict[str, str]:
    """Options that were given, as a launch file gets them; the others are left to the parameter files."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().resolve())


def _path(name_or_path: str | None) -> str | None:
    """A path that exists becomes absolute, a name stays; so does a link, which may lead elsewhere later."""
    path = Path(name_or_path or "").expanduser()
    return str(path.absolute()) if name_or_path and path.exists() else name_or_path


def _new_run_dir() -> Path:
    return Path("runs") / time.strftime("launch-%Y%m%d-%H%M%S")


def _print_event(console: Console, event: Event) -> None:
    if event.kind == "failed":  # raised when all processes have ended
        return
    style = {"died": "red", "silent": "yellow", "diagnostic": "yellow", "note": "dim"}
    about = f"{event.node} {event.kind}" if event.node else event.kind
    console.print(f"{time.strftime('%H:%M:%S')} {about}: {event.detail}", style=style.get(event.kind), markup=False)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _watch(config: GraphConfig, timeout_s: float, service: str | None) -> None:
    """Run a graph until Ctrl-C or SIGTERM; a failure is raised after all processes have ended."""
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a shell ignores it for what it starts in the background
    with Supervisor(config, lambda event: _print_event(console, event)) as graph:
        try:
            if config.autostart:
                graph.wait_active(timeout_s)
            else:
                graph.wait_there(timeout_s)
            folder = graph.run_dir
            console.print(
                f"[green]All {len(config.nodes)} nodes are {'active' if config.autostart else 'there'}[/] in ROS "
                f"domain {graph.domain}; logs in {escape(str(folder / 'logs'))}.\nTo join from another terminal: "
                f"source {escape(str(folder / 'environment.sh'))}; how it does: "
                f"embodied-vision launch status {escape(str(folder))}. Ctrl-C ends all."
            )
            wanted = service if config.autostart else None
            if wanted is not None and _call([wanted], graph.environment.joined, config.namespace) != 0:
                raise RunFailed(f"{wanted} failed; read the logs in {graph.run_dir / 'logs'}")
            graph.wait()
        except KeyboardInterrupt:
            console.print("stopping; Ctrl-C again kills what is left")

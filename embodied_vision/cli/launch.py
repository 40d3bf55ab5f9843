"""`embodied-vision launch`: start a graph of nodes, watch it until Ctrl-C, and talk to it from another terminal."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, overload

import typer
from rich.console import Console
from rich.markup import escape

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.launching.environment import NAMESPACE_VARIABLE
from embodied_vision.launching.events import Event
from embodied_vision.launching.graph import CAMERA, CELL, PARAMETERS, GraphConfig
from embodied_vision.launching.supervisor import Supervisor

app = typer.Typer(help="Start the nodes, each a process of its own, and watch them until Ctrl-C.", no_args_is_help=True)


class OnDeath(StrEnum):
    """What follows when a node dies."""

    RESTART = "restart"
    STOP = "stop"


class LogLevel(StrEnum):
    """Least severity that nodes log."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    FATAL = "fatal"


NAMESPACE = typer.Option("", help="ROS namespace of all nodes, such as cell_1.", show_default="none")
PARAMS_FILE = typer.Option(
    [],
    help="Parameter YAML on top of the shipped config/cell.yaml; may be repeated, the last wins.",
    show_default="none",
)
USE_SIM_TIME = typer.Option(False, "--use-sim-time", help="Nodes follow /clock, which the simulated cell publishes.")
LOG_LEVEL = typer.Option(LogLevel.INFO, help="Least severity that nodes log.")
ON_DEATH = typer.Option(
    OnDeath.RESTART, help="A node that dies is started again (at most 3 times a minute), or everything stops."
)
RUN_DIR = typer.Option(None, help="Folder for the logs of this run.", show_default="runs/launch-TIME")
STORE = typer.Option(None, help="Folder of the episode store that the recorder writes to.", show_default="episodes")
DOMAIN = typer.Option(
    None,
    envvar="ROS_DOMAIN_ID",
    min=0,
    max=232,
    help="ROS domain id. Without one a free domain is held, and the graph stays on this machine.",
    show_default="a free one",
)
TIMEOUT = typer.Option(90.0, min=1.0, help="How long all nodes may take to become active, s.")


@app.command("cell")
def cell(
    task: str | None = typer.Option(
        None, help="Task that the cell sets up and the task node works on.", show_default="block-insertion"
    ),
    policy: str | None = typer.Option(
        None, help="Checkpoint: a shipped name, its folder, or a pointer to it.", show_default="the task's shipped one"
    ),
    store: Path | None = STORE,
    run: bool = typer.Option(False, "--run", help="Work on scenes as soon as all nodes are active."),
    first_seed: int | None = typer.Option(None, min=0, help="First scene of a run.", show_default="2000000"),
    scenes: int | None = typer.Option(None, min=1, help="Number of scenes of a run.", show_default="1"),
    namespace: str = NAMESPACE,
    params_file: list[Path] = PARAMS_FILE,
    use_sim_time: bool = USE_SIM_TIME,
    log_level: LogLevel = LOG_LEVEL,
    on_death: OnDeath = ON_DEATH,
    run_dir: Path | None = RUN_DIR,
    domain_id: int | None = DOMAIN,
    timeout: float = TIMEOUT,
) -> None:
    """Start the simulated cell: cell, encoder, policy, arm, recorder, task."""
    parameters = {
        "cell": _given(task=task),
        "task": _given(task=task, first_seed=first_seed, scenes=scenes),
        "policy": _given(checkpoint=task if policy is None else _checkpoint(policy)),
        "recorder": _given(store=_absolute(store), task=task),
    }
    config = GraphConfig(
        nodes=CELL,
        run_dir=run_dir or _new_run_dir(),
        namespace=namespace,
        params_files=(PARAMETERS, *params_file),
        parameters=parameters,
        use_sim_time=use_sim_time,
        log_level=log_level.value,
        on_death=on_death.value,
        domain=domain_id,
    )
    _watch(config, timeout, "task/run" if run else None)


@app.command("camera")
def camera(
    source: str = typer.Option(
        ..., help="Folder of pictures (or of color/ and depth/), video file, or device.", show_default=False
    ),
    calibration: Path | None = typer.Option(
        None, help="YAML with the camera's calibration.", show_default="the simulated cell's"
    ),
    rate: float | None = typer.Option(
        None, min=0.1, max=240.0, help="Frames a second; a device may give fewer.", show_default="15"
    ),
    loop: bool | None = typer.Option(None, help="Start again at the end of a folder or file.", show_default="loop"),
    resize: bool | None = typer.Option(
        None, help="Scale images to the size of the calibration, or refuse them.", show_default="no-resize"
    ),
    encoder: str | None = typer.Option(None, help="Name or folder of the encoder.", show_default="default"),
    record: bool = typer.Option(True, help="Log an episode as soon as all nodes are active."),
    store: Path | None = STORE,
    namespace: str = NAMESPACE,
    params_file: list[Path] = PARAMS_FILE,
    log_level: LogLevel = LOG_LEVEL,
    on_death: OnDeath = ON_DEATH,
    run_dir: Path | None = RUN_DIR,
    domain_id: int | None = DOMAIN,
    timeout: float = TIMEOUT,
) -> None:
    """Publish, encode and log real images: camera, encoder, recorder. No arm moves."""
    images = _absolute(Path(source)) if Path(source).exists() else source
    cameras = _absolute(calibration)
    parameters = {
        "camera": _given(source=images, rate=rate, loop=loop, resize=resize, calibration=cameras),
        "encoder": _given(encoder=encoder),
        "recorder": _given(store=_absolute(store), robot="none", task="camera", calibration=cameras),
    }
    config = GraphConfig(
        nodes=CAMERA,
        run_dir=run_dir or _new_run_dir(),
        namespace=namespace,
        params_files=(PARAMETERS, *params_file),
        parameters=parameters,
        log_level=log_level.value,
        on_death=on_death.value,
        domain=domain_id,
    )
    _watch(config, timeout, "recorder/start" if record else None)


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


def _given(**values: Any) -> dict[str, Any]:
    """Options that were given; the others are left to the parameter files."""
    return {name: value for name, value in values.items() if value is not None}


@overload
def _absolute(path: Path) -> str: ...
@overload
def _absolute(path: None) -> None: ...
def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().resolve())


def _checkpoint(name_or_path: str) -> str:
    """A path becomes absolute, a shipped name stays."""
    path = Path(name_or_path).expanduser()
    return _absolute(path) if path.exists() else name_or_path


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
            graph.wait_active(timeout_s)
            console.print(
                f"[green]All {len(config.nodes)} nodes are active[/] in ROS domain {graph.domain}; logs in "
                f"{escape(str(graph.run_dir / 'logs'))}.\nTo join from another terminal: "
                f"source {escape(str(graph.run_dir / 'environment.sh'))}. Ctrl-C ends all."
            )
            if service is not None and _call([service], graph.environment.variables, config.namespace) != 0:
                raise RunFailed(f"{service} failed; read the logs in {graph.run_dir / 'logs'}")
            graph.wait()
        except KeyboardInterrupt:
            console.print("stopping; Ctrl-C again kills what is left")

"""`python -m embodied_vision_sim.gallery`: docs/tasks.md and its pictures, from the tasks themselves."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.geometry import look_at, pose_to_vector
from embodied_vision.learning.seeds import SPLIT_SIZE, scene_seed
from embodied_vision.types import Camera, PickPlace
from embodied_vision_sim.registration import ENV_IDS, GRASP_ENVS, register_envs
from embodied_vision_sim.tasks.base import Task
from embodied_vision_sim.tasks.registry import TASKS

COMMAND = "python -m embodied_vision_sim.gallery"
SCENES = 10
"""Scenes to try until the expert solves one."""
COLORS = 128
"""Of a picture's palette: small files, hardly any difference."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """What the page says of one environment.

    Attributes:
        name: heading, and name of the picture's file.
        env_id: Gymnasium id.
        kind: the class that defines it.
        drawn: whether there are pictures: an expert says what to do, and does it in a few actions.
    """

    name: str
    env_id: str
    kind: type[Any]
    drawn: bool = True


def entries() -> list[Entry]:
    """Everything that is registered, in the order of registration."""
    register_envs()
    tasks = [Entry(name, ENV_IDS[name], kind) for name, kind in TASKS.items()]
    for env_id in GRASP_ENVS:
        kind = gymnasium.envs.registration.load_env_creator(str(gymnasium.spec(env_id).entry_point))
        assert isinstance(kind, type)
        steered = "horizon" in inspect.signature(kind).parameters
        tasks.append(Entry(env_id.split("/")[1].removesuffix("-v0"), env_id, kind, drawn=not steered))
    return tasks


# The page


def page() -> str:
    """The text of docs/tasks.md."""
    listed = entries()
    lines = [
        "# Tasks",
        "",
        f"Made by `{COMMAND}` from the definitions in `sim/`, and tested to agree with them: edit those.",
        "",
        "Each picture shows a scene at its start, half-way while the expert works, and solved. A seed determines the "
        f"scene: training {_seeds('train')}, validation {_seeds('validation')}, test {_seeds('test')}. Where a task "
        "has other shapes for testing, its definition says so. Poses count when position and yaw are within the "
        "tolerances named, yaw modulo the object's symmetry; the reward of an action is the increase of the score, and "
        "an episode is solved when the score is 1. Actions, observations and units: [simulation.md](simulation.md).",
        "",
        "| task | Gymnasium id | actions | primitive | tools |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in listed:
        steps, primitive, tools = _facts(entry)
        lines.append(f"| [{entry.name}](#{entry.name.lower()}) | `{entry.env_id}` | {steps} | {primitive} | {tools} |")
    for entry in listed:
        lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def _seeds(split: Any) -> str:
    first = scene_seed(split, 0)
    return f"{first:,} to {first + SPLIT_SIZE - 1:,}"


def _facts(entry: Entry) -> tuple[str, str, str]:
    """Actions allowed, primitive, and tools, as text."""
    if issubclass(entry.kind, Task):
        tools = ", ".join(entry.kind.tools)
        return f"at most {entry.kind.max_steps}", entry.kind.primitive.replace("_", " "), tools.replace("_", " ")
    settings = inspect.signature(entry.kind.__init__).parameters
    limit = next((str(settings[name].default) for name in ("attempts", "horizon") if name in settings), "")
    return f"at most {limit}", "grasp" if entry.drawn else "closed loop", "parallel jaw"


def _section(entry: Entry) -> Iterator[str]:
    yield f"## {entry.name}"
    if entry.drawn:
        yield ""
        yield f"![{entry.name}: start, half-way, solved](images/tasks/{entry.name}.png)"
    yield ""
    yield from _definition(entry.kind).replace("\n## ", "\n### ").splitlines()
    if not issubclass(entry.kind, Task):
        return
    for heading, method in (("Start", entry.kind.build), ("Expert", entry.kind.oracle)):
        yield ""
        yield f"**{heading}.** {' '.join(_text(method).split())}"
    between = _text(entry.kind.proceed)
    if entry.kind.proceed is not Task.proceed:
        yield ""
        yield f"**Between actions.** {' '.join(between.split())}"
    lengths = _lengths(entry.kind)
    if lengths:
        yield ""
        yield f"**Lengths and angles.** {'; '.join(lengths)}."


def _definition(kind: type[Any]) -> str:
    """A class's docstring up to its list of attributes."""
    return (inspect.getdoc(kind) or "").split("\nAttributes:")[0].rstrip()


def _text(method: Callable[..., Any]) -> str:
    """A method's docstring up to what it raises."""
    return (inspect.getdoc(method) or "").split("\nRaises:")[0].strip()


def _lengths(kind: type[Any]) -> list[str]:
    """The constants of a task's module that carry a unit."""
    constants = vars(sys.modules[kind.__module__]).items()
    return [
        f"{name[: -len(suffix)].lower().replace('_', ' ')} {_number(value, scale)}{unit}"
        for name, value in constants
        for suffix, scale, unit in (("_M", 100.0, " cm"), ("_RAD", 180 / np.pi, "°"))
        if name.isupper() and name[0] != "_" and name.endswith(suffix) and _is_length(value)
    ]


def _is_length(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(part, int | float) for part in parts)


def _number(value: Any, scale: float) -> str:
    if isinstance(value, tuple):
        return " × ".join(_number(part, scale) for part in value)
    return f"{scale * value:.4g}"


# The pictures


def portrait(middle: tuple[float, float, float], focal_px: float) -> Camera:
    """A 640×480 camera that looks at the table from the front and a little from the side."""
    K = np.array([[focal_px, 0.0, 319.5], [0.0, focal_px, 239.5], [0.0, 0.0, 1.0]])
    x, y, z = middle
    return Camera("portrait", 640, 480, K, look_at((x + 0.8, y + 0.3, z + 0.62), middle))


def picture(entry: Entry) -> Image.Image:
    """Start, half-way and solved side by side, each 320×240; drawn by the software renderer, the same everywhere.

    Raises:
        RunFailed: the expert solves none of the first scenes.
    """
    env = gymnasium.make(entry.env_id, renderer="software")
    try:
        for index in range(SCENES):
            seed = scene_seed("train", index)
            middles = _perform(env, seed, None)
            if middles is not None:
                break
        else:
            raise RunFailed(f"the expert of {entry.name!r} solved none of {SCENES} scenes; see `make bench-oracles`")
        taken: list[Picture] = []
        camera = portrait((0.46, 0.0, 0.05), 640.0) if _is_task(entry) else portrait(_middle(env), 1000.0)
        world = env.unwrapped.world  # type: ignore[attr-defined]

        def shoot() -> None:
            (frame,), _ = world.views([camera], segmentation=False)
            taken.append(frame.color)

        _perform(env, seed, shoot, middles[len(middles) // 2])
        return Image.fromarray(np.concatenate(taken, axis=1)).reduce(2).quantize(COLORS)
    finally:
        env.close()


def _is_task(entry: Entry) -> bool:
    return issubclass(entry.kind, Task)


def _middle(env: Any) -> tuple[float, float, float]:
    workspace = env.unwrapped.world.workspace
    return sum(workspace.x) / 2, sum(workspace.y) / 2, 0.05


def _perform(env: Any, seed: int, shoot: Callable[[], None] | None, halfway: int = -1) -> list[int] | None:
    """Let the expert work on a scene.

    Args:
        env: where.
        seed: of the scene.
        shoot: called at the start, at the physics step `halfway`, and at the end.
        halfway: counted from the reset.

    Returns:
        the physics step in the middle of the loaded part of each action; None when the scene was not solved.
    """
    cell, world = env.unwrapped, env.unwrapped.world
    env.reset(seed=seed)
    if shoot is not None:
        shoot()
    step, held = world.step, []

    def watched() -> None:
        step()
        if world.holding is not None or world.task.primitive == "push":
            held.append(world.steps)
        if world.steps == halfway and shoot is not None:
            shoot()

    world.step = watched
    middles, over, info = [], False, {}
    try:
        while not over:
            held.clear()
            _, _, terminated, truncated, info = env.step(_action(cell.oracle()))
            over = terminated or truncated
            if held:
                middles.append(held[len(held) // 2])
    except RunFailed:
        return None
    finally:
        del world.step
    if shoot is not None:
        shoot()
    return middles if info["reward_total"] > 0.99 and middles else None


def _action(decision: Any) -> Any:
    if isinstance(decision, PickPlace):
        return {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}
    return decision


# The command


def command(
    docs: Path = typer.Option(Path("docs"), help="Folder of the documentation."),
    only: list[str] = typer.Option([], help="Draw these tasks alone; may be repeated."),
    check: bool = typer.Option(False, "--check", help="Write nothing; exit code 1 when the page is out of date."),
) -> None:
    """Write docs/tasks.md and a picture of every task."""
    path, pictures = docs / "tasks.md", docs / "images" / "tasks"
    listed = entries()
    unknown = sorted(set(only) - {entry.name for entry in listed})
    if unknown:
        raise BadInput(f"{', '.join(unknown)} is no task; choose of {', '.join(entry.name for entry in listed)}")
    if check:
        missing = [entry.name for entry in listed if entry.drawn and not (pictures / f"{entry.name}.png").is_file()]
        if missing or not path.is_file() or path.read_text(encoding="utf-8") != page():
            raise RunFailed(f"{path} or a picture is out of date ({', '.join(missing) or 'text'}); run `{COMMAND}`")
        return
    pictures.mkdir(parents=True, exist_ok=True)
    for entry in listed:
        if entry.drawn and (not only or entry.name in only):
            picture(entry).save(pictures / f"{entry.name}.png", optimize=True)
            typer.echo(pictures / f"{entry.name}.png")
    path.write_text(page(), encoding="utf-8")
    typer.echo(path)


def main() -> None:
    """Run the command line."""
    try:
        typer.run(command)
    except (BadInput, RunFailed) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

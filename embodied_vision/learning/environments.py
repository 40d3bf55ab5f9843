"""The way from a task's name to its Gymnasium environment: all that learning knows of a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium

from embodied_vision.errors import BadInput

NAMESPACE = "embodied_vision"
SIMULATOR = "embodied_vision_sim"
"""Module that registers the environments which ship with this package."""
FIRST_RENDERER = "software"
"""Who drew simulated episodes and trained policies that do not say."""


@dataclass(frozen=True)
class Conditions:
    """Under what conditions scenes are run.

    Attributes:
        preset: of the domain randomisation: none, mild or strong.
        renderer: software, egl, or auto: EGL where it is there.
    """

    preset: str = "none"
    renderer: str = "auto"

    def make(self, task: str) -> gymnasium.Env[Any, Any]:
        """The environment of a task under these conditions; see `make_env`."""
        return make_env(task, randomisation=self.preset, renderer=self.renderer)


USUAL = Conditions()
"""The tasks as they are defined."""


def env_id(task: str) -> str:
    """Gymnasium id of a task: `block-insertion` is `embodied_vision/BlockInsertion-v0`."""
    return f"{NAMESPACE}/{''.join(word.capitalize() for word in task.split('-'))}-v0"


def make_env(task: str, **settings: Any) -> gymnasium.Env[Any, Any]:
    """The environment of a task.

    Args:
        task: name of the task.
        settings: what the environment takes, such as `renderer` and `randomisation`.

    Raises:
        BadInput: no environment of that name is registered, or the simulator is not installed.
    """
    name = env_id(task)
    try:
        return gymnasium.make(name if name in gymnasium.registry else f"{SIMULATOR}:{name}", **settings)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"the simulator cannot be loaded ({error}); install it: pip install 'embodied_vision[sim]'"
        ) from error
    except gymnasium.error.UnregisteredEnv as error:
        known = sorted(key for key in gymnasium.registry if key.startswith(f"{NAMESPACE}/"))
        raise BadInput(f"task {task!r} has no environment {name}; registered are {', '.join(known)}") from error

"""What all environments share: scenes by seed, exact states, rendering."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput
from embodied_vision.learning.seeds import SPLIT_SIZE, Split, scene_seed, split_of
from embodied_vision.lights import Light
from embodied_vision.types import RGBD, Camera, FloatArray, Workspace
from embodied_vision_sim.renderer import Renderer
from embodied_vision_sim.window import Window
from embodied_vision_sim.world import World

Observation = dict[str, Any]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class SceneEnv(gymnasium.Env[Any, Any]):
    """An environment about one world, whose episode is determined by the seed of its scene and the actions alone.

    Attributes:
        render_mode: rgb_array: `render` returns what the first camera saw; human: a window shows it after every step.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, world: World, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            world.close()
            raise BadInput(f"render mode {render_mode!r} is unknown; use rgb_array, human or none")
        self._world = world
        self._frames: list[RGBD] = []
        self.render_mode = render_mode
        self._window: Window | None = None
        self._split: Split = "train"
        self._scene: int | None = None
        self._taken: list[Any] = []

    @abstractmethod
    def begin(self, scene: int) -> tuple[Observation, dict[str, Any]]:
        """Build the scene of a seed; what `reset` returns."""

    @abstractmethod
    def advance(self, action: Any) -> Step:
        """Execute an action; what `step` returns."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a saved state belongs to, JSON-ready: task, robot and whatever else changes the episode."""

    @property
    def world(self) -> World:
        """The simulated cell, for what only a simulator knows."""
        return self._world

    @property
    def workspace(self) -> Workspace:
        """Part of the table in use."""
        return self._world.workspace

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The calibrated cameras whose frames are observed, as reported for this scene."""
        return self._world.cameras

    @property
    def renderer(self) -> Renderer:
        """Who draws the pictures."""
        return self._world.renderer

    @property
    def preset(self) -> str:
        """Name of the randomisation."""
        return self._world.randomisation.name

    @property
    def robot_name(self) -> str:
        """Name of the robot model."""
        return self._world.robot.name

    @property
    def object_names(self) -> dict[int, str]:
        """Names of all bodies in the scene by the ids in `views`."""
        return dict(self._world.object_names)

    def poses(self) -> dict[int, FloatArray]:
        """Poses (4, 4) in the base frame of all bodies in the scene by the ids in `views`."""
        return {body: self._world.pose(body) for body in self._world.object_names}

    def frames(self) -> list[RGBD]:
        """The camera frames of the last observation, one a camera."""
        return list(self._frames)

    def joint_state(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Positions in rad, velocities in rad/s and efforts in Nm, each (J,)."""
        return self._world.joint_state()

    def views(
        self, cameras: Sequence[Camera], light: Light | None = None, segmentation: bool = True
    ) -> tuple[list[RGBD], list[NDArray[np.int32]]]:
        """The scene from any cameras: frames and, with `segmentation`, body ids int32 (H, W) as in `object_names`."""
        return self._world.views(cameras, light=light, segmentation=segmentation)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Build the scene of `seed`, or without one a fresh random scene of the split that the last seed belongs to,
        training at first; `info["seed"]` tells which.

        Raises:
            NotSettled: an object of the scene does not come to rest.
        """
        super().reset(seed=seed)
        if seed is None:
            scene = scene_seed(self._split, int(self.np_random.integers(SPLIT_SIZE)))
        else:
            scene = seed
            self._split = split_of(seed) if seed < 3 * SPLIT_SIZE else "train"
        return self._start(scene)

    def _start(self, scene: int) -> tuple[Observation, dict[str, Any]]:
        self._scene, self._taken = None, []
        observation, info = self.begin(scene)
        self._scene = scene
        self._show()
        return observation, {**info, "seed": scene}

    def step(self, action: Any) -> Step:
        """Execute an action.

        Raises:
            BadInput: before the first `reset`.
            NotSettled: an object does not come to rest.
        """
        if self._scene is None:
            raise BadInput("step was called before reset; reset the environment first")
        self._taken.append(_copied(action))
        result = self.advance(action)
        self._show()
        return result

    def save_state(self) -> dict[str, Any]:
        """The exact state, JSON-ready: the scene's seed, the actions since its start, and the random generator.

        Raises:
            BadInput: before the first `reset`.
        """
        if self._scene is None:
            raise BadInput("save_state was called before reset; reset the environment first")
        return {
            **self.identity(),
            "seed": self._scene,
            "actions": [_listed(action) for action in self._taken],
            "np_random": self.np_random.bit_generator.state,
        }

    def restore_state(self, state: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        """Go back to a saved state bit for bit, in this or any other process, by doing its actions again.

        PyBullet's own snapshots leave out contact anchors and sleeping bodies, so that what follows differs.

        Returns:
            Observation and info as they were when the state was saved.

        Raises:
            BadInput: the state is of another environment.
        """
        for key, value in self.identity().items():
            if state.get(key) != value:
                raise BadInput(
                    f"the state's {key} is {state.get(key)!r}, the environment's {value!r}; make the same one"
                )
        observation, info = self._start(int(state["seed"]))
        for action in state["actions"]:
            taken = _unlisted(action)
            self._taken.append(taken)
            observation, _, _, _, info = self.advance(taken)
        self.np_random.bit_generator.state = state["np_random"]
        self._show()
        return observation, info

    def render(self) -> NDArray[np.uint8] | None:
        """Color image (H, W, 3) of the first camera in the mode `rgb_array`; `human` shows it by itself."""
        if self.render_mode != "rgb_array" or self._scene is None:
            return None
        return self._frames[0].color.copy()

    def _show(self) -> None:
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window(type(self).__name__)
            self._window.show(self._frames[0].color)

    def close(self) -> None:
        """Free the simulator and close the window."""
        self._world.close()
        if self._window is not None:
            self._window.close()
            self._window = None


def _copied(action: Any) -> Any:
    if isinstance(action, dict):
        return {key: np.array(value) for key, value in action.items()}
    return np.array(action)


def _listed(action: Any) -> Any:
    if isinstance(action, dict):
        return {key: _listed(value) for key, value in action.items()}
    return {"dtype": str(action.dtype), "values": action.tolist()}


def _unlisted(action: Any) -> Any:
    if set(action) == {"dtype", "values"}:
        return np.array(action["values"], action["dtype"])
    return {key: _unlisted(value) for key, value in action.items()}

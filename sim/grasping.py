"""Diverse grasping, one grasp a step: where to close the jaw in a bin of objects of any shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import OPEN, plan, plan_home
from embodied_vision.errors import BadInput, Refused
from embodied_vision.geometry import quantise_depth, tool_down
from embodied_vision.types import RGBD, PickPlace
from embodied_vision_sim.diverse import IN_BIN, DiverseBin, Objects, bin_camera, bin_workspace, grasp_action
from embodied_vision_sim.execution import execute
from embodied_vision_sim.parallel_jaw import ParallelJaw
from embodied_vision_sim.randomisation import Randomisation
from embodied_vision_sim.scene_env import Observation, SceneEnv, Step
from embodied_vision_sim.world import NotSettled, World

LOWEST_M, HIGHEST_M = 0.005, 0.15
"""Heights of the tip at which the jaw may be closed."""


class GraspDiverseEnv(SceneEnv):
    """Five of 1,000 procedural objects in a bin, seen by an RGB-D camera; a step is one grasp from straight above.

    ## Observation
    `color` uint8 (H, W, 3), `depth` uint16 (H, W) in mm (0 = no return), `intrinsics` (3, 3) in px, `extrinsics`
    (4, 4), the camera's pose in the base frame, `joint_positions` (J,) in rad, `gripper_width` (1,), distance of the
    fingers in m. The arm is at home.

    ## Action
    (4,) in [−1, 1]: x, y, z of the tip over the inside of the bin and the heights of 5 mm to 15 cm above the table,
    yaw over ±90°, each linear; `env.unwrapped.action_at(x, y, z, yaw)` takes metres in the base frame and radians.
    At yaw 0 the fingers open along the base's y axis. The arm opens the jaw, comes down from above, closes, lifts,
    and returns home; the motion is planned and guarded as on the real arm. What the guard refuses is not executed
    and `info["refused"]` says why.

    ## Reward
    1 when an object was lifted and hangs clear of the bin, held by friction alone, else 0.

    ## Start and end
    A random scene determined by the seed alone; test seeds show held-out objects, see `objects_of`. Terminates when an
    object was lifted; truncates after `attempts` grasps (published success rates count the first alone) or when an
    object does not come to rest, which `info["failed"]` then names.

    Attributes:
        task_name: what users call the task.
        max_steps: grasps allowed.
    """

    task_name: ClassVar[str] = DiverseBin.name

    def __init__(
        self,
        *,
        objects: Objects = "auto",
        in_bin: int = IN_BIN,
        image_size: int = 128,
        attempts: int = DiverseBin.max_steps,
        robot: str = "panda",
        renderer: str = "software",
        randomisation: str | Mapping[str, Any] | Randomisation = "none",
        render_mode: str | None = None,
    ) -> None:
        """A bin and an arm with a jaw.

        Args:
            objects: `train` or `test` for those objects whatever the seed; with `auto` the seed's split decides.
            in_bin: objects in the bin.
            image_size: rows and columns of the images.
            attempts: grasps before the episode is truncated.
            robot: name of the arm.
            renderer, randomisation: see `World`.
            render_mode: see `SceneEnv`.

        Raises:
            BadInput: an argument cannot be used.
        """
        if attempts < 1:
            raise BadInput(f"attempts is {attempts}; give at least 1")
        super().__init__(bin_world(objects, image_size, robot, renderer, randomisation, in_bin), render_mode)
        self.max_steps = attempts
        self._guard = Guard(self._world.robot, self._world.workspace)
        self._grasps = 0
        self.observation_space = observation_space(self._world)
        workspace = self._world.workspace
        self._bounds = np.array([workspace.x, workspace.y, (LOWEST_M, HIGHEST_M), (-np.pi / 2, np.pi / 2)])
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float64)

    def identity(self) -> dict[str, Any]:
        """Task, robot and what else changes the episode."""
        task = self._world.task
        assert isinstance(task, DiverseBin)
        camera = self._world.cameras[0]
        return {
            "task": self.task_name,
            "robot": self.robot_name,
            "objects": task.objects,
            "in_bin": task.in_bin,
            "image_size": camera.width,
            "attempts": self.max_steps,
            "randomisation": self._world.randomisation.to_dict(),
        }

    def begin(self, scene: int) -> tuple[Observation, dict[str, Any]]:
        """Drop the objects of a seed into the bin."""
        self._world.reset(scene)
        self._guard.resume()  # the world's time begins anew
        self._grasps = 0
        return self._observe(), {"solved": False, "reward_total": 0.0, "randomisation": self._world.drawn.to_dict()}

    def advance(self, action: NDArray[np.float64]) -> Step:
        """Execute one grasp."""
        outcome = self._grasp(np.asarray(action, float))
        self._grasps += 1
        lifted = "refused" not in outcome and self._world.score() == 1.0
        truncated = not lifted and (self._grasps >= self.max_steps or "failed" in outcome)
        info = {"solved": lifted, "reward_total": float(lifted), **outcome}
        return self._observe(), float(lifted), lifted, truncated, info

    def _grasp(self, action: NDArray[np.float64]) -> dict[str, str]:
        """Carry out a grasp; what went wrong, if anything did: `refused` by the guard, or `failed`."""
        world = self._world
        q, now_ns = world.joint_state()[0], world.time_ns
        try:
            decision = self.decision(action)
            self._guard.check_action(decision, now_ns)
            motion = plan(world.robot, q, decision)
            self._guard.check_motion(motion, q, now_ns, now_ns)
        except (Refused, BadInput) as error:
            return {"refused": str(error)}
        try:
            execute(world, motion)
            if world.score() < 1.0:
                world.set_gripper(OPEN)
                world.settle()
            q, now_ns = world.joint_state()[0], world.time_ns
            home = plan_home(world.robot, q)
            self._guard.check_motion(home, q, now_ns, now_ns)
            execute(world, home)
        except NotSettled as error:
            return {"failed": str(error)}
        return {}

    def decision(self, action: NDArray[np.float64]) -> PickPlace:
        """What an action (4,) means, in m in the base frame: close at `pick`, lift to `place`.

        Raises:
            BadInput: wrong shape.
        """
        if np.shape(action) != (4,):
            raise BadInput(f"a grasp has shape {np.shape(action)}; give x, y, z and yaw in [-1, 1]")
        low, high = self._bounds.T
        x, y, z, yaw = (float(value) for value in low + (np.asarray(action, float) + 1) / 2 * (high - low))
        return grasp_action(_looking_down(x, y, z, yaw), self._frames[0].stamp_ns)

    def oracle(self) -> NDArray[np.float64]:
        """An action (4,) that the true geometry makes look good; its randomness is the environment's `np_random`.

        Raises:
            RunFailed: no object can be gripped from above.
        """
        return self.action_at(*grasp_of(self._world.task.oracle(self._world, self.np_random).pick))

    def action_of(self, decision: PickPlace) -> NDArray[np.float64]:
        """Action (4,) that carries out a decision to grasp."""
        return self.action_at(*grasp_of(decision.pick))

    def action_at(self, x: float, y: float, z: float, yaw: float) -> NDArray[np.float64]:
        """Action (4,) that closes the jaw with the tip at x, y, z in m in the base frame, turned by yaw in rad."""
        low, high = self._bounds.T
        return np.asarray(2 * (np.array([x, y, z, yaw]) - low) / (high - low) - 1)

    def _observe(self) -> Observation:
        self._frames = self._world.render()
        return observation(self._world, self._frames[0])


def grasp_of(pose: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """x, y, z in m and yaw in rad, within ±90°, of a tip pose (4, 4) that looks straight down."""
    yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
    return np.array([*pose[:3, 3], (yaw + np.pi / 2) % np.pi - np.pi / 2])


def _looking_down(x: float, y: float, z: float, yaw: float) -> NDArray[np.float64]:
    if not np.isfinite([x, y, z, yaw]).all():
        return np.full((4, 4), np.nan)  # the guard names it
    return np.asarray(tool_down(x, y, z, yaw), np.float64)


def bin_world(
    objects: Objects,
    image_size: int,
    robot: str,
    renderer: str,
    randomisation: str | Mapping[str, Any] | Randomisation,
    in_bin: int = IN_BIN,
) -> World:
    """A world with the bin, not yet built.

    Raises:
        BadInput: an argument cannot be used.
    """
    if image_size < 16:
        raise BadInput(f"image size is {image_size} px; give at least 16")
    return World(
        DiverseBin(objects, in_bin),
        robot=robot,
        cameras=(bin_camera(image_size),),
        workspace=bin_workspace(),
        renderer=renderer,
        randomisation=randomisation,
    )


def observation_space(world: World) -> spaces.Dict:
    """Space of `observation`."""
    (camera,), limits = world.cameras, world.robot.limits
    return spaces.Dict(
        {
            "color": spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8),
            "depth": spaces.Box(0, 65535, (camera.height, camera.width), np.uint16),
            "intrinsics": spaces.Box(-1e5, 1e5, (3, 3), np.float64),
            "extrinsics": spaces.Box(-1e2, 1e2, (4, 4), np.float64),
            "joint_positions": spaces.Box(limits.lower - 0.1, limits.upper + 0.1, dtype=np.float64),
            "gripper_width": spaces.Box(-0.01, 0.12, (1,), np.float64),
        }
    )


def observation(world: World, frame: RGBD) -> Observation:
    """What is seen and felt now."""
    jaw = world.tool
    assert isinstance(jaw, ParallelJaw)
    return {
        "color": frame.color.copy(),
        "depth": quantise_depth(frame.depth),
        "intrinsics": np.array(frame.camera.K, np.float64),
        "extrinsics": np.array(frame.camera.T_base_camera, np.float64),
        "joint_positions": world.joint_state()[0],
        "gripper_width": np.array([jaw.width_m]),
    }

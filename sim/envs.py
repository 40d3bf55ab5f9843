"""Gymnasium environments: one pick-and-place action a step, executed with real dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import OPEN, plan
from embodied_vision.errors import BadInput, Refused
from embodied_vision.geometry import quantise_depth, vector_to_pose
from embodied_vision.types import Camera, PickPlace
from embodied_vision_sim.execution import execute
from embodied_vision_sim.randomisation import Randomisation
from embodied_vision_sim.scene_env import Observation, SceneEnv, Step
from embodied_vision_sim.world import NotSettled, World


class PickPlaceEnv(SceneEnv):
    """A tabletop task seen by calibrated RGB-D cameras and acted on by picking and placing.

    ## Observation
    For each camera under its name: `color` uint8 (H, W, 3), `depth` uint16 (H, W) in mm (0 = no return),
    `intrinsics` (3, 3) in px and `extrinsics` (4, 4), the camera's pose in the base frame; besides,
    `joint_positions` (J,) in rad. The arm is at home and everything at rest.

    ## Action
    `pick` and `place`, tip poses in the base frame as x, y, z in m and a quaternion x, y, z, w. The tool's
    z axis points out of the tool. What is done with the two poses is the task's primitive, `pick_place` mostly.
    The motion is planned and guarded as on the real arm; what the guard refuses is not executed and
    `info["refused"]` says why.

    ## Reward
    Increase of the task's score, which is 1 when solved.

    ## Start and end
    A random scene determined by the seed alone, and by the randomisation, if one is asked for: `info["randomisation"]`
    of `reset` tells what it drew. Same seed and actions, same episode, bit for bit. Terminates when solved; truncates
    after `max_steps` actions, or when an object does not come to rest, which `info["failed"]` then names.

    Attributes:
        task_name: what users call the task.
        max_steps: actions allowed.
        workspace: part of the table in use.
        renderer: who draws the pictures, egl or software; EGL's are the same bits on the same machine only.
        preset: name of the randomisation.
        object_names: names of all bodies by the ids in `views`.
    """

    def __init__(
        self,
        task: str,
        *,
        robot: str = "panda",
        tool: str | None = None,
        cameras: Sequence[Camera] | None = None,
        renderer: str = "auto",
        randomisation: str | Mapping[str, Any] | Randomisation = "none",
        render_mode: str | None = None,
    ) -> None:
        """An environment of a task.

        Args:
            task: name of the task.
            robot: name of the arm, panda or kuka_iiwa.
            tool: name of its tool; left out, the task's usual one.
            cameras: left out, the cell's front camera.
            renderer: egl, software, or auto: EGL where it is there. Pictures differ a little; policies know theirs.
            randomisation: a preset, none, mild or strong, or a description of one's own.
            render_mode: see `SceneEnv`.

        Raises:
            BadInput: something has no such name, or the task cannot be done with the tool.
        """
        world = World(task, robot=robot, tool=tool, cameras=cameras, renderer=renderer, randomisation=randomisation)
        super().__init__(world, render_mode)
        self.task_name = task
        self.max_steps = self._world.task.max_steps
        self._guard = Guard(self._world.robot, self._world.workspace)
        self._score = 0.0
        self._actions = 0
        self.observation_space = _observation_space(self._world)
        self.action_space = spaces.Dict({"pick": _pose_space(), "place": _pose_space()})

    def begin(self, scene: int) -> tuple[Observation, dict[str, Any]]:
        """Build the scene of a seed."""
        self._world.reset(scene)
        self._guard.resume()  # the world's time begins anew
        self._score = self._world.score()
        self._actions = 0
        return self._observe(), {**self._info(), "randomisation": self._world.drawn.to_dict()}

    def advance(self, action: dict[str, NDArray[np.float64]]) -> Step:
        """Execute one action and let the scene settle."""
        outcome = self._act(action)
        former, self._score = self._score, self._world.score()
        self._actions += 1
        solved = self._score >= 1.0 - 1e-9
        over = self._actions >= self.max_steps or "failed" in outcome
        return self._observe(), self._score - former, solved, over and not solved, {**self._info(), **outcome}

    def _act(self, action: dict[str, NDArray[np.float64]]) -> dict[str, str]:
        """Execute an action; what went wrong, if anything did: `refused` by the guard, or `failed`."""
        world, now_ns = self._world, self._world.time_ns
        q, _, _ = world.joint_state()
        try:
            decision = self._decision(action)
            self._guard.check_action(decision, now_ns)
            motion = plan(world.robot, q, decision)
            self._guard.check_motion(motion, q, now_ns, now_ns)
        except (Refused, BadInput) as error:
            return {"refused": str(error)}
        try:
            execute(world, motion)
            world.set_gripper(OPEN)
            world.settle()
            world.task.proceed(world)
        except NotSettled as error:
            return {"failed": str(error)}
        return {}

    def _decision(self, action: dict[str, NDArray[np.float64]]) -> PickPlace:
        if not isinstance(action, dict) or not {"pick", "place"} <= action.keys():
            raise BadInput(f"an action is a dict of pick and place, this one is {action!r:.80}")
        return PickPlace(
            pick=vector_to_pose(action["pick"]),
            place=vector_to_pose(action["place"]),
            primitive=self._world.task.primitive,
            stamp_ns=self._frames[0].stamp_ns,
        )

    def _observe(self) -> Observation:
        self._frames = self._world.render()
        observation: Observation = {
            frame.camera.name: {
                "color": frame.color.copy(),
                "depth": quantise_depth(frame.depth),
                "intrinsics": np.array(frame.camera.K, np.float64),
                "extrinsics": np.array(frame.camera.T_base_camera, np.float64),
            }
            for frame in self._frames
        }
        observation["joint_positions"] = self._world.joint_state()[0]
        return observation

    def _info(self) -> dict[str, Any]:
        return {"reward_total": self._score, "solved": self._score >= 1.0 - 1e-9}

    def oracle(self) -> PickPlace:
        """An expert's next action from the true poses; its randomness is the environment's `np_random`.

        Raises:
            RunFailed: the task is solved, or its object cannot be seen.
        """
        decision = self._world.task.oracle(self._world, self.np_random)
        return replace(decision, stamp_ns=self._frames[0].stamp_ns)

    def identity(self) -> dict[str, Any]:
        """Task, robot and randomisation."""
        randomisation = self._world.randomisation.to_dict()
        return {"task": self.task_name, "robot": self.robot_name, "randomisation": randomisation}


def _pose_space() -> spaces.Box:
    bound = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    return spaces.Box(-bound, bound, dtype=np.float64)


def _observation_space(world: World) -> spaces.Dict:
    cameras: dict[str, spaces.Space[Any]] = {
        camera.name: spaces.Dict(
            {
                "color": spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8),
                "depth": spaces.Box(0, 65535, (camera.height, camera.width), np.uint16),
                "intrinsics": spaces.Box(-1e5, 1e5, (3, 3), np.float64),
                "extrinsics": spaces.Box(-1e2, 1e2, (4, 4), np.float64),
            }
        )
        for camera in world.cameras
    }
    limits = world.robot.limits
    return spaces.Dict(
        {**cameras, "joint_positions": spaces.Box(limits.lower - 0.1, limits.upper + 0.1, dtype=np.float64)}
    )

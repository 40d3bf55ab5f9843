"""Diverse grasping in closed loop: small motions of the tip at 10 Hz, for visuomotor and reinforcement learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from embodied_vision.control.guard import GuardSettings
from embodied_vision.errors import BadInput
from embodied_vision.geometry import tool_down, yaw_of
from embodied_vision.types import RGBD
from embodied_vision_sim.cartesian import step_towards
from embodied_vision_sim.diverse import BIN_CENTRE_M, DiverseBin, Objects
from embodied_vision_sim.grasping import bin_world, grasp_of, observation, observation_space
from embodied_vision_sim.randomisation import Randomisation
from embodied_vision_sim.scene_env import Observation, SceneEnv, Step
from embodied_vision_sim.sensor import Delay
from embodied_vision_sim.world import STEP_HZ

CONTROL_HZ = 10
STEPS = STEP_HZ // CONTROL_HZ
MOVE_M, TURN_RAD = 0.03, 0.2
"""What ±1 of an action moves and turns the tip by in a step: 0.3 m/s and 2 rad/s."""
HORIZON = 60
START_M = 0.2
"""Height of the tip at the start, over the middle of the bin."""
FLOOR_M, CEILING_M = 0.006, 0.27
SIDE_M = 0.02
"""How far inside the walls the tip is kept."""
YAW_RAD = np.pi / 2
LAG_M = 0.03
"""How far the commanded tip may be ahead of the true one: what presses on something does not press ever harder."""


class GraspDiverseClosedLoopEnv(SceneEnv):
    """Five of 1,000 procedural objects in a bin; a step moves, turns and closes the jaw a little, 0.1 s long.

    ## Observation
    That of `GraspDiverseEnv`: `color`, `depth`, `intrinsics`, `extrinsics`, `joint_positions`, `gripper_width`.

    ## Action
    (5,) in [−1, 1]: dx, dy, dz of the tip in the base frame (1 is 3 cm), dyaw about the base's z (1 is 0.2 rad), and
    the gripper (−1 closed … 1 open). The tool always looks straight down. Moves add up to a commanded pose that
    is kept within the bin, above the table, within ±90° and within the joints' position and speed limits, and at
    most 3 cm ahead of the true tip. An action with values that are not finite is refused: nothing moves, no time
    passes, and `info["refused"]` says why. Values beyond ±1 count as ±1.

    ## Reward
    1 when an object hangs clear of the bin, held by friction alone, else 0. With `shaped`, each step adds the height
    in m of the object that the jaw holds, less 0.01 times the distance in m from the tip to the nearest object.

    ## Start and end
    A random scene determined by the seed alone, as in `GraspDiverseEnv`; the open jaw stands 20 cm above the
    middle of the bin. Terminates when an object was lifted; truncates after `horizon` steps.

    Attributes:
        task_name: what users call the task.
        max_steps: steps until truncation.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": CONTROL_HZ}  # noqa: RUF012 - Gymnasium's own

    def __init__(
        self,
        *,
        objects: Objects = "auto",
        image_size: int = 64,
        horizon: int = HORIZON,
        shaped: bool = False,
        robot: str = "panda",
        renderer: str = "software",
        randomisation: str | Mapping[str, Any] | Randomisation = "none",
        render_mode: str | None = None,
    ) -> None:
        """A bin and an arm with a jaw.

        Args:
            objects: `train` or `test` for those objects whatever the seed; with `auto` the seed's split decides.
            image_size: rows and columns of the images.
            horizon: steps of 0.1 s until the episode is truncated.
            shaped: whether the reward leads on the way.
            robot: name of the arm.
            renderer, randomisation: see `World`; what the camera sees is observed after the latency drawn.
            render_mode: see `SceneEnv`.

        Raises:
            BadInput: an argument cannot be used.
        """
        if horizon < 1:
            raise BadInput(f"horizon is {horizon}; give at least 1")
        super().__init__(bin_world(objects, image_size, robot, renderer, randomisation), render_mode)
        self._shaped = shaped
        self.task_name = f"{self._world.task.name}-closed-loop"
        self.max_steps = horizon
        self._count = 0
        self._q: NDArray[np.float64]
        self._command = np.zeros(4)
        x, y = ((low + SIDE_M, high - SIDE_M) for low, high in (self._world.workspace.x, self._world.workspace.y))
        floor = max(FLOOR_M, GuardSettings().tip_height_m)
        self._bounds = np.array([x, y, (floor, CEILING_M), (-YAW_RAD, YAW_RAD)])
        self.observation_space = observation_space(self._world)
        self.action_space = spaces.Box(-1.0, 1.0, (5,), np.float32)

    def identity(self) -> dict[str, Any]:
        """Task, robot and what else changes the episode."""
        task = self._world.task
        assert isinstance(task, DiverseBin)
        return {
            "task": self.task_name,
            "robot": self.robot_name,
            "objects": task.objects,
            "image_size": self.cameras[0].width,
            "horizon": self.max_steps,
            "shaped": self._shaped,
            "randomisation": self._world.randomisation.to_dict(),
        }

    def begin(self, scene: int) -> tuple[Observation, dict[str, Any]]:
        """Drop the objects of a seed into the bin and hold the open jaw above it."""
        world = self._world
        world.reset(scene)
        self._count = 0
        self._command = np.array([*BIN_CENTRE_M, START_M, 0.0])
        self._q = world.robot.inverse(tool_down(*self._command), world.robot.home)
        world.move_arm(self._q, np.zeros_like(self._q), 0)
        self._delay: Delay[RGBD] = Delay(world.drawn.latency_s)
        return self._observe(), {"solved": False, "reward_total": 0.0, "randomisation": world.drawn.to_dict()}

    def advance(self, action: NDArray[np.floating[Any]]) -> Step:
        """Move for 0.1 s of simulated time."""
        refused = self._move(np.asarray(action, float))
        self._count += 1
        lifted = refused is None and self._world.score() == 1.0
        reward = float(lifted) + (self._guidance() if self._shaped else 0.0)
        info: dict[str, Any] = {"solved": lifted, "reward_total": float(lifted)}
        if refused is not None:
            info["refused"] = refused
        return self._observe(), reward, lifted, not lifted and self._count >= self.max_steps, info

    def _move(self, action: NDArray[np.float64]) -> str | None:
        """Carry out an action for one control step; why it was refused, if it was."""
        if action.shape != (5,) or not np.isfinite(action).all():
            return f"non_finite: action {action.tolist()}, limit 5 finite numbers; check the policy and its input"
        world, action = self._world, np.clip(action, -1.0, 1.0)
        command = self._command + action[:4] * (MOVE_M, MOVE_M, MOVE_M, TURN_RAD)
        tip = world.tip_pose()[:3, 3]
        command[:3] = tip + np.clip(command[:3] - tip, -LAG_M, LAG_M)
        command = np.clip(command, *self._bounds.T)
        q, reached = step_towards(world.robot, self._q, tool_down(*command), 1 / CONTROL_HZ)
        if not reached:  # a limit of the joints: go on from where they lead
            pose = world.robot.forward(q)
            command = np.clip(np.array([*pose[:3, 3], yaw_of(pose)]), *self._bounds.T)
        world.set_gripper(float(action[4] + 1) / 2)
        shares = np.arange(1, STEPS + 1)[:, None] / STEPS
        world.follow(self._q + shares * (q - self._q), np.tile((q - self._q) * CONTROL_HZ, (STEPS, 1)))
        self._q, self._command = q, command
        return None

    def _guidance(self) -> float:
        world, task = self._world, self._world.task
        assert isinstance(task, DiverseBin)
        centres = np.array([world.pose(body)[:3, 3] for body in task.numbers])
        distance = float(np.linalg.norm(centres - world.tip_pose()[:3, 3], axis=1).min())
        held = world.tool.holding
        height = float(world.pose(held)[2, 3]) if held in task.numbers else 0.0
        return height - 0.01 * distance

    def oracle(self) -> NDArray[np.float64]:
        """A grasp (4,) worth steering for: x, y, z of the tip in m and yaw in rad.

        Raises:
            RunFailed: no object can be gripped from above.
        """
        return grasp_of(self._world.task.oracle(self._world, self.np_random).pick)

    def _observe(self) -> Observation:
        (seen,) = self._world.render(self._world.time_ns)
        self._frames = [self._delay.push(self._world.time_ns * 1e-9, seen)]
        return observation(self._world, self._frames[0])

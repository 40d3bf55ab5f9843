"""The simulated cell in real time: physics, arm controller and judgement, without ROS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.description import split_name
from embodied_vision.errors import BadInput
from embodied_vision.types import RGBD, Camera
from embodied_vision_sim.joint_trajectory_controller import JointPath, JointTrajectoryController
from embodied_vision_sim.pacing import Pacer
from embodied_vision_sim.randomisation import NONE, Randomisation
from embodied_vision_sim.setpoints import Setpoint, SetpointFollower
from embodied_vision_sim.world import REST_STEPS, SETTLE_STEPS, STEP_HZ, NotSettled, World

REST_S = 0.3
"""The scene is judged when the arm has rested for so long: longer than any pause within a motion."""

WAIT_S = 0.1
"""Simulated time waits so long for the setpoints of a driver; without them the arm then coasts to rest."""


@dataclass(frozen=True)
class Judgement:
    """The task's state with the arm at rest.

    Attributes:
        reward: score, 0 … 1.
        settled: whether every object had come to rest.
        motions: motions judged since the reset.
        time_s: when, in simulated time.
    """

    reward: float
    settled: bool
    motions: int
    time_s: float

    @property
    def solved(self) -> bool:
        """Whether nothing is left to do."""
        return self.reward >= 1.0 - 1e-9


@dataclass(frozen=True, eq=False)
class JointSample:
    """Positions (J,) in rad and velocities (J,) in rad/s at a simulated time."""

    time_s: float
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]


class LiveCell:
    """A `World` that follows a steady clock. Times named `now_s` are of that clock, others simulated.

    Args:
        cameras: what looks at it.
        renderer: who draws.
        robot: arm and tool.
        driven: a driver outside moves the arm by `setpoint`. Otherwise the cell has a controller of its own, and
            takes trajectories by `follow`.

    Attributes:
        task, seed: of the scene that stands on the table.
        pacer: how well simulated time follows.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        renderer: str = "software",
        robot: str = "panda_suction",
        *,
        driven: bool = False,
    ) -> None:
        self._cameras = tuple(cameras)
        self._robot, self._tool = split_name(robot)
        self._renderer = renderer
        self._world: World | None = None
        self._driven = driven
        self._controller: JointTrajectoryController | SetpointFollower | None = None
        self.task, self.seed = "", -1
        self.pacer = Pacer(1 / STEP_HZ)

    @property
    def world(self) -> World:
        """The world of the current task."""
        if self._world is None:
            raise BadInput("the cell has no scene yet; reset it first")
        return self._world

    @property
    def max_steps(self) -> int:
        """Actions that the task allows."""
        return self.world.task.max_steps

    def close(self) -> None:
        """Free the simulator."""
        if self._world is not None:
            self._world.close()
            self._world = None

    def reset(self, task: str, seed: int, randomisation: Randomisation = NONE) -> Judgement:
        """Build the scene of `seed`: the same world as that of the Gymnasium environment with this seed.

        A driven arm stands where its driver holds it, any other at home. Cameras stay where they are reported to be.

        Raises:
            BadInput: unknown task, one that the robot's tool does not suit, negative seed, or cameras that move.
            RunFailed: the scene cannot be built or does not come to rest.
        """
        if seed < 0:
            raise BadInput(f"scene seed {seed} is negative; give 0 or more")
        if randomisation.moves_cameras:
            raise BadInput(
                f"randomisation {randomisation.name!r} moves cameras and says so, those of a running cell are "
                "calibrated; set camera_position_m, camera_angle_rad and focal to 0"
            )
        if self._world is None or task != self.task:
            world = World(task, robot=self._robot, tool=self._tool, cameras=self._cameras, renderer=self._renderer)
            self.close()
            self._world = world
        self.task, self.seed = task, seed
        self.world.randomisation = randomisation
        self.world.reset(seed)
        home = self.world.joint_state()[0]
        if not self._driven:
            self._controller = JointTrajectoryController(home)
        elif self._controller is None:
            self._controller = SetpointFollower(home)
        else:
            self.world.move_arm(*self._target.desired(self.pacer.time_s), steps=0)
        self._moved, self._unsettled, self._motions = False, 0, 0
        return Judgement(self.world.score(), True, 0, self.pacer.time_s)

    @property
    def _target(self) -> JointTrajectoryController | SetpointFollower:
        if self._controller is None:
            raise BadInput("the cell has no scene yet; reset it first")
        return self._controller

    @property
    def moving(self) -> bool:
        """Whether a trajectory is being executed, or setpoints move."""
        return self._target.end_s > self.pacer.time_s

    def follow(self, path: JointPath, start_s: float) -> None:
        """Execute a trajectory that starts at the simulated time `start_s`, midway where that has passed.

        Raises:
            BadInput: it is malformed; the running one goes on. Or the arm has a driver.
        """
        if not isinstance(self._target, JointTrajectoryController):
            raise BadInput("the arm of this cell has a driver; send trajectories there")
        self._target.take(self._target.plan(path, start_s, max(start_s, self.pacer.time_s)))
        self._moved, self._unsettled = True, 0

    def setpoint(self, point: Setpoint) -> None:
        """Where the driver wants the arm to be at a simulated time, which may be still to come.

        Raises:
            BadInput: it is malformed, or the arm has no driver.
        """
        if not isinstance(self._target, SetpointFollower):
            raise BadInput("the arm of this cell has no driver; set its parameter driven")
        if self._target.accept(point):
            self._moved, self._unsettled = True, 0

    def grip(self, opening: float) -> None:
        """Open or close the tool, 0 closed … 1 open."""
        self.world.set_gripper(opening)

    def advance(self, now_s: float, sample_every: int) -> Iterator[JointSample]:
        """Take the steps that are due, and yield the joints after every `sample_every` of them."""
        world, target = self.world, self._target
        for _ in range(self.pacer.due(now_s)):
            next_s = self.pacer.time_s + self.pacer.step_s
            if isinstance(target, SetpointFollower) and next_s > max(
                target.known_s, self.pacer.clock_s(now_s) - WAIT_S
            ):
                return
            target.forget_before(self.pacer.time_s)
            world.set_joint_targets(*target.desired(next_s))
            world.step()
            self.pacer.took()
            if world.steps % sample_every == 0:
                yield self.sample()

    def sample(self) -> JointSample:
        """The joints now."""
        q, qd, _ = self.world.joint_state()
        return JointSample(self.pacer.time_s, q, qd)

    def render(self, stamp_ns: int) -> list[RGBD]:
        """One frame of every camera."""
        return self.world.render(stamp_ns)

    def judge(self) -> Judgement | None:
        """Once after every motion, as soon as arm and objects rest and the gripper holds nothing; else None.

        It looks up to 0.1 s ahead, and on to when what the task does by itself has come to rest; real time then
        catches up.
        """
        if not self._moved or self.world.holding is not None:
            return None
        if self.pacer.time_s < self._target.end_s + REST_S:
            return None
        before = self.world.steps
        settled = True
        try:
            self.world.settle(REST_STEPS)
            self.world.task.proceed(self.world)
        except NotSettled:
            settled = False
        taken = self.world.steps - before
        self.pacer.took(taken)
        self._unsettled += taken
        if not settled and self._unsettled < SETTLE_STEPS:
            return None
        self._moved = False
        self._motions += 1
        return Judgement(self.world.score(), settled, self._motions, self.pacer.time_s)

"""The simulated cell: a table, an arm with its tool, cameras, and the scene of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Any

import numpy as np
import pybullet
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.types import RGBD, Camera, FloatArray, Workspace
from embodied_vision_sim import shapes
from embodied_vision_sim.camera import Light, front_camera, render
from embodied_vision_sim.meshes import Meshes
from embodied_vision_sim.randomisation import Draw, Randomisation
from embodied_vision_sim.renderer import Egl, Renderer, choose_renderer
from embodied_vision_sim.robot import Arm
from embodied_vision_sim.rounding import rounded
from embodied_vision_sim.scenery import dress, shifted
from embodied_vision_sim.suction import OBJECT_GROUP
from embodied_vision_sim.tasks import make_task
from embodied_vision_sim.tasks.base import Task
from embodied_vision_sim.tool import Tool, make_tool

STEP_HZ = 240
TABLE_SIZE_M = (2.4, 3.0, 0.1)
TABLE_RGBA = (0.62, 0.58, 0.53, 1.0)
TABLE_TILES = (5, 6)
"""How often a texture is laid along x and y."""
ARM_LENGTH_M = 1.2
"""Farther than any arm reaches."""
REST_SPEED_M_S = 0.002
REST_TURN_RAD_S = 0.05
"""Small things may turn as fast as moves their farthest point at the speed of rest."""
WINDOW_STEPS, STAY_M, STAY_RAD, STILL_SHARE = 30, 0.0005, 0.02, 0.02
"""A body of many convex parts trembles on the points that it stands on. Where it has stayed within these bounds for a
window of steps, only so large a share of its speed counts."""
REST_STEPS = 24
FRICTION, SPIN_FRICTION_M = 0.8, 0.002
BALL_DAMPING = 5.0
"""Share of its turn that a ball loses, per second: a link of a chain would spin about it for long."""
LINK_FORCE_N = 100.0
"""Greatest force with which linked bodies hold on to each other."""
SETTLE_STEPS = 4 * STEP_HZ


class NotSettled(RunFailed):
    """An object was still moving when the allowed number of steps was over."""


class World:
    """One simulated cell in a PyBullet client of its own; any number of worlds live side by side.

    A seed determines everything that `reset` makes, bit for bit. Time passes only in `step`.

    Attributes:
        task: the task whose scene stands on the table.
        workspace: where the task puts objects.
        cameras: the cell's calibrated cameras, as they are reported for this scene.
        randomisation: what may differ between scenes.
        drawn: what differs in this one.
        kept_free: discs x, y, radius in m, for `keep_free`.
        renderer: who draws its pictures, software or egl.
        robot: kinematics and limits of the arm with its tool.
        tool: at the arm's tip.
        seed: of the scene that stands on the table.
        object_names: names of all bodies by the ids that segmentation shows.
        steps: physics steps since the reset.
    """

    def __init__(
        self,
        task: str | Task,
        *,
        robot: str = "panda",
        tool: str | None = None,
        cameras: Sequence[Camera] | None = None,
        workspace: Workspace | None = None,
        renderer: str = "software",
        randomisation: str | Mapping[str, Any] | Randomisation = "none",
    ) -> None:
        """An empty cell; `reset` fills it.

        Args:
            task: name of the task, or a task of one's own.
            robot: name of the arm.
            tool: name of its tool; left out, the task's usual one.
            cameras: left out, the cell's front camera.
            workspace: left out, the usual one.
            renderer: software, egl, or auto: EGL where it is there.
            randomisation: a preset, a dict of its fields, or a description.

        Raises:
            BadInput: unknown task or robot, a tool that the task cannot be done with, or EGL where it is not there.
        """
        self.task: Task = make_task(task) if isinstance(task, str) else task
        tool = tool or self.task.tools[0]
        if tool not in self.task.tools:
            raise BadInput(f"task {self.task.name!r} cannot be done with {tool!r}; use {' or '.join(self.task.tools)}")
        self.workspace = workspace or Workspace()
        self._nominal_cameras = tuple(cameras) if cameras is not None else (front_camera(),)
        self.randomisation = Randomisation.of(randomisation)
        self.drawn: Draw = self.randomisation.draw(0, self._nominal_cameras)
        self.cameras = self._nominal_cameras
        self.kept_free: list[tuple[float, float, float]] = []
        self.robot = RobotModel.load(f"{robot}_{tool}")
        self.object_names: dict[int, str] = {}
        self.steps = 0
        self.seed = 0
        self.renderer: Renderer = choose_renderer(renderer)
        self._client: int = pybullet.connect(pybullet.DIRECT)
        self._egl: Egl | None = None
        self._meshes = Meshes()
        self._objects: list[int] = []
        self._movable: list[int] = []
        self._rest_turn: dict[int, float] = {}
        self._trembling: dict[int, FloatArray] = {}
        self._still: set[int] = set()

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def client(self) -> int:
        """PyBullet's client id."""
        return self._client

    @property
    def reach(self) -> tuple[float, float]:
        """Least and greatest distance from the base's axis of what the arm is to move, m."""
        return self.robot.reach_m

    def close(self) -> None:
        """Free the PyBullet client; the world cannot be used afterwards."""
        if self._client >= 0:
            if self._egl is not None:
                self._egl.close()
            self._meshes.close()
            pybullet.disconnect(physicsClientId=self._client)
            self._client = -1

    # Scene

    def reset(self, seed: int) -> None:
        """Build the scene of `seed` with the arm at home and everything at rest."""
        client = self._client
        if client < 0:
            raise BadInput("the world was closed; make another one")
        self.seed = seed
        self._use_context()
        pybullet.resetSimulation(physicsClientId=client)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=1 / STEP_HZ, deterministicOverlappingPairs=1, enableFileCaching=0, physicsClientId=client
        )
        pybullet.setGravity(0, 0, -9.81, physicsClientId=client)
        self.object_names, self._objects, self._movable, self.steps = {}, [], [], 0
        self._rest_turn, self._trembling, self._still = {}, {}, set()
        self.drawn = self.randomisation.draw(seed, self._nominal_cameras)
        self.cameras, self.kept_free = self.drawn.cameras, []
        self._add_table()
        self._arm = Arm(client, self.robot)
        self.object_names[self._arm.body] = "robot"
        self.tool: Tool = make_tool(client, self._arm, self._movable.__contains__)
        self.task.build(self, np.random.default_rng(seed))
        self.settle()
        dress(self, self.drawn)
        self._arm.place(np.asarray(self.robot.home, float))

    def _add_table(self) -> None:
        texture, mesh = self.drawn.texture(), None
        if texture is not None:
            mesh = self._meshes.tiled(TABLE_SIZE_M, TABLE_TILES, texture)
        place, rgba = (0.5, 0.0, -TABLE_SIZE_M[2] / 2), shifted(TABLE_RGBA, self.drawn.table)
        self.add_boxes("table", [shapes.Box(TABLE_SIZE_M)], place, 0.0, rgba, fixed=True, mesh=mesh)
        if mesh is not None:
            self._meshes.forget(mesh)

    def keep_free(self, x: float, y: float, radius: float) -> None:
        """Let nothing but the task put objects on a disc of the table, in m: something is to come there later."""
        self.kept_free.append((x, y, radius))

    def add_boxes(
        self,
        name: str,
        boxes: Sequence[shapes.Box],
        xyz: Sequence[float],
        yaw: float,
        rgba: shapes.RGBA,
        *,
        fixed: bool = False,
        collide: bool = True,
        mesh: Path | None = None,
        texture: NDArray[np.uint8] | None = None,
        mass: float | None = None,
    ) -> int:
        """Put a body of boxes into the scene; see `shapes.create_boxes`. Returns its id.

        A `texture` uint8 (H, W, 3), white where the color shall stay, covers every face.
        """
        self._use_context()
        if mesh is None and (self.renderer == "egl" or texture is not None):
            mesh = self._meshes.boxes(boxes, texture)
        body = shapes.create_boxes(
            self._client, boxes, xyz, yaw, rgba, fixed=fixed, collide=collide, mesh=mesh, mass=mass
        )
        self._know(body, name, movable=not fixed, spinningFriction=SPIN_FRICTION_M)
        if not fixed:
            extent = max(float(np.linalg.norm(box.centre) + np.linalg.norm(box.size) / 2) for box in boxes)
            self._rest_turn[body] = max(REST_TURN_RAD_S, REST_SPEED_M_S / extent)
        return body

    def add_urdf(self, name: str, urdf: str, pose: FloatArray) -> int:
        """Put a movable body into the scene at a pose (4, 4): the text of a URDF of one link, meshes by absolute paths.

        Returns its id.
        """
        with NamedTemporaryFile("w", suffix=".urdf", encoding="utf-8") as file:
            file.write(urdf)
            file.flush()
            body: int = pybullet.loadURDF(file.name, physicsClientId=self._client)
        self._know(body, name, movable=True, spinningFriction=SPIN_FRICTION_M)
        self._trembling[body] = pose
        self.put(body, pose)
        return body

    def add_ball(
        self, name: str, radius: float, mass: float, xyz: Sequence[float], yaw: float, rgba: shapes.RGBA
    ) -> int:
        """Put a ball into the scene; see `shapes.create_ball`. Returns its id."""
        self._use_context()
        body = shapes.create_ball(self._client, radius, mass, xyz, yaw, rgba)
        self._know(body, name, movable=True, angularDamping=BALL_DAMPING)
        self._rest_turn[body] = REST_SPEED_M_S / radius
        return body

    def _know(self, body: int, name: str, *, movable: bool, **dynamics: float) -> None:
        """Take a new body into the books, with the contacts of all objects and further dynamics of its own."""
        self.object_names[body] = name
        pybullet.setCollisionFilterGroupMask(body, -1, OBJECT_GROUP, 0xFF, physicsClientId=self._client)
        pybullet.changeDynamics(
            body, -1, lateralFriction=FRICTION, restitution=0.0, physicsClientId=self._client, **dynamics
        )
        self._objects.append(body)
        if movable:
            self._movable.append(body)

    def link(self, parent: int, child: int, offset: Sequence[float]) -> None:
        """Hinge the centre of one body to the point `offset` m in the frame of another; it turns freely about it."""
        constraint = pybullet.createConstraint(
            parentBodyUniqueId=parent,
            parentLinkIndex=-1,
            childBodyUniqueId=child,
            childLinkIndex=-1,
            jointType=pybullet.JOINT_POINT2POINT,
            jointAxis=(0, 0, 0),
            parentFramePosition=offset,
            childFramePosition=(0, 0, 0),
            physicsClientId=self._client,
        )
        pybullet.changeConstraint(constraint, maxForce=LINK_FORCE_N, physicsClientId=self._client)

    def pose(self, body: int) -> FloatArray:
        """Pose (4, 4) of a body in the base frame."""
        position, quaternion = pybullet.getBasePositionAndOrientation(body, physicsClientId=self._client)
        pose = np.eye(4)
        pose[:3, :3] = np.reshape(pybullet.getMatrixFromQuaternion(quaternion), (3, 3))
        pose[:3, 3] = position
        return pose

    def put(self, body: int, pose: FloatArray) -> None:
        """Move a body to a pose (4, 4) at once, at rest; the next step wakes it."""
        pybullet.resetBasePositionAndOrientation(
            body,
            rounded(pose[:3, 3]).tolist(),
            rounded(Rotation.from_matrix(pose[:3, :3]).as_quat()).tolist(),
            physicsClientId=self._client,
        )
        pybullet.changeDynamics(
            body, -1, activationState=pybullet.ACTIVATION_STATE_WAKE_UP, physicsClientId=self._client
        )

    def surface(self, x: float, y: float) -> tuple[int, float]:
        """What a vertical ray from above meets first, arm left out: body id (−1 for nothing) and its height in m."""
        ((body, _, _, position, _),) = pybullet.rayTestBatch(
            [(x, y, 1.0)], [(x, y, -1.0)], collisionFilterMask=OBJECT_GROUP, physicsClientId=self._client
        )
        return body, float(position[2])

    # Time

    def step(self) -> None:
        """Advance by one physics step of 1/240 s."""
        pybullet.stepSimulation(physicsClientId=self._client)
        self.tool.update()
        self.steps += 1

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset."""
        return self.steps * 1_000_000_000 // STEP_HZ

    def settle(self, limit: int = SETTLE_STEPS) -> int:
        """Step until every object has been at rest for 0.1 s, and return the number of steps.

        Raises:
            NotSettled: an object still moves after `limit` steps; the message names it.
        """
        quiet = 0
        for count in range(1, limit + 1):
            self.step()
            if count % WINDOW_STEPS == 1:
                self._watch()
            quiet = 0 if self._fastest()[0] > 1.0 else quiet + 1
            if quiet >= REST_STEPS:
                self._rest()
                return count
        _, body = self._fastest()
        position = np.round(self.pose(body)[:3, 3], 3).tolist()
        raise NotSettled(
            f"{self.object_names[body]!r} still moves at {position} m after {limit} steps "
            f"({limit / STEP_HZ:.1f} s); it may have fallen off the table: skip this scene or raise the limit"
        )

    def _watch(self) -> None:
        """Note which trembling bodies have stayed where they were when this was called last."""
        self._still = set()
        for body, before in self._trembling.items():
            self._trembling[body] = now = self.pose(body)
            turned = np.abs(now[:3, :3] - before[:3, :3]).max()
            if np.abs(now[:3, 3] - before[:3, 3]).max() < STAY_M and turned < STAY_RAD:
                self._still.add(body)

    def settle_if_moving(self) -> None:
        """`settle`, unless every object sleeps.

        Raises:
            NotSettled: an object still moves after 4 s.
        """
        if self._fastest()[0] > 0:
            self.settle()

    def top(self) -> float:
        """Height in m of the highest point of table and objects within the arm's length; 0 is the table."""
        low, high = (
            np.array(corners)
            for corners in zip(
                *(pybullet.getAABB(body, physicsClientId=self._client) for body in self._objects), strict=True
            )
        )
        nearest = np.maximum(np.maximum(low[:, :2], -high[:, :2]), 0.0)
        return float(high[np.hypot(*nearest.T) < ARM_LENGTH_M, 2].max(initial=0.0))

    def _rest(self) -> None:
        """Let all objects sleep where they are, exactly; contact with what moves wakes them."""
        for body in self._movable:
            pybullet.resetBaseVelocity(body, (0, 0, 0), (0, 0, 0), physicsClientId=self._client)
            pybullet.changeDynamics(
                body,
                -1,
                activationState=pybullet.ACTIVATION_STATE_ENABLE_SLEEPING | pybullet.ACTIVATION_STATE_SLEEP,
                physicsClientId=self._client,
            )
        for _ in range(2):  # in the first one gravity still moves them, by a hair
            self.step()

    def _fastest(self) -> tuple[float, int]:
        """Largest speed among the objects, relative to what counts as rest, and whose it is."""
        if not self._movable:
            return 0.0, -1
        velocities = [pybullet.getBaseVelocity(body, physicsClientId=self._client) for body in self._movable]
        speeds = np.linalg.norm(velocities, axis=2)  # (N, 2): straight on, and turning
        limits = [(REST_SPEED_M_S, self._rest_turn.get(body, REST_TURN_RAD_S)) for body in self._movable]
        ratios = (speeds / limits).max(axis=1)
        ratios[[body in self._still for body in self._movable]] *= STILL_SHARE
        worst = int(ratios.argmax())
        return float(ratios[worst]), self._movable[worst]

    # Arm

    def set_joint_targets(self, q: FloatArray, qd: FloatArray) -> None:
        """Follow positions (J,) in rad with velocities (J,) in rad/s from the next step on."""
        self._arm.set_targets(q, qd)

    def follow(self, q: FloatArray, qd: FloatArray) -> None:
        """Follow positions (N, J) in rad with velocities (N, J) in rad/s, one a step.

        Raises:
            BadInput: wrong shape or non-finite values; nothing has moved then.
        """
        for _ in self._arm.follow(q, qd):
            self.step()

    def move_arm(self, q: FloatArray, qd: FloatArray, steps: int) -> None:
        """Put the joints at `q` (J,) in rad, with velocities (J,) in rad/s, after so many steps in which nothing else
        moves: for ways on which an arm without a load touches nothing, and only while every object sleeps."""
        self._arm.place(q, qd)
        self.steps += steps

    def joint_state(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Positions in rad, velocities in rad/s and efforts in Nm, each (J,), in the order of `robot.joint_names`."""
        return self._arm.state()

    def tip_pose(self) -> FloatArray:
        """Pose (4, 4) of the tool's tip in the base frame."""
        return self._arm.tip_pose()

    def set_gripper(self, opening: float) -> None:
        """Open or close the tool, 0 closed … 1 open; a suction cup sucks when closed."""
        self.tool.set(opening)

    @property
    def holding(self) -> str | None:
        """Name of the object that the tool holds, or None."""
        body = self.tool.holding
        return None if body is None else self.object_names[body]

    # What is seen and what it is worth

    def render(self, stamp_ns: int | None = None) -> list[RGBD]:
        """One frame of every camera, as its sensor gives it.

        Stamped with simulated time less the latency drawn, unless `stamp_ns` is given. The same at the same
        simulated time, however often it is asked for.
        """
        stamp = max(0, self.time_ns - round(self.drawn.latency_s * 1e9)) if stamp_ns is None else stamp_ns
        self._use_context()
        frames = []
        for number, (reported, true) in enumerate(zip(self.cameras, self.drawn.true_cameras, strict=True)):
            frame, _ = render(self._client, true, stamp_ns=stamp, light=self.drawn.light, renderer=self.renderer)
            seen = self.drawn.sensor.apply(frame, self.drawn.rng(2, number, self.steps))
            frames.append(replace(seen, camera=reported))
        return frames

    def views(
        self, cameras: Sequence[Camera], *, light: Light | None = None, segmentation: bool = True
    ) -> tuple[list[RGBD], list[NDArray[np.int32]]]:
        """Frames from any camera poses and, with `segmentation`, their body ids int32 (H, W), −1 for nothing.

        Without noise, holes or latency; in the scene's own light unless another is given.
        """
        self._use_context()
        pairs = [
            render(
                self._client,
                camera,
                stamp_ns=self.time_ns,
                light=light or self.drawn.light,
                segmentation=segmentation,
                renderer=self.renderer,
            )
            for camera in cameras
        ]
        return [frame for frame, _ in pairs], [ids for _, ids in pairs if ids is not None]

    def _use_context(self) -> None:
        if self.renderer == "egl":
            # Not before it is needed: a process that has drawn with EGL cannot hand it on to forked children.
            self._egl = self._egl or Egl(self._client)
            self._egl.enter()

    def score(self) -> float:
        """How much of the task is done now, 0 … 1."""
        return self.task.score(self)

"""A bin of diverse objects: five of the 1,000 procedural ones of pybullet_data, those held out apart from the rest.

The objects and their split are those of Quillen et al., "Deep Reinforcement Learning for Vision-Based Robotic
Grasping", ICRA 2018: the 100 whose number ends in 0 are held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, get_args
from xml.etree import ElementTree

import numpy as np
import pybullet
import pybullet_data
from scipy.spatial.transform import Rotation

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.geometry import look_at
from embodied_vision.learning.seeds import SPLIT_SIZE, split_of
from embodied_vision.types import Camera, FloatArray, PickPlace, Workspace
from embodied_vision_sim.shapes import Box, centred
from embodied_vision_sim.tasks.base import Task
from embodied_vision_sim.world import NotSettled, World

Objects = Literal["auto", "train", "test"]
OBJECTS, HELD_OUT_EVERY = 1000, 10
DAMAGED = (168,)
"""All vertices of this mesh are NaN."""
IN_BIN, MOST_IN_BIN = 5, 10
BIN_CENTRE_M = (0.52, 0.0)
BIN_SIZE_M, WALL_HEIGHT_M, WALL_M = (0.28, 0.36), 0.06, 0.01
"""Inner edges of the bin along x and y, height and thickness of its walls."""
BIN_RGBA = (0.36, 0.40, 0.46, 1.0)
LIFT_M = 0.24
"""Height of the tip at which a grasp is judged."""
DROP_MARGIN_M, DROP_HEIGHT_M, DROP_STEPS = 0.08, 0.18, 60
DROPS = 20
"""How often an object that jumps out of the bin is dropped again."""
ROLL_FRICTION_M = 0.001
SOLVER_ITERATIONS, SOLVER_RESIDUAL_M_S = 30, 1e-4
"""When the solver stops, by count and by velocity error: a heap of compound shapes is simulated twice as fast as by
PyBullet's own 50 iterations to the last digit."""
CEILING_M = 0.28


def object_numbers(objects: Literal["train", "test"]) -> list[int]:
    """Numbers of the 100 held-out objects, or of the training objects: 900 less one that is damaged."""
    held_out = objects == "test"
    return [number for number in range(OBJECTS) if (number % HELD_OUT_EVERY == 0) == held_out and number not in DAMAGED]


def objects_of(seed: int, objects: Objects = "auto") -> Literal["train", "test"]:
    """Which objects the scene of a seed is made of: with `auto` test scenes get those held out, all others the rest.

    Raises:
        BadInput: unknown choice.
    """
    if objects not in get_args(Objects):
        raise BadInput(f"objects {objects!r} are unknown; choose one of {', '.join(get_args(Objects))}")
    if objects != "auto":
        return objects
    return "test" if 0 <= seed < 3 * SPLIT_SIZE and split_of(seed) == "test" else "train"


def object_urdf(number: int) -> str:
    """URDF of an object, its mesh by an absolute path, without its contact parameters.

    Those correct all penetration within one step, which shakes what lies still and throws what is stacked.
    """
    folder = Path(pybullet_data.getDataPath()) / "random_urdfs" / f"{number:03d}"
    robot = ElementTree.parse(folder / f"{number:03d}.urdf").getroot()
    for link in robot.iter("link"):
        for contact in link.findall("contact"):
            link.remove(contact)
    for mesh in robot.iter("mesh"):
        mesh.set("filename", str(folder / str(mesh.get("filename"))))
    return ElementTree.tostring(robot, encoding="unicode")


def bin_workspace() -> Workspace:
    """What lies within the walls, up to the height of travel."""
    x, y = ((centre - size / 2, centre + size / 2) for centre, size in zip(BIN_CENTRE_M, BIN_SIZE_M, strict=True))
    return Workspace(x=x, y=y, z=(0.0, CEILING_M))


def bin_camera(size: int) -> Camera:
    """A camera of size×size px opposite the arm that looks down into the bin, 0.75 m away."""
    focal, centre = 1.25 * size, (size - 1) / 2
    x, y = BIN_CENTRE_M
    return Camera(
        name="camera",
        width=size,
        height=size,
        K=np.array([[focal, 0.0, centre], [0.0, focal, centre], [0.0, 0.0, 1.0]]),
        T_base_camera=look_at((x + 0.38, y, 0.66), (x, y, 0.03)),
    )


class DiverseBin(Task):
    """Objects of any shape in a bin, one of which is to be lifted out.

    Attributes:
        objects: which objects scenes are made of.
        in_bin: how many lie in the bin.
        numbers: of the objects in the bin, by body id.
    """

    name: ClassVar[str] = "grasp-diverse"
    max_steps: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("parallel_jaw",)

    def __init__(self, objects: Objects = "auto", in_bin: int = IN_BIN) -> None:
        objects_of(0, objects)
        if not 1 <= in_bin <= MOST_IN_BIN:
            raise BadInput(f"{in_bin} objects in the bin; give 1 to {MOST_IN_BIN}")
        self.objects: Objects = objects
        self.in_bin = in_bin
        self.numbers: dict[int, int] = {}

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Drop the objects one after the other over random places, turned at random."""
        pybullet.setPhysicsEngineParameter(
            numSolverIterations=SOLVER_ITERATIONS,
            solverResidualThreshold=SOLVER_RESIDUAL_M_S,
            physicsClientId=world.client,
        )
        (width, depth), h, t = BIN_SIZE_M, WALL_HEIGHT_M, WALL_M
        walls = centred(
            [Box((t, depth + 2 * t, h), (side * (width + t) / 2, 0.0, 0.0)) for side in (-1, 1)]
            + [Box((width, t, h), (0.0, side * (depth + t) / 2, 0.0)) for side in (-1, 1)]
        )
        world.add_boxes("bin", walls, (*BIN_CENTRE_M, h / 2), 0.0, BIN_RGBA, fixed=True)
        chosen = rng.choice(object_numbers(objects_of(world.seed, self.objects)), self.in_bin, replace=False)
        self.numbers = {}
        for number in map(int, chosen):
            body = world.add_urdf(f"object {number:03d}", object_urdf(number), _above_bin(rng))
            self.numbers[body] = number
            pybullet.changeDynamics(body, -1, rollingFriction=ROLL_FRICTION_M, physicsClientId=world.client)
            self._drop(world, body, rng)
        self._settle(world, rng)

    def _drop(self, world: World, body: int, rng: np.random.Generator) -> None:
        for _ in range(DROPS):
            for _ in range(DROP_STEPS):
                world.step()
            if all(inside_bin(world, dropped) for dropped in self.numbers):
                return
            for dropped in self.numbers:
                if not inside_bin(world, dropped):
                    world.put(dropped, _above_bin(rng))
        raise RunFailed(f"{world.object_names[body]!r} does not stay in the bin after {DROPS} drops; skip this scene")

    def _settle(self, world: World, rng: np.random.Generator) -> None:
        """Wait until everything rests in the bin; objects that do not, and those that rock on and on, drop again."""
        for _ in range(DROPS):
            again = list(self.numbers)
            try:
                world.settle()
                again = [body for body in again if not inside_bin(world, body)]
            except NotSettled:
                pass
            if not again:
                return
            for body in again:
                world.put(body, _above_bin(rng))
                self._drop(world, body, rng)

    def score(self, world: World) -> float:
        """1 when the jaw holds an object clear of the bin's walls, else 0."""
        held = world.tool.holding
        return float(held in self.numbers and is_clear(world, held))

    def oracle(self, world: World, rng: np.random.Generator) -> PickPlace:
        """The grasp that the true geometry makes look best."""
        from embodied_vision_sim.grasp_candidates import best_grasp

        return grasp_action(best_grasp(world, rng), world.time_ns)


def grasp_action(grasp: FloatArray, stamp_ns: int) -> PickPlace:
    """The decision to close the jaw at a tip pose (4, 4) and to lift straight up."""
    raised = grasp.copy()
    raised[2, 3] = LIFT_M
    return PickPlace(pick=grasp, place=raised, primitive="grasp", stamp_ns=stamp_ns)


def is_clear(world: World, body: int) -> bool:
    """Whether every point of a body is higher above the table than the bin's walls."""
    table = next(known for known, name in world.object_names.items() if name == "table")
    near = pybullet.getClosestPoints(body, table, WALL_HEIGHT_M, physicsClientId=world.client)
    return len(near) == 0


def inside_bin(world: World, body: int) -> bool:
    """Whether a body's centre lies within the walls."""
    offset = np.abs(world.pose(body)[:2, 3] - BIN_CENTRE_M)
    return bool((offset < np.array(BIN_SIZE_M) / 2).all())


def _above_bin(rng: np.random.Generator) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    room = np.array(BIN_SIZE_M) / 2 - DROP_MARGIN_M
    pose[:2, 3] = np.array(BIN_CENTRE_M) + rng.uniform(-room, room)
    pose[2, 3] = DROP_HEIGHT_M
    return pose

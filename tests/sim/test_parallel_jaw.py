"""A jaw holds by friction alone, slips under too much load, and finds room for its fingers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pybullet
import pytest

from embodied_vision.control.guard import Guard
from embodied_vision.control.motion import plan, plan_grasp
from embodied_vision.errors import RunFailed
from embodied_vision.geometry import pose_to_vector, tool_down
from embodied_vision.learning.environments import make_env
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.types import PickPlace
from embodied_vision_sim.execution import execute
from embodied_vision_sim.parallel_jaw import ParallelJaw
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks.grips import grips, has_room
from embodied_vision_sim.tasks.kit_shapes import TEST_SHAPES
from embodied_vision_sim.tasks.oracle import carry
from embodied_vision_sim.world import STEP_HZ, World

CUBE = Box((0.04, 0.04, 0.04))
BLUE = (0.2, 0.3, 0.9, 1.0)
X, Y = 0.5, -0.35


@pytest.fixture
def world() -> Iterator[World]:
    with World("block-insertion", tool="parallel_jaw") as world:
        world.reset(1)
        yield world


def _cube(world: World, x: float = X, y: float = Y, yaw: float = 0.0) -> int:
    body = world.add_boxes("cube", [CUBE], (x, y, 0.02), yaw, BLUE)
    world.settle()
    return body


def _go(world: World, goal: np.ndarray, seconds: float = 1.0) -> None:
    start = world.joint_state()[0]
    end = world.robot.inverse(goal, start)
    for share in np.linspace(0, 1, round(seconds * STEP_HZ)):
        world.set_joint_targets(start + share * (end - start), np.zeros(7))
        world.step()
    for _ in range(24):
        world.step()


def _close(world: World) -> None:
    world.set_gripper(0.0)
    for _ in range(84):
        world.step()


def _take(world: World) -> None:
    _go(world, tool_down(X, Y, 0.2))
    _go(world, tool_down(X, Y, 0.022))
    _close(world)


def _in_hand(world: World, body: int) -> np.ndarray:
    return np.linalg.inv(world.tip_pose()) @ world.pose(body)


def test_holds_by_friction_without_slip_or_tremor(world: World) -> None:
    body = _cube(world)
    constraints = pybullet.getNumConstraints(physicsClientId=world.client)
    _take(world)
    assert world.holding == "cube"
    taken = _in_hand(world, body)
    _go(world, tool_down(X, Y, 0.25), 0.5)
    _go(world, tool_down(X, 0.1, 0.25, 0.8), 1.0)
    for _ in range(2 * STEP_HZ):
        world.step()
    held = _in_hand(world, body)
    assert world.holding == "cube"
    assert np.linalg.norm(held[:3, 3] - taken[:3, 3]) < 0.001
    assert np.degrees(np.arccos((np.trace(held[:3, :3].T @ taken[:3, :3]) - 1) / 2)) < 1.5
    assert np.linalg.norm(pybullet.getBaseVelocity(body, physicsClientId=world.client)[0]) < 0.002
    assert pybullet.getNumConstraints(physicsClientId=world.client) == constraints


def test_lets_go_when_it_opens(world: World) -> None:
    body = _cube(world)
    _take(world)
    _go(world, tool_down(X, Y, 0.25))
    world.set_gripper(1.0)
    for _ in range(24):
        world.step()
    assert world.holding is None
    world.settle()
    assert world.pose(body)[2, 3] == pytest.approx(0.02, abs=0.001)


def test_does_not_take_what_it_only_stands_above(world: World) -> None:
    body = _cube(world)
    _go(world, tool_down(X, Y, 0.2))
    _go(world, tool_down(X, Y, 0.05))
    _close(world)
    assert world.holding is None
    _go(world, tool_down(X, Y, 0.25))
    assert world.pose(body)[2, 3] < 0.021


def test_too_heavy_an_object_slips(world: World) -> None:
    body = _cube(world)
    pybullet.changeDynamics(body, -1, mass=8.0, physicsClientId=world.client)
    _take(world)
    _go(world, tool_down(X, Y, 0.25), 2.0)
    for _ in range(STEP_HZ):
        world.step()
    assert world.pose(body)[2, 3] < 0.1


def test_fingers_stay_symmetric_against_a_stop(world: World) -> None:
    # The left finger runs into a glued block: the right one stops as well.
    world.add_boxes("stop", [CUBE], (X, Y + 0.05, 0.02), 0.0, BLUE, fixed=True)
    _go(world, tool_down(X, Y - 0.005, 0.2))
    _go(world, tool_down(X, Y - 0.005, 0.022))
    _close(world)
    jaw = world.tool
    assert isinstance(jaw, ParallelJaw)
    left, right = (
        pybullet.getJointState(jaw._body, finger, physicsClientId=world.client)[0] for finger in jaw._fingers
    )
    assert left == pytest.approx(right, abs=0.002)
    assert world.holding is None


def test_presses_on_the_table_without_going_through(world: World) -> None:
    _go(world, tool_down(X, Y, 0.05))
    _go(world, tool_down(X, Y, -0.02))
    assert world.tip_pose()[2, 3] > -0.003


@pytest.mark.parametrize("task", ["block-insertion", "place-red-in-green"])
def test_oracle_solves_scenes(task: str) -> None:
    with World(task, tool="parallel_jaw") as world:
        for seed in range(4):
            world.reset(seed)
            guard = Guard(world.robot, world.workspace)
            rng = np.random.default_rng(seed)
            for _ in range(world.task.max_steps):
                action = world.task.oracle(world, rng)
                guard.check_action(action, world.time_ns)
                execute(world, plan(world.robot, world.joint_state()[0], action))
                world.settle()
                if world.score() == 1:
                    break
            assert world.score() == 1


def test_grips_are_opposite_faces_within_the_stroke(world: World) -> None:
    body, jaw = _cube(world, yaw=0.3), world.tool
    assert isinstance(jaw, ParallelJaw)
    found = list(grips(world, body, jaw))
    assert {round(grip.width_m, 4) for grip in found} == {0.04}
    for grip in found:
        closing = grip.pose[:2, 1] @ np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
        assert np.abs(closing).max() == pytest.approx(1, abs=1e-4)
        assert 0.004 <= grip.pose[2, 3] < 0.04
    wide = world.add_boxes("slab", [Box((0.12, 0.1, 0.04))], (0.4, 0.15, 0.02), 0.0, BLUE)
    assert list(grips(world, wide, jaw)) == []


def test_room_for_fingers_is_seen(world: World) -> None:
    jaw = world.tool
    assert isinstance(jaw, ParallelJaw)
    _cube(world)
    along_x, along_y = tool_down(X, Y, 0.02, np.pi / 2), tool_down(X, Y, 0.02, 0.0)
    assert has_room(world, jaw, along_y, 0.04)
    world.add_boxes("neighbour", [CUBE], (X, Y + 0.06, 0.02), 0.0, BLUE)
    assert not has_room(world, jaw, along_y, 0.04)
    assert has_room(world, jaw, along_x, 0.04)


def test_no_room_is_said(world: World) -> None:
    body = _cube(world)
    for dx, dy in ((0.055, 0), (-0.055, 0), (0, 0.055), (0, -0.055)):
        world.add_boxes("wall", [CUBE], (X + dx, Y + dy, 0.02), 0.0, BLUE)
    goal = world.pose(body)
    goal[1, 3] += 0.3
    with pytest.raises(RunFailed, match=r"no grip on 'cube': .* leave its fingers no room"):
        carry(world, body, goal, 0.01, np.random.default_rng(0))


def test_carries_rigidly_to_the_goal(world: World) -> None:
    body = _cube(world, yaw=0.2)
    goal = world.pose(body)
    goal[:2, 3] = 0.4, 0.1
    goal[:3, :3] = tool_down(0, 0, 0, 1.0)[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    action = carry(world, body, goal, 0.004, np.random.default_rng(1))
    assert isinstance(action, PickPlace)
    execute(world, plan(world.robot, world.joint_state()[0], action))
    world.settle()
    reached = world.pose(body)
    np.testing.assert_allclose(reached[:3, 3], goal[:3, 3], atol=0.003)
    np.testing.assert_allclose(reached[:2, :2], goal[:2, :2], atol=0.05)


@pytest.mark.parametrize(
    "task",
    [
        "align-box-corner",
        "assembling-kits",
        "packing-boxes",
        "palletizing-boxes",
        "stack-block-pyramid",
        "towers-of-hanoi",
    ],
)
def test_the_jaw_does_every_rigid_task(task: str) -> None:
    env = make_env(task, tool="parallel_jaw", renderer="software")
    env.reset(seed=scene_seed("train", 1))  # with a star among the kit's shapes, and a large box to pack
    over = False
    while not over:
        decision = env.unwrapped.oracle()
        vectors = {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}
        _, _, terminated, truncated, info = env.step(vectors)
        over = terminated or truncated
        assert "refused" not in info
        assert "failed" not in info
    assert info["solved"]
    env.close()


def test_a_pentagon_is_taken_between_a_side_of_its_outline_and_a_corner(world: World) -> None:
    jaw = world.tool
    assert isinstance(jaw, ParallelJaw)
    pentagon = next(shape for shape in TEST_SHAPES if shape.name == "pentagon")
    body = world.add_boxes("pentagon", pentagon.boxes(), (X, Y, 0.01), 0.3, BLUE)
    world.settle()
    found = [grip for grip in grips(world, body, jaw) if not grip.firm]
    assert found
    for grip in found:
        assert 0.05 < grip.width_m < 0.08
        assert has_room(world, jaw, grip.pose, grip.width_m)
    action = PickPlace(pick=found[0].pose, place=tool_down(X + 0.05, Y, 0.15))
    execute(world, plan_grasp(world.robot, world.joint_state()[0], action))
    assert world.holding == "pentagon"

"""A world keeps still, repeats itself, and holds what it picks up."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.control.motion import plan_pick_place
from embodied_vision.control.planning import plan_line
from embodied_vision.errors import BadInput
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace
from embodied_vision_sim.execution import execute
from embodied_vision_sim.shapes import Box
from embodied_vision_sim.tasks import TASKS
from embodied_vision_sim.world import STEP_HZ, NotSettled, World

CUBE = Box((0.04, 0.04, 0.04))
BLUE = (0.2, 0.3, 0.9, 1.0)


@pytest.fixture
def world() -> Iterator[World]:
    with World("block-insertion") as world:
        world.reset(0)
        yield world


def _body(world: World, name: str) -> int:
    return next(body for body, known in world.object_names.items() if known == name)


def _go_down(world: World, x: float, y: float, z: float) -> None:
    """Tip to (x, y, z), looking down, from straight above."""
    q, _, _ = world.joint_state()
    above = world.robot.inverse(tool_down(x, y, 0.2), q)
    for _ in range(STEP_HZ):
        world.set_joint_targets(above, np.zeros(7))
        world.step()
    line = plan_line(world.robot, above, tool_down(x, y, z))
    for target, velocity in zip(*line.sample_many(np.arange(0, line.duration + 0.1, 1 / STEP_HZ))[:2], strict=True):
        world.set_joint_targets(target, velocity)
        world.step()


@pytest.mark.parametrize("task", sorted(TASKS))
def test_same_seed_same_scene_bit_for_bit(task: str) -> None:
    with World(task) as first, World(task) as second:
        first.reset(3)
        second.reset(8)
        second.reset(3)
        a, b = first.render()[0], second.render()[0]
        np.testing.assert_array_equal(a.color, b.color)
        np.testing.assert_array_equal(a.depth, b.depth)
        assert a.stamp_ns == b.stamp_ns
        assert [first.pose(body).tolist() for body in first.object_names] == [
            second.pose(body).tolist() for body in second.object_names
        ]
        second.reset(4)
        assert (second.render()[0].color != a.color).any()


@pytest.mark.parametrize("task", sorted(TASKS))
def test_waiting_changes_nothing(task: str) -> None:
    with World(task) as world:
        world.reset(1)
        before = world.render()[0]
        poses = {body: world.pose(body) for body in world.object_names}
        for _ in range(3 * STEP_HZ):
            world.step()
        after = world.render(stamp_ns=7)[0]
        np.testing.assert_array_equal(before.color, after.color)
        np.testing.assert_array_equal(before.depth, after.depth)
        assert after.stamp_ns == 7
        for body, pose in poses.items():
            np.testing.assert_array_equal(world.pose(body), pose)
        q, qd, _ = world.joint_state()
        np.testing.assert_allclose(q, world.robot.home, atol=1e-4)
        np.testing.assert_allclose(qd, 0, atol=1e-4)


def test_time_passes_in_steps(world: World) -> None:
    before = world.time_ns
    for _ in range(STEP_HZ):
        world.step()
    assert world.time_ns - before == 1_000_000_000


def test_tip_is_where_kinematics_say(world: World) -> None:
    q, _, _ = world.joint_state()
    np.testing.assert_allclose(world.tip_pose(), world.robot.forward(q), atol=1e-4)


def test_joints_follow_a_planned_motion(world: World) -> None:
    line = plan_line(
        world.robot, world.robot.inverse(tool_down(0.5, 0.1, 0.2), world.robot.home), tool_down(0.5, 0.1, 0.1)
    )
    q, qd, _ = line.sample_many(np.arange(0, line.duration, 1 / STEP_HZ))
    for _ in range(STEP_HZ):
        world.set_joint_targets(q[0], np.zeros(7))
        world.step()
    worst = 0.0
    for target, velocity in zip(q, qd, strict=True):
        world.set_joint_targets(target, velocity)
        world.step()
        worst = max(worst, float(np.abs(world.joint_state()[0] - target).max()))
    assert worst < 0.01


def test_no_joint_races_whatever_is_commanded(world: World) -> None:
    goal = np.asarray(world.robot.home) + np.array([1.2, 0, 0, 0, 0, 0, 1.5])
    world.set_joint_targets(goal, np.zeros(7))
    fastest = 0.0
    for _ in range(STEP_HZ):
        world.step()
        fastest = max(fastest, float(np.abs(world.joint_state()[1]).max()))
    assert fastest <= 1.01 * world.robot.limits.velocity.max()
    np.testing.assert_allclose(world.joint_state()[0], goal, atol=0.01)


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.zeros(6)])
def test_joint_targets_must_be_complete_and_finite(world: World, bad: np.ndarray) -> None:
    with pytest.raises(BadInput, match="7 finite numbers"):
        world.set_joint_targets(bad, np.zeros_like(bad))


def test_suction_lifts_and_drops(world: World) -> None:
    body = world.add_boxes("cube", [CUBE], (0.5, -0.3, 0.02), 0.0, BLUE)
    world.settle()
    _go_down(world, 0.505, -0.3, 0.0405)
    assert world.holding is None
    world.set_gripper(0.0)
    world.step()
    assert world.holding == "cube"
    home, start = np.asarray(world.robot.home), world.joint_state()[0]
    for share in np.linspace(0, 1, 2 * STEP_HZ):
        world.set_joint_targets(start + share * (home - start), np.zeros(7))
        world.step()
    # Held rigidly where it was taken: 5 mm beside the cup's axis, half an edge below its mouth.
    np.testing.assert_allclose(
        np.linalg.inv(world.tip_pose()) @ world.pose(body) @ [0, 0, 0, 1], [-0.005, 0, 0.0205, 1], atol=0.002
    )
    assert world.pose(body)[2, 3] > 0.3
    world.set_gripper(1.0)
    assert world.holding is None
    world.settle()
    assert world.pose(body)[2, 3] < 0.05


def test_suction_needs_touch(world: World) -> None:
    world.add_boxes("cube", [CUBE], (0.5, -0.3, 0.02), 0.0, BLUE)
    world.settle()
    _go_down(world, 0.5, -0.3, 0.050)
    world.set_gripper(0.0)
    for _ in range(24):
        world.step()
    assert world.holding is None


def test_suction_does_not_take_what_is_glued(world: World) -> None:
    world.add_boxes("plate", [CUBE], (0.5, -0.3, 0.02), 0.0, BLUE, fixed=True)
    _go_down(world, 0.5, -0.3, 0.041)
    world.set_gripper(0.0)
    for _ in range(24):
        world.step()
    assert world.holding is None


def test_overload_breaks_the_seal(world: World) -> None:
    # Dragging a held block sideways into the glued fixture is more than a cup can hold.
    world.add_boxes("cube", [CUBE], (0.5, -0.3, 0.02), 0.0, BLUE)
    world.add_boxes("wall", [Box((0.3, 0.02, 0.1))], (0.5, -0.22, 0.05), 0.0, BLUE, fixed=True)
    world.settle()
    _go_down(world, 0.5, -0.3, 0.0405)
    world.set_gripper(0.0)
    world.step()
    assert world.holding == "cube"
    start = world.joint_state()[0]
    goal = world.robot.inverse(tool_down(0.5, -0.23, 0.045), start)
    for share in np.linspace(0, 1, STEP_HZ):
        world.set_joint_targets(start + share * (goal - start), np.zeros(7))
        world.step()
    assert world.holding is None


def test_what_presses_on_the_cup_does_not_open_it(world: World) -> None:
    world.add_boxes("cube", [CUBE], (0.5, -0.3, 0.02), 0.0, BLUE)
    world.settle()
    _go_down(world, 0.5, -0.3, 0.0405)
    world.set_gripper(0.0)
    world.step()
    start = world.joint_state()[0]
    goal = world.robot.inverse(tool_down(0.5, -0.3, 0.035), start)
    for share in np.linspace(0, 1, STEP_HZ):
        world.set_joint_targets(start + share * (goal - start), np.zeros(7))
        world.step()
    assert world.holding == "cube"


def test_a_hard_press_does_not_break_the_scene(world: World) -> None:
    cube = world.add_boxes("cube", [CUBE], (0.5, -0.3, 0.02), 0.0, BLUE)
    world.settle()
    action = PickPlace(pick=tool_down(0.5, -0.3, 0.034), place=tool_down(0.55, -0.35, 0.05))
    execute(world, plan_pick_place(world.robot, world.joint_state()[0], action))
    world.settle()
    np.testing.assert_allclose(world.pose(cube)[:3, 3], [0.55, -0.35, 0.02], atol=0.005)


def test_what_does_not_settle_is_named(world: World) -> None:
    world.add_boxes("runaway cube", [CUBE], (0.5, 0.0, 3.0), 0.0, BLUE)
    with pytest.raises(NotSettled, match=r"'runaway cube' still moves .* after 60 steps"):
        world.settle(limit=60)


def test_several_worlds_do_not_disturb_each_other(world: World) -> None:
    block = _body(world, "block")
    pose = world.pose(block)
    with World("place-red-in-green") as other:
        other.reset(2)
        other.set_joint_targets(np.asarray(other.robot.home) + 0.1, np.zeros(7))
        for _ in range(50):
            other.step()
            world.step()
    np.testing.assert_array_equal(world.pose(block), pose)
    np.testing.assert_allclose(world.joint_state()[0], world.robot.home, atol=1e-4)


def test_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"'juggling' is unknown; choose one of .*block-insertion, .*place-red-in-green"):
        World("juggling")


def test_many_resets_do_not_fill_the_memory() -> None:
    page = resource.getpagesize()
    statm = Path("/proc/self/statm")
    with World("place-red-in-green") as world:
        for seed in range(20):
            world.reset(seed)
        before = int(statm.read_text().split()[1]) * page
        for seed in range(60):
            world.reset(seed)
        grown = int(statm.read_text().split()[1]) * page - before
    assert grown < 8 * 2**20


def test_a_tool_must_suit_the_task() -> None:
    with pytest.raises(BadInput, match="'block-insertion' cannot be done with 'spatula'; use suction or parallel_jaw"):
        World("block-insertion", tool="spatula")
    with pytest.raises(BadInput, match="no robot 'octopus_suction'"):
        World("block-insertion", robot="octopus")


@pytest.mark.parametrize("robot", ["panda", "kuka_iiwa"])
@pytest.mark.parametrize("tool", ["suction", "parallel_jaw"])
def test_every_robot_stands_still_and_goes_where_it_is_sent(robot: str, tool: str) -> None:
    with World("block-insertion", robot=robot, tool=tool) as world:
        world.reset(0)
        np.testing.assert_allclose(world.tip_pose(), world.robot.forward(world.joint_state()[0]), atol=1e-4)
        _go_down(world, 0.55, 0.0, 0.1)
        assert np.linalg.norm(world.tip_pose()[:3, 3] - (0.55, 0.0, 0.1)) < 0.003


def test_an_unloaded_arm_moves_unsimulated_only_above_everything(world: World) -> None:
    top = world.top()
    assert top == pytest.approx(0.04, abs=0.003)
    simulated, skipped = [], []
    step, move = world.step, world.move_arm
    world.step = lambda: (step(), simulated.append(world.tip_pose()[2, 3]))  # type: ignore[assignment, method-assign]
    world.move_arm = lambda q, qd, n: (  # type: ignore[assignment, method-assign]
        move(q, qd, n),
        skipped.append((n, float(world.robot.forward(q)[2, 3]))),
    )
    before = world.steps
    action = PickPlace(pick=tool_down(0.5, -0.3, 0.02), place=tool_down(0.5, 0.3, 0.1))  # nothing is there
    motion = plan_pick_place(world.robot, world.joint_state()[0], action)
    execute(world, motion)
    assert min(height for _, height in skipped) > top + 0.02
    assert min(simulated) == pytest.approx(0.02, abs=0.003)
    steps = sum(int(np.ceil(s.trajectory.duration * STEP_HZ)) + round(s.dwell_s * STEP_HZ) for s in motion.segments)
    assert world.steps - before == steps == len(simulated) + sum(n for n, _ in skipped)
    assert len(simulated) < 0.4 * steps


def test_a_loaded_arm_is_simulated_all_the_way(world: World) -> None:
    world.add_boxes("cube", [CUBE], (0.5, -0.3, 0.02), 0.0, BLUE)
    world.settle()
    carried = []
    move = world.move_arm
    world.move_arm = lambda q, qd, n: (carried.append(world.holding), move(q, qd, n))  # type: ignore[assignment, method-assign]
    action = PickPlace(pick=tool_down(0.5, -0.3, 0.04), place=tool_down(0.55, -0.35, 0.045))
    execute(world, plan_pick_place(world.robot, world.joint_state()[0], action))
    assert carried == [None] * len(carried)
    assert len(carried) >= 3


def test_bodies_of_too_many_boxes_are_refused(world: World) -> None:
    with pytest.raises(BadInput, match="17 boxes; give at most 16"):
        world.add_boxes("hedgehog", [CUBE] * 17, (0.5, 0.0, 0.1), 0.0, BLUE)

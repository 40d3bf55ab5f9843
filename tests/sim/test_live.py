"""The cell in real time, on a virtual clock: it follows, judges once a motion, and builds the environment's scenes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embodied_vision.control.planning import plan_joint
from embodied_vision.errors import BadInput
from embodied_vision_sim.camera import front_camera
from embodied_vision_sim.joint_trajectory_controller import JointPath
from embodied_vision_sim.live import REST_S, Judgement, LiveCell
from embodied_vision_sim.randomisation import STRONG, Randomisation
from embodied_vision_sim.world import World

TASK = "block-insertion"


@pytest.fixture
def cell() -> Iterator[LiveCell]:
    cell = LiveCell((front_camera(),))
    cell.reset(TASK, 5)
    yield cell
    cell.close()


def advance(cell: LiveCell, first_s: float, last_s: float) -> list[Judgement]:
    judged = []
    for now_s in np.arange(first_s, last_s, 0.02):
        list(cell.advance(float(now_s), 3))
        judgement = cell.judge()
        if judgement is not None:
            judged.append(judgement)
    return judged


def swing(cell: LiveCell, turn: float) -> tuple[JointPath, np.ndarray]:
    home = cell.world.joint_state()[0]
    goal = home.copy()
    goal[0] += turn
    path = plan_joint(cell.world.robot, home, goal)
    return JointPath(path.times_s[1:], path.positions[1:], path.velocities[1:]), goal


def test_the_scene_is_that_of_the_seed(cell: LiveCell) -> None:
    with World(TASK) as world:
        world.reset(5)
        np.testing.assert_array_equal(cell.render(1)[0].color, world.render()[0].color)
        advance(cell, 0.0, 1.0)
        np.testing.assert_array_equal(cell.render(1)[0].depth, world.render()[0].depth)


def test_joints_are_sampled_evenly_and_follow(cell: LiveCell) -> None:
    list(cell.advance(0.0, 3))
    path, goal = swing(cell, 0.5)
    cell.follow(path, cell.pacer.time_s)
    assert cell.moving
    samples = [sample for now_s in np.arange(0.0, 2.0, 0.05) for sample in cell.advance(float(now_s), 3)]
    np.testing.assert_allclose(np.diff([sample.time_s for sample in samples]), 3 / 240, atol=1e-9)
    np.testing.assert_allclose(samples[-1].positions, goal, atol=0.01)
    assert not cell.moving


def test_a_motion_is_judged_once_when_all_rests(cell: LiveCell) -> None:
    assert advance(cell, 0.0, 1.0) == []
    path, _ = swing(cell, 0.5)
    cell.follow(path, cell.pacer.time_s)
    end_s = cell.pacer.time_s + path.times_s[-1]
    judged = advance(cell, 1.0, 4.0)
    assert [(j.motions, j.settled, j.solved) for j in judged] == [(1, True, False)]
    assert end_s + REST_S <= judged[0].time_s < end_s + REST_S + 0.2


def test_a_trajectory_that_arrives_while_it_renders_starts_when_it_was_sent(cell: LiveCell) -> None:
    list(cell.advance(0.0, 3))
    path, _ = swing(cell, 0.5)
    cell.follow(path, 0.2)
    list(cell.advance(0.19, 3))
    assert np.abs(cell.world.joint_state()[1]).max() < 1e-3
    assert cell.moving


def test_bad_requests_leave_the_scene(cell: LiveCell) -> None:
    before = cell.world.steps
    with pytest.raises(BadInput, match="unknown"):
        cell.reset("juggling", 1)
    with pytest.raises(BadInput, match="negative"):
        cell.reset(TASK, -1)
    assert (cell.task, cell.seed, cell.world.steps) == (TASK, 5, before)


def test_the_cell_has_the_robot_that_it_was_given() -> None:
    cell = LiveCell((front_camera(),), robot="kuka_iiwa_parallel_jaw")
    cell.reset(TASK, 5)
    assert cell.world.robot.name == "kuka_iiwa_parallel_jaw"
    with pytest.raises(BadInput, match="'sweeping-piles' cannot be done with 'parallel_jaw'; use spatula"):
        cell.reset("sweeping-piles", 0)
    assert cell.task == TASK
    cell.close()
    with pytest.raises(BadInput, match="no robot 'octopus'"):
        LiveCell((front_camera(),), robot="octopus")


def test_a_cell_changes_its_looks_at_a_reset_and_its_scene_stays(cell: LiveCell) -> None:
    evening = Randomisation(name="evening", lamp="evening", hue=(330, 330), brightness=(0.6, 0.6))
    usual, pose = cell.render(1)[0], cell.world.pose(max(cell.world.object_names))
    cell.reset(TASK, 5, evening)
    changed = cell.render(1)[0]
    np.testing.assert_array_equal(changed.depth, usual.depth)
    np.testing.assert_array_equal(cell.world.pose(max(cell.world.object_names)), pose)
    assert np.abs(changed.color.astype(int) - usual.color).mean() > 10
    cell.reset(TASK, 5)
    np.testing.assert_array_equal(cell.render(1)[0].color, usual.color)
    with pytest.raises(BadInput, match="'strong' moves cameras"):
        cell.reset(TASK, 5, STRONG)

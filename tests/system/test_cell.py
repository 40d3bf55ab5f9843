"""The simulated cell as a process: real time, rates, stamps, the same scene as the environment, an arm that obeys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory

import embodied_vision_sim  # noqa: F401 - registers the environments
from embodied_vision.control.planning import plan_joint
from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import RunFailed
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import JointSamples, samples_to_trajectory, stamp_to_ns
from tests.system.rig import CELL, START_S, Rig, until

pytestmark = pytest.mark.system
TASK = "block-insertion"
MODEL = RobotModel.load()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("cell"), (CELL,), {"cell": {"seed": 2_000_010}}) as rig:
        rig.cell.wait_active(START_S)
        until(lambda: rig.frames and rig.speeds and rig.depth, 20, "frames and joint states")
        yield rig


@pytest.fixture(scope="module")
def commands(rig: Rig):  # type: ignore[no-untyped-def]
    """Sends trajectories to the cell."""
    publisher = rig.client.node.create_publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND)
    until(publisher.get_subscription_count, 20, "the cell to listen")
    return publisher


def move(goal: np.ndarray, start: np.ndarray = MODEL.home) -> JointTrajectory:
    path = plan_joint(MODEL, start, goal)
    parts = (path.times_s, path.positions, path.velocities, path.accelerations)
    return samples_to_trajectory(MODEL.joint_names, JointSamples(*(part[2:] for part in parts)))


def swing(turn: float) -> np.ndarray:
    """The home pose with the first joint turned."""
    goal = MODEL.home.copy()
    goal[0] += turn
    return goal


def test_rates_stamps_and_real_time(rig: Rig) -> None:
    """Sooner or later: the machine may be busy with other things for a while."""

    def keeps_up() -> bool:
        first_frame, first_joint = len(rig.frames), len(rig.speeds)
        until(lambda: len(rig.frames) >= first_frame + 31, 20, "31 frames")
        frames = np.array(rig.frames[first_frame:])
        joints = np.array([stamp for stamp, _ in rig.speeds[first_joint:]])
        assert (np.diff(frames) > 0).all()
        assert (np.diff(joints) > 0).all()
        rates = [(len(stamps) - 1) / ((stamps[-1] - stamps[0]) * 1e-9) for stamps in (frames, joints)]
        return rates[0] >= 14.8 and rates[1] >= 50 and rig.status("cell/status")["real_time_factor"] > 0.97

    until(keeps_up, 60, "15 frames and 50 joint states a second in real time")
    assert abs(time.time_ns() - rig.frames[-1]) < 1e9


def test_a_seed_gives_the_scene_and_the_picture_of_the_environment(rig: Rig) -> None:
    env = gymnasium.make("embodied_vision/BlockInsertion-v0", renderer="software")
    observation, _ = env.reset(seed=2_000_011)
    outcome = rig.reset(TASK, 2_000_011)
    assert (outcome["seed"], outcome["reward"], outcome["solved"]) == (2_000_011, 0.0, False)
    color, depth = rig.picture(time.time_ns())
    np.testing.assert_array_equal(color, observation["camera"]["color"])
    np.testing.assert_array_equal(np.round(depth * 1000), observation["camera"]["depth"])
    env.close()


def test_the_task_can_be_changed_and_a_wrong_one_is_an_answer(rig: Rig) -> None:
    assert rig.reset("place-red-in-green", 2_000_012)["task"] == "place-red-in-green"
    with pytest.raises(RunFailed, match="task 'stack' is unknown; choose one of"):
        rig.reset("stack", 1)
    assert rig.reset(TASK, 2_000_012)["task"] == TASK


def test_a_trajectory_is_followed_and_judged_at_its_end(rig: Rig, commands) -> None:  # type: ignore[no-untyped-def]
    rig.reset(TASK, 2_000_013)
    goal = swing(0.4)
    commands.publish(move(goal))
    rig.wait_moving()
    with pytest.raises(RunFailed, match="the arm is moving"):
        rig.client.trigger("cell/reset")
    outcome = rig.client.wait("outcome", lambda o: o["motions"] == 1, 10)
    assert outcome["settled"]
    np.testing.assert_allclose(rig.positions, goal, atol=0.01)


def test_a_new_trajectory_replaces_the_running_one(rig: Rig, commands) -> None:  # type: ignore[no-untyped-def]
    rig.reset(TASK, 2_000_014)
    commands.publish(move(swing(1.2)))
    rig.wait_moving()
    back, still = MODEL.home[None], np.zeros((1, 7))
    commands.publish(samples_to_trajectory(MODEL.joint_names, JointSamples(np.array([1.5]), back, still, still)))
    rig.client.wait("outcome", lambda o: o["motions"] == 1, 10)
    np.testing.assert_allclose(rig.positions, MODEL.home, atol=0.01)


@pytest.mark.parametrize("damage", ["non_finite", "not_at_rest", "other_joints", "empty"])
def test_a_malformed_trajectory_is_rejected(rig: Rig, commands, damage: str) -> None:  # type: ignore[no-untyped-def]
    rig.reset(TASK, 2_000_015)
    rejected = rig.status("cell/status")["trajectories_rejected"]
    message = move(MODEL.home + 0.3)
    if damage == "non_finite":
        message.points[3].positions[2] = float("nan")
    elif damage == "not_at_rest":
        message.points = message.points[: len(message.points) // 2]
    elif damage == "other_joints":
        message.joint_names[0] = "joint_a"
    else:
        message.points = []
    start = len(rig.speeds)
    commands.publish(message)
    until(lambda: rig.status("cell/status")["trajectories_rejected"] == rejected + 1, 5, "the rejection")
    assert max(speed for _, speed in rig.speeds[start:]) < 0.02


def test_suction_follows_the_gripper_command(rig: Rig, commands) -> None:  # type: ignore[no-untyped-def]
    gripper = rig.client.node.create_publisher(Float64, "gripper/command", qos.COMMAND)
    until(gripper.get_subscription_count, 20, "the cell to listen")
    rig.reset(TASK, 2_000_016)
    gripper.publish(Float64(data=float("nan")))
    gripper.publish(Float64(data=0.0))
    commands.publish(move(MODEL.home + 0.05))
    outcome = rig.client.wait("outcome", lambda o: o["motions"] == 1, 10)
    assert outcome["reward"] == 0.0
    assert rig.status("cell/status")["holding"] is None


def test_the_cameras_can_fall_silent(rig: Rig) -> None:
    rig.client.set_parameters("cell", {"camera_enabled": False})
    joints = len(rig.speeds)
    until(lambda: len(rig.speeds) > joints + 10, 5, "joint states")
    frames, joints = len(rig.frames), len(rig.speeds)
    until(lambda: len(rig.speeds) > joints + 40, 5, "joint states")
    assert len(rig.frames) == frames
    rig.client.set_parameters("cell", {"camera_enabled": True})
    until(lambda: len(rig.frames) > frames + 3, 5, "frames")


def test_with_simulated_time_the_cell_keeps_the_clock(tmp_path: Path) -> None:
    with Rig(tmp_path, (CELL,), {}, use_sim_time=True) as rig:
        clocks: list[int] = []
        rig.client.node.create_subscription(
            Clock, "/clock", lambda message: clocks.append(stamp_to_ns(message.clock)), qos.SENSOR
        )
        rig.cell.wait_active(START_S)
        until(lambda: len(clocks) > 80 and len(rig.frames) > 5, 30, "a second of simulated time")
        assert (np.diff(clocks) > 0).all()
        assert clocks[0] <= rig.frames[-1] <= clocks[-1] + 1e9 / 15
        assert {stamp for stamp, _ in rig.speeds} & set(clocks)

"""Diverse grasping: held-out objects, honest lifts, limits that hold, episodes that repeat themselves."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pybullet
import pytest
from gymnasium.utils.env_checker import check_env

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning.seeds import scene_seed
from embodied_vision_sim.cartesian import step_towards
from embodied_vision_sim.closed_loop import FLOOR_M, LAG_M, MOVE_M, GraspDiverseClosedLoopEnv
from embodied_vision_sim.diverse import BIN_CENTRE_M, inside_bin, is_clear, object_numbers, object_urdf, objects_of
from embodied_vision_sim.grasp_labelling import label
from embodied_vision_sim.grasping import GraspDiverseEnv
from embodied_vision_sim.registration import GRASP_ENVS

Env = gymnasium.Env[Any, Any]


@pytest.fixture(params=sorted(GRASP_ENVS))
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    made = gymnasium.make(request.param, render_mode="rgb_array")
    yield made
    made.close()


@pytest.fixture
def grasp() -> Iterator[GraspDiverseEnv]:
    made = GraspDiverseEnv(image_size=32)
    yield made
    made.close()


@pytest.fixture
def loop() -> Iterator[GraspDiverseClosedLoopEnv]:
    made = GraspDiverseClosedLoopEnv()
    made.reset(seed=2)
    yield made
    made.close()


def _act(dx: float = 0, dy: float = 0, dz: float = 0, dyaw: float = 0, gripper: float = 1) -> np.ndarray:
    return np.array([dx, dy, dz, dyaw, gripper], np.float32)


def _assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


# Objects and scenes


def test_objects_are_split_by_their_number() -> None:
    train, test = object_numbers("train"), object_numbers("test")
    assert len(test) == 100
    assert all(number % 10 == 0 for number in test)
    assert len(train) == 899  # one of the 900 is damaged
    assert not set(train) & set(test)


def test_damaged_mesh_is_left_out_for_a_reason() -> None:
    assert "168.obj" in object_urdf(168)
    mesh = next(part for part in object_urdf(168).split('"') if part.endswith("168.obj"))
    vertices = [line for line in Path(mesh).read_text().splitlines() if line.startswith("v ")]
    assert all("nan" in line for line in vertices)


def test_test_scenes_show_held_out_objects(grasp: GraspDiverseEnv) -> None:
    for split, held_out in (("train", False), ("validation", False), ("test", True)):
        grasp.reset(seed=scene_seed(split, 3))  # type: ignore[arg-type]
        numbers = set(grasp.world.task.numbers.values())  # type: ignore[attr-defined]
        assert len(numbers) == 5
        assert all((number % 10 == 0) == held_out for number in numbers)
    assert objects_of(5, "test") == "test"
    assert objects_of(scene_seed("test", 0), "train") == "train"
    with pytest.raises(BadInput, match="'all' are unknown"):
        GraspDiverseEnv(objects="all")  # type: ignore[arg-type]


def test_as_many_objects_lie_in_the_bin_as_asked_for() -> None:
    for count in (1, 3):
        env = GraspDiverseEnv(image_size=16, in_bin=count)
        env.reset(seed=4)
        assert len(env.world.task.numbers) == count  # type: ignore[attr-defined]
        assert env.identity()["in_bin"] == count
        env.close()
    with pytest.raises(BadInput, match="0 objects in the bin"):
        GraspDiverseEnv(in_bin=0)


def test_objects_lie_still_in_the_bin(grasp: GraspDiverseEnv) -> None:
    for index in range(6):
        grasp.reset(seed=scene_seed("train", index))
        world = grasp.world
        bodies = list(world.task.numbers)  # type: ignore[attr-defined]
        before = {body: world.pose(body) for body in bodies}
        assert all(inside_bin(world, body) for body in bodies)
        assert not any(is_clear(world, body) for body in bodies)
        for body in bodies:
            contacts = pybullet.getContactPoints(body, physicsClientId=world.client)
            assert min(contact[8] for contact in contacts) > -0.002
        for _ in range(120):
            world.step()
        for body in bodies:
            np.testing.assert_array_equal(world.pose(body), before[body])


def test_memory_does_not_grow_with_resets(grasp: GraspDiverseEnv) -> None:
    page, statm = resource.getpagesize(), Path("/proc/self/statm")
    for seed in range(10):
        grasp.reset(seed=seed)
    before = int(statm.read_text().split()[1]) * page
    for seed in range(10, 50):
        grasp.reset(seed=seed)
    assert int(statm.read_text().split()[1]) * page - before < 0.05 * before


# Both environments


def test_gymnasium_finds_no_fault(env: Env) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_an_episode_repeats_bit_for_bit(env: Env) -> None:
    def episode(seed: int) -> list[tuple[dict[str, np.ndarray], float]]:
        observation, info = env.reset(seed=seed)
        assert info["seed"] == seed
        env.action_space.seed(seed)
        seen = [(observation, 0.0)]
        for _ in range(8):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            seen.append((observation, float(reward)))
            if terminated or truncated:
                break
        return seen

    first = episode(5)
    episode(6)
    for (a, reward), (b, again) in zip(first, episode(5), strict=True):
        _assert_equal(a, b)
        assert reward == again


def test_what_is_seen_is_what_is_shown(env: Env) -> None:
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(env.render(), observation["color"])
    assert len(np.unique(observation["color"].reshape(-1, 3), axis=0)) > 10
    assert 0.3 < observation["depth"][observation["depth"] > 0].min() / 1000 < 0.8
    assert observation["gripper_width"] == pytest.approx(0.1, abs=1e-3)


# One grasp a step


@pytest.mark.parametrize("split", ["train", "test"])
def test_oracle_lifts_objects(grasp: GraspDiverseEnv, split: Any) -> None:
    lifted = 0
    for index in range(6):
        grasp.reset(seed=scene_seed(split, index))
        _, reward, terminated, truncated, info = grasp.step(grasp.oracle())
        assert "refused" not in info
        assert terminated == (reward == 1) == info["solved"]
        assert not truncated
        lifted += int(reward)
        if terminated:
            world = grasp.world
            assert world.tool.holding in world.task.numbers  # type: ignore[attr-defined]
            assert is_clear(world, world.tool.holding)  # type: ignore[arg-type]
    assert lifted >= 5


def test_a_grasp_beside_the_objects_lifts_nothing() -> None:
    env = GraspDiverseEnv(image_size=32, attempts=2)
    env.reset(seed=0)
    above_the_middle = np.array([0.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(env.action_at(*BIN_CENTRE_M, 0.15, 0.0), above_the_middle, atol=1e-9)
    _, reward, terminated, truncated, info = env.step(above_the_middle)
    assert (reward, terminated, truncated) == (0, False, False)
    assert "refused" not in info
    np.testing.assert_allclose(env.joint_state()[0], env.world.robot.home, atol=1e-3)
    assert env.step(above_the_middle)[3]
    env.close()


@pytest.mark.parametrize(
    ("action", "rule"),
    [([0.9, 0, 0.05, 0], "workspace"), ([0.5, 0, -0.1, 0], "workspace"), ([0.5, np.nan, 0.05, 0], "non_finite")],
)
def test_what_the_guard_refuses_moves_nothing(grasp: GraspDiverseEnv, action: list[float], rule: str) -> None:
    before, _ = grasp.reset(seed=0)
    time_ns = grasp.world.time_ns
    after, reward, terminated, truncated, info = grasp.step(grasp.action_at(*action))
    assert info["refused"].startswith(rule)
    assert (reward, terminated, truncated) == (0, False, False)
    assert grasp.world.time_ns == time_ns
    _assert_equal(before, after)


# Closed loop


def test_a_step_moves_the_tip_as_documented(loop: GraspDiverseClosedLoopEnv) -> None:
    start = loop.world.tip_pose()
    for _ in range(3):
        loop.step(_act(dx=1, dy=-1, dz=-0.5, dyaw=0.5))
    for _ in range(3):
        loop.step(_act())
    moved = loop.world.tip_pose()
    np.testing.assert_allclose(moved[:3, 3] - start[:3, 3], np.array([3, -3, -1.5]) * MOVE_M, atol=0.002)
    turned = start[:3, :3].T @ moved[:3, :3]
    assert np.arctan2(turned[1, 0], turned[0, 0]) == pytest.approx(-0.3, abs=0.02)  # z looks down
    assert moved[2, 2] == pytest.approx(-1, abs=1e-3)


def test_time_is_simulated(loop: GraspDiverseClosedLoopEnv) -> None:
    before = loop.world.time_ns
    for _ in range(10):
        loop.step(_act())
    assert loop.world.time_ns - before == 1_000_000_000


def test_limits_hold_whatever_is_asked(loop: GraspDiverseClosedLoopEnv) -> None:
    limits, workspace = loop.world.robot.limits, loop.world.workspace
    rng, now = np.random.default_rng(0), loop._q
    for number in range(60):
        direction = rng.choice([-1.0, 1.0], 5)
        for _ in range(1 if number % 6 else 6):
            _, _, terminated, _, _ = loop.step(np.array(direction, np.float32))
            before, now = now, loop._q
            assert (np.abs(now - before) <= 0.1 * limits.velocity).all()
            q, qd, _ = loop.joint_state()
            x, y, z = loop.world.tip_pose()[:3, 3]
            assert (limits.lower <= q).all()
            assert (q <= limits.upper).all()
            assert np.abs(qd).max() <= limits.velocity.max() * 1.01
            assert workspace.x[0] - 0.01 < x < workspace.x[1] + 0.01
            assert workspace.y[0] - 0.01 < y < workspace.y[1] + 0.01
            assert FLOOR_M - 0.005 < z < workspace.z[1] + 0.01
            if terminated:
                loop.reset(seed=number)
                now = loop._q


def test_pressing_on_the_table_does_not_wind_up(loop: GraspDiverseClosedLoopEnv) -> None:
    for _ in range(12):
        loop.step(_act(dz=-1))
    pressed = loop.world.tip_pose()[2, 3]
    loop.step(_act(dz=1))
    loop.step(_act(dz=1))
    assert loop.world.tip_pose()[2, 3] > pressed + 2 * MOVE_M - LAG_M - 0.005


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_actions_are_refused(loop: GraspDiverseClosedLoopEnv, bad: float) -> None:
    before = loop.step(_act())[0]
    time_ns = loop.world.time_ns
    after, reward, terminated, truncated, info = loop.step(_act(dx=bad))
    assert "non_finite" in info["refused"]
    assert (reward, terminated, truncated) == (0, False, False)
    assert loop.world.time_ns == time_ns
    _assert_equal(before, after)


def test_truncates_at_the_horizon() -> None:
    env = GraspDiverseClosedLoopEnv(horizon=3)
    env.reset(seed=0)
    assert [env.step(_act())[3] for _ in range(3)] == [False, False, True]
    env.close()


def test_a_scripted_grasp_lifts_in_closed_loop(loop: GraspDiverseClosedLoopEnv) -> None:
    lifted = 0
    for seed in range(4):
        loop.reset(seed=seed)
        goal = loop.oracle()
        lifted += _run(loop, goal)
    assert lifted >= 3


def _run(loop: GraspDiverseClosedLoopEnv, goal: np.ndarray) -> bool:
    x, y, z, yaw = goal
    phases = [((x, y, 0.2), 1.0, 12), ((x, y, z), 1.0, 12), ((x, y, z), -1.0, 5), ((x, y, 0.25), -1.0, 14)]
    turned = 0.0
    for target, gripper, steps in phases:
        for _ in range(steps):
            way = np.clip((np.array(target) - loop.world.tip_pose()[:3, 3]) / MOVE_M, -1, 1)
            turn = float(np.clip((yaw - turned) / 0.2, -1, 1))
            turned += 0.2 * turn
            _, reward, terminated, truncated, _ = loop.step(_act(*way, turn, gripper))
            if terminated or truncated:
                return bool(reward == 1)
    return False


def test_shaped_reward_is_off_unless_asked_for() -> None:
    plain, shaped = GraspDiverseClosedLoopEnv(), GraspDiverseClosedLoopEnv(shaped=True)
    for env in (plain, shaped):
        env.reset(seed=0)
    assert plain.step(_act(dz=-1))[1] == 0.0
    assert -0.01 < shaped.step(_act(dz=-1))[1] < 0.0
    plain.close()
    shaped.close()


def test_inverse_kinematics_keeps_joint_limits(loop: GraspDiverseClosedLoopEnv) -> None:
    robot = loop.world.robot
    far = robot.forward(robot.home)
    far[0, 3] += 3.0
    q, reached = step_towards(robot, robot.home, far, 0.1)
    assert not reached
    assert (np.abs(q - robot.home) <= 0.75 * 0.1 * robot.limits.velocity + 1e-9).all()


# Labels


def test_labels_are_stored_resumed_and_independent_of_workers(tmp_path: Path) -> None:
    first = list(label(tmp_path / "a", 2, grasps=3, image_size=32))
    assert all(result.episode_id and result.grasps == 3 for result in first)
    again = list(label(tmp_path / "a", 3, grasps=3, image_size=32))
    assert [result.grasps for result in again] == [0, 0, 3]
    assert [result.seed for result in again] == [0, 1, 2]
    parallel = {result.seed: result for result in label(tmp_path / "b", 2, grasps=3, image_size=32, workers=2)}
    for result in first:
        one = EpisodeStore(tmp_path / "a").open(str(result.episode_id))
        other = EpisodeStore(tmp_path / "b").open(str(parallel[result.seed].episode_id))
        assert len(one.decisions) == 3
        for index in range(3):
            a, b = one.decisions[index], other.decisions[index]
            assert a.action.primitive == "grasp"
            np.testing.assert_array_equal(a.action.pick, b.action.pick)
            np.testing.assert_array_equal(a.frames[0].color, b.frames[0].color)
            assert a.info["success"] == b.info["success"]
        successes = [one.decisions[index].info["success"] for index in range(3)]
        assert sum(successes) == result.succeeded == one.outcome["succeeded"]


def test_randomisation_changes_what_is_seen_but_not_where_things_lie(env: Env) -> None:
    other = gymnasium.make(env.spec.id, randomisation="strong")
    plain, info = env.reset(seed=5)
    drawn, other_info = other.reset(seed=5)
    assert info["randomisation"]["preset"] == "none"
    assert other_info["randomisation"]["preset"] == "strong"
    assert (plain["color"] != drawn["color"]).mean() > 0.5
    one, two = env.unwrapped.world, other.unwrapped.world
    for body, name in one.object_names.items():
        if name not in ("robot", "table"):
            np.testing.assert_array_equal(one.pose(body), two.pose(body))
    with pytest.raises(BadInput, match="randomisation is"):
        other.unwrapped.restore_state(env.unwrapped.save_state())
    other.close()


def test_latency_hands_on_older_pictures_in_closed_loop() -> None:
    prompt, late = (
        gymnasium.make("embodied_vision/GraspDiverseClosedLoop-v0", randomisation=description)
        for description in ("none", {"latency_s": (0.2, 0.2)})
    )
    seen, delayed = [prompt.reset(seed=1)[0]], [late.reset(seed=1)[0]]
    prompt.action_space.seed(0)
    for _ in range(6):
        action = prompt.action_space.sample()
        seen.append(prompt.step(action)[0])
        delayed.append(late.step(action)[0])
    for step in range(7):
        np.testing.assert_array_equal(delayed[step]["color"], seen[max(0, step - 2)]["color"])
        np.testing.assert_array_equal(delayed[step]["joint_positions"], seen[step]["joint_positions"])
    prompt.close()
    late.close()

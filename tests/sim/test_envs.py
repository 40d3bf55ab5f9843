"""The environments keep Gymnasium's contract, repeat themselves bit for bit, and refuse what the guard refuses."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pybullet
import pytest
from gymnasium.utils.env_checker import check_env

from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector, tool_down
from embodied_vision.learning.seeds import scene_seed, split_of
from embodied_vision.types import PickPlace
from embodied_vision_sim import register_envs
from embodied_vision_sim.camera import front_camera
from embodied_vision_sim.registration import ENV_IDS

Env = gymnasium.Env[Any, Any]
ALIKE = {"reject-worn", "stack-by-pattern"}
"""Built of what sort-striped is built of: to an environment they are the same."""


@pytest.fixture(params=sorted(set(ENV_IDS) - ALIKE))
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    made = gymnasium.make(ENV_IDS[request.param], render_mode="rgb_array")
    yield made
    made.close()


def _action(decision: PickPlace) -> dict[str, np.ndarray]:
    return {"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)}


def _assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_equal(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b)


def test_gymnasium_finds_no_fault(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # for the render mode human
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_registering_twice_is_harmless() -> None:
    register_envs()
    assert set(ENV_IDS.values()) <= set(gymnasium.registry)


def test_observation_is_what_the_cameras_saw(env: Env) -> None:
    observation, info = env.reset(seed=scene_seed("train", 5))
    assert info.pop("randomisation")["preset"] == "none"
    assert info == {"reward_total": 0.0, "solved": False, "seed": scene_seed("train", 5)}
    assert env.observation_space.contains(observation)
    (frame,) = env.unwrapped.frames()
    np.testing.assert_array_equal(observation["camera"]["color"], frame.color)
    np.testing.assert_allclose(observation["camera"]["depth"] / 1000, frame.depth, atol=1e-6)
    np.testing.assert_array_equal(observation["camera"]["intrinsics"], front_camera().K)
    np.testing.assert_array_equal(observation["camera"]["extrinsics"], front_camera().T_base_camera)
    np.testing.assert_allclose(observation["joint_positions"], env.unwrapped.joint_state()[0])
    np.testing.assert_array_equal(env.render(), frame.color)


def test_oracle_solves_training_scenes(env: Env) -> None:
    for index in range(3 if env.unwrapped.max_steps <= 10 else 1):
        env.reset(seed=scene_seed("train", index))
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, info = env.step(_action(env.unwrapped.oracle()))
            assert "refused" not in info
            total, over = total + float(reward), terminated or truncated
        assert terminated
        assert info["solved"]
        assert total == pytest.approx(1.0)
        assert info["reward_total"] == pytest.approx(1.0)


def test_an_episode_repeats_bit_for_bit_whatever_came_before(env: Env) -> None:
    def episode() -> list[Any]:
        seen = [env.reset(seed=scene_seed("train", 7))[0]]
        for _ in range(2):
            observation, reward, terminated, *_ = env.step(_action(env.unwrapped.oracle()))
            seen.append({**observation, "reward": np.array(reward)})
            if terminated:
                break
        return seen

    first = episode()
    env.reset(seed=scene_seed("train", 8))
    env.step(_action(env.unwrapped.oracle()))
    _assert_equal(dict(enumerate(first)), dict(enumerate(episode())))


def test_fresh_scenes_without_a_seed_follow_from_the_last_seed(env: Env) -> None:
    env.reset(seed=3)
    seeds = [env.reset()[1]["seed"] for _ in range(3)]
    assert len(set(seeds)) == 3
    env.reset(seed=3)
    assert [env.reset()[1]["seed"] for _ in range(3)] == seeds


def test_a_saved_state_comes_back_exactly_here_and_elsewhere(env: Env) -> None:
    cell = env.unwrapped
    poke = _action(PickPlace(pick=tool_down(0.5, 0.2, 0.01), place=tool_down(0.5, -0.2, 0.1)))
    env.reset(seed=scene_seed("train", 11))
    env.step(poke)
    state = json.loads(json.dumps(cell.save_state()))
    decision = cell.oracle()
    future = env.step(_action(decision))
    env.step(poke)
    elsewhere = gymnasium.make(env.spec.id).unwrapped
    for other in (cell, elsewhere):
        other.restore_state(state)
        again = other.oracle()
        np.testing.assert_array_equal(again.pick, decision.pick)
        np.testing.assert_array_equal(again.place, decision.place)
        observation, reward, terminated, truncated, info = other.step(_action(again))
        _assert_equal(observation, future[0])
        assert (reward, terminated, truncated, info) == future[1:]
    elsewhere.close()


def test_a_state_of_another_environment_is_refused() -> None:
    one, other = (gymnasium.make(ENV_IDS["block-insertion"], robot=robot).unwrapped for robot in ("panda", "kuka_iiwa"))
    one.reset(seed=0)
    with pytest.raises(BadInput, match="robot is 'panda_suction', the environment's 'kuka_iiwa_suction'"):
        other.restore_state(one.save_state())
    with pytest.raises(BadInput, match="before reset"):
        other.save_state()
    one.close()
    other.close()


def test_fresh_scenes_stay_in_the_split_of_the_last_seed() -> None:
    env = gymnasium.make(ENV_IDS["block-insertion"])
    assert split_of(env.reset()[1]["seed"]) == "train"
    env.reset(seed=scene_seed("test", 3))
    assert split_of(env.reset()[1]["seed"]) == "test"
    env.close()


def test_human_mode_shows_what_the_camera_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gymnasium.make(ENV_IDS["block-insertion"], render_mode="human")
    observation, _ = env.reset(seed=0)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    color = observation["camera"]["color"]
    assert shown.shape == (2 * color.shape[0], 2 * color.shape[1], 3)
    np.testing.assert_array_equal(shown[::2, ::2], color)
    env.close()
    assert not pygame.display.get_init()


def test_what_does_not_come_to_rest_ends_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    env = gymnasium.make(ENV_IDS["block-insertion"])
    env.reset(seed=0)
    action = _action(env.unwrapped.oracle())
    world = env.unwrapped._world
    # A ball that nothing stops: it rolls away for longer than a scene may take to settle.
    ball = pybullet.createMultiBody(
        0.1,
        pybullet.createCollisionShape(pybullet.GEOM_SPHERE, radius=0.02, physicsClientId=world.client),
        basePosition=(0.3, -0.4, 0.02),
        physicsClientId=world.client,
    )
    world.object_names[ball] = "runaway ball"
    world._movable.append(ball)
    pybullet.resetBaseVelocity(ball, (0.1, 0, 0), physicsClientId=world.client)
    _, _, terminated, truncated, info = env.step(action)
    assert truncated
    assert not terminated
    assert "'runaway ball' still moves" in info["failed"]
    env.close()


@pytest.mark.parametrize(
    ("pick", "rule"),
    [
        (tool_down(0.75, 0.51, 0.04), "unreachable"),
        (tool_down(0.95, 0.0, 0.04), "workspace"),
        (np.diag([1.0, -1.0, -1.0, 1.0]) + np.array([[0, 0, 0, 0.5], [0] * 4, [0, 0, 0, -0.3], [0] * 4]), "workspace"),
    ],
    ids=["beyond reach", "beyond the workspace", "inside the table"],
)
def test_what_the_guard_refuses_is_not_executed(pick: np.ndarray, rule: str) -> None:
    env = gymnasium.make(ENV_IDS["block-insertion"])
    before, _ = env.reset(seed=0)
    action = _action(PickPlace(pick=pick, place=tool_down(0.5, 0.0, 0.1)))
    after, reward, terminated, truncated, info = env.step(action)
    assert rule in info["refused"]
    assert reward == 0.0
    assert not terminated
    _assert_equal(before, after)
    for _ in range(env.unwrapped.max_steps - 1):
        assert not truncated
        truncated = env.step(action)[3]
    assert truncated
    env.close()


def test_non_finite_actions_are_refused() -> None:
    env = gymnasium.make(ENV_IDS["block-insertion"], disable_env_checker=True)
    env.reset(seed=0)
    action = _action(env.unwrapped.oracle())
    action["place"][0] = np.nan
    _, reward, _, _, info = env.step(action)
    assert "non-finite" in info["refused"]
    assert reward == 0.0
    env.close()


def test_views_show_named_objects_from_anywhere(env: Env) -> None:
    env.reset(seed=0)
    cell = env.unwrapped
    frames, ids = cell.views([front_camera()])
    np.testing.assert_array_equal(frames[0].color, cell.frames()[0].color)
    seen = {cell.object_names[body] for body in np.unique(ids[0]) if body >= 0}
    assert "table" in seen
    assert len(seen - {"table", "robot"}) >= 2
    assert cell.views([front_camera()], segmentation=False)[1] == []


@pytest.mark.parametrize("task", ["block-insertion", "stack-block-pyramid", "sweeping-piles"])
def test_another_arm_does_the_tasks_as_well(task: str) -> None:
    env = gymnasium.make(ENV_IDS[task], robot="kuka_iiwa", renderer="software")
    env.reset(seed=scene_seed("train", 0))
    assert env.unwrapped.robot_name.startswith("kuka_iiwa_")
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(_action(env.unwrapped.oracle()))
        over = terminated or truncated
        assert "refused" not in info
    assert info["solved"]
    env.close()


@pytest.mark.parametrize("action", [None, {"pick": np.zeros(7)}, np.zeros(14)], ids=["nothing", "half", "a vector"])
def test_what_is_no_action_is_refused_and_named(action: Any) -> None:
    env = gymnasium.make(ENV_IDS["block-insertion"], renderer="software", disable_env_checker=True)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(action)
    assert "an action is a dict of pick and place" in info["refused"]
    assert (reward, terminated, truncated) == (0.0, False, False)
    env.close()
    with pytest.raises(BadInput, match="was closed; make another one"):
        env.reset(seed=0)

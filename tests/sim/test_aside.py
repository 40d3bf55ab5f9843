"""What is tried aside leaves no trace, and what goes wrong there is told."""

from __future__ import annotations

import os

import numpy as np
import pytest

from embodied_vision.errors import RunFailed
from embodied_vision_sim.aside import aside
from embodied_vision_sim.grasping import GraspDiverseEnv


def test_memory_stays_as_it_was() -> None:
    known = {"count": 1}

    def change() -> list[int]:
        known["count"] += 1
        return [known["count"], os.getpid()]

    count, process = aside(change)
    assert count == 2
    assert process != os.getpid()
    assert known == {"count": 1}


def test_what_raises_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("no such grasp")

    with pytest.raises(RunFailed, match="ended with code 1"):
        aside(fail)
    assert "ValueError: no such grasp" in capfd.readouterr().err


def test_a_grasp_aside_ends_as_it_does_from_the_start_of_the_scene() -> None:
    env = GraspDiverseEnv(image_size=16)
    env.reset(seed=3)
    action = env.oracle()

    def grasp() -> list[object]:
        observation, reward, *_ = env.step(action)
        return [reward, observation["joint_positions"].tolist(), _heights(env)]

    before = _heights(env)
    first, again = aside(grasp), aside(grasp)
    assert _heights(env) == before
    assert first == again == grasp()
    assert first[2] != before
    env.close()


def _heights(env: GraspDiverseEnv) -> list[float]:
    return [float(env.world.pose(body)[2, 3]) for body in env.world.task.numbers]  # type: ignore[attr-defined]


def test_a_closed_environment_is_refused_there_too() -> None:
    env = GraspDiverseEnv(image_size=16)
    env.reset(seed=3)
    env.close()
    with pytest.raises(RunFailed, match="ended with code 1"):
        aside(lambda: env.step(np.zeros(4))[1])

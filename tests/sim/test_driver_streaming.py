"""Motions that the arm streams keep the limits of a driver that knows nothing of them, also when horizons come late."""

from __future__ import annotations

import numpy as np
import pytest

from embodied_vision.control.motion import plan
from embodied_vision.control.player import START_S, MotionPlayer
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import Refused
from embodied_vision.types import PickPlace
from embodied_vision_sim.driver import Account, Driver, DriverLimits
from embodied_vision_sim.joint_trajectory_controller import JointPath
from tests.control.samples import tool_down

MODEL = RobotModel.load()
LIMITS = DriverLimits.read(MODEL.joint_names)
LEAD_S, TICK_S, STEP_S = 0.04, 0.025, 1 / 240
"""As the arm node has them; the driver takes a step 240 times a second."""


def motion_of(seed: int) -> PickPlace:
    rng = np.random.default_rng(seed)
    poses = [tool_down(*rng.uniform((0.4, -0.3, 0.02), (0.6, 0.3, 0.06)), rng.uniform(-3, 3)) for _ in range(2)]
    return PickPlace(pick=poses[0], place=poses[1])


def message(trajectory: Trajectory, *, accelerations: bool) -> JointPath:
    """What the arm node sends of a horizon."""
    first = min(int(np.searchsorted(trajectory.times_s, LEAD_S)), len(trajectory.times_s) - 1)
    bends = trajectory.accelerations[first:] if accelerations else None
    return JointPath(trajectory.times_s[first:], trajectory.positions[first:], trajectory.velocities[first:], bends)


def stream(seed: int, late_s: float, *, stamped: bool = True, accelerations: bool = False) -> Account:
    """Play one motion to a driver; every horizon arrives up to `late_s` late, in order."""
    rng = np.random.default_rng(seed)
    driver = Driver(LIMITS, np.asarray(MODEL.home, float))
    player = MotionPlayer(plan(MODEL, np.asarray(MODEL.home, float), motion_of(seed)), MODEL.limits)
    now_s, tick_s, arrives_s = 100.0, 100.0, 0.0
    under_way: list[tuple[float, float, JointPath]] = []
    for _ in range(20 * 240):
        now_s += STEP_S
        while under_way and under_way[0][0] <= now_s:
            arrived_s, sent_s, path = under_way.pop(0)
            driver.offer(path, sent_s if stamped else arrived_s, now_s)
        driver.setpoint(now_s)
        if now_s < tick_s:
            continue
        tick_s = now_s + TICK_S + rng.uniform(0, 0.01)
        step = player.tick(now_s, driver.desired(now_s).positions)
        if step.trajectory is not None:
            arrives_s = max(arrives_s, now_s + rng.uniform(0, late_s))
            under_way.append((arrives_s, now_s, message(step.trajectory, accelerations=accelerations)))
        if step.done:
            return driver.account
    raise AssertionError("the motion did not end")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("late_s", [0.001, 0.02, START_S - 0.01])
def test_no_limit_is_broken_however_late_the_horizons_come(seed: int, late_s: float) -> None:
    account = stream(seed, late_s)
    assert account.accepted > 50
    assert (account.malformed, account.braked) == (0, 0)
    assert not account.refused
    assert not account.violations
    assert account.acceleration_share <= 1.0


@pytest.mark.parametrize("options", [{"stamped": False}, {"accelerations": True}])
def test_the_driver_would_notice_what_is_avoided(options: dict[str, bool]) -> None:
    """Horizons without a stamp, which begin when they arrive, and quintics through the beginning of a brake."""
    with pytest.raises(Refused, match=r"driver_(velocity|acceleration)_limit"):
        stream(1, 0.02, **options)

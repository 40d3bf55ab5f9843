"""The guard lets good motion pass and refuses everything else, naming rule, joint, value and limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodied_vision.control.guard import Guard, GuardSettings
from embodied_vision.control.planning import plan_joint
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import BadInput, Refused
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace
from tests.control.samples import MODEL, example_motion

NOW = 1_700_000_000_000_000_000
MOTION = example_motion()
TRAJECTORY = MOTION.segments[3].trajectory
GOOD = PickPlace(pick=tool_down(0.5, 0.0, 0.02), place=tool_down(0.5, 0.2, 0.02), stamp_ns=NOW)


def refusal_of(trajectory: Trajectory, q_now: np.ndarray | None = None, stamp_ns: int = NOW) -> Refused:
    start = trajectory.positions[0] if q_now is None else q_now
    with pytest.raises(Refused) as refusal:
        Guard(MODEL).check_trajectory(trajectory, start, stamp_ns, NOW)
    assert refusal.value.remedy
    return refusal.value


def changed(trajectory: Trajectory, quantity: str, sample: int, joint: int, value: float) -> Trajectory:
    array = getattr(trajectory, quantity).copy()
    array[sample, joint] = value
    return replace(trajectory, **{quantity: array})


quantities = st.sampled_from(["positions", "velocities", "accelerations"])
samples = st.integers(0, len(TRAJECTORY.times_s) - 1)
joints = st.integers(0, 6)


def test_a_planned_motion_passes() -> None:
    Guard(MODEL).check_motion(MOTION, MODEL.home, NOW, NOW)


@given(quantities, samples, joints, st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_non_finite_number_anywhere_is_refused(quantity: str, sample: int, joint: int, value: float) -> None:
    refusal = refusal_of(changed(TRAJECTORY, quantity, sample, joint, value), TRAJECTORY.positions[0])
    assert refusal.rule == "non_finite"
    assert MODEL.joint_names[joint] in refusal.where
    assert str(sample) in refusal.where


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_times_and_joint_states_are_refused(value: float) -> None:
    times = TRAJECTORY.times_s.copy()
    times[3] = value
    assert refusal_of(replace(TRAJECTORY, times_s=times)).rule == "non_finite"
    q_now = TRAJECTORY.positions[0].copy()
    q_now[2] = value
    assert refusal_of(TRAJECTORY, q_now).rule == "non_finite"


@given(samples, joints, st.floats(1e-6, 3.0), st.booleans())
def test_a_sample_beyond_a_position_limit_is_refused(sample: int, joint: int, beyond: float, high: bool) -> None:
    limits = MODEL.limits
    value = limits.upper[joint] + beyond if high else limits.lower[joint] - beyond
    trajectory = changed(TRAJECTORY, "positions", sample, joint, value)
    q_now = np.clip(trajectory.positions[0], limits.lower - 4, limits.upper + 4)
    refusal = refusal_of(trajectory, q_now)
    assert refusal.rule == "position_limit"
    assert MODEL.joint_names[joint] in refusal.where
    assert refusal.value == value


@given(samples, joints, st.floats(1.0001, 10.0), st.sampled_from([-1, 1]))
def test_a_sample_beyond_velocity_or_acceleration_is_refused(sample: int, joint: int, factor: float, sign: int) -> None:
    for quantity, bounds, rule in (
        ("velocities", MODEL.limits.velocity, "velocity_limit"),
        ("accelerations", MODEL.limits.acceleration, "acceleration_limit"),
    ):
        value = sign * factor * bounds[joint]
        refusal = refusal_of(changed(TRAJECTORY, quantity, sample, joint, value))
        assert refusal.rule == rule
        assert MODEL.joint_names[joint] in refusal.where
        assert refusal.value == value
        assert refusal.limit == bounds[joint]


@pytest.mark.parametrize("factor", [0.2, 0.5])
def test_motion_too_fast_for_its_stated_velocities_is_refused(factor: float) -> None:
    hurried = replace(TRAJECTORY, times_s=TRAJECTORY.times_s * factor)
    assert refusal_of(hurried).rule in ("velocity_limit", "acceleration_limit")


@given(st.integers(1, len(TRAJECTORY.times_s) - 2), joints, st.floats(0.02, 0.5))
def test_a_jerk_in_positions_alone_is_refused(sample: int, joint: int, size: float) -> None:
    value = TRAJECTORY.positions[sample, joint] + size * (1 if joint != 3 else -1)
    refusal = refusal_of(changed(TRAJECTORY, "positions", sample, joint, value))
    assert refusal.rule in ("velocity_limit", "inconsistent", "position_limit")


def test_claimed_velocity_without_motion_is_refused() -> None:
    still = np.repeat(TRAJECTORY.positions[:1], len(TRAJECTORY.times_s), axis=0)
    refusal = refusal_of(replace(TRAJECTORY, positions=still))
    assert refusal.rule == "inconsistent"


def test_a_start_elsewhere_is_a_jump() -> None:
    q_now = TRAJECTORY.positions[0].copy()
    q_now[4] += 0.2
    refusal = refusal_of(TRAJECTORY, q_now)
    assert refusal.rule == "jump"
    assert "panda_joint5" in refusal.where


@pytest.mark.parametrize(("age_s", "refused"), [(0.0, False), (0.2, False), (0.3, True), (-0.2, True), (1e9, True)])
def test_old_or_future_joint_states_are_stale(age_s: float, refused: bool) -> None:
    stamp = NOW - int(age_s * 1e9)
    if refused:
        assert refusal_of(TRAJECTORY, stamp_ns=stamp).rule == "stale_joint_state"
    else:
        Guard(MODEL).check_trajectory(TRAJECTORY, TRAJECTORY.positions[0], stamp, NOW)


def test_times_must_start_at_zero_rise_and_be_dense() -> None:
    late = replace(TRAJECTORY, times_s=TRAJECTORY.times_s + 0.1)
    swapped = TRAJECTORY.times_s.copy()
    swapped[[4, 5]] = swapped[[5, 4]]
    sparse = [0, len(TRAJECTORY.times_s) - 1]
    coarse = Trajectory(
        TRAJECTORY.times_s[sparse],
        TRAJECTORY.positions[sparse],
        TRAJECTORY.velocities[sparse],
        TRAJECTORY.accelerations[sparse],
    )
    for trajectory in (late, replace(TRAJECTORY, times_s=swapped), coarse):
        assert refusal_of(trajectory).rule == "times"


def test_a_trajectory_that_does_not_end_at_rest_is_refused() -> None:
    half = len(TRAJECTORY.times_s) // 2
    cut = Trajectory(
        *(getattr(TRAJECTORY, name)[:half] for name in ("times_s", "positions", "velocities", "accelerations"))
    )
    assert refusal_of(cut).rule == "not_at_rest"


def test_another_number_of_joints_is_refused() -> None:
    six = Trajectory(
        TRAJECTORY.times_s, TRAJECTORY.positions[:, :6], TRAJECTORY.velocities[:, :6], TRAJECTORY.accelerations[:, :6]
    )
    assert refusal_of(six).rule == "shape"


@pytest.mark.parametrize(
    ("goal", "axis"),
    [(tool_down(0.5, 0.0, -0.03), "z"), (tool_down(0.05, 0.75, 0.3), "y"), (tool_down(-0.2, 0.5, 0.3), "x")],
)
def test_a_path_out_of_the_box_or_into_the_table_is_refused(model: RobotModel, goal: np.ndarray, axis: str) -> None:
    refusal = refusal_of(plan_joint(model, model.home, model.inverse(goal, model.home)))
    assert refusal.rule == "workspace"
    assert refusal.where.startswith(f"{axis} of the tip")


def test_a_path_to_the_ceiling_is_refused(model: RobotModel) -> None:
    upright = np.array([0.0, 0.0, 0.0, -0.5, 0.0, 1.5, 0.0])
    refusal = refusal_of(plan_joint(model, model.home, upright))
    assert refusal.rule == "workspace"
    assert refusal.where.startswith("z of the tip")


def test_a_wrist_near_the_table_is_refused(model: RobotModel) -> None:
    sideways = tool_down(0.6, 0.0, 0.05)
    sideways[:3, :3] = Rotation.from_euler("y", np.pi / 2).as_matrix()
    low = model.inverse(sideways, model.home)
    refusal = refusal_of(plan_joint(model, low, model.home))
    assert refusal.rule == "workspace"
    assert refusal.where.startswith("z of panda_joint7")


def refused_action(action: PickPlace, now_ns: int = NOW) -> Refused:
    with pytest.raises(Refused) as refusal:
        Guard(MODEL).check_action(action, now_ns)
    return refusal.value


def test_a_good_decision_passes() -> None:
    Guard(MODEL).check_action(GOOD, NOW)
    Guard(MODEL).check_action(GOOD, NOW + 1_900_000_000)


@given(st.sampled_from(["pick", "place"]), st.integers(0, 3), st.integers(0, 3), st.sampled_from([np.nan, np.inf]))
def test_a_decision_with_a_non_finite_number_is_refused(which: str, row: int, column: int, value: float) -> None:
    pose = getattr(GOOD, which).copy()
    pose[row, column] = value
    refusal = refused_action(replace(GOOD, **{which: pose}))
    assert refusal.rule == "non_finite"
    assert which in refusal.where


def test_a_non_finite_score_is_refused() -> None:
    assert refused_action(replace(GOOD, scores={"pick": float("nan")})).rule == "non_finite"


def test_a_matrix_that_is_no_pose_is_refused() -> None:
    for change in (np.diag([2.0, 1, 1, 1]), np.diag([-1.0, 1, 1, 1])):
        assert refused_action(replace(GOOD, place=GOOD.place @ change)).rule == "not_a_pose"


@pytest.mark.parametrize("age_s", [2.1, 3600.0, -0.2])
def test_a_decision_from_old_or_future_frames_is_refused(age_s: float) -> None:
    assert refused_action(GOOD, NOW + int(age_s * 1e9)).rule == "stale_observation"


@pytest.mark.parametrize(
    ("pose", "axis"),
    [
        (tool_down(0.1, 0.0, 0.02), "x"),
        (tool_down(0.5, 0.6, 0.02), "y"),
        (tool_down(0.5, 0.0, -0.01), "z"),
        (tool_down(0.5, 0.0, 0.5), "z"),
    ],
)
@pytest.mark.parametrize("which", ["pick", "place"])
def test_a_decision_outside_the_workspace_is_refused(which: str, pose: np.ndarray, axis: str) -> None:
    refusal = refused_action(replace(GOOD, **{which: pose}))
    assert refusal.rule == "workspace"
    assert refusal.where == f"{axis} of the {which} pose"


def test_a_stop_is_latched_until_resume() -> None:
    guard = Guard(MODEL)
    guard.stop("operator")
    guard.stop("again")
    assert guard.stopped == "operator"
    for check in (
        lambda: guard.check_action(GOOD, NOW),
        lambda: guard.check_trajectory(TRAJECTORY, TRAJECTORY.positions[0], NOW, NOW),
        lambda: guard.check_motion(MOTION, MODEL.home, NOW, NOW),
    ):
        with pytest.raises(Refused, match="operator") as refusal:
            check()
        assert refusal.value.rule == "stopped"
    guard.resume()
    assert guard.stopped is None
    guard.check_action(GOOD, NOW)


@settings(max_examples=5)
@given(st.sampled_from(["jump_rad", "gap_s", "observation_age_s"]), st.sampled_from([-1.0, float("nan"), float("inf")]))
def test_settings_that_would_switch_a_rule_off_are_refused(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=name):
        GuardSettings(**{name: value})

"""The guard lets good motion pass and refuses everything else, naming rule, joint, value and limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodied_vision.control.guard import Guard, GuardSettings
from embodied_vision.control.joint_rules import STEP_ACCELERATION, STEP_JERK, STEP_POSITION, STEP_VELOCITY
from embodied_vision.control.motion import Motion, Segment
from embodied_vision.control.planning import plan_joint
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.streaming import brake
from embodied_vision.control.surroundings import KeepOut
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


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "high", None, [1.0]])
def test_a_score_that_is_no_finite_number_is_refused(score: object) -> None:
    assert refused_action(replace(GOOD, scores={"pick": score})).rule == "non_finite"  # type: ignore[dict-item]


@pytest.mark.parametrize("score", [0, -3.5, np.float32(1.0), 10**400])
def test_a_score_of_any_kind_of_number_passes(score: float) -> None:
    Guard(MODEL).check_action(replace(GOOD, scores={"pick": score}), NOW)


def test_a_matrix_that_is_no_pose_is_refused() -> None:
    huge = np.eye(4)
    huge[:2, :2] = [[1e200, 1e200], [1e200, -1e200]]
    for change in (np.diag([2.0, 1, 1, 1]), np.diag([-1.0, 1, 1, 1]), huge, 1e108 * huge):
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


# ---- jerk, and what lies between samples


def with_jerk(share: float) -> Trajectory:
    """Rest to rest with one joint, in four pieces of constant jerk, a share of its limit."""
    jerk = share * MODEL.limits.jerk[0]
    pieces, step = [1.0, -1.0, -1.0, 1.0], 0.0005
    part = np.arange(0.0, 0.00125, step)
    rows = [(0.0, 0.0, 0.0)]
    for sign in pieces:
        q, qd, qdd = rows[-1]
        for t in part[1:]:
            j = sign * jerk
            rows.append((q + qd * t + qdd * t * t / 2 + j * t**3 / 6, qd + qdd * t + j * t * t / 2, qdd + j * t))
    moved = np.zeros((3, len(rows), 7))
    moved[:, :, 0] = np.array(rows).T
    return Trajectory(step * np.arange(len(rows)), MODEL.home + moved[0], moved[1], moved[2])


def motion_of(trajectory: Trajectory) -> Motion:
    return Motion((Segment("test", trajectory),))


def refusal_of_motion(trajectory: Trajectory, guard: Guard | None = None) -> Refused:
    with pytest.raises(Refused) as refusal:
        (guard or Guard(MODEL)).check_motion(motion_of(trajectory), trajectory.positions[0], NOW, NOW)
    return refusal.value


def test_a_planned_motion_keeps_to_the_jerk_limit() -> None:
    Guard(MODEL).check_motion(motion_of(with_jerk(0.99)), MODEL.home, NOW, NOW)
    refusal = refusal_of_motion(with_jerk(1.02))
    assert refusal.rule == "jerk_limit"
    assert "panda_joint1" in refusal.where


def test_the_brake_at_the_end_of_a_horizon_may_exceed_the_jerk_limit_and_nothing_before_it() -> None:
    short = with_jerk(1.5)
    Guard(MODEL).check_trajectory(short, MODEL.home, NOW, NOW)
    still = 0.02 * np.arange(1, 20)
    longer = Trajectory(
        np.concatenate([short.times_s, short.times_s[-1] + still]),
        *(
            np.concatenate([part, np.repeat(part[-1:], len(still), axis=0)])
            for part in (short.positions, short.velocities, short.accelerations)
        ),
    )
    assert refusal_of(longer).rule == "jerk_limit"


def test_a_lie_about_acceleration_is_seen_between_samples() -> None:
    """Every sample and every difference is within the limits; the spline that the controller runs along is not."""
    t, a = 0.02 * np.arange(9), 0.995 * MODEL.limits.acceleration[0]
    lie = np.zeros((3, 9, 7))
    lie[0, 4, 0] = a * 0.02**2 / 4
    lie[2, 3:5, 0] = -a, a
    trajectory = Trajectory(t, MODEL.home + lie[0], lie[1], lie[2])
    refusal = refusal_of(trajectory, MODEL.home)
    assert refusal.rule == "acceleration_limit"
    assert "between samples" in refusal.where


def test_the_share_of_the_spline_is_what_a_jump_of_acceleration_makes() -> None:
    """Full acceleration, and from one sample on full deceleration: the spline leaves the limits as stated."""
    h, a = 0.02, MODEL.limits.acceleration[0]
    t = h * np.arange(3)
    q = np.where(t < h, a * t**2 / 2, a * h**2 / 2 + a * h * (t - h) - a * (t - h) ** 2 / 2)
    rows = np.zeros((3, 3, 7))
    rows[0, :, 0], rows[1, :, 0], rows[2, :, 0] = q, [0, a * h, 0], [a, a, -a]
    spline = Trajectory(t, rows[0], rows[1], rows[2]).refined(1000)
    assert np.abs(spline[2]).max() / a == pytest.approx(STEP_ACCELERATION, abs=1e-3)
    exact = a * h**2 / 2 + a * h * (h * np.linspace(0, 1, 1001)) - a * (h * np.linspace(0, 1, 1001)) ** 2 / 2
    assert np.abs(spline[0][1, :, 0] - exact).max() / (a * h * h) == pytest.approx(STEP_POSITION, abs=1e-4)
    speed = a * h - a * h * np.linspace(0, 1, 1001)
    assert np.abs(spline[1][1, :, 0] - speed).max() / (a * h) == pytest.approx(STEP_VELOCITY, abs=1e-4)


@settings(max_examples=100)
@given(st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=20), st.floats(-20, 20), st.floats(-2, 2))
def test_the_spline_of_bounded_jerk_has_at_most_the_stated_jerk(jerks: list[float], a: float, v: float) -> None:
    q, step = 0.0, 1.0 / len(jerks)
    start = (q, v, a)
    for j in jerks:
        q += v * step + a * step**2 / 2 + j * step**3 / 6
        v += a * step + j * step**2 / 2
        a += j * step
    rows = [np.array([[one], [other]]) for one, other in zip(start, (q, v, a), strict=True)]
    assert np.abs(Trajectory(np.array([0.0, 1.0]), *rows).refined(50)[3]).max() <= STEP_JERK + 1e-6


@pytest.mark.parametrize("step_s", [1e-5, 5e-324, 1e-310, 0.0, -0.01])
def test_steps_too_short_to_tell_are_refused(step_s: float) -> None:
    times = TRAJECTORY.times_s.copy()
    times[5:] += times[4] + step_s - times[5]
    assert refusal_of(replace(TRAJECTORY, times_s=times)).rule == "times"


# ---- what is in space


def keep_out(x: float, y: float, z: float, edge: float = 0.1) -> KeepOut:
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return KeepOut("post", pose, np.full(3, edge))


def test_a_way_through_a_keep_out_is_refused_and_names_it() -> None:
    tip = MODEL.forward(TRAJECTORY.positions[len(TRAJECTORY.positions) // 2])[:3, 3]
    refusal = refusal_of_motion(TRAJECTORY, Guard(MODEL, keep_out=[keep_out(*tip)]))
    assert refusal.rule == "keep_out"
    assert "post" in refusal.where
    Guard(MODEL, keep_out=[keep_out(tip[0], tip[1], tip[2] - 0.5)]).check_motion(
        motion_of(TRAJECTORY), TRAJECTORY.positions[0], NOW, NOW
    )


def test_the_elbow_counts_as_well_as_the_tip() -> None:
    elbow = MODEL.link_positions(TRAJECTORY.positions[:1])[0, 3]
    refusal = refusal_of_motion(TRAJECTORY, Guard(MODEL, keep_out=[keep_out(*elbow, edge=0.02)]))
    assert refusal.rule == "keep_out"
    assert "panda_link" in refusal.where


def test_a_tool_tilted_into_the_table_is_refused_though_its_tip_is_above() -> None:
    model = RobotModel.load("panda_parallel_jaw")
    tilted = tool_down(0.5, 0.0, 0.012)
    tilted[:3, :3] = Rotation.from_euler("x", 0.35).as_matrix() @ tilted[:3, :3]
    low = model.inverse(tilted, model.home)
    path = plan_joint(model, low, model.home)
    with pytest.raises(Refused) as refusal:
        Guard(model).check_motion(motion_of(path), low, NOW, NOW)
    assert refusal.value.rule == "table"
    assert "finger" in refusal.value.where


def test_an_arm_folded_into_itself_is_refused() -> None:
    folded = np.array([0.0, -1.6, 0.0, -3.0, 0.0, 0.6, 0.0])
    refusal = refusal_of_motion(
        plan_joint(MODEL, MODEL.home, folded), Guard(MODEL, settings=GuardSettings(ceiling_m=2.0))
    )
    assert refusal.rule in ("self_collision", "workspace")
    anywhere = Guard(MODEL, settings=GuardSettings(ceiling_m=2.0, path_margin_m=5.0, tip_height_m=0.0))
    refusal = refusal_of_motion(plan_joint(MODEL, MODEL.home, folded), anywhere)
    assert refusal.rule == "self_collision"


# ---- time, counts


def test_stamps_that_go_back_are_refused_until_resume() -> None:
    guard = Guard(MODEL)
    guard.check_action(GOOD, NOW)
    guard.check_trajectory(TRAJECTORY, TRAJECTORY.positions[0], NOW, NOW)
    guard.check_action(GOOD, NOW)  # the same frames once more are no step back
    with pytest.raises(Refused) as refusal:
        guard.check_action(replace(GOOD, stamp_ns=NOW - 1), NOW)
    assert refusal.value.rule == "time_went_back"
    with pytest.raises(Refused) as refusal:
        guard.check_trajectory(TRAJECTORY, TRAJECTORY.positions[0], NOW - 1, NOW)
    assert refusal.value.rule == "time_went_back"
    guard.resume()
    guard.check_action(replace(GOOD, stamp_ns=NOW - 1), NOW)
    guard.check_trajectory(TRAJECTORY, TRAJECTORY.positions[0], NOW - 1, NOW)


def test_what_was_refused_does_not_move_the_newest_stamp() -> None:
    guard = Guard(MODEL)
    with pytest.raises(Refused, match="workspace"):
        guard.check_action(replace(GOOD, pick=tool_down(5.0, 0.0, 0.1), stamp_ns=NOW + 10), NOW)
    guard.check_action(GOOD, NOW)


def test_refusals_are_counted_by_rule() -> None:
    guard = Guard(MODEL)
    assert guard.counts == {}
    for _ in range(3):
        with pytest.raises(Refused):
            guard.check_action(replace(GOOD, stamp_ns=0), NOW)
    with pytest.raises(Refused) as refusal:
        guard.check_motion(MOTION, MODEL.home + 1, NOW, NOW)
    guard.count(refusal.value)
    guard.count(Refused("unreachable", "pose", 1, 0, "choose another"))
    assert guard.counts == {"stale_observation": 3, "jump": 1, "unreachable": 1}


def test_every_brake_of_every_segment_passes() -> None:
    guard = Guard(MODEL)
    for segment in MOTION.segments:
        for t in np.linspace(0.0, segment.trajectory.duration, 9):
            stop = brake(segment.trajectory, float(t), MODEL.limits)
            guard.check_trajectory(stop, stop.positions[0], NOW, NOW)


def test_a_ceiling_below_the_least_height_is_refused() -> None:
    with pytest.raises(BadInput, match="room"):
        GuardSettings(tip_height_m=0.2, ceiling_m=0.1)

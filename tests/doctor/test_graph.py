"""How what was heard of a graph is judged: rates, ages, pairs of stamps."""

from __future__ import annotations

from typing import Any

import pytest

from embodied_vision.control.robot import RobotModel
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.expected import Expected
from embodied_vision.doctor.graph import check_graph
from embodied_vision.doctor.observation import Heard, Observation, Publisher

MS = 1_000_000
MODEL = RobotModel.load()
HOME = dict(zip(MODEL.joint_names, MODEL.home.tolist(), strict=True))
LAST = MODEL.joint_names[-1]


def heard(kind: str, period_ms: int, count: int, age_s: float = 0.01, shift_ms: int = 0, **details: Any) -> Heard:
    """A stream that came evenly."""
    times = [period_ms * number for number in range(count)]
    return Heard(
        kind,
        [Publisher("/driver", True, False)],
        [time / 1e3 for time in times],
        [(time + shift_ms) * MS for time in times],
        [age_s] * count,
        {"frame_id": "f", "width": 4, "height": 3, "encoding": "rgb8", "problem": "", **details},
    )


def judged(
    expected: dict[str, dict[str, Any]] | None = None, nodes: tuple[str, ...] = ("/arm",), **streams: Heard
) -> dict[str, Check]:
    none = Heard("", [], [], [], [], {})
    named = {name.replace("__", "/"): stream for name, stream in streams.items()}
    seen = Observation(nodes, {}, {"joint_states": none, **named}, {}, 3.0, False)
    values = {"encoder": {"cameras": ["c"]}, **(expected or {})}
    return {check.name: check for check in check_graph(seen, Expected(values))}


def test_the_timeout_of_the_arm_decides_what_is_too_slow() -> None:
    image = heard("sensor_msgs/msg/Image", 150, 20)
    name = "camera c color"
    assert judged(c__color__image_raw=image)[name].ok
    check = judged({"arm": {"camera_timeout": 0.1}}, c__color__image_raw=image)[name]
    assert not check.ok
    assert "20 Hz or more" in check.remedy


def test_a_gap_in_a_stream_that_is_quick_enough_is_a_hint() -> None:
    even = heard("sensor_msgs/msg/JointState", 20, 100)
    late = [time + (0.5 if time > 1 else 0) for time in even.received_s]
    stream = Heard(even.type, even.publishers, late, even.stamps_ns, even.ages_s, {"joints": {}})
    check = judged(joint_states=stream)["joint states"]
    assert check.ok
    assert "would have stopped the arm" in check.remedy


@pytest.mark.parametrize(("late", "ok"), [(0, True), (4, True), (20, False)])
def test_few_old_joint_states_are_a_hint_and_many_a_fault(late: int, ok: bool) -> None:
    even = heard("sensor_msgs/msg/JointState", 20, 100)
    ages = [0.3] * late + [0.01] * (100 - late)
    stream = Heard(even.type, even.publishers, even.received_s, even.stamps_ns, ages, {"joints": {}})
    check = judged(joint_states=stream)["joint state age"]
    assert check.ok is ok
    assert bool(check.remedy) is bool(late)


@pytest.mark.parametrize(("shift_ms", "slop", "ok"), [(0, 0.005, True), (20, 0.005, False), (20, 0.03, True)])
def test_color_and_depth_pair_by_their_stamps(shift_ms: int, slop: float, ok: bool) -> None:
    color = heard("sensor_msgs/msg/Image", 66, 40)
    depth = heard("sensor_msgs/msg/Image", 66, 40, shift_ms=shift_ms, encoding="16UC1")
    streams = {"c__color__image_raw": color, "c__aligned_depth_to_color__image_raw": depth}
    check = judged({"policy": {"slop": slop}}, **streams)["camera c depth registered to color"]
    assert check.ok is ok


@pytest.mark.parametrize(
    ("joints", "value", "remedy"),
    [
        (HOME, "all 7 joints of", ""),
        ({name: q for name, q in HOME.items() if name != LAST}, f"[{LAST!r}] of", "joint state broadcaster"),
        ({**HOME, LAST: None}, f"[{LAST!r}] have no finite position", "look at the driver"),
        ({**HOME, LAST: 9.0}, f"{LAST} stands at 9.000 rad, outside its limits", "move it back"),
    ],
)
def test_joints_are_judged_by_the_robots_description(joints: dict[str, float | None], value: str, remedy: str) -> None:
    said = {name: {"position": position, "velocity": True} for name, position in joints.items()}
    check = judged(joint_states=heard("sensor_msgs/msg/JointState", 20, 100, joints=said))["joint names"]
    assert check.ok is (joints == HOME)
    assert value in check.value
    assert remedy in check.remedy


def test_an_arm_without_joint_states_is_told() -> None:
    assert "nobody publishes joint_states" in judged()["joint states"].value


def test_a_publisher_of_another_type_is_told_with_it() -> None:
    stream = Heard("sensor_msgs/msg/CompressedImage", [Publisher("/driver", True, False)], [], [], [], {})
    check = judged(c__color__image_raw=stream)["camera c color"]
    assert not check.ok
    assert "CompressedImage" in check.value


def test_stamps_from_another_machine_point_to_its_clock() -> None:
    even = heard("sensor_msgs/msg/Image", 66, 40, age_s=-2.0)
    stream = Heard(even.type, [Publisher("/d", True, True)], even.received_s, even.stamps_ns, even.ages_s, even.details)
    found = judged(c__color__image_raw=stream)
    assert "NTP" in found["stamps of c/color/image_raw"].remedy
    assert "NTP" in found["system clock"].value


def test_cameras_without_a_policy_need_no_depth() -> None:
    image = heard("sensor_msgs/msg/Image", 66, 40)
    assert "camera c depth" in judged(nodes=("/encoder", "/policy"), c__color__image_raw=image)
    found = judged(nodes=("/camera", "/encoder", "/recorder"), c__color__image_raw=image)
    assert "camera c depth" not in found
    assert found["camera c color"].ok


def test_under_simulated_time_the_clock_topic_is_suspected() -> None:
    image = heard("sensor_msgs/msg/Image", 66, 40, age_s=-1.7e9)
    seen = Observation(
        (), {}, {"joint_states": Heard("", [], [], [], [], {}), "c/color/image_raw": image}, {}, 3.0, True
    )
    found = {check.name: check for check in check_graph(seen, Expected({}))}
    assert "/clock" in found["stamps of c/color/image_raw"].remedy

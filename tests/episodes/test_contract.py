"""What a stream contract may say, and what is said of sources that break it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from embodied_vision.calibration import read_cameras
from embodied_vision.episodes.contract import Contract, contract_from, default_contract, read_contract
from embodied_vision.episodes.contract_check import ContractCheck
from embodied_vision.errors import BadInput
from embodied_vision.paths import PACKAGE

NS = 1_000_000_000
CAMERA = {"color": "cam/color", "depth": "cam/depth"}
WRENCH = {"topic": "/ft/wrench", "type": "geometry_msgs/msg/WrenchStamped", "fields": ["wrench.force"]}


def test_the_shipped_contract_is_the_default_one() -> None:
    shipped = read_contract(PACKAGE / "config" / "recorder.yaml")
    assert shipped == default_contract(camera.name for camera in read_cameras())


def test_what_an_episode_carries_is_a_contract_again() -> None:
    content = {"cameras": {"cam": CAMERA}, "streams": {"w": {**WRENCH, "rate": 500, "units": ["N"], "required": True}}}
    contract = contract_from(content, "here")
    assert contract_from(contract.to_dict(), "episode") == contract
    assert contract.streams[0].rate == 500.0
    assert contract.cameras[0].required
    assert not contract_from({"streams": {"w": WRENCH}}, "here").streams[0].required


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is no mapping"),
        ({}, "neither cameras nor streams"),
        ({"camera": {}}, "here: camera: unknown key; there are cameras, streams"),
        ({"cameras": {"cam": {"color": "c"}}}, r"cameras\.cam\.depth: missing"),
        ({"cameras": {"cam": {**CAMERA, "colour": "c"}}}, r"cameras\.cam\.colour: unknown key"),
        ({"cameras": {"cam": {**CAMERA, "color": "a b"}}}, r"cameras\.cam\.color: 'a b' is not a topic"),
        ({"cameras": {"../cam": CAMERA}}, r"cameras\.\.\./cam: .* cannot name a camera"),
        ({"cameras": {"cam": None}}, r"cameras\.cam: None is no mapping"),
        ({"cameras": {"cam": {**CAMERA, "rate": -1}}}, r"cameras\.cam\.rate: -1 is no number from 0"),
        ({"cameras": {"cam": {**CAMERA, "rate": float("nan")}}}, r"cameras\.cam\.rate: nan is no number"),
        ({"cameras": {"cam": {**CAMERA, "rate": True}}}, r"cameras\.cam\.rate: True is no number"),
        ({"cameras": {"cam": {**CAMERA, "tolerance": 1.5}}}, r"cameras\.cam\.tolerance: 1.5 is no number from 0 to 1"),
        ({"cameras": {"cam": {**CAMERA, "required": "yes"}}}, r"cameras\.cam\.required: 'yes' is neither"),
        ({"cameras": {"cam": {**CAMERA, "frame": 3}}}, r"cameras\.cam\.frame: 3 is no frame id"),
        ({"streams": {"w": {**WRENCH, "type": "os.system"}}}, r"streams\.w\.type: 'os.system' is not a message type"),
        ({"streams": {"w": {**WRENCH, "fields": []}}}, r"streams\.w\.fields: give the paths"),
        ({"streams": {"w": {**WRENCH, "fields": ["__class__"]}}}, r"streams\.w\.fields\[0\]: '__class__' is no path"),
        ({"streams": {"w": {**WRENCH, "fields": "data"}}}, r"streams\.w\.fields: 'data' is no list"),
        ({"streams": {"w": {**WRENCH, "units": ["N", "Nm"]}}}, r"streams\.w\.units: 2 units for 1 fields"),
        ({"streams": {"reward": WRENCH}}, "'reward' is a stream of the recorder's own"),
        (
            {"streams": {"t": {"topic": "t", "type": "trajectory_msgs/msg/JointTrajectory"}, "t/4": WRENCH}},
            r"streams\.t/4: t/N are the streams of a trajectory",
        ),
    ],
)
def test_what_cannot_be_used_is_named_by_its_key(content: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        contract_from(content, "here")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml does not exist"):
        read_contract(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("cameras: [")
    with pytest.raises(BadInput, match=r"broken\.yaml cannot be read"):
        read_contract(broken)
    hostile = tmp_path / "hostile.yaml"
    hostile.write_text("cameras: !!python/object/apply:os.system ['true']")
    with pytest.raises(BadInput, match=r"hostile\.yaml cannot be read"):
        read_contract(hostile)


def test_cameras_without_a_calibration_are_refused() -> None:
    contract = contract_from({"cameras": {"cam": CAMERA}}, "here")
    contract.check_cameras(["cam", "other"], "here")
    with pytest.raises(BadInput, match=r"cameras\.cam is not in the calibration, which has \['other'\]"):
        contract.check_cameras(["other"], "here")


def contract(**more: Any) -> Contract:
    return contract_from({"streams": {"w": {**WRENCH, **more}}}, "here")


def feed(check: ContractCheck, made: Contract, stamps_s: list[float], frame: str = "") -> None:
    for stamp in stamps_s:
        check.seen(made.streams[0], round(stamp * NS), frame)


def test_who_keeps_the_contract_is_left_alone() -> None:
    made = contract(rate=10, max_gap=0.5, required=True, frame="tool0")
    check = ContractCheck(made, 0)
    feed(check, made, [i / 10 for i in range(100)], "tool0")
    assert check.look(10 * NS) == []
    assert check.finish(10 * NS) == []
    assert ContractCheck(contract(rate=10), 0).finish(60 * NS) == [], "an optional source may stay away"


def test_a_required_source_that_never_comes_is_missing() -> None:
    made = contract(required=True)
    check = ContractCheck(made, NS)
    assert check.look(2 * NS) == []
    assert "requires it" in check.look(4 * NS)[0]
    assert check.changes == 1
    assert check.look(5 * NS)
    (violation,) = check.finish(6 * NS)
    assert (violation["source"], violation["violation"]) == ("streams/w", "missing")
    assert (violation["count"], violation["from_ns"], violation["to_ns"]) == (1, NS, 6 * NS)


def test_gaps_are_counted_and_the_longest_is_told() -> None:
    made = contract(max_gap=0.5)
    check = ContractCheck(made, 0)
    feed(check, made, [0.0, 0.4, 1.4, 1.8, 3.8, 4.0])
    assert check.look(round(4.4 * NS)) == []
    assert "nothing for 1.0 s" in check.look(5 * NS)[0]
    (violation,) = check.finish(round(4.9 * NS))
    assert violation["violation"] == "gap"
    assert (violation["count"], violation["worst"], violation["expected"]) == (3, "2.000 s", "0.5 s")
    assert (violation["from_ns"], violation["to_ns"]) == (round(0.4 * NS), round(4.9 * NS))


def test_a_source_slower_than_its_rate_is_told_and_recovers() -> None:
    made = contract(rate=10, tolerance=0.1)
    check = ContractCheck(made, 0)
    feed(check, made, [i / 9.5 for i in range(40)])
    assert check.violations() == []
    feed(check, made, [4.2 + i / 6 for i in range(46)])
    assert "the contract says 10 Hz" in check.look(12 * NS)[0]
    feed(check, made, [12 + i / 10 for i in range(60)])
    assert check.look(18 * NS) == []
    (violation,) = check.finish(18 * NS)
    assert violation["violation"] == "slow"
    assert float(violation["worst"].split()[0]) == pytest.approx(6, abs=0.5)


def test_messages_of_another_frame_are_told() -> None:
    made = contract(frame="tool0")
    check = ContractCheck(made, 0)
    feed(check, made, [0.0, 0.1], "tool0")
    feed(check, made, [0.2, 0.3], "base")
    (violation,) = check.finish(NS)
    assert (violation["violation"], violation["expected"], violation["worst"]) == ("frame", "tool0", "base")
    assert violation["count"] == 2


def test_color_without_depth_is_told() -> None:
    made = contract_from({"cameras": {"cam": CAMERA}}, "here")
    check = ContractCheck(made, 0)
    check.seen(made.cameras[0], 1)
    check.incomplete(made.cameras[0], 3, 5)
    check.incomplete(made.cameras[0], 2, 9)
    (violation,) = check.finish(10)
    assert (violation["source"], violation["violation"], violation["count"]) == ("cameras/cam", "incomplete", 5)
    assert (violation["from_ns"], violation["to_ns"]) == (5, 9)


def test_a_contract_is_plain_yaml_and_json() -> None:
    content = default_contract(["left", "right"]).to_dict()
    assert yaml.safe_load(yaml.safe_dump(content)) == content
    assert list(content["cameras"]) == ["left", "right"]

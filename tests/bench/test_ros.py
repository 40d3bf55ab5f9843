"""The bench of the way through ROS: what is put together from the clocks of both ways, and the search of a rate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")
sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import ros
from hops.frames import Setup

from embodied_vision.errors import RunFailed

MS = 1_000_000
ONE = Setup(640, 480, 1)


def clocks(**stages: float) -> dict[str, dict[int, int]]:
    """Two frames that passed the stages so many ms after 0."""
    return {name.replace("_", "."): {stamp: int(at * MS) for stamp in (1, 2)} for name, at in stages.items()}


WAY = {"player_color": 0, "encoder_receive": 2, "player_depth": 1, "recorder_receive": 3, "encoder_encoded": 50}
WAY |= {"policy_receive": 53, "policy_decided": 200, "arm_receive": 201}


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["figure"].split(": ", 1)[1]: line for line in lines}


def test_a_sum_has_every_hop_and_the_conversions_of_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    graph = clocks(**WAY, encoder_begin=10, encoder_converted=10.5, policy_begin=60, policy_converted=64)
    ros.report_hops(ONE, graph, clocks(**WAY), ({1, 2}, {1, 2}))
    found = figures(capsys)
    assert found["sum of the hops, median"]["value"] == pytest.approx(2 + 3 + 1 + 2 + 0.5 + 4)
    assert found["sum of the hops, median"]["reference_value"] == pytest.approx(2 + 3 + 1 + 2)
    assert found["color to the encoder, median of 2"]["ratio"] == pytest.approx(1.25)


def test_frames_of_the_other_way_and_of_the_search_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    graph = clocks(**WAY)
    graph["encoder.receive"][1] = 900 * MS
    ros.report_hops(ONE, graph, clocks(**WAY), ({2}, {1, 2}))
    assert figures(capsys)["color to the encoder, p99 of 1"]["value"] == pytest.approx(2)


def test_a_hop_that_nothing_went_over_is_no_figure() -> None:
    way = {name: at for name, at in WAY.items() if name != "arm_receive"}
    with pytest.raises(RunFailed, match="decision to the arm"):
        ros.report_hops(ONE, clocks(**way), clocks(**WAY), ({1, 2}, {1, 2}))


@pytest.mark.parametrize(("capacity", "cameras"), [(1000.0, 1), (45.0, 1), (31.0, 2), (8.0, 1)])
def test_the_search_ends_below_what_can_be_done_and_not_far(
    capacity: float, cameras: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0

    def play(_to: str, rate: float, seconds: float) -> dict[str, list[list[int]]]:
        nonlocal done
        frames = round(rate * seconds)
        done = round(min(frames * cameras, capacity * seconds))
        return {str(number): [[i, 0, 0] for i in range(frames)] for number in range(cameras)}

    monkeypatch.setattr(ros.time, "sleep", lambda _: None)
    monitor = SimpleNamespace(seen=lambda _stage, _stamps: done)
    setup = Setup(640, 480, cameras)
    ros.search(SimpleNamespace(setup=setup, player=SimpleNamespace(play=play), monitor=monitor), 5, 10.0)
    found = figures(capsys)["highest rate with < 5 % drops"]["value"]
    possible = min(ros.SEARCH_HZ, capacity / (1 - ros.MOST_DROPPED)) / cameras
    assert 0.8 * possible <= found <= 1.02 * possible

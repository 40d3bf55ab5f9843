"""Latency is the time between the stages of the same frame, whatever order the traces came in."""

from __future__ import annotations

from embodied_vision.demo.latency import STAGES, latencies_ms


def test_parts_add_up_to_the_whole() -> None:
    traces = {7: {name: 1_000_000 * (i * i) for i, (name, _) in enumerate(STAGES)}}
    result = latencies_ms(traces)
    assert result["median"] == 36.0
    assert result["decisions"] == 1
    parts = result["parts"]
    assert isinstance(parts, dict)
    assert list(parts.values()) == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]


def test_frames_that_led_to_no_motion_do_not_count() -> None:
    whole = {name: 2_000_000 * i for i, (name, _) in enumerate(STAGES)}
    result = latencies_ms({1: whole, 2: {"cell.publish": 0, "encoder.receive": 5}})
    assert result["decisions"] == 1
    assert latencies_ms({})["median"] is None

"""From traced stages of a frame to latencies: frame publish → first trajectory publish, and its parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

STAGES = (
    ("cell.publish", "published by the cell"),
    ("encoder.receive", "transport to the encoder"),
    ("encoder.publish", "encoding"),
    ("policy.receive", "transport to the policy"),
    ("policy.decide", "scene and policy"),
    ("arm.receive", "transport to the arm"),
    ("arm.publish", "planning and guard"),
)
"""Stages in order, each with the name of the time since the one before."""


def latencies_ms(traces: Mapping[int, Mapping[str, int]]) -> dict[str, object]:
    """Summarise the frames that went all the way.

    Args:
        traces: frame stamp → stage → CLOCK_MONOTONIC ns, first occurrence.

    Returns:
        `median` and `p95` of the whole way in ms, `parts` with the median of each part in ms, and the
        number of `decisions` they stand on; medians are None when no frame went all the way.
    """
    names = [stage for stage, _ in STAGES]
    whole = [trace for trace in traces.values() if all(name in trace for name in names)]
    if not whole:
        return {"median": None, "p95": None, "parts": {}, "decisions": 0}
    times = np.array([[trace[name] for name in names] for trace in whole], float) / 1e6
    total = times[:, -1] - times[:, 0]
    steps = np.median(np.diff(times, axis=1), axis=0)
    return {
        "median": round(float(np.median(total)), 2),
        "p95": round(float(np.percentile(total, 95)), 2),
        "parts": {part: round(float(value), 2) for (_, part), value in zip(STAGES[1:], steps, strict=True)},
        "decisions": len(whole),
    }

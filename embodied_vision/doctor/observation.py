"""What was seen of a running graph: facts, without a judgement. No ROS here; a process of its own listens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from embodied_vision.errors import RunFailed

_MODULE = "embodied_vision.nodes.observe"
_PATIENCE_S = 30.0
"""Start, discovery and questions may take so long beside the listening."""


@dataclass(frozen=True)
class Publisher:
    """Who publishes a topic.

    Attributes:
        node: its full name.
        reliable: whether it offers reliable delivery.
        elsewhere: whether it runs on another machine; never where the middleware does not tell.
    """

    node: str
    reliable: bool
    elsewhere: bool


@dataclass(frozen=True)
class Heard:
    """One topic over the time of listening.

    Attributes:
        type: of its messages, as its first publisher says; empty where there is none.
        publishers: all of them.
        received_s: receipts on a steady clock, s.
        stamps_ns: of the messages.
        ages_s: of the stamps on receipt, negative for stamps from the future.
        details: of the last message: sizes, encoding, frame, intrinsics, joints.
    """

    type: str
    publishers: Sequence[Publisher]
    received_s: Sequence[float]
    stamps_ns: Sequence[int]
    ages_s: Sequence[float]
    details: Mapping[str, Any]

    @property
    def rate_hz(self) -> float:
        """Messages a second between the first and the last, 0 for fewer than two."""
        span_s = self.received_s[-1] - self.received_s[0] if len(self.received_s) > 1 else 0.0
        return (len(self.received_s) - 1) / span_s if span_s > 0 else 0.0

    @property
    def longest_gap_s(self) -> float:
        """Longest time between two messages, 0 for fewer than two."""
        return max((after - before for before, after in pairwise(self.received_s)), default=0.0)


@dataclass(frozen=True)
class Observation:
    """A graph as it was seen.

    Attributes:
        nodes: full names.
        parameters: node → parameter → value, of our nodes in the namespace that answered.
        streams: topic → what was heard.
        speakers: topic that takes one voice → full names of its publishers.
        seconds: how long was listened.
        sim_time: whether nodes follow simulated time; then ages are of that clock.
    """

    nodes: Sequence[str]
    parameters: Mapping[str, Mapping[str, Any]]
    streams: Mapping[str, Heard]
    speakers: Mapping[str, Sequence[str]]
    seconds: float
    sim_time: bool


def observe(
    environment: Mapping[str, str],
    namespace: str,
    cameras: Sequence[str],
    seconds: float,
    transports: tuple[str, str] = ("raw", "raw"),
) -> Observation:
    """Listen to a graph, in a process that is killed when it does not come back.

    Args:
        environment: of the process: domain, transport, discovery.
        namespace: of the nodes.
        cameras: names of cameras that should be there, beside those that are found.
        seconds: how long to listen.
        transports: how color and depth images travel, where no running node tells.

    Raises:
        RunFailed: the process failed or hung; the message ends with what it said.
    """
    command = [sys.executable, "-m", _MODULE, str(seconds), *transports, *cameras]
    if namespace.strip("/"):
        command += ["--ros-args", "-r", f"__ns:=/{namespace.strip('/')}"]
    limit_s = seconds + _PATIENCE_S
    try:
        done = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"listening to the graph did not end within {limit_s:g} s") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RunFailed(f"listening to the graph failed: {said[-1]}")
    return from_json(lines[-1], seconds)


def from_json(line: str, seconds: float) -> Observation:
    """What the listening process printed."""
    content = json.loads(line)
    streams = {
        topic: Heard(**{**heard, "publishers": [Publisher(**one) for one in heard["publishers"]]})
        for topic, heard in content["streams"].items()
    }
    return Observation(**{**content, "streams": streams}, seconds=seconds)

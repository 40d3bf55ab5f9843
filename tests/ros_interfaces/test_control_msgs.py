"""The control_msgs that tests build are real: goals, feedback and results cross between two processes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.action import ActionClient
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectoryPoint

from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from tests.ros_interfaces.build import build

pytestmark = [pytest.mark.system, pytest.mark.together]
HERE = Path(__file__).resolve().parent
POSITIONS = [[0.1, 0.2], [0.3, 0.4]]


def test_an_action_round_trip_between_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(build())
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder)
    actions: Any = importlib.import_module("control_msgs.action")
    messages: Any = importlib.import_module("control_msgs.msg")
    lock = hold_free_domain()
    variables = process_environment(tmp_path, lock.domain).variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server = subprocess.Popen(
        [sys.executable, str(HERE / "follow_server.py")],
        env=dict(variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=lock.domain)
    node = Node("leader", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client = ActionClient(node, actions.FollowJointTrajectory, "follow")
        assert client.wait_for_server(20.0)
        goal = actions.FollowJointTrajectory.Goal()
        goal.trajectory.joint_names = ["a", "b"]
        goal.trajectory.points = [
            JointTrajectoryPoint(positions=[0.1, 0.2]),
            JointTrajectoryPoint(positions=[0.3, 0.4]),
        ]
        goal.goal_tolerance = [messages.JointTolerance(name="a", position=0.01)]
        heard: list[list[float]] = []
        sent = client.send_goal_async(goal, lambda m: heard.append(list(m.feedback.actual.positions)))
        executor.spin_until_future_complete(sent, 20.0)
        deadline_s = time.monotonic() + 20.0
        while len(heard) < len(POSITIONS) and time.monotonic() < deadline_s:
            executor.spin_once(0.1)
        assert server.stdin is not None
        print("end", file=server.stdin, flush=True)
        result = sent.result().get_result_async()
        executor.spin_until_future_complete(result, 20.0)
        assert heard == POSITIONS
        assert result.result().result.error_code == actions.FollowJointTrajectory.Result.SUCCESSFUL
        assert result.result().result.error_string == "a within 0.01"
    finally:
        server.kill()
        server.wait()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
        lock.release()


def test_the_package_is_built_once(tmp_path: Path) -> None:
    target = build(tmp_path / "control_msgs")
    before = (target / "digest.txt").stat().st_mtime_ns
    assert build(target) == target
    assert (target / "digest.txt").stat().st_mtime_ns == before

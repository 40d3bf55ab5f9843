"""A robot's stand-in: joint states at 60 Hz, which are where the last trajectory says."""

from __future__ import annotations

import contextlib
import sys
import time

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from embodied_vision.control.robot import RobotModel
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import JointSamples, joint_state_message, stamp_to_ns, trajectory_to_samples

RATE = 60.0


def main() -> None:
    """Follow until the process is ended."""
    robot = RobotModel.load(sys.argv[1])
    names, home = list(robot.joint_names), np.asarray(robot.home, float)
    rclpy.init()
    node = rclpy.create_node("joints")
    publisher = node.create_publisher(JointState, "joint_states", qos.SENSOR)
    path = JointSamples(np.zeros(1), home[None], np.zeros((1, len(home))), np.zeros((1, len(home))))
    begun = time.monotonic()

    def take(message: JointTrajectory) -> None:
        nonlocal path, begun
        stamp_ns = stamp_to_ns(message.header.stamp)  # of its beginning; 0 is now
        path = trajectory_to_samples(message, names)
        begun = time.monotonic() - ((time.time_ns() - stamp_ns) * 1e-9 if stamp_ns else 0.0)

    def tell() -> None:
        now_s = time.monotonic() - begun
        position, velocity = (
            np.array([np.interp(now_s, path.times_s, column) for column in values.T])
            for values in (path.positions, path.velocities)
        )
        publisher.publish(joint_state_message(names, position, velocity, time.time_ns()))

    node.create_subscription(JointTrajectory, "arm/joint_trajectory", take, qos.COMMAND)
    node.create_timer(1 / RATE, tell)
    with contextlib.suppress(ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main()

"""A FollowJointTrajectory server in a process of its own: feedback for every point, the result at a line on stdin."""

from __future__ import annotations

import sys

import rclpy
from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node


def main() -> None:
    rclpy.init()
    node = Node("follower")

    def execute(goal: ServerGoalHandle) -> FollowJointTrajectory.Result:
        trajectory = goal.request.trajectory
        for point in trajectory.points:
            feedback = FollowJointTrajectory.Feedback(joint_names=trajectory.joint_names)
            feedback.actual.positions = list(point.positions)
            goal.publish_feedback(feedback)
        sys.stdin.readline()  # rclpy's client drops feedback that it hears after the end of its goal
        tolerance = goal.request.goal_tolerance[0]
        goal.succeed()
        return FollowJointTrajectory.Result(error_string=f"{tolerance.name} within {tolerance.position}")

    server = ActionServer(node, FollowJointTrajectory, "follow", execute)
    print("ready", flush=True)
    try:
        rclpy.spin(node)
    finally:
        server.destroy()


if __name__ == "__main__":
    main()

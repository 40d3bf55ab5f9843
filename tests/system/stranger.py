"""A process that has no business in the graph: it publishes on one of its topics, and may command the arm.

`python -m tests.system.stranger TOPIC [TARGET_RAD]`: prints the time in ns when it has done its worst: its publisher is
there, or, with a target, a trajectory over 4 s that turns the first joint to it is sent, or a decision.
"""

from __future__ import annotations

import sys
import time

import rclpy
from geometry_msgs.msg import Pose, PoseArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodied_vision.control.robot import RobotModel
from embodied_vision.nodes import qos

KINDS = {"arm/joint_trajectory": JointTrajectory, "gripper/command": Float64, "pick_place": PoseArray}


def trajectory(message: JointState, target_rad: float) -> JointTrajectory:
    """From where the arm is, the first joint to `target_rad`."""
    names = list(RobotModel.load().joint_names)
    known = dict(zip(message.name, message.position, strict=True))
    positions = [known[name] for name in names]
    point = JointTrajectoryPoint(positions=[target_rad, *positions[1:]], velocities=[0.0] * len(names))
    point.time_from_start.sec = 4
    start = JointTrajectoryPoint(positions=positions, velocities=[0.0] * len(names))
    return JointTrajectory(joint_names=names, points=[start, point])


def main() -> None:
    """Publish, and stay."""
    topic, *target = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("stranger")
    states: list[JointState] = []
    if target:
        node.create_subscription(JointState, "joint_states", states.append, qos.SENSOR)
        while not states:
            rclpy.spin_once(node)
    publisher = node.create_publisher(KINDS[topic], topic, qos.COMMAND)
    while (target or topic == "pick_place") and publisher.get_subscription_count() == 0:
        time.sleep(0.001)
    if target:
        publisher.publish(trajectory(states[-1], float(target[0])))
    if topic == "pick_place":
        message = PoseArray(poses=[Pose(), Pose()])
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    print(time.time_ns(), flush=True)
    rclpy.spin(node)


if __name__ == "__main__":
    main()

"""`ros2 launch launch/arm.launch.py robot:=ur5e_suction`: a real arm whose drivers run. `-s` lists the arguments."""

from launch import LaunchDescription

from embodied_vision.launching.ros_launch import describe


def generate_launch_description() -> LaunchDescription:
    """Encoder, policy, arm, recorder; with `judge` the task node, with `learn` a learner."""
    return describe("arm")

"""`ros2 launch launch/cell.launch.py`: the simulated cell that works and logs. `-s` lists the arguments."""

from launch import LaunchDescription

from embodied_vision.launching.ros_launch import describe


def generate_launch_description() -> LaunchDescription:
    """Cell, encoder, policy, arm, recorder, task."""
    return describe("cell")

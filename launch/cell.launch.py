"""`ros2 launch launch/cell.launch.py`: the simulated cell that works and logs. `-s` lists the arguments."""

from launch import LaunchDescription

from embodied_vision.launching.graph import CELL
from embodied_vision.launching.ros_launch import describe


def generate_launch_description() -> LaunchDescription:
    """Cell, encoder, policy, arm, recorder, task."""
    return describe(
        CELL,
        {
            "task": "task that the cell sets up and the task node works on; empty: as in the parameters",
            "checkpoint": "shipped name, folder or pointer of the policy; empty: as in the parameters",
            "store": "folder of the episode store; empty: as in the parameters",
        },
        {
            "cell": {"task": "task"},
            "task": {"task": "task"},
            "policy": {"checkpoint": "checkpoint"},
            "recorder": {"store": "store", "task": "task"},
        },
    )

"""`ros2 launch launch/camera.launch.py source:=FOLDER`: real images, encoded and logged. `-s` lists the arguments."""

from launch import LaunchDescription

from embodied_vision.launching.graph import CAMERA
from embodied_vision.launching.ros_launch import describe


def generate_launch_description() -> LaunchDescription:
    """Camera, encoder, recorder; call recorder/start to log."""
    return describe(
        CAMERA,
        {
            "source": "folder of pictures, video file or device; empty: as in the parameters",
            "calibration": "YAML with the camera's calibration; empty: as in the parameters",
            "store": "folder of the episode store; empty: as in the parameters",
        },
        {
            "camera": {"source": "source", "calibration": "calibration"},
            "recorder": {"store": "store", "calibration": "calibration"},
        },
    )

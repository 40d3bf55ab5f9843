"""`ros2 launch launch/camera.launch.py source:=FOLDER`: real images, encoded and logged. `-s` lists the arguments."""

from launch import LaunchDescription

from embodied_vision.launching.ros_launch import describe


def generate_launch_description() -> LaunchDescription:
    """Camera, encoder, recorder; call recorder/start to log."""
    return describe("camera")

"""Where the tool's tip was in an episode, for pictures; without ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.reader import Episode
from embodied_vision.errors import BadInput


def tip_path(episode: Episode) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Stamps (T,) in ns and tip positions (T, 3) in the base frame, m.

    None where the robot is not one that ships, its kinematics are not installed (extra `arm`), or the episode's joints
    are not the robot's.
    """
    if "joint_state" not in episode.streams:
        return None
    try:
        from embodied_vision.control.robot import RobotModel

        robot = RobotModel.load(episode.robot)
    except (ImportError, BadInput):
        return None
    names = list(episode.attributes.get("joint_names", robot.joint_names))
    stamps, values = episode.stream("joint_state")
    if set(robot.joint_names) - set(names) or values.shape[1] < len(names):
        return None
    order = [names.index(joint) for joint in robot.joint_names]
    return stamps, robot.link_positions(values[:, order])[:, -1]

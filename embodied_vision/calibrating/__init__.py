"""From pictures of a printed board and the arm's poses to where a camera stands. No ROS, no torch."""

"""Kinematics, trajectories, limits and the guard: from a decision to joint motion. No ROS, no torch."""

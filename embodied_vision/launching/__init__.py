"""Starts and watches the processes of a cell. Needs no ROS: only the processes it starts do."""

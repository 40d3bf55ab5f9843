"""ROS 2 lives here and nowhere else: each node converts messages at its edge and calls a plain stage."""

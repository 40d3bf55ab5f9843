"""ROS 2 lives here and nowhere else: each node converts messages at its edge and calls a plain stage."""

from embodied_vision.allocation import share_one_heap

share_one_heap()  # before what nodes import starts threads

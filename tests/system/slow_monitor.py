"""The monitor of a graph on a machine so busy that it takes seconds to start."""

import time

from embodied_vision.nodes.monitor import main

time.sleep(4.0)
main()

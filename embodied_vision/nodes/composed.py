"""`python -m embodied_vision.nodes.composed NODE NODE… --ros-args …`: several nodes in one process.

Each stays a node of its own, with its own life cycle, heartbeat, parameters and executor thread. They share the
process: one that dies takes the others along, and one that hangs is killed with them.
"""

from __future__ import annotations

import sys

from rclpy.utilities import remove_ros_args

from embodied_vision.errors import BadInput
from embodied_vision.nodes.classes import node_class
from embodied_vision.nodes.running import run_together


def main() -> None:
    """Run the named nodes until they are told to stop."""
    names = remove_ros_args(sys.argv)[1:]
    try:
        makers = [node_class(name) for name in names]
        if not makers:
            raise BadInput("no node to run; name some, such as encoder policy")
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(run_together(makers))


if __name__ == "__main__":
    main()

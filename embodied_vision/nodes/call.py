"""`python -m embodied_vision.nodes.call SERVICE [NODE.PARAMETER=VALUE…]`: set parameters, then call a trigger service.

For those who have no ROS command line tools; values are YAML.
"""

from __future__ import annotations

import sys

import yaml
from rclpy.utilities import remove_ros_args

from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.nodes.client import GraphClient


def main() -> None:
    """Print the service's answer; exit code 1 when it refuses, 2 for a wrong assignment."""
    service, *assignments = remove_ros_args(sys.argv)[1:]
    try:
        with GraphClient() as client:
            for assignment in assignments:
                target, separator, value = assignment.partition("=")
                node, dot, parameter = target.partition(".")
                if not (separator and dot):
                    raise BadInput(f"{assignment!r} is no assignment; write NODE.PARAMETER=VALUE")
                client.set_parameters(node, {parameter: yaml.safe_load(value)})
            print(client.trigger(service))
    except EmbodiedVisionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""A process that beats like a node: for tests of the supervisor, `python -m dummy_node --ros-args -r __node:=NAME`.

Parameters: `exit_code` ends it at once; `deaf` makes it ignore SIGINT and SIGTERM; `note` is a file that it
appends a line to when it starts and when it ends cleanly.
"""

import json
import signal
import sys
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException
from std_msgs.msg import String


def main() -> None:
    """Beat until a signal comes."""
    rclpy.init()
    node = rclpy.create_node("dummy")
    name = node.get_name()
    code = node.declare_parameter("exit_code", -1).value
    stopped = node.declare_parameter("start_stopped", False).value
    note = Path(node.declare_parameter("note", "/dev/null").value)
    if code >= 0:
        print("value 7 is wrong", file=sys.stderr)
        sys.exit(code)
    if node.declare_parameter("deaf", False).value:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    publisher = node.create_publisher(String, f"heartbeat/{name}", 10)
    node.create_timer(0.1, lambda: publisher.publish(String(data=json.dumps({"state": "active"}))))
    with note.open("a") as file:
        print(f"{name} started stopped={stopped} namespace={node.get_namespace()}", file=file)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        with note.open("a") as file:
            print(f"{name} ended", file=file)


if __name__ == "__main__":
    main()

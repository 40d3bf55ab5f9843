"""A node of the product for the tests of faults: behind the relay, on a clock and in a domain that can be set.

`python -m faults_behind --ros-args -r __node:=cell …` runs the cell, likewise the others. What `RAW` names is spoken
under `raw/`, where `faults_relay` takes it. The folder `FAULTS_FOLDER` holds `clock`, the ns by which the clock was
set, and `elsewhere`, the names of nodes that come up in another domain.
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
import time
from pathlib import Path

from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.nodes.running import run

FOLDER = "FAULTS_FOLDER"
ELSEWHERE = 101
"""The domain of nodes that are elsewhere."""

NODES = {
    "cell": "embodied_vision_sim.node:CellNode",
    "encoder": "embodied_vision.nodes.encoder:EncoderNode",
    "policy": "embodied_vision.nodes.policy:PolicyNode",
    "arm": "embodied_vision.nodes.arm:ArmNode",
    "recorder": "embodied_vision.nodes.recorder:RecorderNode",
    "task": "embodied_vision.nodes.task:TaskNode",
}
RAW = {
    "cell": (
        "joint_states",
        "camera/color/image_raw",
        "camera/aligned_depth_to_color/image_raw",
        "camera/color/camera_info",
        "/clock",
    ),
    "policy": ("pick_place", "policy/decision"),
}


def make_folder(folder: Path) -> None:
    """Lay out the folder that tells the nodes what to do: nothing special."""
    (folder / "clock").write_bytes(bytes(8))
    (folder / "elsewhere").write_text("")


def set_clock(folder: Path, offset_ns: int) -> None:
    """Set the clock of all nodes, at once, to the system's and so many ns."""
    with (folder / "clock").open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        shared[:] = offset_ns.to_bytes(8, "little", signed=True)


def use_clock(folder: Path) -> None:
    """Have this process read the clock that `set_clock` sets, wherever it asks for the time of the stamps."""
    with (folder / "clock").open("rb") as file:
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real_ns, node_ns = time.time_ns, ManagedNode.now_ns

    def offset_ns() -> int:
        return int.from_bytes(shared[:], "little", signed=True)

    time.time_ns = lambda: real_ns() + offset_ns()
    ManagedNode.now_ns = lambda node: node_ns(node) + (0 if node.value("use_sim_time") else offset_ns())  # type: ignore[method-assign]


def main() -> int:
    """Run the node that the arguments name."""
    folder = Path(os.environ[FOLDER])
    name = next(word for word in sys.argv if word.startswith("__node:=")).removeprefix("__node:=")
    if name in (folder / "elsewhere").read_text().split():
        os.environ["ROS_DOMAIN_ID"] = str(ELSEWHERE)
    use_clock(folder)
    module, _, kind = NODES[name].partition(":")
    remaps = [
        word
        for topic in RAW.get(name, ())
        for word in ("-r", f"{topic}:={'/' if topic.startswith('/') else ''}raw/{topic.strip('/')}")
    ]
    return run(getattr(importlib.import_module(module), kind), [*sys.argv, *remaps])


if __name__ == "__main__":
    sys.exit(main())

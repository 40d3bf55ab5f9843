"""`python -m embodied_vision.nodes.describe [--check]`: write down what every node declares.

Makes `launching/parameters.json`, against which parameter files are checked before a process starts, and
`docs/parameters.md`. `--check` writes nothing and fails when one of them is out of date. The table of nodes in
`docs/ros.md` is written by hand and held against what they offer.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from embodied_vision.launching.parameters import DECLARED
from embodied_vision.nodes.classes import CLASSES, node_class
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.paths import PACKAGE

PAGE = PACKAGE.parent / "docs" / "parameters.md"
GRAPH_PAGE = PACKAGE.parent / "docs" / "ros.md"
_OF_RCLPY = ("use_sim_time", "start_type_description_service")
_OF_EVERY_NODE = ("diagnostics", "parameter_events", "rosout", "trace")

_HEAD = """# Parameters

What each node declares; made from the code by `make docs`. [config/cell.yaml](../config/cell.yaml) is a parameter file
with all of them and their defaults, and [launch.md](launch.md) tells how to give them. "start" marks what is read when
the node starts; the rest may be set while it runs.
"""


def _bounds(descriptor: ParameterDescriptor) -> list[float] | None:
    for ranges in (descriptor.integer_range, descriptor.floating_point_range):
        if ranges:
            return [ranges[0].from_value, ranges[0].to_value]
    return None


def parameters(node: ManagedNode) -> dict[str, dict[str, Any]]:
    """Name → type, default, description, bounds and `read_only` of all parameters that this package declares."""
    found = {}
    for name in sorted(node.list_parameters([], 0).names):
        if name in _OF_RCLPY or name.startswith("qos_overrides."):
            continue
        descriptor = node.describe_parameter(name)
        entry: dict[str, Any] = {
            "type": Parameter.Type(descriptor.type).name.lower(),
            "default": _plain(node.value(name)),
            "description": descriptor.description,
        }
        bounds = _bounds(descriptor)
        if bounds is not None:
            entry["bounds"] = bounds
        if choices := node.choices(name):
            entry["choices"] = list(choices)
        if descriptor.read_only:
            entry["read_only"] = True
        found[name] = entry
    return found


def _plain(value: Any) -> Any:
    return list(value) if not isinstance(value, bool | int | float | str) else value


def offered(node: ManagedNode) -> list[str]:
    """Triggers, as `~/NAME`, and topics that a node offers from the start, but for those of every node."""
    own = f"{node.get_fully_qualified_name()}/"
    triggers = [f"~/{s.service_name.removeprefix(own)}" for s in node.services if s.srv_type is Trigger]
    topics = [publisher.topic_name.removeprefix("/") for publisher in node.publishers]
    return triggers + [t for t in topics if t not in _OF_EVERY_NODE and not t.startswith("heartbeat/")]


def everything() -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, list[str]]]:
    """Node → its parameters with their defaults, and node → what it offers, of all nodes."""
    rclpy.init(args=[])
    try:
        found, offers = {}, {}
        for name in CLASSES:
            node = node_class(name)()  # type: ignore[call-arg]
            found[name], offers[name] = parameters(node), offered(node)
            node.destroy_node()
        return found, offers
    finally:
        rclpy.shutdown()


def faults_of_table(text: str, offers: Mapping[str, Sequence[str]]) -> list[str]:
    """Where the table of nodes in a page differs from what they offer, in words."""
    faults = []
    for node, names in offers.items():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{node}`")), "")
        told = set(re.findall(r"`([^`]+)`", row.replace("CAMERA/", "camera/")))
        faults += [f"the row of {node} lacks `{name}`" for name in names if name not in told]
        gone = sorted(name for name in told if name.startswith("~/") and name not in names)
        faults += [f"the row of {node} tells of `{name}`, which it does not offer" for name in gone]
    return faults


def page(nodes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The Markdown page."""
    common = set.intersection(*(set(parameters) for parameters in nodes.values()))
    some = next(iter(nodes.values()))
    lines = [_HEAD, "## every node\n", *_table({name: some[name] for name in sorted(common)})]
    for node, declared in nodes.items():
        lines += [f"\n## {node}\n", *_table({k: v for k, v in declared.items() if k not in common})]
    return "\n".join(lines) + "\n"


def _table(parameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = ["| parameter | type | default | range | | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for name, entry in parameters.items():
        bounds = "{:g} … {:g}".format(*entry["bounds"]) if "bounds" in entry else ", ".join(entry.get("choices", ()))
        when = "start" if entry.get("read_only") else ""
        kind = entry["type"].replace("_array", " list")
        text = entry["description"].replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | `{json.dumps(entry['default'])}` | {bounds} | {when} | {text} |")
    return rows


def main() -> None:
    """Write both files, or with `--check` compare them; exit code 1 when they or the table of nodes are wrong."""
    nodes, offers = everything()
    wanted = {DECLARED: json.dumps(nodes, indent=1, ensure_ascii=False) + "\n", PAGE: page(nodes)}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is out of date; run `python -m embodied_vision.nodes.describe`", file=sys.stderr)
    else:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {Path(path)}")
        stale = []
    faults = faults_of_table(GRAPH_PAGE.read_text(encoding="utf-8"), offers)
    for fault in faults:
        print(f"{GRAPH_PAGE}: {fault}", file=sys.stderr)
    sys.exit(bool(stale or faults))


if __name__ == "__main__":
    main()

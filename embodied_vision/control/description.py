"""Robot descriptions: a YAML file beside a URDF, of an arm with its tool or of an arm to which a tool is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from embodied_vision.errors import BadInput

ROBOTS = Path(__file__).resolve().parent.parent / "robots"
TOOLS = ROBOTS / "tools"


@dataclass(frozen=True)
class Description:
    """What a robot is made of.

    Attributes:
        name: of arm and tool, such as `panda_suction`.
        tool: name of the tool, empty when the URDF holds the whole robot.
        path: file of the arm.
        fields: of the YAML files, the tool's over the arm's.
        urdf: text of the URDF, tool included, meshes by absolute paths.
    """

    name: str
    tool: str
    path: Path
    fields: Mapping[str, Any]
    urdf: str


def shipped_arms() -> list[str]:
    """Names of the arms that ship without a tool."""
    return sorted(path.stem for path in ROBOTS.glob("*.yaml") if "flange" in _read_yaml(path))


def shipped_robots() -> list[str]:
    """Names of what ships as arm and tool in one, such as so101."""
    return sorted(path.stem for path in ROBOTS.glob("*.yaml") if "flange" not in _read_yaml(path))


def shipped_tools() -> list[str]:
    """Names of the tools that ship; every one fits every arm."""
    return sorted(path.stem for path in TOOLS.glob("*.yaml"))


def read_description(name_or_path: str | Path) -> Description:
    """Read a robot: `ARM_TOOL` or `ROBOT` by the names of what ships, or the path of a YAML file.

    A file may name a `tool` (one that ships, or the path of its YAML file, relative to the robot's) together
    with the link `flange` to which it is fixed; its `urdf` holds the whole robot otherwise.

    Raises:
        BadInput: a file is missing or cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        fields = _read_yaml(path)
        tool = str(fields.get("tool", ""))
    elif name_or_path in shipped_robots():
        path, tool = ROBOTS / f"{name_or_path}.yaml", ""
        fields = _read_yaml(path)
    else:
        arm, tool = split_name(str(name_or_path))
        path = ROBOTS / f"{arm}.yaml"
        fields = _read_yaml(path)
    robot = _read_urdf(path, fields)
    if not tool:
        return Description(path.stem, "", path, fields, _text(robot))
    tool_path = TOOLS / f"{tool}.yaml" if "." not in tool else path.parent / tool
    tool_fields = _read_yaml(tool_path)
    flange = str(fields.get("flange", ""))
    if flange not in {link.get("name") for link in robot.iter("link")}:
        raise BadInput(f"{path}: the URDF has no link {flange!r} to fix a tool to; correct `flange`")
    _fix(robot, flange, _read_urdf(tool_path, tool_fields), tool_path)
    name = f"{path.stem}_{tool_path.stem}"
    return Description(name, tool_path.stem, path, {**fields, **tool_fields}, _text(robot))


def split_name(name: str) -> tuple[str, str]:
    """Arm and tool of a shipped robot: `panda_suction` is panda and suction.

    Raises:
        BadInput: no such arm or tool ships.
    """
    for arm in shipped_arms():
        for tool in shipped_tools():
            if name == f"{arm}_{tool}":
                return arm, tool
    raise BadInput(
        f"no robot {name!r}; join one of {shipped_arms()} and one of {shipped_tools()} by an underscore, such as "
        f"panda_suction, name one of {shipped_robots()}, or give the path of a YAML file"
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"no robot description at {path}; there are {shipped_arms()} and the tools {shipped_tools()}")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"robot description {path} is no YAML ({error}); correct it") from error
    if not isinstance(fields, dict) or "urdf" not in fields:
        raise BadInput(f"robot description {path} has a missing or wrong field ('urdf'); compare {ROBOTS}/panda.yaml")
    return fields


def _read_urdf(description: Path, fields: Mapping[str, Any]) -> ElementTree.Element:
    path = description.parent / str(fields["urdf"])
    if not path.is_file():
        raise BadInput(f"robot description {description} names the URDF {path}, which is not there; correct `urdf`")
    try:
        robot = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise BadInput(f"{path} is no XML ({error}); correct the URDF") from error
    for mesh in robot.iter("mesh"):
        filename = str(mesh.get("filename"))
        if "://" not in filename:
            mesh.set("filename", str((path.parent / filename).resolve()))
    return robot


def _fix(robot: ElementTree.Element, flange: str, tool: ElementTree.Element, tool_path: Path) -> None:
    """Add the parts of a tool to a robot, its root link fixed to the flange without an offset."""
    children = {child.get("link") for child in tool.iter("child")}
    roots = [str(link.get("name")) for link in tool.iter("link") if link.get("name") not in children]
    if len(roots) != 1:
        raise BadInput(f"{tool_path}: the tool's URDF has the root links {roots}; a tool has exactly one")
    known = {(part.tag, part.get("name")) for part in robot}
    joint = ElementTree.Element("joint", name=f"{roots[0]}_joint", type="fixed")
    ElementTree.SubElement(joint, "parent", link=flange)
    ElementTree.SubElement(joint, "child", link=roots[0])
    for part in [*tool, joint]:
        twin = (part.tag, part.get("name")) in known
        if twin and part.tag != "material":
            raise BadInput(f"{tool_path}: {part.tag} {part.get('name')!r} is in the arm's URDF too; rename it")
        if not twin:
            robot.append(part)


def _text(robot: ElementTree.Element) -> str:
    return ElementTree.tostring(robot, encoding="unicode")

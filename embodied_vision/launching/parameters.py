"""Parameter files, read as ROS reads them, and checked against what the nodes declare: every fault with its place.

Needs no ROS: what the nodes declare stands in `parameters.json`, made by `python -m embodied_vision.nodes.describe`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from embodied_vision.errors import BadInput

DECLARED = Path(__file__).with_name("parameters.json")
_KEY = "ros__parameters"
_EVERYWHERE = ("use_sim_time", "start_type_description_service")
_WORDS = {
    "bool": "true or false",
    "integer": "a whole number",
    "double": "a number with a decimal point",
    "string": "a string",
    "string_array": "a list of strings",
    "integer_array": "a list of whole numbers",
    "double_array": "a list of numbers with a decimal point",
    "bool_array": "a list of true and false",
}


@dataclass(frozen=True)
class Declared:
    """A parameter as a node declares it.

    Attributes:
        name: of the parameter.
        type: a key of `rcl_interfaces/ParameterType` in small letters, such as `double` or `string_array`.
        default: its value where nobody gives one.
        description: what it is for, and its unit.
        bounds: least and greatest value; None where there are none.
        choices: what it may be; empty where it may be anything.
        read_only: whether it can be given at the start alone.
    """

    name: str
    type: str
    default: Any
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False

    def fault(self, value: object) -> str | None:
        """What is wrong with a value, in words; None for a good one."""
        if _type_of(value) != self.type and not (value == [] and self.type.endswith("_array")):
            hint = f"; write {float(value)}" if self.type == "double" and _type_of(value) == "integer" else ""  # type: ignore[arg-type]
            return f"must be {_WORDS[self.type]}, not {json.dumps(value, default=str)}{hint}"
        if self.bounds is not None and not self.bounds[0] <= value <= self.bounds[1]:  # type: ignore[operator]
            return f"must lie between {self.bounds[0]:g} and {self.bounds[1]:g}, not {value}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, not {value}"
        return None


@dataclass(frozen=True)
class Setting:
    """One value in a parameter file.

    Attributes:
        file, line: where it stands.
        section: key of its section, such as `/**/arm`, with a slash at its beginning.
        name: of the parameter, dots between the levels.
        value: as YAML gives it.
    """

    file: Path
    line: int
    section: str
    name: str
    value: Any

    @property
    def place(self) -> str:
        """File, line and key, for messages."""
        return f"{self.file}:{self.line}: {self.section}: {self.name}"

    def holds_for(self, node: str) -> bool:
        """Whether ROS gives it to the node of this fully qualified name."""
        return _pattern(self.section).fullmatch(node) is not None

    @property
    def names_a_node(self) -> bool:
        """Whether its section ends in a node's name, not in a wildcard."""
        return "*" not in self.section.rsplit("/", 1)[1]


@cache
def declared() -> Mapping[str, Mapping[str, Declared]]:
    """Node → parameter → what it declares."""
    content = json.loads(DECLARED.read_text(encoding="utf-8"))
    return {
        node: {
            name: Declared(name, **{key: _frozen(value, key) for key, value in rest.items()})
            for name, rest in parameters.items()
        }
        for node, parameters in content.items()
    }


def _frozen(value: Any, key: str) -> Any:
    return tuple(value) if key in ("bounds", "choices") else value


def read_params_file(path: Path) -> list[Setting]:
    """All values of a parameter file.

    Raises:
        BadInput: it is no ROS parameter YAML; the message names the line.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        raise BadInput(f"{where}: {error.problem}; correct the YAML") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(
            f"parameter file {path} cannot be read ({error}); give the path of a ROS parameter YAML"
        ) from error
    return [] if root is None else list(_sections(path, "", root))


def _sections(path: Path, prefix: str, node: yaml.Node) -> Iterator[Setting]:
    for key, value in _entries(path, node, prefix or "the file"):
        if key.value == _KEY:
            if not prefix:
                raise BadInput(f"{path}:{key.start_mark.line + 1}: {_KEY} must stand below a node, such as /**/arm:")
            yield from _settings(path, prefix, "", value)
        else:
            name = key.value.strip("/")
            yield from _sections(path, f"{prefix}/{name}", value)


def _entries(path: Path, node: yaml.Node, where: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise BadInput(
            f"{path}:{node.start_mark.line + 1}: {where} holds no keys; the form is NODE: {{{_KEY}: {{NAME: VALUE}}}}"
        )
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise BadInput(f"{path}:{line}: a key must be a name")
        if key.value in seen:
            raise BadInput(f"{path}:{line}: {key.value} stands twice, first in line {seen[key.value]}; keep one")
        seen[key.value] = line
        yield key, value


def _settings(path: Path, section: str, prefix: str, node: yaml.Node) -> Iterator[Setting]:
    for key, value in _entries(path, node, f"{section}: {prefix or _KEY}"):
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _settings(path, section, f"{name}.", value)
        else:
            loader = yaml.SafeLoader("")
            yield Setting(path, key.start_mark.line + 1, section, name, loader.construct_object(value, deep=True))


@cache
def _pattern(section: str) -> re.Pattern[str]:
    """The node names that a section matches: `*` is one part, `**` any number of them."""
    parts = "".join(
        "(/[^/]+)*" if part == "**" else "/[^/]+" if part == "*" else "/" + re.escape(part)
        for part in section.strip("/").split("/")
    )
    return re.compile(parts)


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list) and value and len({_type_of(entry) for entry in value}) == 1:
        return f"{_type_of(value[0])}_array"
    return "list" if isinstance(value, list) else "nothing" if value is None else type(value).__name__


def nearest(name: str, names: Iterable[str]) -> str:
    """`, did you mean X` for the nearest of the names, or what there is."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def faults(settings: Iterable[Setting], nodes: Sequence[str]) -> list[str]:
    """What is wrong with values for these nodes (names without namespace); each with its place.

    Sections of nodes of this package that are not started are checked as well, in any namespace; sections whose nodes
    the package does not know are faults unless one of `nodes` is meant.
    """
    found: list[str] = []
    for setting in settings:
        if setting.names_a_node:
            node = setting.section.rsplit("/", 1)[1]
            if node in declared():
                found += _faults_of(setting, [node])
            elif node not in nodes:
                found.append(f"{setting.place}: there is no node {node!r}; {nearest(node, {*declared(), *nodes})}")
        else:
            found += _faults_of(setting, [name for name in declared() if name in nodes] or list(declared()))
    return found


def _faults_of(setting: Setting, nodes: Sequence[str]) -> Iterator[str]:
    """Faults of a value that goes to these nodes: at least one of them must know it."""
    if setting.name in _EVERYWHERE or setting.name.startswith("qos_overrides."):
        return
    known = [declared()[node][setting.name] for node in nodes if setting.name in declared()[node]]
    if not known:
        everywhere = {name: None for node in nodes for name in declared()[node]}
        who = f"node {nodes[0]!r}" if len(nodes) == 1 else "no node"
        what = "has no such parameter" if len(nodes) == 1 else "has such a parameter"
        yield f"{setting.place}: {who} {what}; {nearest(setting.name, everywhere)}"
    for parameter in known:
        fault = parameter.fault(setting.value)
        if fault is not None:
            yield f"{setting.place} {fault}"
            return


def check_files(files: Iterable[Path], nodes: Sequence[str]) -> None:
    """Read parameter files for these nodes.

    Raises:
        BadInput: a file cannot be read, or holds a wrong name or value; the message lists every one with its place.
    """
    wrong = [fault for file in files for fault in faults(read_params_file(file), nodes)]
    if wrong:
        raise BadInput("\n".join(wrong))

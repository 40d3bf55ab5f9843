"""Frozen dataclasses as commented YAML and back.

Names, defaults, types and documentation of the settings stand in the dataclasses alone: a field's comment is what the
`Attributes:` of its class say, and a section is a field that is a dataclass itself.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from embodied_vision.errors import BadInput

Config = TypeVar("Config")
WIDTH = 100
_FIELD = re.compile(r" {4}(?P<names>\w+(?:, \w+)*): (?P<text>.+)")


def documentation(kind: type) -> dict[str, str]:
    """What the `Attributes:` of a dataclass's docstring say about each of its fields."""
    text = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        match = _FIELD.fullmatch(line)
        if match:
            names = match["names"].split(", ")
            found |= dict.fromkeys(names, match["text"])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def to_yaml(config: Any, *, without: frozenset[str] = frozenset()) -> str:
    """All settings with their documentation as comments.

    Args:
        config: a dataclass whose fields are numbers, strings, tuples or dataclasses.
        without: fields to leave out, such as `network.features`.
    """
    return "\n".join(_lines(config, "", without)) + "\n"


def read_yaml(kind: type[Config], path: Path, *, without: frozenset[str] = frozenset()) -> Config:
    """Settings from a file; what it leaves out has its default.

    Raises:
        BadInput: the file cannot be read, has an unknown key or a value that cannot be used; says which.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise BadInput(f"{path} is not valid YAML ({problem}); correct it") from error
    return overridden(kind(), content if content is not None else {}, str(path), without=without)


def overridden(config: Config, given: Any, source: str, *, without: frozenset[str] = frozenset()) -> Config:
    """The settings with those of a nested mapping instead, once checked.

    Args:
        config: a dataclass.
        given: names to values, as YAML reads them.
        source: where they come from, for errors.
        without: fields that may not be given.

    Raises:
        BadInput: an unknown key, or a value that cannot be used.
    """
    return _overridden(config, given, source, "", without)


def assigned(config: Config, assignment: str, *, without: frozenset[str] = frozenset()) -> Config:
    """The settings with one of them given as SECTION.NAME=VALUE, the value as YAML writes it.

    Raises:
        BadInput: it has another form, an unknown key, or a value that cannot be used.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"{assignment!r} assigns nothing; write SECTION.NAME=VALUE, such as train.steps=300")
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"value of {assignment!r} is not valid YAML; write it as in a configuration file") from error
    for name in reversed(key.strip().split(".")):
        given = {name: given}
    return overridden(config, given, repr(assignment), without=without)


def _lines(config: Any, path: str, without: frozenset[str]) -> list[str]:
    indent = "  " * path.count(".")
    comments, lines = documentation(type(config)), []
    for field in fields(config):
        value, here = getattr(config, field.name), path + field.name
        if here in without:
            continue
        wrapped = textwrap.wrap(_capitalised(comments.get(field.name, "")), WIDTH)
        lines += [f"{indent}# {line}" for line in wrapped]
        if is_dataclass(value):
            lines += [f"{indent}{field.name}:", *_lines(value, here + ".", without), ""]
        else:
            plain, flow = (list(value), None) if isinstance(value, tuple) else (value, False)
            lines.append(indent + yaml.safe_dump({field.name: plain}, default_flow_style=flow, width=1000).strip())
    return lines[:-1] if lines and not lines[-1] else lines


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _overridden(config: Config, given: Any, source: str, path: str, without: frozenset[str]) -> Config:
    kind: Any = type(config)
    known = [field.name for field in fields(kind) if path + field.name not in without]
    if not isinstance(given, Mapping):
        raise BadInput(f"{_of(path)} in {source} is {given!r}; give names and values, such as {known[0]}: …")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise BadInput(f"unknown key {path}{name} in {source}; {_likely(str(name), path, known)}")
        default = getattr(config, name)
        if is_dataclass(default):
            values[name] = _overridden(default, value, source, f"{path}{name}.", without)
        else:
            values[name] = _typed(value, hints[name], default, f"{path}{name} is {value!r} in {source}")
    try:
        changed: Config = replace(config, **values)  # type: ignore[type-var]
    except BadInput as error:
        raise BadInput(f"{_of(path)} in {source}: {error}") from error
    return changed


def _of(path: str) -> str:
    return path.removesuffix(".") or "the configuration"


def _likely(name: str, path: str, known: list[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"did you mean {path}{close[0]}?" if close else f"known are {', '.join(path + each for each in known)}"


def _typed(value: Any, hint: Any, default: Any, problem: str) -> Any:
    """The value as the field's type, where that loses nothing."""
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise BadInput(f"{problem}; give a list, such as {list(default)}")
        return tuple(_typed(each, inner, default[0] if default else inner(), problem) for each in value)
    if get_origin(hint) in (Union, UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 2e-3 as a string
        except ValueError:
            pass
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    raise BadInput(f"{problem}; give {names[hint]}, such as {default}")

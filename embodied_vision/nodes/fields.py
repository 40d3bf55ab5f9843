"""Messages of any type to rows of numbers, by the paths of their fields."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

_NUMBER = re.compile(r"(double|float|float32|float64|boolean|octet|u?int(8|16|32|64))")
_LIST = re.compile(rf"sequence<{_NUMBER.pattern}(, \d+)?>|{_NUMBER.pattern}\[\d+\]")
_MESSAGE = re.compile(r"[a-z][a-z0-9_]*/[A-Z][A-Za-z0-9]*")


def message_class(name: str, where: str) -> Any:
    """The class of `PACKAGE/msg/TYPE`.

    Raises:
        BadInput: it is not installed.
    """
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"{where}: {name} is not installed ({error}); install its package or use another type"
        ) from error


class FieldReader:
    """Reads the same fields of every message of a type.

    Args:
        kind: class of the messages.
        paths: of numbers, lists of numbers, or messages, which stand for all their fields in order.
        where: names the place of the contract in errors.

    Raises:
        BadInput: a path that the type does not have, or that holds no numbers.
    """

    def __init__(self, kind: Any, paths: Sequence[str], where: str) -> None:
        self._parts: list[tuple[Callable[[Any], Any], bool]] = []
        for number, path in enumerate(paths):
            owner = kind
            *outer, last = path.split(".")
            for name in outer:
                owner = _class_of(_type_of(owner, name, path, f"{where}.fields[{number}]"), path, where)
            self._add(_type_of(owner, last, path, f"{where}.fields[{number}]"), path, f"{where}.fields[{number}]")

    def read(self, message: Any) -> NDArray[np.float64]:
        """The numbers of one message (D,), in the order of the paths."""
        row: list[float] = []
        for get, is_list in self._parts:
            if is_list:
                row.extend(get(message))
            else:
                row.append(get(message))
        return np.array(row, float)

    def _add(self, kind: str, path: str, where: str) -> None:
        if _NUMBER.fullmatch(kind):
            self._parts.append((attrgetter(path), False))
        elif _LIST.fullmatch(kind):
            self._parts.append((attrgetter(path), True))
        else:
            for name, inner in _class_of(kind, path, where).get_fields_and_field_types().items():
                self._add(inner, f"{path}.{name}", where)


def _type_of(owner: Any, name: str, path: str, where: str) -> str:
    fields = owner.get_fields_and_field_types()
    if name not in fields:
        raise BadInput(f"{where}: {path!r} does not exist; {owner.__name__} has {', '.join(fields)}")
    return str(fields[name])


def _class_of(kind: str, path: str, where: str) -> Any:
    if not _MESSAGE.fullmatch(kind):
        raise BadInput(f"{where}: {path!r} holds {kind}, which is no number; give the paths of numbers")
    package, name = kind.split("/")
    return message_class(f"{package}/msg/{name}", where)

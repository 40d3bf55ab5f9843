"""JSON that somebody else may have written: plain, shallow and of the types that are expected, or a ValueError."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Levels of lists and mappings; what the store writes has a handful plus those of the user's attributes."""
_MOST_CONTAINERS = 500_000
_MOST_VALUES = 2_000_000
_INT64 = range(-(2**63), 2**63)


def parse(data: bytes, *, non_finite: bool = False, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON strictly: UTF-8, no key twice, no lone surrogates, few levels.

    Args:
        data: the text.
        non_finite: let NaN and Infinity through, as numbers.
        max_depth: levels of lists and mappings.

    Raises:
        ValueError: it is not.
    """
    check_amount(data)
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_mapping,
            parse_constant=None if non_finite else _refuse_constant,
            parse_float=float if non_finite else _finite,
        )
    except RecursionError as error:
        raise ValueError(f"more than {max_depth} levels of lists and mappings") from error
    if data.count(b"[") + data.count(b"{") > max_depth:
        _check_depth(value, max_depth)
    if b"\\u" in data:
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value


def check_amount(data: bytes) -> None:
    """Raises ValueError where JSON would take much more memory than it has bytes."""
    containers, commas = data.count(b"[") + data.count(b"{"), data.count(b",")
    if containers > _MOST_CONTAINERS or commas > _MOST_VALUES:
        raise ValueError(
            f"{containers} lists and mappings, {commas} values; at most {_MOST_CONTAINERS} and {_MOST_VALUES} are read"
        )


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """`value`, which must be a mapping."""
    return value if isinstance(value, dict) else _refuse(what, value, "a mapping")


def items(value: Any, what: str) -> list[Any]:
    """`value`, which must be a list."""
    return value if isinstance(value, list) else _refuse(what, value, "a list")


def text(value: Any, what: str) -> str:
    """`value`, which must be a text."""
    return value if isinstance(value, str) else _refuse(what, value, "a text")


def integer(value: Any, what: str, low: int = _INT64.start, high: int = _INT64.stop - 1) -> int:
    """`value`, which must be a whole number from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        _refuse(what, value, f"a whole number from {low} to {high}")
    return value


def number(value: Any, what: str) -> float:
    """`value`, which must be a number that a float64 holds."""
    if type(value) not in (int, float):
        _refuse(what, value, "a number")
    try:
        return float(value)
    except OverflowError:
        _refuse(what, value, "a number that a float64 holds")


def _check_depth(value: Any, max_depth: int) -> None:
    level: list[Any] = [value]
    for _ in range(max_depth):
        level = [item for part in level for item in _items(part) if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"more than {max_depth} levels of lists and mappings")


def _items(part: Any) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r:.80} stands there twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.40} is no number that a float64 holds")
    return value


def _refuse(what: str, value: Any, wanted: str) -> NoReturn:
    raise ValueError(f"{what} is {shortened(value)}, not {wanted}")


def shortened(value: Any) -> str:
    """A value in a message: its type, and its text where that is short."""
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, bool | float | None) or (isinstance(value, int) and abs(value) < 10**20):
        return repr(value)
    return f"a {type(value).__name__}"

"""Thrift's compact protocol, as far as Parquet's footer and page headers need it, for data that may be hostile.

Only the fields that are asked for are kept. https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Wanted = Mapping[int, Any]
"""Numbers of the fields to keep, each with the fields to keep of the struct, or list of structs, that it holds."""

_DEPTH = 16
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)


def read_struct(data: bytes, at: int, wanted: Wanted, depth: int = _DEPTH) -> tuple[dict[int, Any], int]:
    """Fields of the struct that begins at byte `at`, by number, and the byte after it.

    Raises:
        ValueError, IndexError: it is damaged or cut short.
    """
    if depth == 0:
        raise ValueError("nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head = data[at]
        at += 1
        if head == 0:
            return fields, at
        delta, kind = head >> 4, head & 15
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        if kind in (_TRUE, _FALSE):  # within a struct the kind is the value
            fields.update({number: kind == _TRUE} if number in wanted else {})
            continue
        value, at = _value(data, at, kind, wanted.get(number, {}), depth)
        if number in wanted:
            fields[number] = value


def _value(data: bytes, at: int, kind: int, wanted: Wanted, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _zigzag(data, at)
    if kind in (_BYTE, _TRUE, _FALSE):
        return data[at], at + 1
    if kind == _STRUCT:
        return read_struct(data, at, wanted, depth - 1)
    if kind in (_LIST, _SET):
        return _list(data, at, wanted, depth)
    if kind == _MAP:
        return None, _skip_map(data, at, depth)
    length, at = (8, at) if kind == _DOUBLE else _varint(data, at)
    if kind not in (_DOUBLE, _BINARY) or at + length > len(data):
        raise ValueError(f"value of kind {kind} at byte {at} is unknown or runs over the end")
    return data[at : at + length], at + length


def _list(data: bytes, at: int, wanted: Wanted, depth: int) -> tuple[list[Any], int]:
    head = data[at]
    at += 1
    count, kind = head >> 4, head & 15
    if count == 15:
        count, at = _varint(data, at)
    found = []
    for _ in range(count):  # each takes a byte at least, so a giant count ends at the end of the data
        value, at = _value(data, at, kind, wanted, depth - 1)
        if wanted or kind == _BINARY:
            found.append(value)
    return found, at


def _skip_map(data: bytes, at: int, depth: int) -> int:
    count, at = _varint(data, at)
    kinds = data[at] if count else 0
    at += count > 0
    for _ in range(count):
        for kind in (kinds >> 4, kinds & 15):
            _, at = _value(data, at, kind, {}, depth - 1)
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("number too long")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at

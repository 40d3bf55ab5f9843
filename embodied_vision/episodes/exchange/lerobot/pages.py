"""What the pages of a Parquet file say of their size, before pyarrow makes room for them.

A page's header stands before its data, as a Thrift struct in the compact protocol; its claims are not bound by those of
the file's footer. https://parquet.apache.org/docs/file-format/data-pages/
"""

from __future__ import annotations

from typing import Any, BinaryIO

from embodied_vision.errors import BadInput

SMALL = 64 * 1024 * 1024
RATIO = 32
"""A page may say to become so many times larger than it lies on file, or `SMALL` bytes. Images shrink no further."""

_HEADER = 64 * 1024
_DEPTH = 8
_DICTIONARY, _DATA, _DATA_2 = 2, 0, 3


def check_pages(file: BinaryIO, begin: int, length: int, values: int, where: str) -> None:
    """Walk the pages of a column chunk.

    Args:
        file: open for reading, with seek.
        begin, length: bytes of the chunk, by the footer.
        values: values of the chunk, by the footer.
        where: name, for errors.

    Raises:
        BadInput: a page claims to hold more than it can, or the pages are not what the footer says.
    """
    position, end, found = begin, begin + length, 0
    while position < end:
        file.seek(position)
        data = file.read(min(_HEADER, end - position))
        try:
            header, size = _struct(data, 0, _DEPTH)
            kind, unpacked, packed = int(header[1]), int(header[2]), int(header[3])
            if kind in (_DATA, _DATA_2):
                found += int(header[5 if kind == _DATA else 8][1])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{where} has a damaged page at byte {position}; copy it anew") from error
        if packed < 0 or not 0 <= unpacked <= max(SMALL, RATIO * packed):
            raise BadInput(f"{where} has a page of {packed} bytes that claims to become {unpacked}; it is refused")
        position += size + packed
    if position != end or found != values:
        raise BadInput(
            f"{where} holds {found} values up to byte {position}, its footer says {values} up to {end}; copy it anew"
        )


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Fields of a Thrift struct by number, and where it ends."""
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
        fields[number], at = _value(data, at, kind, depth)


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _zigzag(data, at)
    if kind == 7:
        return data[at : at + 8], at + 8
    if kind == 8:
        length, at = _varint(data, at)
        if at + length > len(data):
            raise ValueError("text runs over the end")
        return data[at : at + length], at + length
    if kind == 12:
        return _struct(data, at, depth - 1)
    raise ValueError(f"type {kind} in a page header")


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

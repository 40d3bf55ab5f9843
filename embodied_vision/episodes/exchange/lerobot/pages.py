"""What a Parquet file says of its sizes, before pyarrow makes room for them.

The footer is read here as well: pyarrow ends the process at some damaged ones when it is asked for their columns. A
page's header stands before its data; its claims are not bound by those of the footer.
https://parquet.apache.org/docs/file-format/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from embodied_vision.episodes.exchange.lerobot.thrift import Wanted, read_struct
from embodied_vision.errors import BadInput

SMALL = 64 * 1024 * 1024
RATIO = 32
"""A page may say to become so many times larger than it lies on file, or `SMALL` bytes. Images shrink no further."""

_FOOTER = 64 * 1024 * 1024
_HEADER = 64 * 1024
_MAGIC = b"PAR1"
_DATA, _DATA_2 = 0, 3

_CHUNK: Wanted = {3: {}, 5: {}, 7: {}, 9: {}, 11: {}}
_GROUPS: Wanted = {4: {1: {1: {}, 3: _CHUNK}, 3: {}}}
_PAGE: Wanted = {1: {}, 2: {}, 3: {}, 5: {1: {}}, 8: {1: {}}}


@dataclass(frozen=True)
class Chunk:
    """The values of one column in one row group.

    Attributes:
        begin, length: its bytes.
        values: how many there are.
    """

    begin: int
    length: int
    values: int


@dataclass(frozen=True)
class Group:
    """A row group: how many rows, and its columns by path, the parts of which are joined by dots."""

    rows: int
    chunks: Mapping[str, Chunk]


def read_groups(file: BinaryIO, where: str) -> list[Group]:
    """The row groups by the file's footer.

    Raises:
        BadInput: it is no Parquet file, its footer is damaged, or it names other files.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if len(tail) < 8 or tail[4:] != _MAGIC or length > size - 8:
        raise BadInput(f"{where} is damaged (it does not end as a Parquet file); copy it anew")
    if length > _FOOTER:
        raise BadInput(f"{where} has a footer of {length} bytes; at most {_FOOTER} are read")
    file.seek(size - 8 - length)
    data = file.read(length)
    try:
        footer, _ = read_struct(data, 0, _GROUPS)
        groups = [_group(entry, size, where) for entry in footer.get(4, [])]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{where} is damaged (its footer: {error!r}); copy it anew") from error
    return groups


def _group(entry: dict[int, Any], size: int, where: str) -> Group:
    chunks = {}
    for column in entry[1]:
        if 1 in column:
            raise BadInput(f"{where} has columns in other files, which are not opened; write it anew")
        about = column[3]
        path = ".".join(part.decode() for part in about[3])
        chunk = Chunk(min(int(about[9]), int(about.get(11) or about[9])), int(about[7]), int(about[5]))
        if min(chunk.begin, chunk.length, chunk.values) < 0 or chunk.begin + chunk.length > size:
            raise BadInput(f"{where} is damaged (column {path!r} lies outside of it); copy it anew")
        chunks[path] = chunk
    rows = int(entry[3])
    if rows < 0:
        raise BadInput(f"{where} is damaged (it says to have {rows} rows); copy it anew")
    return Group(rows, chunks)


def check_pages(file: BinaryIO, chunk: Chunk, where: str) -> None:
    """Walk the pages of a column chunk.

    Raises:
        BadInput: a page claims to hold more than it can, or the pages are not what the footer says.
    """
    position, end, found = chunk.begin, chunk.begin + chunk.length, 0
    while position < end:
        file.seek(position)
        data = file.read(min(_HEADER, end - position))
        try:
            header, size = read_struct(data, 0, _PAGE)
            kind, unpacked, packed = int(header[1]), int(header[2]), int(header[3])
            if kind in (_DATA, _DATA_2):
                found += int(header[5 if kind == _DATA else 8][1])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{where} has a damaged page at byte {position}; copy it anew") from error
        if packed < 0 or not 0 <= unpacked <= max(SMALL, RATIO * packed):
            raise BadInput(f"{where} has a page of {packed} bytes that claims to become {unpacked}; it is refused")
        position += size + packed
    if position != end or found != chunk.values:
        raise BadInput(
            f"{where} holds {found} values up to byte {position}, its footer says {chunk.values} up to {end}; "
            "copy it anew"
        )

"""Access to an HDF5 file that somebody else made: nothing outside of it is opened, and no claim of size is believed.

Links to names and other files are refused, as are datasets that lie in other files or are composed of others. A dataset
is read when every byte that it claims to have is stored; what is compressed is unpacked up to its claim, no further,
before the library does.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import BadInput

LARGEST_CHUNK = 64 * 1024 * 1024
LARGEST_TEXT = 16 * 1024 * 1024
_CACHE = 64 * 1024 * 1024
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_KINDS = "uifb"


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; whatever the library finds wrong with it is the file's fault.

    Raises:
        BadInput: it is missing or no HDF5 file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput(f"{path} is no file; give an HDF5 file in robomimic's layout")
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE)
    except OSError as error:
        raise BadInput(f"{path} cannot be read as HDF5 ({_brief(error)}); copy it anew") from error
    with file:
        yield file


@contextmanager
def told(where: str) -> Iterator[None]:
    """Errors of the library as a `BadInput` that names the place."""
    try:
        yield
    except BadInput:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise BadInput(f"{where} is damaged ({_brief(error)}); copy the file anew") from error


def names(group: h5py.Group) -> list[str]:
    """Names in a group, links of any kind among them.

    Raises:
        BadInput: it is damaged.
    """
    with told(place(group)):
        found = list(group)
    unfit = [name for name in found if not isinstance(name, str)]  # bytes, where they are no UTF-8
    if unfit:
        raise BadInput(f"{place(group)} holds the name {unfit[0]!r}, which is no text; repack the file")
    return found


def has(group: h5py.Group, name: str) -> bool:
    """Whether there is anything of that name. Follows no link.

    Raises:
        BadInput: the group is damaged.
    """
    with told(place(group)):
        return bool(group.id.links.exists(name.encode()))


def child(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """What has that name in a group.

    Raises:
        BadInput: there is nothing, or a link.
    """
    where = f"{place(group)}/{name}"
    if not has(group, name):
        raise BadInput(f"{where} is missing; the file is not in robomimic's layout, or cut short")
    with told(where):
        if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise BadInput(f"{where} is a link, which is not followed; repack the file with what it leads to")
        return group[name]


def group_in(group: h5py.Group, name: str) -> h5py.Group:
    """The group of that name in a group.

    Raises:
        BadInput: there is none.
    """
    found = child(group, name)
    if not isinstance(found, h5py.Group):
        raise BadInput(f"{place(group)}/{name} is no group; the file is not in robomimic's layout")
    return found


def array_in(group: h5py.Group, name: str, ndim: tuple[int, ...] = (1, 2)) -> h5py.Dataset:
    """The dataset of numbers of that name in a group, checked: it may be read row by row.

    Raises:
        BadInput: there is none, or it is not what it claims to be.
    """
    found = child(group, name)
    if not isinstance(found, h5py.Dataset):
        raise BadInput(f"{place(group)}/{name} is no dataset; the file is not in robomimic's layout")
    if not is_numeric(found) or found.ndim not in ndim:
        raise BadInput(f"{place(found)} is {found.dtype} {found.shape}, expected numbers in {ndim} dimensions")
    check(found)
    return found


def is_numeric(dataset: h5py.Dataset) -> bool:
    """Whether it holds numbers of at most 8 bytes; nothing of it is read."""
    with told(place(dataset)):
        dtype = dataset.dtype
        return dtype.kind in _KINDS and dtype.itemsize <= 8 and dataset.shape is not None


def text_in(group: h5py.Group, name: str) -> bytes:
    """Bytes of a text that is kept as uint8 (N,).

    Raises:
        BadInput: there is none, or it is absurdly long.
    """
    found = array_in(group, name, (1,))
    if found.dtype != np.uint8 or found.size > LARGEST_TEXT:
        raise BadInput(f"{place(found)} is {found.dtype} {found.shape}, expected a text in uint8")
    return bytes(values(found))


def values(dataset: h5py.Dataset) -> NDArray[Any]:
    """All of a checked dataset.

    Raises:
        BadInput: it is damaged.
    """
    with told(place(dataset)):
        return np.asarray(dataset[()])


def row(dataset: h5py.Dataset, number: int) -> NDArray[Any]:
    """One row of a checked dataset.

    Raises:
        BadInput: it is damaged.
    """
    with told(place(dataset)):
        return np.asarray(dataset[number])


def attribute(node: h5py.Group, name: str) -> Any:
    """A single number or text among the attributes, None where there is none.

    Raises:
        BadInput: it is something else.
    """
    with told(f"{place(node)}, attribute {name!r}"):
        if name not in node.attrs:
            return None
        about = node.attrs.get_id(name)
        if prod(about.shape or ()) != 1 or about.dtype.itemsize > LARGEST_TEXT:
            raise BadInput(f"{place(node)}: attribute {name!r} is of shape {about.shape}, expected a single value")
        found = np.asarray(node.attrs[name]).reshape(-1)[0]
        return found.decode() if isinstance(found, bytes) else found.item() if isinstance(found, np.generic) else found


def check(dataset: h5py.Dataset) -> None:
    """Raises `BadInput` where a dataset lies elsewhere, or does not store every byte that it claims to have."""
    where = place(dataset)
    with told(where):
        plan = dataset.id.get_create_plist()
        if plan.get_external_count() or plan.get_layout() == h5py.h5d.VIRTUAL:
            raise BadInput(f"{where} lies in other files, which are not opened; repack it")
        filters = {int(plan.get_filter(number)[0]) for number in range(plan.get_nfilters())}
        if not filters <= _FILTERS or plan.get_nfilters() != len(filters):
            raise BadInput(f"{where} is packed by filters {sorted(filters)}; repack it with `h5repack -f GZIP=4`")
        size = prod(dataset.shape) * dataset.dtype.itemsize
        if dataset.chunks is None:
            stored = dataset.id.get_storage_size()
            if stored != size:
                raise BadInput(f"{where} claims to have {size} bytes and stores {stored}; it is refused")
            return
        chunk = prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk > LARGEST_CHUNK:
            raise BadInput(f"{where} has chunks of {chunk} bytes; at most {LARGEST_CHUNK} are read: repack it")
        wanted = prod(ceil(side / part) for side, part in zip(dataset.shape, dataset.chunks, strict=True))
        stored = dataset.id.get_num_chunks()
        if stored != wanted:
            raise BadInput(f"{where} claims to have {wanted} chunks and stores {stored}; it is refused")
        if h5py.h5z.FILTER_DEFLATE in filters:
            _check_packed(dataset, chunk)


def _check_packed(dataset: h5py.Dataset, chunk: int) -> None:
    """The library makes room for whatever a chunk unpacks to: refuse what is more than it claims."""
    offsets: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda info: offsets.append((info.size, *info.chunk_offset)))
    for size, *offset in offsets:
        if size > 2 * chunk + 1024:
            raise BadInput(f"{place(dataset)}: a chunk of {chunk} bytes is stored as {size}; it is refused")
        _, packed = dataset.id.read_direct_chunk(tuple(offset))
        if len(zlib.decompressobj().decompress(packed, chunk + 5)) > chunk + 4:  # 4 of a checksum within
            raise BadInput(f"{place(dataset)}: a chunk unpacks to more than its {chunk} bytes; it is refused")


def place(node: h5py.Group | h5py.Dataset) -> str:
    """File and path of a group or dataset, for errors."""
    return f"{node.file.filename}:{node.name}"


def _brief(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__

"""Files of a dataset that others wrote: only what lies below its folder is opened, and nothing large is believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from embodied_vision.episodes import strict
from embodied_vision.episodes.exchange.lerobot.pages import check_pages, read_groups
from embodied_vision.errors import BadInput

_JSON = 64 * 1024 * 1024
_FOOTER = 256 * 1024 * 1024
_BATCH = 256


class Source:
    """A dataset's folder.

    Raises:
        BadInput: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise BadInput(f"{root} is no folder; give that of a dataset, with meta/info.json in it")

    def path(self, relative: str) -> Path:
        """The regular file at a path below the folder; no part of it may be a link.

        Raises:
            BadInput: there is none, or the path leads elsewhere.
        """
        pure = PurePosixPath(relative)
        if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\0" in relative:
            raise BadInput(f"{relative!r} leads out of {self.root}; nothing outside of a dataset is read")
        path = self.root
        try:
            for part in pure.parts:
                path = path / part
                mode = os.lstat(path).st_mode
                if stat.S_ISLNK(mode):
                    raise BadInput(f"{path} is a link, which is not followed; copy the dataset with `cp -rL`")
        except OSError as error:
            raise BadInput(
                f"{self.root / relative} cannot be read ({error.strerror}); copy the dataset whole"
            ) from error
        if not stat.S_ISREG(mode):
            raise BadInput(f"{path} is no regular file; copy the dataset anew")
        return path

    def has(self, relative: str) -> bool:
        """Whether anything is there."""
        return os.path.lexists(self.root / relative)

    def open(self, relative: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            BadInput: it cannot be.
        """
        path = self.path(relative)
        try:
            return open(path, "rb")
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}); check its permissions") from error

    def json(self, relative: str) -> Any:
        """Content of a JSON file.

        Raises:
            BadInput: it is missing, too large or no JSON.
        """
        with self.open(relative) as file:
            data = file.read(_JSON + 1)
        if len(data) > _JSON:
            raise BadInput(f"{self.root / relative} is larger than {_JSON >> 20} MiB; no dataset's is")
        try:
            return strict.parse(data, non_finite=True)
        except ValueError as error:
            raise BadInput(f"{self.root / relative} is no JSON ({error}); copy it anew") from error

    def files(self, folder: str, ending: str) -> list[str]:
        """Files of that ending in the folders below `folder`, sorted, as paths below the dataset's."""
        found = sorted((self.root / folder).glob(f"*/*{ending}"))
        return [path.relative_to(self.root).as_posix() for path in found]

    def table(self, relative: str, schema: pa.Schema, batch: int = 16) -> Iterator[dict[str, Any]]:
        """Rows of a Parquet file that must have these columns, or more.

        Raises:
            BadInput: it is missing or damaged, or a column is missing, of another type or has empty places.
        """
        with self.parquet(relative) as table:
            table.require(schema)
            for group in range(table.groups):
                for part in table.batches([group], schema.names, batch):
                    yield from part.to_pylist()

    @contextmanager
    def parquet(self, relative: str) -> Iterator[Table]:
        """A Parquet file, open.

        Raises:
            BadInput: it is missing or damaged.
        """
        where = str(self.root / relative)
        with self.open(relative) as file:
            with _told(where):
                opened = pq.ParquetFile(
                    file, thrift_string_size_limit=_FOOTER, thrift_container_size_limit=10_000_000, pre_buffer=False
                )
            yield Table(file, opened, where)


class Table:
    """An open Parquet file, of which columns are read by row group.

    Attributes:
        schema: names and types of its columns.
        lengths: rows of each row group.
        where: its name, for errors.
    """

    def __init__(self, file: BinaryIO, opened: pq.ParquetFile, where: str) -> None:
        self._file, self._opened, self.where = file, opened, where
        with _told(where):
            self.schema: pa.Schema = opened.schema_arrow
        self._groups = read_groups(file, where)
        self.lengths = [group.rows for group in self._groups]
        self.groups = len(self._groups)

    def require(self, wanted: pa.Schema) -> None:
        """Refuse another type, or none, of these columns.

        Raises:
            BadInput: there is one.
        """
        for field in wanted:
            found = self.schema.get_field_index(field.name)
            if found < 0 or self.schema.field(found).type != field.type:
                has = self.schema.field(found).type if found >= 0 else "nothing"
                raise BadInput(f"{self.where}: column {field.name!r} is {has}, expected {field.type}; export it anew")

    def batches(
        self, groups: Sequence[int], names: Sequence[str], batch: int = _BATCH, widest: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Columns of some row groups, `batch` rows at a time, without empty places.

        Args:
            groups: numbers of the row groups.
            names: of the columns.
            batch: rows.
            widest: values that a column has in a row, at the most; None sets no bound.

        Raises:
            BadInput: damaged data.
        """
        with _told(self.where):
            for group in groups:
                self._check(group, names, widest)
            for part in self._opened.iter_batches(batch, row_groups=groups, columns=list(names), use_threads=False):
                for name in names:
                    if part.schema.get_all_field_indices(name) != [part.schema.get_field_index(name)]:
                        raise BadInput(f"{self.where} has the column {name!r} twice or not at all; copy it anew")
                    if part.column(name).null_count:
                        raise BadInput(f"{self.where}: column {name!r} has empty places; fill them")
                yield part

    def _check(self, group: int, names: Sequence[str], widest: int | None) -> None:
        rows = self._groups[group].rows
        for path, chunk in self._groups[group].chunks.items():
            if not any(path == name or path.startswith(f"{name}.") for name in names):
                continue
            where = f"{self.where}, column {path!r}"
            if widest is not None and chunk.values > widest * max(1, rows):
                raise BadInput(f"{where} says to hold {chunk.values} values in {rows} rows; it is refused")
            check_pages(self._file, chunk, where)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Whatever pyarrow finds wrong with a file is the file's fault."""
    try:
        yield
    except BadInput:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise BadInput(f"{where} is damaged ({str(error)[:200] or 'out of memory'}); copy it anew") from error

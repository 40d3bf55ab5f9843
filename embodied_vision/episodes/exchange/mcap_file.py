"""Reading an MCAP file that nobody vouches for.

The package `mcap` reads the records; what it would allocate or decompress on the file's word alone is checked here
first. The file is read through once when opened, with all its checksums, so that a damaged one is refused before
anything of it is used, and in the order of recording: no index is trusted.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, McapRecord, Metadata, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import CRCValidationError, StreamReader

from embodied_vision.episodes.exchange.cdr import Message, Topic
from embodied_vision.episodes.exchange.recording import LARGEST, add_topic, decompress, regular_file
from embodied_vision.errors import BadInput

SUFFIX = ".mcap"
ABOUT = "embodied_vision.episode"
"""Name of the metadata record that an export of this package holds."""

_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_LARGEST_NS = 2**63


class McapFile:
    """A `Recording` in one MCAP file.

    Args:
        path: of the file.
        folder: that it must lie in, where it is part of a bag.

    Raises:
        BadInput: no MCAP file, damaged, or without messages in CDR.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path = path
        self._file = regular_file(path, folder)
        self.topics: dict[str, Topic] = {}
        self.about: dict[str, str] = {}
        for _ in self._records():
            pass

    def messages(self) -> Iterator[Message]:
        """All messages, in the order of recording."""
        return self._records()

    def _records(self) -> Iterator[Message]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, Topic] = {}
        with self._damage(), open(self._file, "rb") as file:
            stream: IO[bytes] = _Bounded(file, self._file.stat().st_size)  # type: ignore[assignment]
            reader = StreamReader(stream, emit_chunks=True, validate_crcs=True, record_size_limit=LARGEST)
            for record in reader.records:
                if isinstance(record, Metadata) and record.name == ABOUT:
                    self.about = record.metadata
                for inner in self._unpack(record):
                    if isinstance(inner, Schema):
                        schemas[inner.id] = inner
                    elif isinstance(inner, Channel):
                        channels[inner.id] = self._topic(inner, schemas)
                        add_topic(self.topics, channels[inner.id], self.path)
                    elif isinstance(inner, McapMessage):
                        if inner.channel_id not in channels:
                            raise BadInput(
                                f"{self.path}: a message of channel {inner.channel_id}, which is not declared"
                            )
                        if inner.log_time >= _LARGEST_NS:
                            raise BadInput(
                                f"{self.path}: a message was logged at {inner.log_time} ns, which no clock says"
                            )
                        topic = channels[inner.channel_id]
                        yield Message(topic.name, topic.type, inner.log_time, inner.data)

    def _topic(self, channel: Channel, schemas: dict[int, Schema]) -> Topic:
        schema = schemas.get(channel.schema_id)
        if schema is None or channel.message_encoding != "cdr":
            return Topic(channel.topic, f"({channel.message_encoding or 'no encoding'})")
        text = schema.data.decode() if schema.encoding == "ros2msg" else ""
        return Topic(channel.topic, schema.name, text)

    def _unpack(self, record: McapRecord) -> Iterator[McapRecord]:
        """The records in a chunk, or the record itself."""
        if not isinstance(record, Chunk):
            yield record
            return
        where = f"{self.path}: a chunk"
        data = decompress(record.data, record.compression, record.uncompressed_size, where)
        if record.uncompressed_crc and zlib.crc32(data) != record.uncompressed_crc:
            raise CRCValidationError(record.uncompressed_crc, zlib.crc32(data), record)
        view, position = memoryview(data), 0
        while position < len(data):
            opcode, length = _RECORD.unpack_from(data, position)
            start = position + _RECORD.size
            position = start + length
            if position > len(data):
                raise BadInput(f"{where} holds a record of {length} bytes, longer than itself; the file is damaged")
            if opcode == Opcode.MESSAGE:
                channel, sequence, log_ns, publish_ns = _MESSAGE.unpack_from(view[start:position])
                yield McapMessage(channel, log_ns, bytes(view[start + _MESSAGE.size : position]), publish_ns, sequence)
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                kind: type[Schema] | type[Channel] = Schema if opcode == Opcode.SCHEMA else Channel
                yield kind.read(ReadDataStream(io.BytesIO(view[start:position])))

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except BadInput:
            raise
        except (McapError, CRCValidationError, struct.error, ValueError) as error:
            raise BadInput(
                f"{self.path} is no MCAP file or damaged ({error or type(error).__name__}); copy it again, or bring "
                "back what is left by `mcap recover`"
            ) from error
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read ({error.strerror}); check its permissions") from error


class _Bounded:
    """A file that refuses to read more than it has left, so that no declared length is allocated."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, length: int) -> bytes:
        if not 0 <= length <= self._left:
            raise McapError(f"{length} bytes are declared where {self._left} are left")
        data = self._file.read(length)
        if len(data) != length:
            raise McapError("the file became shorter while it was read")
        self._left -= length
        return data

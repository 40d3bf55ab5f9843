"""Files of JSON lines that only grow, and that outlive a process killed while it writes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embodied_vision.errors import BadInput

_log = logging.getLogger(__name__)


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record as one line, on disk when this returns; several processes may append to the same file.

    Raises:
        BadInput: the file cannot be written.
    """
    line = json.dumps(record).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else b"\n" + line  # a killed writer left half a line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror}); check the folder and its permissions") from error


def read(path: Path) -> list[dict[str, Any]]:
    """All records, oldest first; none when there is no file. A line that is no JSON object is left out, with a warning.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif line:
            _log.warning("%s, line %d is no JSON object and is left out", path, number)
    return records

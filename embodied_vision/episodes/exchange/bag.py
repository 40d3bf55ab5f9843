"""Reading a rosbag2 folder that nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from embodied_vision.episodes.exchange.cdr import Message, Topic
from embodied_vision.episodes.exchange.mcap_file import McapFile
from embodied_vision.episodes.exchange.recording import Recording, add_topic, regular_file, unzstd
from embodied_vision.episodes.exchange.sqlite_file import SqliteFile
from embodied_vision.errors import BadInput

METADATA = "metadata.yaml"
_LARGEST_METADATA = 4 << 20
_STORAGE: Mapping[str, Callable[[Path, Path], Recording]] = {"mcap": McapFile, "sqlite3": SqliteFile}


class Bag:
    """A `Recording` in a rosbag2 folder: metadata.yaml and one or several storage files.

    Args:
        path: of the folder.

    Raises:
        BadInput: no bag, a damaged one, files that lie elsewhere, or a compression that is not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        metadata = _read_metadata(path / METADATA)
        try:
            storage = _STORAGE[metadata["storage_identifier"]]
            names = [str(name) for name in metadata["relative_file_paths"]]
            self._mode = str(metadata.get("compression_mode") or "none").lower()
            custom = dict(metadata.get("custom_data") or {})
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path / METADATA} lacks a field, or has another storage than {' or '.join(_STORAGE)} ({error!r}); "
                "convert it by `ros2 bag convert`"
            ) from error
        if self._mode not in ("none", "message"):
            raise BadInput(f"{path} is compressed by {self._mode}; uncompress it by `ros2 bag convert`")
        self.about = {str(key): value for key, value in custom.items() if isinstance(value, str)}
        self._files = [storage(_inside(path, name), path) for name in names]
        self.topics: dict[str, Topic] = {}
        for file in self._files:
            for topic in file.topics.values():
                add_topic(self.topics, topic, path)

    def messages(self) -> Iterator[Message]:
        """All messages, file after file."""
        for file in self._files:
            for message in file.messages():
                if self._mode == "message":
                    data = unzstd(message.data, f"{file.path}: a message of {message.topic}")
                    message = Message(message.topic, message.type, message.log_ns, data)
                yield message


def is_bag(path: Path) -> bool:
    """Whether `path` is a folder with a bag's metadata."""
    return (path / METADATA).is_file()


def _inside(folder: Path, name: str) -> Path:
    """A file of the bag. Old bags put the folder's name before that of the file."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or len(parts) > 2:
        raise BadInput(f"{folder / METADATA} names the file {name!r}, which does not lie in the bag; refused")
    return folder / parts[-1]


def _read_metadata(path: Path) -> Mapping[str, Any]:
    file = regular_file(path, path.parent)
    if file.stat().st_size > _LARGEST_METADATA:
        raise BadInput(f"{path} has {file.stat().st_size} bytes, at most {_LARGEST_METADATA} are read; is it damaged?")
    try:
        # Not the loader of libyaml: it recurses without a bound and ends the process on deep nesting.
        content = yaml.load(file.read_bytes(), Loader=yaml.SafeLoader)
        information = content["rosbag2_bagfile_information"]
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is no metadata of a bag ({error!r}); restore it by `ros2 bag reindex`") from error
    if not isinstance(information, dict):
        raise BadInput(f"{path} is no metadata of a bag; restore it by `ros2 bag reindex`")
    return information

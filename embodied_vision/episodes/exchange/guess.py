"""The format of a path, by its name and by what lies there. Nothing of the formats is imported."""

from __future__ import annotations

from pathlib import Path

from embodied_vision.episodes.exchange import FORMATS, Format, find_format
from embodied_vision.errors import BadInput

_SUFFIXES = {".mcap": "mcap", ".hdf5": "hdf5", ".h5": "hdf5"}
_BAG = "metadata.yaml"


def format_of_target(target: Path, name: str | None) -> Format:
    """The format to write: by name, or by the suffix of the target.

    Raises:
        BadInput: the name is unknown, or there is none and the suffix does not tell.
    """
    if name is not None:
        return find_format(name)
    if target.suffix in _SUFFIXES:
        return FORMATS[_SUFFIXES[target.suffix]]
    raise BadInput(f"{target} does not tell its format; give --format with one of {', '.join(FORMATS)}")


def format_of_source(source: Path, name: str | None) -> Format:
    """The format to read: by name, or by what lies there.

    Raises:
        BadInput: the name is unknown, nothing is there, or it is of no format.
    """
    if not source.exists():
        raise BadInput(f"{source} does not exist; give a file or folder of one of {', '.join(FORMATS)}")
    if name is not None:
        return find_format(name)
    if source.is_file() and source.suffix in _SUFFIXES:
        return FORMATS[_SUFFIXES[source.suffix]]
    if source.is_dir():
        if (source / _BAG).is_file() or next(source.glob(f"*/{_BAG}"), None) is not None:
            return FORMATS["rosbag2"]
        if (source / "meta" / "info.json").is_file():
            return FORMATS["lerobot"]
        if next(source.glob("*.mcap"), None) is not None:
            return FORMATS["mcap"]
    raise BadInput(f"{source} does not tell its format; give --format with one of {', '.join(FORMATS)}")

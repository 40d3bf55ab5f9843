"""Episodes in the formats of others: what can be written and read, by name.

A format is a module with the two functions below. They are imported when used, for they need the extra `exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput

OnEpisode = Callable[[str], None]
"""Told the id of every episode that is done."""


class Export(Protocol):
    """Writes episodes to `target`, which must not exist; on any error nothing is left there."""

    def __call__(self, episodes: Sequence[Episode], target: Path, *, done: OnEpisode) -> None: ...


class Import(Protocol):
    """Reads `source` into a store, an episode after the other; yields the id of each that is in the store.

    Args:
        task: name of the task, where the source does not tell.
        topics: YAML that says what the source does not: a topic map for recordings, else a calibration of cameras.
    """

    def __call__(
        self, source: Path, store: EpisodeStore, *, task: str | None, topics: Path | None
    ) -> Iterator[str]: ...


@dataclass(frozen=True)
class Format:
    """A format by name.

    Attributes:
        name: as typed on the command line.
        about: one line for the help.
        module: where its `export` and `import_` stand.
        has_topics: its import takes a topic map, otherwise a calibration.
    """

    name: str
    about: str
    module: str
    has_topics: bool = False

    def _function(self, name: str) -> Any:
        try:
            return getattr(import_module(self.module), name)
        except ImportError as error:
            raise BadInput(
                f"format {self.name!r} needs {error.name or error}; "
                "install it by `pip install 'embodied_vision[exchange]'`"
            ) from error

    @property
    def export(self) -> Export:
        """Its writer."""
        return self._function("export")

    @property
    def import_(self) -> Import:
        """Its reader."""
        return self._function("import_")


_HERE = "embodied_vision.episodes.exchange."
FORMATS = {
    form.name: form
    for form in (
        Format("mcap", "MCAP with ROS 2 messages, one file an episode; Foxglove opens it", _HERE + "mcap", True),
        Format("rosbag2", "rosbag2 folders, one an episode; `ros2 bag play` plays them", _HERE + "rosbag2", True),
        Format("lerobot", "LeRobotDataset v3", _HERE + "lerobot"),
        Format("hdf5", "HDF5 in robomimic's layout, one file", _HERE + "hdf5"),
    )
}


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        BadInput: there is none.
    """
    if name not in FORMATS:
        raise BadInput(f"format {name!r} is unknown; give one of {', '.join(FORMATS)}")
    return FORMATS[name]

"""Reading an episode. Nothing damaged is ever returned: files are checked when opened, chunks when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embodied_vision.episodes.arrays import ArrayReader, read_attributes
from embodied_vision.episodes.attributes import check_decisions, check_root
from embodied_vision.episodes.batch import read_chunks, whole_numbers
from embodied_vision.episodes.codecs import ChunkCodec, unseal
from embodied_vision.episodes.files import Location, location
from embodied_vision.episodes.manifest import check_sizes, read_manifest
from embodied_vision.episodes.pin import Pin, identity
from embodied_vision.episodes.remote import RemotePath
from embodied_vision.episodes.schema import DECISIONS_BEGUN, GROUP, folder_name
from embodied_vision.episodes.versions import upgrade
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.geometry import depth_to_metres
from embodied_vision.types import RGBD, Camera, PickPlace

if TYPE_CHECKING:
    import zarr

_OPEN_ATTEMPTS = 10


@dataclass(frozen=True, eq=False)
class Decision:
    """A logged decision.

    Attributes:
        action: what was decided.
        frames: what it was decided on, lossless.
        info: what else was logged with it.
    """

    action: PickPlace
    frames: tuple[RGBD, ...]
    info: Mapping[str, Any]


class Frames:
    """The frames of one camera, read when indexed.

    Attributes:
        camera: whose they are.
        stamps_ns: int64 (T,), in the order of logging.
    """

    def __init__(self, folder: Location, camera: Camera, pin: Pin | None = None) -> None:
        self.camera = camera
        size = (camera.height, camera.width)
        self._color = ArrayReader(folder / "color", pin).expect("uint8", (*size, 3), chunk=1)
        self._depth = ArrayReader(folder / "depth", pin).expect("uint16", size, chunk=1)
        self.stamps_ns: NDArray[np.int64] = ArrayReader(folder / "stamps", pin).expect("int64", ()).values()
        length = read_attributes(folder).get("length")
        lengths = [len(self.stamps_ns), self._color.length, self._depth.length]
        if lengths != [length] * 3:
            raise EpisodeError(
                f"{folder}: arrays of lengths {lengths}, they should be {length}; restore them from a copy"
            )

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def __getitem__(self, index: int) -> RGBD:
        """Frame `index`; negative ones count from the end.

        Raises:
            IndexError: there is no such frame.
            EpisodeError: its data are damaged.
        """
        number = self._number(index)
        return RGBD(
            self.color(number), depth_to_metres(self.depth_mm(number)), self.camera, int(self.stamps_ns[number])
        )

    def __iter__(self) -> Iterator[RGBD]:
        return (self[index] for index in range(len(self)))

    def color(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) color image alone."""
        return self._color.chunk(self._number(index))[0]

    @property
    def color_codec(self) -> ChunkCodec:
        """How the color images lie on file."""
        return self._color.spec.codec

    def encoded_color(self, index: int) -> bytes:
        """A color image as it lies on file: for JPEG the image's bytes.

        Raises:
            IndexError, EpisodeError: as by index.
        """
        ((_, sealed),) = self._color.sealed([self._number(index)])
        return unseal(sealed, f"{self._color.folder}: chunk {index}")

    def depth_mm(self, index: int) -> NDArray[np.uint16]:
        """uint16 (H, W) depth alone, in mm, 0 = no return."""
        return self._depth.chunk(self._number(index))[0]

    def colors(self, indices: ArrayLike, threads: int | None = None) -> NDArray[np.uint8]:
        """uint8 (N, H, W, 3) color images of many frames, read and decoded together.

        Args:
            indices: which, in any order, also several times; negative ones count from the end.
            threads: that decode; None takes the cores that this process may use.

        Raises:
            IndexError: there is no such frame.
            EpisodeError: their data are damaged.
        """
        return self._many(self._color, indices, threads)

    def depths_mm(self, indices: ArrayLike, threads: int | None = None) -> NDArray[np.uint16]:
        """uint16 (N, H, W) depth of many frames, in mm, 0 = no return; arguments and errors as of `colors`."""
        return self._many(self._depth, indices, threads)

    def _many(self, array: ArrayReader, indices: ArrayLike, threads: int | None) -> NDArray[Any]:
        numbers = whole_numbers(indices, len(self), f"camera {self.camera.name!r}: frame")
        return read_chunks(array, numbers, threads)[:, 0]

    def _number(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)} of camera {self.camera.name!r}")
        return index % len(self)


class Decisions(Sequence[Decision]):
    """The decisions of an episode; their frames are read when indexed."""

    def __init__(self, folder: Location, cameras: Mapping[str, Camera], pin: Pin | None = None) -> None:
        self._stamps: NDArray[np.int64] = ArrayReader(folder / "stamps", pin).expect("int64", ()).values()
        self._pick, self._place = (
            ArrayReader(folder / name, pin).expect("float64", (4, 4)).values() for name in ("pick", "place")
        )
        self._frames = {
            name: Frames(folder / "cameras" / folder_name(name), camera, pin) for name, camera in cameras.items()
        }
        lengths = {name: len(frames) for name, frames in self._frames.items()}
        self._records = check_decisions(read_attributes(folder), lengths, folder)
        if {len(self._stamps), len(self._pick), len(self._place)} != {len(self._records)}:
            raise EpisodeError(f"{folder}: its arrays have other lengths than its records; restore it from a copy")

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Decision: ...
    @overload
    def __getitem__(self, index: slice) -> list[Decision]: ...
    def __getitem__(self, index: int | slice) -> Decision | list[Decision]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        record = self._records[index]
        frames = tuple(self._frames[name][number] for name, number in record["frames"])
        return Decision(self.action(index), frames, record["info"])

    def info(self, index: int) -> Mapping[str, Any]:
        """What else was logged with a decision."""
        info: Mapping[str, Any] = self._records[index]["info"]
        return info

    def used(self, index: int) -> list[tuple[Frames, int]]:
        """The frames of a decision, unread: those of a camera and which of them."""
        return [(self._frames[name], int(number)) for name, number in self._records[index]["frames"]]

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """int64 (N,), when each was decided, in the order of logging."""
        return self._stamps

    def action(self, index: int) -> PickPlace:
        """The action of a decision alone, without reading its frames."""
        record = self._records[index]
        return PickPlace(
            pick=self._pick[index],
            place=self._place[index],
            primitive=record["primitive"],
            decision_id=record["decision_id"],
            scores={name: float(score) for name, score in record["scores"].items()},
            stamp_ns=int(self._stamps[index]),
        )


class Episode:
    """One closed episode. Holds no file open; may be copied to other processes.

    Where the data are changed or deleted on the disk later, every method raises an `EpisodeError` from then on or
    returns what it would have before. A change of the outcome or tags is seen when the episode is opened again.

    Args:
        path: folder of the episode, or its URL in object storage.

    Raises:
        EpisodeError: a file is missing or cut short, metadata are damaged, or the schema is unknown.

    Attributes:
        id: sortable unique id.
        location: folder of the episode, or its place in object storage.
        task, robot: names.
        cameras: calibrations by name.
        encoder_id, policy_id: who acted.
        outcome: how it ended.
        tags: sorted labels that were put on it.
        history: edits, oldest first: `what`, `when_ns` (system time), and what there was before.
        attributes: what else the writer was given.
        created_ns, closed_ns: when it was written, system time.
        streams: names of the streams.
    """

    def __init__(self, path: str | PathLike[str] | RemotePath) -> None:
        self.location: Location = location(path)
        self.id = self.location.name
        self._open(self.location)

    @property
    def path(self) -> Path:
        """Folder of the episode.

        Raises:
            BadInput: it lies in object storage.
        """
        if isinstance(self.location, RemotePath):
            raise BadInput(f"{self.location} lies in object storage; `embodied-vision episodes pull` it first")
        return self.location

    def _open(self, path: Location) -> None:
        for _ in range(_OPEN_ATTEMPTS):
            before = identity(path)
            try:
                self._load()
            except EpisodeError:
                if before is None or identity(path) == before:
                    raise
                continue
            if identity(path) == before:
                return
        raise EpisodeError(f"{path} changes faster than it can be opened; who keeps editing it?")

    def _load(self) -> None:
        path = self.location
        self._pin = Pin.of(path / GROUP)
        path = self.location = check_sizes(path, read_manifest(path))
        root = upgrade(read_attributes(path / GROUP), path)
        check_root(root, path)
        self.task: str = root["task"]
        self.robot: str = root["robot"]
        self.encoder_id: str = root["encoder_id"]
        self.policy_id: str = root["policy_id"]
        self.outcome: Mapping[str, Any] = root["outcome"]
        self.tags: tuple[str, ...] = tuple(root["tags"])
        self.history: tuple[Mapping[str, Any], ...] = tuple(root["history"])
        self.attributes: Mapping[str, Any] = root["attributes"]
        self.created_ns: int = root["created_ns"]
        self.closed_ns: int = root["closed_ns"]
        self.cameras: Mapping[str, Camera] = {data["name"]: Camera.from_dict(data) for data in root["cameras"]}
        self.streams: tuple[str, ...] = tuple(root["streams"])
        self._frames: dict[str, Frames] = {}

    def __repr__(self) -> str:
        return f"Episode({str(self.location)!r}, task={self.task!r}, outcome={dict(self.outcome)!r})"

    def frames(self, camera: str) -> Frames:
        """All logged frames of a camera.

        Raises:
            BadInput: the episode has no such camera.
        """
        if camera not in self.cameras:
            raise BadInput(f"episode {self.id} has no camera {camera!r}; it has {sorted(self.cameras)}")
        if camera not in self._frames:
            folder = self.location / GROUP / "cameras" / folder_name(camera)
            with self._pin.held():
                frames = Frames(folder, self.cameras[camera], self._pin)
            self._frames[camera] = frames
        return self._frames[camera]

    @property
    def begun(self) -> tuple[bool, ...]:
        """Of each decision, whether the arm began it; of all where the recorder heard of none, as in simulation."""
        ids = self.attributes.get(DECISIONS_BEGUN)
        decisions = self.decisions
        return tuple(not isinstance(ids, list) or decisions.action(n).decision_id in ids for n in range(len(decisions)))

    def color_digest(self, camera: str) -> str:
        """sha256 over the color images of a camera, by the manifest: another image, order or count gives another.

        Raises:
            BadInput: the episode has no such camera.
            EpisodeError: the manifest is damaged, or the episode was changed since it was opened.
        """
        if camera not in self.cameras:
            raise BadInput(f"episode {self.id} has no camera {camera!r}; it has {sorted(self.cameras)}")
        return self._digest(f"cameras/{folder_name(camera)}/color/")

    def decisions_digest(self) -> str:
        """sha256 over the decisions and their frames, by the manifest; errors as of `color_digest`."""
        return self._digest("decisions/")

    def _digest(self, folder: str) -> str:
        with self._pin.held():
            files = read_manifest(self.location)
        digests = {name: entry.sha256 for name, entry in files.items() if name.startswith(f"{GROUP}/{folder}")}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def stream(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Stamps (T,) in ns and values (T, D) of a stream, in the order of logging.

        Raises:
            BadInput: the episode has no such stream.
            EpisodeError: its data are damaged.
        """
        with self._pin.held():
            stamps, values = (array.values() for array in self.stream_arrays(name))
        return stamps, values

    def stream_arrays(self, name: str) -> tuple[ArrayReader, ArrayReader]:
        """Stamps and values of a stream, to be read in parts; errors as of `stream`."""
        if name not in self.streams:
            raise BadInput(f"episode {self.id} has no stream {name!r}; it has {sorted(self.streams)}")
        folder = self.location / GROUP / "streams" / folder_name(name)
        with self._pin.held():
            stamps = ArrayReader(folder / "stamps", self._pin).expect("int64", ())
            values = ArrayReader(folder / "values", self._pin).expect("float64", axes=1)
            if stamps.length != values.length:
                raise EpisodeError(
                    f"{folder}: {values.length} values, {stamps.length} stamps; restore them from a copy"
                )
        return stamps, values

    @cached_property
    def decisions(self) -> Decisions:
        """All decisions, in the order of logging.

        Raises:
            EpisodeError: their data are damaged.
        """
        with self._pin.held():
            return Decisions(self.location / GROUP / "decisions", self.cameras, self._pin)

    def group(self) -> zarr.Group:
        """The episode as zarr-python sees it, read-only. It does not notice missing chunks: `verify` does."""
        import zarr

        import embodied_vision.episodes.zarr_codecs  # noqa: F401 registers them

        if isinstance(self.location, RemotePath):
            from zarr.storage import ObjectStore

            store = ObjectStore(self.location.connection.store, read_only=True)
            return zarr.open_group(store, path=(self.location / GROUP).key, mode="r")
        return zarr.open_group(self.location / GROUP, mode="r")

"""An HDF5 file in robomimic's layout into episodes: our own exports as they were, and those of others.

Files of others tell neither calibration nor time: intrinsics are nominal unless a calibration file is given, stamps
count from the start of the episode at the environment's control frequency; the attribute `imported` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes import strict
from embodied_vision.episodes.exchange.about import Origin
from embodied_vision.episodes.exchange.foreign import Names, cameras_for
from embodied_vision.episodes.exchange.hdf5 import guard
from embodied_vision.episodes.exchange.sidecar import (
    FOLDER,
    Head,
    Sample,
    decisions_of,
    frames_of_decisions,
    head_of,
    take_in,
)
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.geometry import depth_to_metres
from embodied_vision.types import RGBD, Camera

RATE_HZ = 20.0
"""Of files that do not tell: robosuite's."""
MAX_ROWS = 1_000_000
MAX_VALUES = 100_000_000
_NS = 1_000_000_000
_DEMO = re.compile(r"demo_(\d{1,9})")


@dataclass(frozen=True)
class _About:
    """What a file says of all its demos."""

    task: str
    rate_hz: float
    rate_known: bool


def import_(source: Path, store: EpisodeStore, *, task: str | None, topics: Path | None) -> Iterator[str]:
    """Read a file into a store.

    Args:
        source: the file.
        store: where to.
        task: name of the task, where the file does not tell.
        topics: calibration YAML as `calibration.read_cameras` takes it, for cameras that the file does not describe.

    Raises:
        BadInput: it is damaged or of another layout. Episodes that were yielded before stay in the store.
        EpisodeError: the store cannot be written.
    """
    with guard.opened(source) as file:
        data = guard.group_in(file, "data")
        about = _about(data, task)
        rest = guard.group_in(file, FOLDER) if guard.has(file, FOLDER) else None
        demos = sorted((name for name in guard.names(data) if _DEMO.fullmatch(name)), key=lambda name: int(name[5:]))
        if not demos:
            raise BadInput(f"{source} has no demos (data/demo_0 …); give a file in robomimic's layout")
        for name in demos:
            demo = guard.group_in(data, name)
            if rest is not None and guard.has(rest, name):
                yield _own(demo, guard.group_in(rest, name), store)
            else:
                yield _foreign(demo, store, about, topics)


def _own(demo: h5py.Group, rest: h5py.Group, store: EpisodeStore) -> str:
    """A demo of our own export."""
    where = guard.place(rest)
    try:
        description = strict.parse(guard.text_in(rest, "episode"), non_finite=True)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{where}/episode is no JSON ({error}); export the episodes anew") from error
    length = _length(demo)
    head = head_of(description, length, _origin(demo), where)
    obs = guard.group_in(demo, "obs")

    def frames() -> Iterator[RawFrame]:
        for camera in head.cameras:
            key = camera.name.replace("/", ".")
            place = guard.group_in(guard.group_in(rest, "frames"), key)
            rows, stamps = _whole(place, "rows"), _whole(place, "stamps")
            if len(rows) != len(stamps) or (len(rows) and not 0 <= rows.min() <= rows.max() < length):
                raise BadInput(f"{guard.place(place)} names rows that are not there; export the episodes anew")
            color, depth = (
                _image(obs, f"{key}_image", camera, 3, length),
                _image(obs, f"{key}_depth", camera, 1, length),
            )
            for row, stamp_ns in zip(rows.tolist(), stamps.tolist(), strict=True):
                yield RawFrame(guard.row(color, row), guard.row(depth, row)[..., 0], camera, stamp_ns)

    seen = frames_of_decisions(description, _decision_frames(rest, head), where)
    return take_in(store, head, frames(), _streams(rest), decisions_of(description, seen, where))


def _decision_frames(rest: h5py.Group, head: Head) -> Iterator[RGBD]:
    decisions = guard.group_in(rest, "decisions") if guard.has(rest, "decisions") else {}
    for number in range(len(decisions)):
        place = guard.group_in(decisions, str(number))
        name, stamp_ns = guard.attribute(place, "camera"), guard.attribute(place, "stamp_ns")
        color, depth = guard.array_in(place, "color", (3,)), guard.array_in(place, "depth", (2,))
        camera = head.camera(name)
        size = (camera.height, camera.width)
        if (color.shape, color.dtype, depth.shape, depth.dtype) != ((*size, 3), np.uint8, size, np.uint16):
            raise BadInput(
                f"{guard.place(place)} is not of the size that camera {name!r} has; export the episodes anew"
            )
        if type(stamp_ns) is not int:
            raise BadInput(f"{guard.place(place)} has the stamp {stamp_ns!r}; export the episodes anew")
        yield RGBD(guard.values(color), depth_to_metres(guard.values(depth)), camera, stamp_ns)


def _streams(rest: h5py.Group) -> Iterator[Sample]:
    streams = guard.group_in(rest, "streams") if guard.has(rest, "streams") else None
    for number in guard.names(streams) if streams is not None else []:
        place = guard.group_in(streams, number)
        try:
            name = guard.text_in(place, "name").decode()
        except UnicodeDecodeError as error:
            raise BadInput(f"{guard.place(place)}/name is no text; export the episodes anew") from error
        stamps, values = _whole(place, "stamps"), guard.values(guard.array_in(place, "values", (2,)))
        if len(stamps) != len(values):
            raise BadInput(f"{guard.place(place)} has {len(stamps)} stamps and {len(values)} values; export anew")
        for stamp_ns, value in zip(stamps.tolist(), values, strict=True):
            yield name, stamp_ns, value


def _foreign(demo: h5py.Group, store: EpisodeStore, about: _About, calibration: Path | None) -> str:
    """A demo of others."""
    length = _length(demo)
    obs = guard.group_in(demo, "obs") if guard.has(demo, "obs") else None
    taken, left_out = Names(), [name for name in ("next_obs",) if guard.has(demo, name)]
    images: dict[str, h5py.Dataset] = {}
    depths: dict[str, h5py.Dataset] = {}
    streams = {taken.stream("action"): _column(demo, "actions", length)}
    for name, stream in (("rewards", "next/reward"), ("dones", "next/done"), ("states", "states")):
        if guard.has(demo, name):
            streams[taken.stream(stream)] = _column(demo, name, length)
    for key in guard.names(obs) if obs is not None else []:
        found = guard.child(obs, key)
        if not isinstance(found, h5py.Dataset) or not guard.is_numeric(found):
            left_out.append(f"obs/{key}")
        elif found.ndim == 4 and found.shape[3] == 3 and found.dtype == np.uint8:
            images[taken.camera(re.sub(r"_(image|rgb)$", "", key))] = _same_length(
                guard.array_in(obs, key, (4,)), length
            )
        elif found.ndim == 4 and found.shape[3] == 1 and found.dtype == np.uint16 and _unit(found) == "mm":
            depths[re.sub(r"_depth$", "", key)] = _same_length(guard.array_in(obs, key, (4,)), length)
        elif found.ndim in (1, 2):
            streams[taken.stream(f"observation/{key}")] = _column(obs, key, length)
        else:
            left_out.append(f"obs/{key}")
    sizes = {name: (image.shape[1], image.shape[2]) for name, image in images.items()}
    cameras = cameras_for(sizes, calibration)
    stamps = np.round(np.arange(length) * (_NS / about.rate_hz)).astype(np.int64)
    with_depth = {name for name in images if name in depths and depths[name].shape[1:3] == sizes[name]}
    reward = float(np.sum(guard.values(guard.array_in(demo, "rewards")))) if guard.has(demo, "rewards") else None
    origin = {
        "format": _origin(demo).format,
        "source": _origin(demo).source,
        "demo": str(demo.name),
        "control_freq": about.rate_hz if about.rate_known else f"unknown, taken as {about.rate_hz}",
        "depth": sorted(with_depth),
        "calibration": "nominal" if calibration is None else "as given",
        "stamps": "from the start of the episode",
        "left_out": left_out,
    }
    head = Head(
        task=about.task,
        robot="unknown",
        cameras=tuple(cameras.values()),
        outcome={"reward": reward} if reward is not None and np.isfinite(reward) else {},
        attributes={"imported": origin},
    )

    def frames() -> Iterator[RawFrame]:
        for name, image in images.items():
            none = np.zeros(sizes[name], np.uint16)
            for row, stamp_ns in enumerate(stamps.tolist()):
                depth = guard.row(depths[name], row)[..., 0] if name in with_depth else none
                yield RawFrame(guard.row(image, row), depth, cameras[name], stamp_ns)

    def samples() -> Iterator[Sample]:
        for name, column in streams.items():
            values = guard.values(column).astype(np.float64).reshape(length, -1)
            for stamp_ns, value in zip(stamps.tolist(), values, strict=True):
                yield name, stamp_ns, value

    return take_in(store, head, frames(), samples())


def _about(data: h5py.Group, task: str | None) -> _About:
    """Task and rate out of `env_args`."""
    told: dict[str, Any] = {}
    text = guard.attribute(data, "env_args")
    if text is not None:
        try:
            told = dict(strict.mapping(strict.parse(str(text).encode(), non_finite=True), "env_args"))
        except ValueError as error:
            raise BadInput(f"{guard.place(data)}: attribute env_args is no JSON ({error}); repair it") from error
    arguments = told.get("env_kwargs")
    rate = arguments.get("control_freq") if isinstance(arguments, dict) else None
    known = isinstance(rate, int | float) and not isinstance(rate, bool) and 0.001 <= rate <= 100_000
    name = told.get("env_name")
    named = name if isinstance(name, str) and name else task or "unknown"
    return _About(named, float(rate) if known and rate is not None else RATE_HZ, known)


def _origin(demo: h5py.Group) -> Origin:
    return Origin("hdf5", Path(demo.file.filename).name)


def _length(demo: h5py.Group) -> int:
    """Rows of a demo."""
    actions = guard.array_in(demo, "actions", (1, 2))
    told, length = guard.attribute(demo, "num_samples"), len(actions)
    if told is not None and told != length:
        raise BadInput(f"{guard.place(demo)} says to have {told} samples, its actions are {length}; copy the file anew")
    if not 0 < length <= MAX_ROWS:
        raise BadInput(f"{guard.place(demo)} has {length} samples; 1 to {MAX_ROWS} are read")
    return length


def _column(group: h5py.Group, name: str, length: int) -> h5py.Dataset:
    found = _same_length(guard.array_in(group, name, (1, 2)), length)
    if found.size > MAX_VALUES:
        raise BadInput(f"{guard.place(found)} has {found.size} numbers; at most {MAX_VALUES} are read")
    return found


def _same_length(dataset: h5py.Dataset, length: int) -> h5py.Dataset:
    if len(dataset) != length:
        raise BadInput(
            f"{guard.place(dataset)} has {len(dataset)} rows, the demo's actions {length}; all have as many in "
            "robomimic's layout"
        )
    return dataset


def _whole(group: h5py.Group, name: str) -> NDArray[np.int64]:
    found = guard.array_in(group, name, (1,))
    if found.dtype != np.int64:
        raise BadInput(f"{guard.place(found)} is {found.dtype}, expected int64; export the episodes anew")
    return guard.values(found)


def _image(obs: h5py.Group, name: str, camera: Camera, channels: int, length: int) -> h5py.Dataset:
    found = _same_length(guard.array_in(obs, name, (4,)), length)
    wanted = (camera.height, camera.width, channels)
    if found.shape[1:] != wanted or found.dtype != (np.uint8 if channels == 3 else np.uint16):
        raise BadInput(f"{guard.place(found)} is {found.dtype} {found.shape}, its camera has {wanted}; export anew")
    return found


def _unit(dataset: h5py.Dataset) -> Any:
    return guard.attribute(dataset, "unit")

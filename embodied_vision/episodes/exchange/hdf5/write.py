"""Episodes into an HDF5 file in robomimic's layout.

data                     attributes total, env_args (JSON)
data/demo_N              attribute num_samples; a row is a frame of the first camera, see `exchange.rows`
data/demo_N/actions      float32 (T, A)
data/demo_N/rewards, dones          (T,)
data/demo_N/obs/joint_positions     float32 (T, D)
data/demo_N/obs/CAMERA_image        uint8 (T, H, W, 3), as robomimic keeps it: not compressed
data/demo_N/obs/CAMERA_depth        uint16 (T, H, W, 1), mm, gzip
mask/NAME                names of the demos of a task, and of the solved ones
embodied_vision/demo_N   what robomimic has no place for: exact stamps, every stream, decisions
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from embodied_vision.episodes.exchange.foreign import fit
from embodied_vision.episodes.exchange.rows import OBSERVED, Clock, Rows, find_clock, rows_of
from embodied_vision.episodes.exchange.sidecar import FOLDER, decision_frames, describe
from embodied_vision.episodes.exchange.target import atomic_target
from embodied_vision.episodes.reader import Episode
from embodied_vision.geometry import quantise_depth

JOINTS = "joint_positions"
GYM = 2
"""robomimic knows environments by type; no type is ours, and nothing here asks for one."""
SOLVED = "solved"


def export(episodes: Sequence[Episode], target: Path, *, done: Callable[[str], None]) -> None:
    """Write episodes as one file.

    Raises:
        BadInput: the target exists; or an episode cannot be laid on the clock of the first.
        EpisodeError: one is damaged.
    """
    clock = find_clock(episodes)
    masks: dict[str, list[str]] = {}
    total = 0
    with atomic_target(target) as path, _created(path) as file:
        data = file.create_group("data")
        for number, episode in enumerate(episodes):
            name = f"demo_{number}"
            rows = rows_of(episode, clock)
            _write_demo(data.create_group(name), episode, rows)
            _write_rest(file.create_group(f"{FOLDER}/{name}"), episode, rows)
            masks.setdefault(fit(episode.task, "task"), []).append(name)
            if episode.outcome.get("solved") is True:
                masks.setdefault(SOLVED, []).append(name)
            total += len(rows)
            done(episode.id)
        data.attrs["total"] = total
        data.attrs["env_args"] = json.dumps(_environment(episodes[0], clock))
        for mask, names in masks.items():
            file.create_dataset(f"mask/{mask}", data=np.array(names, "S"))


@contextmanager
def _created(path: Path) -> Iterator[h5py.File]:
    """A new file. The library tells of a failing disk at length, and by another error when it then closes the file."""
    try:
        with h5py.File(path, "x", locking=False) as file:
            yield file
    except (OSError, RuntimeError) as error:
        first = error.__context__ if isinstance(error.__context__, OSError) else error
        number = getattr(first, "errno", None) or errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def _environment(episode: Episode, clock: Clock) -> dict[str, object]:
    """All that is known of an environment: nothing can be built from it, but rows have their rate."""
    return {"env_name": episode.task, "type": GYM, "env_kwargs": {"control_freq": clock.rate_hz}}


def _write_demo(demo: h5py.Group, episode: Episode, rows: Rows) -> None:
    demo.attrs["num_samples"] = len(rows)
    demo.create_dataset("actions", data=rows.action)
    demo.create_dataset("rewards", data=rows.reward)
    demo.create_dataset("dones", data=rows.done.astype(np.int64))
    obs = demo.create_group("obs")
    obs.create_dataset(JOINTS, data=rows.state)
    for stream, values in rows.observed.items():
        obs.create_dataset(stream.removeprefix(OBSERVED).replace("/", "."), data=values)
    for name, camera in episode.cameras.items():
        frames, size = episode.frames(name), (camera.height, camera.width)
        key = name.replace("/", ".")
        color = obs.create_dataset(f"{key}_image", (len(rows), *size, 3), np.uint8)
        depth = obs.create_dataset(
            f"{key}_depth", (len(rows), *size, 1), np.uint16, chunks=(1, *size, 1), compression="gzip", shuffle=True
        )
        depth.attrs["unit"] = "mm"
        shown = -1
        for row, frame in enumerate(rows.frames[name].tolist()):
            color[row] = color[row - 1] if frame == shown else frames.color(frame)
            depth[row] = depth[row - 1] if frame == shown else frames.depth_mm(frame)[..., None]
            shown = frame


def _write_rest(group: h5py.Group, episode: Episode, rows: Rows) -> None:
    text = json.dumps(describe(episode, len(rows)), ensure_ascii=False).encode()
    group.create_dataset("episode", data=np.frombuffer(text, np.uint8))
    for name in episode.cameras:
        shown = rows.shown(name)
        place = group.create_group(f"frames/{name.replace('/', '.')}")
        place.create_dataset("rows", data=shown)
        place.create_dataset("stamps", data=episode.frames(name).stamps_ns[rows.frames[name][shown]])
    for number, name in enumerate(episode.streams):
        stamps, values = episode.stream(name)
        place = group.create_group(f"streams/{number}")
        place.create_dataset("name", data=np.frombuffer(name.encode(), np.uint8))
        place.create_dataset("stamps", data=stamps)
        place.create_dataset("values", data=values)
    for number, frame in enumerate(decision_frames(episode)):
        place = group.create_group(f"decisions/{number}")
        place.attrs.update(camera=frame.camera.name, stamp_ns=frame.stamp_ns)
        depth = quantise_depth(frame.depth)
        for name, image in (("color", frame.color), ("depth", depth)):
            place.create_dataset(name, data=image, chunks=image.shape, compression="gzip", shuffle=True)

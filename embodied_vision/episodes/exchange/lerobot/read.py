"""A LeRobotDataset v3.0 into episodes: our own exports nearly as they were, and those that lerobot or others made.

Without our sidecar a dataset has no depth, calibration or absolute time: depth is 0, intrinsics are nominal unless a
calibration file is given, stamps count from the start of the episode; the attribute `imported` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.exchange.foreign import cameras_for
from embodied_vision.episodes.exchange.lerobot import layout
from embodied_vision.episodes.exchange.lerobot.info import entries_of, open_dataset
from embodied_vision.episodes.exchange.lerobot.part import Part
from embodied_vision.episodes.exchange.lerobot.sidecar import (
    folder_of,
    read_decision_frames,
    read_depths,
    read_samples,
)
from embodied_vision.episodes.exchange.lerobot.source import Source
from embodied_vision.episodes.exchange.sidecar import (
    Head,
    decisions_of,
    frames_of_decisions,
    head_of,
    take_in,
)
from embodied_vision.episodes.frames import RawFrame
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.types import Camera


def import_(source: Path, store: EpisodeStore, *, task: str | None, topics: Path | None) -> Iterator[str]:
    """Read a dataset into a store.

    Args:
        source: its folder.
        store: where to.
        task: name of the task, where the dataset does not tell.
        topics: calibration YAML as `calibration.read_cameras` takes it, for cameras that the dataset does not describe.

    Raises:
        BadInput: it is damaged or of another version. Episodes that were yielded before stay in the store.
        EpisodeError: the store cannot be written.
    """
    dataset = open_dataset(Source(source))
    calibrated = cameras_for({image.camera: (image.height, image.width) for image in dataset.images}, topics)
    entries = list(entries_of(dataset))
    begins: dict[tuple[int, int], int] = {}
    for entry in entries:
        begins[entry.data] = min(entry.first, begins.get(entry.data, entry.first))
    for entry in entries:
        path = layout.fill(dataset.data_path, "data_path", chunk_index=entry.data[0], file_index=entry.data[1])
        with dataset.source.parquet(path) as table:
            part = Part(dataset, entry, table, entry.first - begins[entry.data])
            own = dataset.source.has(folder_of(entry.number)) and dataset.has_stamps
            yield _own(part, store) if own else _foreign(part, store, calibrated, task, topics is not None)


def _own(part: Part, store: EpisodeStore) -> str:
    """An episode of our own export, with what its sidecar holds."""
    dataset, folder = part.dataset, folder_of(part.entry.number)
    description = dataset.source.json(f"{folder}/episode.json")
    head = head_of(description, part.entry.length, dataset.origin, f"{folder}/episode.json")
    images = {image.key: image for image in dataset.images}
    wanted = {layout.image_key(camera.name): (camera.height, camera.width) for camera in head.cameras}
    if wanted != {key: (image.height, image.width) for key, image in images.items()}:
        raise BadInput(
            f"{folder} has other cameras than {layout.INFO}; delete it to import what the dataset itself holds"
        )

    def frames() -> Iterator[RawFrame]:
        colors: Iterator[NDArray[np.uint8]] = iter(())
        current, row = "", -1
        for camera, at, stamp_ns, depth in read_depths(dataset.source, folder, head):
            if camera.name != current:
                current, row, colors = camera.name, -1, part.colors(images[layout.image_key(camera.name)])
            if not row < at < part.entry.length:
                raise BadInput(f"{folder}/depth.parquet is not in the order of rows; export the episodes anew")
            if camera is head.cameras[0] and stamp_ns != part.stamps_ns[at]:
                raise BadInput(
                    f"{folder} does not belong to its data; delete it to import what the dataset itself holds"
                )
            while row < at:
                color, row = next(colors), row + 1
            yield RawFrame(color, depth, camera, stamp_ns)

    seen = frames_of_decisions(description, read_decision_frames(dataset.source, folder, head), folder)
    return take_in(
        store,
        head,
        frames(),
        read_samples(dataset.source, folder),
        decisions_of(description, seen, folder),
        **part.codec,
    )


def _foreign(part: Part, store: EpisodeStore, cameras: Mapping[str, Camera], task: str | None, calibrated: bool) -> str:
    """An episode of others."""
    dataset, entry = part.dataset, part.entry
    told = [name for name in part.tasks() if name]
    reward, success = part.total(layout.REWARD), part.total(layout.SUCCESS)
    outcome: dict[str, Any] = {} if reward is None else {"reward": reward}
    if success is not None:
        outcome["solved"] = success > 0
    origin = {
        "format": dataset.origin.format,
        "source": dataset.origin.source,
        "episode_index": entry.number,
        "fps": dataset.rate_hz,
        "depth": "none",
        "calibration": "as given" if calibrated else "nominal",
        "stamps": "exact" if dataset.has_stamps else "from the start of the episode",
        "left_out": list(dataset.left_out),
        "tasks": told,
    }
    head = Head(
        task=told[0] if told else task or "unknown",
        robot=dataset.robot,
        cameras=tuple(cameras.values()),
        outcome=outcome,
        attributes={"imported": origin},
    )

    def frames() -> Iterator[RawFrame]:
        for image in dataset.images:
            depth = np.zeros((image.height, image.width), np.uint16)
            for stamp_ns, color in zip(part.stamps_ns.tolist(), part.colors(image), strict=True):
                yield RawFrame(color, depth, cameras[image.camera], stamp_ns)

    return take_in(store, head, frames(), part.samples(), **part.codec)

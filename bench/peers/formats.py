"""The ways to keep episodes that `bench/episodes.py` compares in one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import h5py
import imagecodecs
import imagecodecs.numcodecs
import numpy as np
import zarr
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from numcodecs import Blosc
from numpy.typing import NDArray
from peers.frames import CAMERAS, HEIGHT, QUALITY, WIDTH, WINDOW, Color, Data, Depth

from embodied_vision.episodes.schema import ColorCodec
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.geometry import quantise_depth
from embodied_vision.types import RGBD


class Format(Protocol):
    """A way to keep episodes; read back from the first camera, by number of the step within its episode."""

    name: str
    one_core: str
    """Why a read cannot use several cores, empty when it can."""

    def write(self, data: Data, episode: int) -> None:
        """One episode, until the format counts it as written."""

    def open(self, episodes: int) -> None:
        """Before the first read; not timed."""

    def color(self, episode: int, step: int) -> Color:
        """One image (H, W, 3)."""

    def depth(self, episode: int, step: int) -> Depth:
        """One depth image (H, W) in mm."""

    def window(self, episode: int, step: int, cores: int) -> Color:
        """`WINDOW` images (WINDOW, H, W, 3), with so many cores at hand."""


class Ours:
    """This store; every episode is on the disk, synced, when it counts as written."""

    name = "embodied_vision"
    small_name = "embodied_vision, HTJ2K"
    one_core = ""

    def __init__(self, folder: Path, codec: ColorCodec = "jpeg") -> None:
        self._store, self._codec = EpisodeStore(folder), codec
        if codec == "htj2k":
            self.name = self.small_name

    def write(self, data: Data, episode: int) -> None:
        writer = EpisodeWriter(
            self._store, task="bench", robot="none", cameras=data.cameras, color_codec=self._codec, quality=QUALITY
        )
        for step in data.of(episode):
            for frame in data.frames[step]:
                writer.append_frame(frame)
            writer.append("joint_state", data.frames[step][0].stamp_ns, data.joints[step])
        writer.close({"solved": True})

    def open(self, episodes: int) -> None:
        self._frames = [episode.frames(CAMERAS[0]) for episode in self._store.select()]

    def color(self, episode: int, step: int) -> Color:
        return self._frames[episode].color(step)

    def depth(self, episode: int, step: int) -> Depth:
        return self._frames[episode].depth_mm(step)

    def window(self, episode: int, step: int, cores: int) -> Color:
        return self._frames[episode].colors(range(step, step + WINDOW))


class Hdf5:
    """robomimic's layout: data/demo_N/obs/NAME, images uncompressed (its default) or with gzip, a frame a chunk."""

    one_core = "the HDF5 library holds one lock for all threads"

    def __init__(self, folder: Path, gzip: bool) -> None:
        self.name = "HDF5 as robomimic, gzip" if gzip else "HDF5 as robomimic, raw"
        self._options: dict[str, Any] = {"compression": "gzip", "compression_opts": 4} if gzip else {}
        self._path = folder / "data.hdf5"
        folder.mkdir()

    def write(self, data: Data, episode: int) -> None:
        frames = [data.frames[step] for step in data.of(episode)]
        with h5py.File(self._path, "a") as file:
            obs = file.create_group(f"data/demo_{episode}/obs")
            for number, name in enumerate(CAMERAS):
                color = np.stack([views[number].color for views in frames])
                depth = np.stack([quantise_depth(views[number].depth) for views in frames])
                chunked = {"chunks": (1, *color.shape[1:]), **self._options} if self._options else {}
                obs.create_dataset(f"{name}_image", data=color, **chunked)
                chunked = {"chunks": (1, *depth.shape[1:]), **self._options} if self._options else {}
                obs.create_dataset(f"{name}_depth", data=depth, **chunked)
            obs.create_dataset("joints", data=data.joints[data.of(episode)])

    def open(self, episodes: int) -> None:
        self._file = h5py.File(self._path, "r")

    def color(self, episode: int, step: int) -> Color:
        return self._file[f"data/demo_{episode}/obs/{CAMERAS[0]}_image"][step]

    def depth(self, episode: int, step: int) -> Depth:
        return self._file[f"data/demo_{episode}/obs/{CAMERAS[0]}_depth"][step]

    def window(self, episode: int, step: int, cores: int) -> Color:
        return self._file[f"data/demo_{episode}/obs/{CAMERAS[0]}_image"][step : step + WINDOW]


class ReplayBuffer:
    """diffusion_policy's replay buffer, Zarr 2: an array a name over all episodes, JPEG 2000 at 50, a frame a chunk."""

    name = "Zarr as diffusion_policy, JPEG 2000"
    one_core = ""

    def __init__(self, folder: Path) -> None:
        imagecodecs.numcodecs.register_codecs(verbose=False)
        self._root = zarr.open_group(folder, mode="a", zarr_format=2)
        self._steps = 0

    def write(self, data: Data, episode: int) -> None:
        frames = [data.frames[step] for step in data.of(episode)]
        self._steps = data.steps
        for number, name in enumerate(CAMERAS):
            color = np.stack([views[number].color for views in frames])
            depth = np.stack([quantise_depth(views[number].depth) for views in frames])
            self._append(name, color, imagecodecs.numcodecs.Jpeg2k(level=50))
            self._append(f"{name}_depth", depth, Blosc("zstd", clevel=5, shuffle=Blosc.BITSHUFFLE))
        self._append("joints", data.joints[data.of(episode)], Blosc("zstd", clevel=5, shuffle=Blosc.BITSHUFFLE))

    def _append(self, name: str, values: NDArray[Any], codec: Any) -> None:
        if name not in self._root:
            self._root.create_array(
                name,
                shape=(0, *values.shape[1:]),
                chunks=(1, *values.shape[1:]) if values.ndim > 2 else (len(values), values.shape[1]),
                dtype=values.dtype,
                compressors=codec,
            )
        self._root[name].append(values)

    def open(self, episodes: int) -> None:
        self._arrays = {name: self._root[name] for name in (CAMERAS[0], f"{CAMERAS[0]}_depth")}

    def color(self, episode: int, step: int) -> Color:
        return self._arrays[CAMERAS[0]][episode * self._steps + step]

    def depth(self, episode: int, step: int) -> Depth:
        return self._arrays[f"{CAMERAS[0]}_depth"][episode * self._steps + step]

    def window(self, episode: int, step: int, cores: int) -> Color:
        first = episode * self._steps + step
        return self._arrays[CAMERAS[0]][first : first + WINDOW]


class Mcap:
    """An MCAP file an episode, chunks in zstd, read through its index.

    Args:
        folder: where to.
        raw: sensor_msgs/Image with the bare pixels, what `ros2 bag record` writes of most cameras' drivers; otherwise
            JPEG and PNG in messages.
    """

    one_core = ""

    def __init__(self, folder: Path, raw: bool) -> None:
        self.name = "MCAP, raw images" if raw else "MCAP, JPEG and PNG"
        self._folder, self._raw = folder, raw
        folder.mkdir()

    def _encode(self, frame: RGBD) -> dict[str, bytes]:
        depth = quantise_depth(frame.depth)
        if self._raw:
            return {"color": _image(frame.color, "rgb8"), "depth": _image(depth, "16UC1")}
        return {
            "color": bytes(imagecodecs.jpeg8_encode(frame.color, level=QUALITY, subsampling="444")),
            "depth": bytes(imagecodecs.png_encode(depth, level=1)),
        }

    def write(self, data: Data, episode: int) -> None:
        with open(self._folder / f"{episode}.mcap", "wb") as file:
            writer = McapWriter(file)
            writer.start()
            schema = writer.register_schema("image", "", b"")
            topics = [f"{name}/{part}" for name in CAMERAS for part in ("color", "depth")] + ["joints"]
            channels = {topic: writer.register_channel(topic, "", schema) for topic in topics}
            for step in data.of(episode):
                for frame in data.frames[step]:
                    for part, blob in self._encode(frame).items():
                        channel = channels[f"{frame.camera.name}/{part}"]
                        writer.add_message(channel, frame.stamp_ns, blob, frame.stamp_ns)
                stamp_ns = data.frames[step][0].stamp_ns
                writer.add_message(channels["joints"], stamp_ns, data.joints[step].tobytes(), stamp_ns)
            writer.finish()

    def open(self, episodes: int) -> None:
        self._readers = [make_reader(open(self._folder / f"{e}.mcap", "rb")) for e in range(episodes)]  # noqa: SIM115
        self._stamps = [
            [m.log_time for _, _, m in reader.iter_messages([f"{CAMERAS[0]}/color"])] for reader in self._readers
        ]

    def _read(self, part: str, episode: int, step: int, count: int = 1) -> list[bytes]:
        stamps = self._stamps[episode]
        found = self._readers[episode].iter_messages(
            [f"{CAMERAS[0]}/{part}"], starting_at=stamps[step], ending_at=stamps[step + count - 1]
        )
        return [message.data for _, _, message in found]

    def _decode(self, blob: bytes) -> Color:
        if self._raw:
            return np.frombuffer(blob, np.uint8)[-HEIGHT * WIDTH * 3 :].reshape(HEIGHT, WIDTH, 3)
        return imagecodecs.jpeg8_decode(blob)

    def color(self, episode: int, step: int) -> Color:
        return self._decode(self._read("color", episode, step)[0])

    def depth(self, episode: int, step: int) -> Depth:
        blob = self._read("depth", episode, step)[0]
        if self._raw:
            return np.frombuffer(blob[-HEIGHT * WIDTH * 2 :], np.uint16).reshape(HEIGHT, WIDTH)
        return imagecodecs.png_decode(blob)

    def window(self, episode: int, step: int, cores: int) -> Color:
        blobs = self._read("color", episode, step, WINDOW)
        if cores == 1 or self._raw:
            return np.stack([self._decode(blob) for blob in blobs])
        return np.stack(list(_pool(cores).map(self._decode, blobs)))


@cache
def _pool(cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores)


def _image(pixels: NDArray[Any], encoding: str) -> bytes:
    """sensor_msgs/Image but for its few fields: they stand before the pixels in a hundred bytes."""
    return encoding.ljust(100).encode() + pixels.tobytes()

"""How fast logged images come back, beside the bare codec: single frames, 16-frame windows, and training's loader.

`make bench-reading` writes episodes of a 640 x 480 camera at 30 Hz with 16 joints, and reads them at random; SMALL=1
takes the smallest form. The reference of every figure is decoding the same images from memory in one thread, timed
right before and after it.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
import typer
from peers.frames import HEIGHT, JOINTS, RATE_HZ, WIDTH, WINDOW, Scene
from rich.console import Console

from embodied_vision.episodes.reader import Frames
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.windows import Sampling
from embodied_vision.episodes.writer import EpisodeWriter
from embodied_vision.geometry import depth_to_metres
from embodied_vision.learning.episode_dataset import EpisodeDataset
from embodied_vision.learning.episode_loader import EpisodeLoader
from embodied_vision.types import RGBD, Camera

CAMERA = Camera("front", WIDTH, HEIGHT, np.array([[600.0, 0, WIDTH / 2], [0, 600.0, HEIGHT / 2], [0, 0, 1]]), np.eye(4))
IMAGES = f"cameras/{CAMERA.name}/color"
WORKERS = (0, 1, 2)
KEPT = 64
"""Encoded images that the codec alone is timed with."""


def write(store: EpisodeStore, episodes: int, steps: int) -> None:
    """Episodes of one camera and joints."""
    scene = Scene(0)
    for episode in range(episodes):
        with EpisodeWriter(store, task="bench", robot="none", cameras=[CAMERA]) as writer:
            for step in range(steps):
                color, depth = scene.frame(episode * steps + step)
                stamp_ns = step * 10**9 // RATE_HZ
                writer.append_frame(RGBD(color, depth_to_metres(depth), CAMERA, stamp_ns))
                writer.append("joints", stamp_ns, np.full(JOINTS, float(step)))
            writer.close({"solved": True})


def rate(work: Callable[[], int], seconds: float) -> float:
    """Images a second."""
    begun, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        done += work()
    return done / passed


class Codec:
    """Decoding images that lie in memory, in one thread, into an array that is there."""

    def __init__(self, frames: Frames) -> None:
        self._codec = frames.color_codec
        self._blobs = [frames.encoded_color(number) for number in range(min(KEPT, len(frames)))]
        self._out = np.empty((1, HEIGHT, WIDTH, 3), np.uint8)

    def __call__(self) -> int:
        for blob in self._blobs:
            self._codec.decode(blob, self._out.shape, self._out.dtype, self._out)
        return len(self._blobs)


@contextmanager
def training(dataset: EpisodeDataset, batch_size: int, workers: int) -> Iterator[Callable[[], int]]:
    """Takes a batch after the other, epoch after epoch, and says how many images it held; nothing is ready yet."""
    loader = [EpisodeLoader(dataset, batch_size=batch_size, workers=workers)]
    batches = [chain.from_iterable(loader[0] for _ in count())]

    def take() -> int:
        return next(batches[0])[IMAGES].shape[:2].numel()

    for _ in range(2 * workers + 1):  # what workers had ready before anybody asked
        take()
    yield take
    batches.clear()
    loader.clear()  # its workers end


def main(
    episodes: int = typer.Option(4, min=1, help="Episodes."),
    steps: int = typer.Option(150, min=WINDOW + 2, help="Steps of each, at 30 Hz."),
    seconds: float = typer.Option(6.0, min=0.1, help="How long each kind of read is timed."),
    scratch: Path | None = typer.Option(None, help="Folder on the disk to be measured; the system's temporary one."),
) -> None:
    """Read the same episodes in several ways, each beside decoding alone."""
    torch.set_num_threads(1)
    console = Console(stderr=True)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bench-reading-", dir=scratch) as folder:
        store = EpisodeStore(folder)
        console.print("writing episodes …")
        write(store, episodes, steps)
        frames = [episode.frames(CAMERA.name) for episode in store.select()]
        codec = Codec(frames[0])
        rng = np.random.default_rng(3)

        def measure(figure: str, opened: AbstractContextManager[Callable[[], int]], a_window: int = 1) -> None:
            console.print(figure, "…")
            alone = rate(codec, seconds / 2)
            with opened as work:
                value = rate(work, seconds)
            alone = (alone + rate(codec, seconds / 2)) / 2
            line = {
                "bench": "reading",
                "figure": figure,
                "value": round(value, 1),
                "unit": "images/s",
                "reference": "JPEG decoding alone, one thread",
                "reference_value": round(alone, 1),
                "ratio": round(value / alone, 3),
                "cores": cores,
            }
            if a_window > 1:
                line["windows_per_s"] = round(value / a_window, 2)
            print(json.dumps(line), flush=True)

        def single() -> int:
            frames[rng.integers(episodes)].color(int(rng.integers(steps)))
            return 1

        def window(threads: int) -> int:
            first = int(rng.integers(steps - WINDOW))
            return len(frames[rng.integers(episodes)].colors(range(first, first + WINDOW), threads))

        measure("single images at random", nullcontext(single))
        for threads in sorted({1, cores}):
            figure = f"{WINDOW}-image windows at random, {threads} thread{'s' if threads > 1 else ''}"
            measure(figure, nullcontext(partial(window, threads)), WINDOW)
        forms = {
            "single images": (Sampling.at(0), 16),
            f"{WINDOW}-image windows": (Sampling.every(RATE_HZ, first=1 - WINDOW, length=WINDOW, fill="edge"), 2),
        }
        joints = Sampling.every(RATE_HZ, length=8, fill="edge")
        for name, (sampling, batch_size) in forms.items():
            dataset = EpisodeDataset(store, {IMAGES: sampling, "streams/joints": joints})
            for workers in WORKERS:
                how = f"{workers} worker{'s' if workers > 1 else ''}" if workers else f"no workers, {cores} threads"
                stream = training(dataset, batch_size, workers)
                measure(f"{name} by the loader, {how}", stream, len(sampling.offsets_ns))


if __name__ == "__main__":
    typer.run(main)

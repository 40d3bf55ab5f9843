"""The side of `bench/episodes.py` that runs in an environment with lerobot: writes and reads the same frames.

Arguments: FRAMES.npy (T, cameras, H, W, 3), JOINTS.npy (T, D), folder, steps an episode, rate, window, seconds a read,
cores to read with in the end, as 0,1,2.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    """Prints the figures of `bench/episodes.py` for LeRobotDataset with video as one JSON line."""
    frames, joints = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
    root, (steps, rate, window) = Path(sys.argv[3]), map(int, sys.argv[4:7])
    seconds, all_cores = float(sys.argv[7]), {int(core) for core in sys.argv[8].split(",")}
    names = [f"observation.images.camera_{number}" for number in range(frames.shape[1])]
    image = {"dtype": "video", "shape": frames.shape[2:], "names": ["height", "width", "channels"]}
    features = {name: image for name in names}
    features["observation.state"] = {"dtype": "float32", "shape": (joints.shape[1],), "names": None}
    features["action"] = features["observation.state"]
    begun = time.perf_counter()
    dataset = LeRobotDataset.create("bench/episodes", rate, features, root=root, use_videos=True)
    for episode in range(len(frames) // steps):
        for step in range(episode * steps, (episode + 1) * steps):
            row = joints[step].astype(np.float32)
            views = {name: frames[step, number] for number, name in enumerate(names)}
            dataset.add_frame({**views, "observation.state": row, "action": row, "task": "bench"})
        dataset.save_episode()
    dataset.finalize()
    written_s = time.perf_counter() - begun
    size = sum(path.stat().st_blocks * 512 for path in root.rglob("*") if path.is_file())

    def read_rate(opened: LeRobotDataset, last: int) -> float:
        rng, begun, done = np.random.default_rng(3), time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            opened[int(rng.integers(len(opened) // steps)) * steps + int(rng.integers(steps - last))]
            done += 1
        return done / (time.perf_counter() - begun)

    # One camera is read, as everywhere in the bench: a dataset decodes all that it has, so the other is left out.
    def opened(**options: object) -> LeRobotDataset:
        found = LeRobotDataset("bench/episodes", root=root, **options)
        for name in names[1:]:
            found.meta.info["features"].pop(name)
        return found

    single = opened()
    first = np.moveaxis(np.asarray(single[0][names[0]]), 0, -1)
    error = float(np.mean((first * 255.0 - frames[0, 0]) ** 2))
    offsets = {names[0]: [k / rate for k in range(window)]}
    figures = {
        "frames_written": frames.shape[0] * frames.shape[1] / written_s,
        "kB_a_frame": size / (frames.shape[0] * frames.shape[1]) / 1e3,
        "psnr_db": float(10 * np.log10(255**2 / error)),
        "frames_read": read_rate(single, 1),
        "windows_read": read_rate(opened(delta_timestamps=offsets), window),
    }
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), all_cores)
    torch.set_num_threads(len(all_cores))
    figures["windows_read_all_cores"] = read_rate(opened(delta_timestamps=offsets), window)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

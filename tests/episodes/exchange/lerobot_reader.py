"""Run by an interpreter that has lerobot: opens a dataset with its own reader and saves what it gives.

Arguments: folder of the dataset, file to write (.npz).
"""

from __future__ import annotations

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    """Every item, the statistics, and windows by delta_timestamps."""
    root, target = sys.argv[1:]
    dataset = LeRobotDataset("exported/by_embodied_vision", root=root)
    items = [dataset[number] for number in range(len(dataset))]
    saved = {f"item/{key}": np.stack([np.asarray(item[key]) for item in items]) for key in items[0] if key != "task"}
    saved["tasks"] = np.array([item["task"] for item in items])
    for key, stats in dataset.meta.stats.items():
        saved.update({f"stats/{key}/{name}": value for name, value in stats.items()})
    deltas = [-1 / dataset.fps, 0.0, 1 / dataset.fps]
    cameras = list(dataset.meta.camera_keys)
    windows = LeRobotDataset(
        "exported/by_embodied_vision",
        root=root,
        delta_timestamps={key: deltas for key in (*cameras, "observation.state", "action")},
    )
    for number in (0, 1, len(windows) - 1):
        for key, value in windows[number].items():
            if key != "task":
                saved[f"window/{number}/{key}"] = np.asarray(value)
    saved["told"] = np.array(
        json.dumps(
            {
                "fps": dataset.fps,
                "episodes": dataset.num_episodes,
                "frames": dataset.num_frames,
                "robot": dataset.meta.robot_type,
                "cameras": cameras,
                "videos": list(dataset.meta.video_keys),
                "names": dataset.meta.names["observation.state"],
                "ends": [int(end) for end in dataset.meta.episodes["dataset_to_index"]],
            }
        )
    )
    np.savez(target, **saved)


if __name__ == "__main__":
    main()

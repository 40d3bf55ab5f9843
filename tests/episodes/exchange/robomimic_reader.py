"""Run by an interpreter that has robomimic: opens a file with its SequenceDataset and saves what it gives.

Arguments: the HDF5 file, file to write (.npz).
"""

from __future__ import annotations

import sys

import numpy as np
from robomimic.utils import file_utils, obs_utils
from robomimic.utils.dataset import SequenceDataset

CAMERAS = ["cell.front_image", "wrist_image"]


def main() -> None:
    """Sequences of three rows, the filter of solved demos, and the environment's description."""
    path, target = sys.argv[1:]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"rgb": CAMERAS, "low_dim": ["joint_positions"]}})
    options = dict(
        hdf5_path=path,
        obs_keys=[*CAMERAS, "joint_positions"],
        dataset_keys=["actions", "rewards", "dones"],
        seq_length=3,
        hdf5_cache_mode="low_dim",
        hdf5_use_swmr=False,
        load_next_obs=False,
    )
    dataset = SequenceDataset(**options)
    items = [dataset[number] for number in range(len(dataset))]
    saved = {f"obs/{key}": np.stack([item["obs"][key] for item in items]) for key in items[0]["obs"]}
    saved.update({key: np.stack([item[key] for item in items]) for key in ("actions", "rewards", "dones")})
    saved["solved"] = np.array(len(SequenceDataset(**options, filter_by_attribute="solved")))
    saved["env_name"] = np.array(file_utils.get_env_metadata_from_dataset(path)["env_name"])
    saved["shapes"] = np.array(file_utils.get_shape_metadata_from_dataset(path, all_obs_keys=CAMERAS)["ac_dim"])
    np.savez(target, **saved)


if __name__ == "__main__":
    main()

"""A stand-in encoder, random weights and a made-up frame, for tests that need no trained policy."""

from __future__ import annotations

import numpy as np

from embodied_vision import geometry
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.types import RGBD, Camera, Features, Workspace

DIMENSION = 6


class StubEncoder:
    """Eight pixels a patch; features are means of the color."""

    encoder_id = "stub-1"
    artefact_id = "numpy"
    dimension = DIMENSION

    def encode(self, color: np.ndarray, stamp_ns: int = 0) -> Features:
        rows, columns = color.shape[0] // 8, color.shape[1] // 8
        mean = color[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8, 3).mean((1, 3)) / 255
        grid = np.concatenate([mean, 1 - mean], axis=2).astype(np.float32)
        return Features(grid, (8.0, 8.0), self.encoder_id, self.artefact_id, stamp_ns)


TINY = NetworkConfig(coarse_widths=(8, 8), embedding=4, fine_widths=(8, 8), fine_channels=3)


def random_checkpoint(
    encoder_id: str = "stub-1", dimension: int = DIMENSION, seed: int = 3, config: NetworkConfig | None = None
) -> Checkpoint:
    config = config or NetworkConfig(features=dimension)
    dimension = config.features
    network = PolicyNetwork.seeded(config, seed)
    return Checkpoint(
        task="block-insertion",
        encoder_id=encoder_id,
        workspace=Workspace(),
        config=config,
        normalisation=Normalisation.identity(dimension),
        weights=network.state_dict(),
    )


def frame(seed: int = 0) -> RGBD:
    rng = np.random.default_rng(seed)
    K = np.array([[340.0, 0, 211.5], [0, 340.0, 119.5], [0, 0, 1]])
    camera = Camera("camera", 424, 240, K, geometry.look_at((1.0, 0, 0.85), (0.5, 0, 0)))
    rays = geometry.deproject(np.ones((240, 424), np.float32), K, camera.T_base_camera) - camera.T_base_camera[:3, 3]
    depth = (-camera.T_base_camera[2, 3] / rays[..., 2]).astype(np.float32)
    depth[100:120, 200:220] -= 0.05
    color = rng.integers(0, 255, (240, 424, 3)).astype(np.uint8)
    return RGBD(color, geometry.depth_to_metres(geometry.quantise_depth(depth)), camera, 1234)

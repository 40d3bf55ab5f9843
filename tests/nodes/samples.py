"""Small artefacts made on the spot: an untrained encoder, an untrained policy, images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from embodied_vision import geometry
from embodied_vision.calibration import read_cameras
from embodied_vision.encoders.artefact import write_artefact
from embodied_vision.encoders.compact import (
    KIND,
    LAYER,
    PREPROCESSING,
    Architecture,
    CompactEncoder,
    initialised,
    weights_of,
)
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.types import RGBD, Camera, Workspace

ARCHITECTURE = Architecture(stem=4, fine=8, middle=8, coarse=8, blocks=(1, 1, 1), dimension=6)


def camera() -> Camera:
    """The simulated cell's."""
    return read_cameras()[0]


def write_encoder(folder: Path, seed: int = 0, poison: bool = False) -> CompactEncoder:
    """An untrained encoder as a folder; `poison` makes its features overflow to NaN though its weights are finite."""
    weights = weights_of(initialised(ARCHITECTURE, seed))
    if poison:
        for name in ("merge.second.1.weight", "merge.second.1.bias", "head.weight", "head.bias"):
            weights[name] = np.full_like(weights[name], 3e38)
    encoder = CompactEncoder(ARCHITECTURE, weights)
    manifest = {
        "kind": KIND,
        "encoder_id": encoder.encoder_id,
        "architecture": asdict(ARCHITECTURE),
        "preprocessing": PREPROCESSING,
        "layer": LAYER,
    }
    write_artefact(folder, weights, manifest, "# An untrained encoder for tests\n")
    return encoder


def write_policy(folder: Path, encoder_id: str, seed: int = 3) -> str:
    """An untrained policy as a folder; returns its id."""
    config = NetworkConfig(features=ARCHITECTURE.dimension)
    return checkpoints.save(
        checkpoints.Checkpoint(
            task="block-insertion",
            encoder_id=encoder_id,
            workspace=Workspace(),
            config=config,
            normalisation=Normalisation.identity(ARCHITECTURE.dimension),
            weights=PolicyNetwork.seeded(config, seed).state_dict(),
        ),
        folder,
    )


def frame(seed: int = 0, stamp_ns: int = 1_700_000_000_123_456_789) -> RGBD:
    """Noise on a table, with a box on it."""
    rng, cam = np.random.default_rng(seed), camera()
    size = (cam.height, cam.width)
    rays = geometry.deproject(np.ones(size, np.float32), cam.K, cam.T_base_camera) - cam.T_base_camera[:3, 3]
    depth = (-cam.T_base_camera[2, 3] / rays[..., 2]).astype(np.float32)
    depth[100:120, 200:220] -= 0.05
    color = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
    return RGBD(color, geometry.depth_to_metres(geometry.quantise_depth(depth)), cam, stamp_ns)

"""What the networks see hardly depends on how bright the light is, nor on what it adds to each color."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from embodied_vision.policies import maps
from policies import synthetic


def test_scenes_with_more_light_or_more_of_a_color_look_the_same() -> None:
    rng = np.random.default_rng(0)
    scene = synthetic.empty_scene()
    color = rng.integers(20, 120, scene.color.shape).astype(np.uint8)
    valid = rng.uniform(size=scene.valid.shape) < 0.9
    scene = replace(scene, color=color, valid=valid)
    seen = maps.stack_geometry(scene)
    brighter = maps.stack_geometry(replace(scene, color=2 * color))
    shifted = maps.stack_geometry(replace(scene, color=color + np.array([10, 0, 30], np.uint8)))
    assert torch.allclose(seen, shifted, atol=1e-4)
    assert torch.allclose(seen, brighter, atol=0.15), "noise is told from what is seen by its size"
    assert float((seen[:3] - brighter[:3]).abs().max()) > 0
    assert torch.equal(seen[:, ~torch.from_numpy(valid)], torch.zeros_like(seen[:, ~torch.from_numpy(valid)]))


def test_colors_are_centred_and_of_unit_spread_where_seen() -> None:
    rng = np.random.default_rng(1)
    scene = synthetic.empty_scene()
    valid = rng.uniform(size=scene.valid.shape) < 0.5
    color = np.where(valid[..., None], rng.integers(0, 255, scene.color.shape), 255).astype(np.uint8)
    seen = maps.stack_geometry(replace(scene, color=color, valid=valid))[:3, torch.from_numpy(valid)]
    assert seen.mean(1).tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert float(seen.std()) == pytest.approx(1, abs=0.05)


def test_a_part_is_set_against_the_whole() -> None:
    scene = synthetic.empty_scene()
    synthetic.paint(scene, np.array([0.40, 0.1]), 0.3, synthetic.BLOCK_TOP_M, synthetic.RED)
    exposure = maps.Exposure.of(scene)
    part, _ = maps.crop(scene, np.array(scene.valid.shape) / 2 - 0.5, 16)
    rows, columns = (slice(n // 2 - 8, n // 2 + 8) for n in scene.valid.shape)
    assert torch.equal(maps.stack_geometry(part, exposure), maps.stack_geometry(scene)[:, rows, columns])


@pytest.mark.parametrize("color", [0, 90, 255])
def test_one_color_or_nothing_seen_is_no_color(color: int) -> None:
    scene = synthetic.empty_scene()
    flat = replace(scene, color=np.full_like(scene.color, color))
    assert float(maps.stack_geometry(flat)[:3].abs().max()) < 0.01
    blind = replace(flat, valid=np.zeros_like(scene.valid))
    assert not maps.stack_geometry(blind).any()

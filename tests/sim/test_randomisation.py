"""Randomisation changes what is seen and felt, never the task's scene; the same seed gives the same bits."""

from __future__ import annotations

import colorsys
import json
import resource
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import gymnasium
import numpy as np
import pybullet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.errors import BadInput
from embodied_vision.geometry import deproject, pose_to_vector
from embodied_vision.lights import Light
from embodied_vision.types import RGBD
from embodied_vision_sim.camera import front_camera
from embodied_vision_sim.randomisation import MILD, NONE, PRESETS, STRONG, Draw, Randomisation
from embodied_vision_sim.scenery import KEEP_M, UNLIKE, chromaticity
from embodied_vision_sim.sensor import Delay, SensorNoise
from embodied_vision_sim.tasks import TASKS
from embodied_vision_sim.world import TABLE_RGBA, World

CAMERA = front_camera()


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, World]]:
    made = {name: World("place-red-in-green", randomisation=name) for name in PRESETS}
    yield made
    for world in made.values():
        world.close()


def _things(world: World) -> dict[str, int]:
    """Bodies of the task by their names."""
    return {
        name: body
        for body, name in world.object_names.items()
        if name not in ("table", "robot") and not name.startswith("distractor")
    }


def _distractors(world: World) -> list[int]:
    return [body for body, name in world.object_names.items() if name.startswith("distractor")]


def _flat(depth_m: float) -> RGBD:
    shape = (CAMERA.height, CAMERA.width)
    return RGBD(np.full((*shape, 3), 128, np.uint8), np.full(shape, depth_m, np.float32), CAMERA, 0)


# The description


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_description_survives_json(preset: Randomisation) -> None:
    assert Randomisation.of(json.loads(json.dumps(preset.to_dict()))) == preset
    assert Randomisation.of(preset.name) is preset
    assert Randomisation.of(preset) is preset


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("wild", "'wild' is unknown; use none, mild, strong"),
        ({"colour": 1}, "no field colour"),
        ({"focal": -0.1}, r"focal is -0\.1"),
        ({"friction": [0.0, 1.0]}, "friction"),
        ({"mass": [2.0, 1.0]}, "mass"),
        ({"light": 1.5}, "at most 1"),
        ({"texture": float("nan")}, "texture"),
        ({"edge_holes": "many"}, "cannot be read"),
    ],
)
def test_what_cannot_be_drawn_from_is_named(bad: str | dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Randomisation.of(bad)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([MILD, STRONG]))
def test_draws_stay_in_their_ranges(seed: int, preset: Randomisation) -> None:
    drawn = preset.draw(seed, [CAMERA])
    assert drawn.to_dict() == preset.draw(seed, [CAMERA]).to_dict()
    for before, after, position, angle in (
        (CAMERA, drawn.cameras[0], preset.camera_position_m, preset.camera_angle_rad),
        (
            drawn.cameras[0],
            drawn.true_cameras[0],
            preset.calibration_position_m,
            preset.calibration_angle_rad,
        ),
    ):
        turn = before.T_base_camera[:3, :3].T @ after.T_base_camera[:3, :3]
        assert np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)) <= angle + 1e-6
        assert np.abs(before.T_base_camera[:3, 3] - after.T_base_camera[:3, 3]).max() <= position + 1e-12
    assert abs(drawn.cameras[0].K[0, 0] / CAMERA.K[0, 0] - 1) <= preset.focal + 1e-12
    np.testing.assert_array_equal(drawn.cameras[0].K, drawn.true_cameras[0].K)
    for name in ("table", "robot"):
        assert np.abs(getattr(drawn, name)).max() <= getattr(preset, name) + 1e-12
    for name in ("brightness", "friction", "mass", "latency_s", "distractors"):
        low, high = getattr(preset, name)
        assert low <= getattr(drawn, name) <= high
    assert 0 <= drawn.contrast <= preset.texture
    assert 0 <= drawn.sensor.color <= preset.color_noise
    assert 0 <= drawn.sensor.depth_m <= preset.depth_noise_m
    assert 0 <= drawn.sensor.edges <= preset.edge_holes
    assert preset.patch_holes[0] <= drawn.sensor.patches <= preset.patch_holes[1]
    texture = drawn.texture()
    if texture is not None:
        assert texture.min() >= 255 * (1 - drawn.contrast) - 1


CHANGED: dict[str, Any] = {"lamp": "evening", "hue": (300.0, 300.0)}
"""What no preset changes: a cell that has become another one."""


def test_every_range_matters() -> None:
    """Each field of the strong preset, or of a changed cell, alone, changes what is drawn."""
    usual = NONE.draw(5, [CAMERA]).to_dict()
    for field in fields(Randomisation):
        if field.name in ("name", "seed"):
            continue
        alone = replace(NONE, **{field.name: CHANGED.get(field.name, getattr(STRONG, field.name))})
        assert any(alone.draw(seed, [CAMERA]).to_dict() != {**usual, **_seed_of(alone, seed)} for seed in (5, 6, 7)), (
            field.name
        )


def _seed_of(preset: Randomisation, seed: int) -> dict[str, int]:
    return {"seed": preset.draw(seed, [CAMERA]).seed}


def test_none_draws_the_cell_as_it_is() -> None:
    drawn = NONE.draw(11, [CAMERA])
    assert drawn.cameras == drawn.true_cameras == (CAMERA,)
    assert drawn.light == Light()
    assert drawn.sensor == SensorNoise()
    assert (drawn.brightness, drawn.friction, drawn.mass) == (1.0, 1.0, 1.0)
    assert (drawn.contrast, drawn.distractors, drawn.latency_s) == (0.0, 0, 0.0)
    assert drawn.texture() is None


# The scene


@pytest.mark.parametrize("seed", [0, 4])
def test_the_scene_is_the_same_under_every_preset(worlds: dict[str, World], seed: int) -> None:
    poses = {}
    for name, world in worlds.items():
        world.reset(seed)
        at_once = [world.pose(body).tolist() for body in _things(world).values()]
        for _ in range(60):
            world.step()
        poses[name] = (list(_things(world)), at_once, [world.pose(body).tolist() for body in _things(world).values()])
        assert poses[name][1] == poses[name][2]
    assert poses["none"] == poses["mild"] == poses["strong"]


def test_same_seed_same_bits(worlds: dict[str, World]) -> None:
    with World("place-red-in-green", randomisation="strong") as other:
        other.reset(9)
        worlds["strong"].reset(3)
        worlds["strong"].reset(9)
        a, b = worlds["strong"].render()[0], other.render()[0]
        np.testing.assert_array_equal(a.color, b.color)
        np.testing.assert_array_equal(a.depth, b.depth)
        again = other.render()[0]
        np.testing.assert_array_equal(again.depth, b.depth)
        assert worlds["strong"].drawn.to_dict() == other.drawn.to_dict()
        other.step()
        assert (other.render()[0].depth != b.depth).any()


def test_presets_differ_from_each_other_and_from_scene_to_scene(worlds: dict[str, World]) -> None:
    pictures = []
    for name in PRESETS:
        for seed in (1, 2):
            worlds[name].reset(seed)
            pictures.append(worlds[name].render()[0].color)
    assert all((a != b).mean() > 0.1 for i, a in enumerate(pictures) for b in pictures[:i])


@pytest.mark.parametrize("task", sorted(TASKS))
def test_distractors_keep_their_distance(task: str) -> None:
    some = replace(NONE, distractors=(4, 4))
    with World(task, randomisation=some) as world:
        placed = 0
        for seed in range(3):
            world.reset(seed)
            placed += len(_distractors(world))
            for body in _distractors(world):
                low, high = (np.array(c) for c in pybullet.getAABB(body, physicsClientId=world.client))
                for thing in _things(world).values():
                    a, b = (np.array(c) for c in pybullet.getAABB(thing, physicsClientId=world.client))
                    gap = np.maximum(np.maximum(low - b, a - high), 0)[:2]
                    # An upright box fits into the disc that was found for it.
                    assert np.hypot(*gap) >= KEEP_M - 0.02
        assert placed > 0


def test_distractors_leave_room_for_what_is_to_come() -> None:
    with World("block-insertion", randomisation=replace(NONE, distractors=(5, 5))) as world:
        build = world.task.build

        def with_feed(where: World, rng: np.random.Generator) -> None:
            build(where, rng)
            where.keep_free(0.5, 0.0, 0.2)

        world.task.build = with_feed  # type: ignore[method-assign]
        for seed in range(4):
            world.reset(seed)
            for body in _distractors(world):
                assert np.abs(world.pose(body)[:2, 3] - (0.5, 0.0)).max() > 0.2


def test_distractors_are_not_taken_for_objects() -> None:
    with World("place-red-in-green", randomisation=replace(NONE, distractors=(3, 3))) as world:
        world.reset(2)
        colors = {
            body: np.array(pybullet.getVisualShapeData(body, physicsClientId=world.client)[0][7][:3])
            for body in [*_things(world).values(), *_distractors(world)]
        }
        for body in _distractors(world):
            own = chromaticity(colors[body])
            others = [chromaticity(colors[thing]) for thing in _things(world).values()]
            assert min(np.linalg.norm(own - other) for other in others) >= UNLIKE - 1e-6


def test_brightness_keeps_the_hue() -> None:
    with World("place-red-in-green", randomisation=replace(NONE, brightness=(0.7, 0.7))) as dark:
        with World("place-red-in-green") as usual:
            dark.reset(0)
            usual.reset(0)
            (a,), (ids,) = dark.views(dark.cameras)
            (b,), _ = usual.views(usual.cameras)
            for body in _things(usual).values():
                mask = ids == body
                if mask.sum() > 30:
                    ratio = a.color[mask].mean(0) / b.color[mask].mean(0)
                    np.testing.assert_allclose(ratio, 0.7, atol=0.03)


def test_the_table_takes_its_color_and_texture() -> None:
    looks = replace(NONE, table=0.2, texture=0.3)
    with World("block-insertion", randomisation=looks) as world:
        for seed in (0, 1):
            world.reset(seed)
            (frame,), (ids,) = world.views(world.cameras)
            table = next(body for body, name in world.object_names.items() if name == "table")
            seen = frame.color[ids == table]
            wanted = 255 * (np.array(TABLE_RGBA[:3]) + world.drawn.table)
            assert (seen.max(0) <= wanted + 3).all()
            assert seen.std(0).max() > 10 * world.drawn.contrast
            height = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)[..., 2][ids == table]
            assert np.abs(height).max() < 0.002


def test_friction_and_mass_are_scaled() -> None:
    heavy = replace(NONE, mass=(2.0, 2.0), friction=(0.5, 0.5))
    with World("block-insertion", randomisation=heavy) as world, World("block-insertion") as usual:
        world.reset(0)
        usual.reset(0)
        for (name, body), other in zip(_things(world).items(), _things(usual).values(), strict=True):
            mass, friction = pybullet.getDynamicsInfo(body, -1, physicsClientId=world.client)[:2]
            mass_, friction_ = pybullet.getDynamicsInfo(other, -1, physicsClientId=usual.client)[:2]
            assert friction == pytest.approx(0.5 * friction_), name
            assert mass == pytest.approx(2 * mass_), name


# Cameras and sensors


def test_extrinsics_that_are_reported_are_true_but_for_the_calibration_error() -> None:
    moved = replace(NONE, camera_position_m=0.04, camera_angle_rad=0.04, focal=0.05)
    off = replace(NONE, calibration_position_m=0.01)
    with World("block-insertion", randomisation=moved) as world:
        world.reset(0)
        frame = world.render()[0]
        assert np.abs(frame.camera.T_base_camera - CAMERA.T_base_camera).max() > 0.005
        (_,), (ids,) = world.views(world.cameras)
        table = next(body for body, name in world.object_names.items() if name == "table")
        z = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)[..., 2][ids == table]
        assert np.abs(z).max() < 0.002
    with World("block-insertion", randomisation=off) as world:
        world.reset(1)
        frame = world.render()[0]
        np.testing.assert_array_equal(frame.camera.T_base_camera, CAMERA.T_base_camera)
        error_z = world.drawn.true_cameras[0].T_base_camera[2, 3] - CAMERA.T_base_camera[2, 3]
        assert abs(error_z) > 0.001
        z = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)[..., 2]
        assert np.median(z) == pytest.approx(-error_z, abs=0.0005)


def test_depth_noise_grows_with_the_square_of_the_distance() -> None:
    rng = np.random.default_rng(0)
    noise = SensorNoise(depth_m=0.004)
    for distance in (0.5, 1.0, 2.0):
        depth = noise.apply(_flat(distance), rng).depth.astype(float)
        assert depth.std() == pytest.approx(0.004 * distance**2, rel=0.06)
        assert depth.mean() == pytest.approx(distance, abs=0.0005)
        np.testing.assert_allclose(depth * 1000, np.round(depth * 1000), atol=1e-3)


def test_color_noise_has_its_standard_deviation() -> None:
    color = SensorNoise(color=6.0).apply(_flat(1.0), np.random.default_rng(1)).color.astype(float)
    assert color.std() == pytest.approx(6.0, rel=0.03)
    assert color.mean() == pytest.approx(128, abs=0.1)


def test_holes_lie_on_edges_and_in_patches() -> None:
    frame = _flat(1.0)
    frame.depth[60:180, 100:300] = 0.9
    rng = np.random.default_rng(2)
    holes = SensorNoise(edges=0.5).apply(frame, rng).depth == 0
    edge = np.zeros_like(holes)
    edge[59:181, 99:301] = True
    edge[61:179, 101:299] = False
    assert not (holes & ~edge).any()
    assert holes[edge].mean() == pytest.approx(0.5, abs=0.07)
    patched = SensorNoise(patches=6).apply(_flat(1.0), rng).depth == 0
    assert 6 * np.pi * 2**2 * 0.3 < patched.sum() < 6 * np.pi * 8**2
    assert (SensorNoise(patches=6, depth_m=0.1).apply(_flat(0.0), rng).depth == 0).all()


def test_delay_hands_on_what_was_seen_then() -> None:
    delay: Delay[int] = Delay(0.1)
    assert [delay.push(0.05 * k, k) for k in range(6)] == [0, 0, 0, 1, 2, 3]
    none: Delay[int] = Delay(0.0)
    assert [none.push(0.05 * k, k) for k in range(3)] == [0, 1, 2]
    between: Delay[int] = Delay(0.12)
    assert [between.push(0.05 * k, k) for k in range(5)] == [0, 0, 0, 0, 1]


# Environments


def test_environments_take_presets_and_tell_what_was_drawn() -> None:
    late = replace(STRONG, latency_s=(0.05, 0.05))
    env = gymnasium.make("embodied_vision/BlockInsertion-v0", randomisation=late, renderer="software")
    observation, info = env.reset(seed=0)
    cell = env.unwrapped
    json.dumps(info["randomisation"])
    assert info["randomisation"]["preset"] == cell.preset == "strong"  # type: ignore[attr-defined]
    np.testing.assert_array_equal(
        observation["camera"]["extrinsics"], info["randomisation"]["cameras"][0]["T_base_camera"]
    )
    frame = cell.frames()[0]  # type: ignore[attr-defined]
    assert cell._world.time_ns - frame.stamp_ns == 50_000_000  # type: ignore[attr-defined]
    decision = cell.oracle()  # type: ignore[attr-defined]
    assert decision.stamp_ns == frame.stamp_ns
    _, reward, *_ = env.step({"pick": pose_to_vector(decision.pick), "place": pose_to_vector(decision.place)})
    assert reward == pytest.approx(1.0)
    env.close()


def test_many_resets_do_not_need_more_memory() -> None:
    with World("block-insertion", randomisation="strong") as world:
        for seed in range(60):
            world.reset(seed)
            world.render()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for seed in range(60, 300):
            world.reset(seed)
        world.render()
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kb < 0.05 * before


def test_draws_of_other_seeds_are_unlike() -> None:
    draws: list[Draw] = [STRONG.draw(seed, [CAMERA]) for seed in range(40)]
    assert len({drawn.seed for drawn in draws}) == 40
    assert len({drawn.light for drawn in draws}) == 40
    assert replace(STRONG, seed=1).draw(0, [CAMERA]).light != draws[0].light


def test_another_batch_of_parts_has_its_hue_turned_and_the_table_has_not() -> None:
    def colors(**changes: Any) -> dict[str, tuple[float, float, float]]:
        with World("place-red-in-green", randomisation=replace(NONE, **changes)) as world:
            world.reset(3)
            shown = {
                name: pybullet.getVisualShapeData(body, physicsClientId=world.client)[0][7][:3]
                for body, name in world.object_names.items()
            }
        return {name: (rgb[0], rgb[1], rgb[2]) for name, rgb in shown.items()}

    usual, turned = colors(), colors(hue=(330.0, 330.0))
    for name, rgb in usual.items():
        if name in ("robot", "table"):
            assert turned[name] == rgb
            continue
        before, after = colorsys.rgb_to_hsv(*rgb), colorsys.rgb_to_hsv(*turned[name])
        assert (after[0] - before[0]) % 1 == pytest.approx(330 / 360, abs=1e-5)
        assert after[1:] == pytest.approx(before[1:], abs=1e-5)


def test_a_description_is_read_from_a_command_line() -> None:
    assert Randomisation.parse("mild") == MILD
    assert Randomisation.parse('{"hue": [330, 330], "lamp": "evening"}') == replace(
        NONE, name="custom", hue=(330, 330), lamp="evening"
    )
    for text, told in (("{", "no JSON"), ('{"lamp": "moon"}', "lamp is 'moon'"), ("dusk", "unknown")):
        with pytest.raises(BadInput, match=told):
            Randomisation.parse(text)

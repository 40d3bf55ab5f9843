"""The simulated camera agrees with its calibration, whatever the calibration is."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import numpy as np
import pytest

from embodied_vision.errors import BadInput
from embodied_vision.geometry import deproject, look_at, project
from embodied_vision.types import Camera, FloatArray
from embodied_vision_sim import shapes
from embodied_vision_sim.camera import EGL_LARGEST_PX, Light, front_camera
from embodied_vision_sim.renderer import egl_available
from embodied_vision_sim.tasks import TASKS
from embodied_vision_sim.world import TABLE_SIZE_M, World

SIDE = Camera(
    "side", 200, 160, np.array([[230.0, 0, 88.0], [0, 215.0, 90.5], [0, 0, 1]]), look_at((0.6, 0.9, 0.5), (0.5, 0.1, 0))
)
TOP = Camera(
    "top",
    161,
    121,
    np.array([[150.0, 0, 80.0], [0, 150.0, 60.0], [0, 0, 1]]),
    look_at((0.5, 0, 1.0), (0.5, 0, 0), (1, 0, 0)),
)
CAMERAS = [front_camera(), SIDE, TOP]
RED = (0.9, 0.2, 0.2, 1.0)
NO_EGL = "EGL does not draw on this machine: libegl1 or a driver such as libgl1-mesa-dri is missing"


Scene = tuple[World, dict[int, tuple[FloatArray, FloatArray]]]


@pytest.fixture(scope="module", params=["software", "egl"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A world with axis-aligned boxes in the air, and the bounds of each, for each renderer."""
    if request.param == "egl" and not egl_available():
        pytest.skip(NO_EGL)
    world = World("block-insertion", renderer=request.param)
    world.reset(0)
    bounds = {}
    rng = np.random.default_rng(0)
    for number in range(15):
        centre = np.array([rng.uniform(0.3, 0.7), rng.uniform(-0.4, 0.4), rng.uniform(0.06, 0.2)])
        size = rng.uniform(0.02, 0.06, 3)
        body = world.add_boxes(
            f"target {number}", [shapes.Box(tuple(size))], centre, 0.0, (0.2, 0.3, 0.9, 1.0), fixed=True
        )
        bounds[body] = (centre - size / 2, centre + size / 2)
    yield world, bounds
    world.close()


@pytest.fixture
def egl() -> None:
    """For tests about EGL alone."""
    if not egl_available():
        pytest.skip(NO_EGL)


def _cast(camera: Camera, bounds: dict[int, tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Depth (H, W) and ids (H, W) of boxes by exact ray casting through the pixels of K."""
    rays = deproject(np.ones((camera.height, camera.width), np.float32), camera.K, camera.T_base_camera)
    origin = camera.T_base_camera[:3, 3]
    rays = rays.astype(float) - origin
    depth = np.full(rays.shape[:2], np.inf)
    ids = np.full(rays.shape[:2], -1)
    for body, (low, high) in bounds.items():
        with np.errstate(divide="ignore"):
            a, b = (low - origin) / rays, (high - origin) / rays
        near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        hit = (near <= far) & (near > 0) & (near < depth)
        depth[hit], ids[hit] = near[hit], body
    return depth, ids


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_image_is_that_of_the_pinhole(camera: Camera, scene: Scene) -> None:
    world, bounds = scene
    (frame,), (ids,) = world.views([camera])
    depth, expected = _cast(camera, bounds)
    boxes = np.isin(expected, list(bounds))
    assert boxes.sum() > 500
    # Silhouettes coincide to the pixel, which bounds any shift far below half a pixel.
    assert (np.isin(ids, list(bounds)) != boxes).sum() <= 0.002 * boxes.sum() + 2
    same = boxes & (ids == expected)
    assert np.abs(frame.depth - depth)[same].max() < 0.001


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_projected_and_deprojected_points(camera: Camera, scene: Scene) -> None:
    world, bounds = scene
    (frame,), (ids,) = world.views([camera])
    points = deproject(frame.depth, camera.K, camera.T_base_camera)
    rows, columns = np.mgrid[: camera.height, : camera.width]
    for body, (low, high) in bounds.items():
        mask = ids == body
        if mask.sum() < 20:
            continue
        outside = np.maximum(low - points[mask], points[mask] - high).max()
        assert outside < 0.002
        # What touches the box's silhouette is the projection of its corners.
        corners = np.array([[(low, high)[(k >> axis) & 1][axis] for axis in range(3)] for k in range(8)])
        pixels, _ = project(corners, camera.K, camera.T_base_camera)
        assert columns[mask].min() > pixels[:, 0].min() - 0.5
        assert columns[mask].max() < pixels[:, 0].max() + 0.5
        assert rows[mask].min() > pixels[:, 1].min() - 0.5
        assert rows[mask].max() < pixels[:, 1].max() + 0.5


def test_table_lies_at_height_zero(scene: Scene) -> None:
    world, _ = scene
    (frame,), (ids,) = world.views([front_camera()])
    table = next(body for body, name in world.object_names.items() if name == "table")
    z = deproject(frame.depth, frame.camera.K, frame.camera.T_base_camera)[ids == table][:, 2]
    assert np.abs(z).max() < 0.002
    assert TABLE_SIZE_M[2] > 0


def test_depth_is_in_whole_millimetres(scene: Scene) -> None:
    frame = scene[0].render()[0]
    millimetres = frame.depth.astype(float) * 1000
    np.testing.assert_allclose(millimetres, np.round(millimetres), atol=1e-3)


def test_no_return_is_zero_and_has_no_id(scene: Scene) -> None:
    away = Camera(
        "away",
        32,
        24,
        np.array([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]]),
        look_at((0.5, 0, 1), (0.6, 0, 3), (1, 0, 0)),
    )
    (frame,), (ids,) = scene[0].views([away])
    assert (frame.depth == 0).all()
    assert (ids == -1).all()


def test_light_changes_colors_only(scene: Scene) -> None:
    world, _ = scene
    if world.renderer == "egl":
        pytest.skip("EGL's shaders have fixed ambient and diffuse parts")
    (bright,), _ = world.views([SIDE], light=Light(ambient=0.7))
    (dark,), _ = world.views([SIDE], light=Light(ambient=0.2, direction=(-1.0, 0.5, 1.0)))
    assert dark.color.mean() < bright.color.mean() - 20
    np.testing.assert_array_equal(dark.depth, bright.depth)


def test_small_squares_are_seen_where_they_are_projected(scene: Scene) -> None:
    """Centroids of small tops, to a tenth of a pixel: neither renderer may be off by half a pixel."""
    world, _ = scene
    errors = []
    rng = np.random.default_rng(3)
    for number in range(8):
        centre = np.array([rng.uniform(0.4, 0.65), -0.35 + 0.1 * number, 0.25])
        body = world.add_boxes(f"square {number}", [shapes.Box((0.03, 0.03, 0.001))], centre, 0.0, RED, fixed=True)
        (_,), (ids,) = world.views([front_camera()])
        rows, columns = np.nonzero(ids == body)
        assert len(rows) > 60
        (pixel,), _ = project(centre[None], front_camera().K, front_camera().T_base_camera)
        errors.append([columns.mean() - pixel[0], rows.mean() - pixel[1]])
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1


@pytest.mark.parametrize("task", sorted(TASKS))
def test_both_renderers_show_the_same(egl: None, task: str) -> None:
    """EGL against software: same bodies but for some edge pixels, same depth, similar colors."""
    with World(task) as soft, World(task, renderer="egl") as hard:
        soft.reset(1)
        hard.reset(1)
        (a,), (ids,) = soft.views(soft.cameras)
        (b,), (other,) = hard.views(hard.cameras)
        assert soft.object_names == hard.object_names
        assert (ids != other).mean() < 0.0005
        same = ids == other
        assert np.abs(a.depth - b.depth)[same].max() < 0.0015
        assert (a.depth != b.depth)[same].mean() < 0.2
        assert np.abs(a.color.astype(int) - b.color)[same].mean() < 8


def test_worlds_that_draw_with_egl_do_not_disturb_each_other(egl: None) -> None:
    with World("block-insertion", renderer="egl") as one, World("block-insertion", renderer="egl") as two:
        one.reset(1)
        two.reset(2)
        first, second = one.render()[0].color, two.render()[0].color
        assert (first != second).any()
        with World("place-red-in-green", renderer="egl") as three:
            three.reset(1)
            np.testing.assert_array_equal(one.render()[0].color, first)
        np.testing.assert_array_equal(two.render()[0].color, second)
        one.reset(1)
        np.testing.assert_array_equal(one.render()[0].color, first)


def test_memory_is_bounded_with_egl(egl: None) -> None:
    with World("block-insertion", renderer="egl", randomisation="strong") as world:
        for seed in range(20):
            world.reset(seed)
            world.render()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for seed in range(120):
            world.reset(seed)
        world.render()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 0.03 * before


def test_egl_refuses_pictures_that_it_would_stretch(egl: None) -> None:
    K = np.array([[900.0, 0, 599.5], [0, 900.0, 399.5], [0, 0, 1]])
    large = Camera("large", EGL_LARGEST_PX[0] + 1, 600, K, front_camera().T_base_camera)
    with World("block-insertion", renderer="egl") as world:
        world.reset(0)
        with pytest.raises(BadInput, match="EGL draws at most 1024×768"):
            world.views([large])

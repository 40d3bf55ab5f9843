"""The camera is found within what the noise allows, the uncertainty is honest, and false data are told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibrating.synthetic import BENT, BOARD, CAMERA, LENS, RADIAL, SIZE, make_views, picture, pose, tip_pose
from embodied_vision.calibrating.board import Board
from embodied_vision.calibrating.estimate import calibrate
from embodied_vision.calibrating.hand_eye import Mount, inverse
from embodied_vision.calibrating.lens import NO_DISTORTION, Lens, fit_lens
from embodied_vision.calibrating.report import render_report
from embodied_vision.calibrating.solve import difference
from embodied_vision.calibrating.views import Shot, Views, find_board
from embodied_vision.errors import BadInput, RunFailed

# With 0.2 px noise in each of about 400 corners seen from 0.6 m at f = 600 px, chance alone moves a camera with a
# known lens by about 0.2 px · 0.6 m / 600 px / √400 · √(6 parameters) ≈ 0.03 mm, a few times that where the views
# hardly turn; a lens that is estimated as well costs a factor of about 5.
KNOWN_LENS = (0.5, 0.05)
OWN_LENS = (2.0, 0.2)


@pytest.mark.parametrize("mount", ["cell", "wrist"])
@pytest.mark.parametrize("seed", range(3))
def test_the_camera_is_found(mount: Mount, seed: int) -> None:
    views = make_views(18, mount, seed=seed)
    for lens, bound in ((LENS, KNOWN_LENS), (None, OWN_LENS)):
        result = calibrate(BOARD, views, mount, lens)
        mm, deg = difference(result.X, CAMERA[mount])
        assert mm < bound[0]
        assert deg < bound[1]
        assert all(view.used for view in result.views)
        assert result.noise.corner_px == pytest.approx(0.2, abs=0.03)
        assert result.noise.arm_m < 1e-4
        assert result.scale == pytest.approx(1.0, abs=0.003)
        assert result.warnings == ()


def test_the_uncertainty_is_honest() -> None:
    errors, spreads = [], []
    for seed in range(10):
        result = calibrate(BOARD, make_views(12, seed=seed, arm_m=5e-4), "cell", LENS)
        errors.append(difference(result.X, CAMERA["cell"]))
        spreads.append((result.spread_mm, result.spread_deg))
    ratio = np.sqrt(np.mean(np.square(errors), axis=0) / np.mean(np.square(spreads), axis=0))
    # Of 10 draws with 3 coordinates each the ratio of the root mean squares scatters by about 15 %.
    assert ((ratio > 0.5) & (ratio < 1.6)).all(), ratio


@pytest.mark.parametrize("mount", ["cell", "wrist"])
def test_an_inaccurate_arm_is_told_and_does_not_bend_the_lens(mount: Mount) -> None:
    scatters = []
    for seed in range(3):
        result = calibrate(BOARD, make_views(20, mount, seed=seed, arm_m=2e-3), mount)
        scatters.append(result.noise.arm_m)
        assert np.abs(result.lens.K - LENS.K).max() < 12.0
        assert difference(result.X, CAMERA[mount])[1] < 1.0
        assert any("scatter by" in warning for warning in result.warnings)
    # 20 views of 6 numbers each: one draw scatters by 6 %, and the fit takes some of the scatter for itself.
    assert np.mean(scatters) == pytest.approx(2e-3, rel=0.15)


@pytest.mark.parametrize(("lens", "coefficients"), [(LENS, 0), (RADIAL, 2), (BENT, 4)])
def test_distortion_is_found_where_it_is_and_only_there(lens: Lens, coefficients: int) -> None:
    result = calibrate(BOARD, make_views(18, seed=2, lens=lens), "cell")
    assert len(result.lens.coefficients) == coefficients
    assert result.lens.bends_px == pytest.approx(lens.bends_px, abs=4.0)
    mm, deg = difference(result.X, CAMERA["cell"])
    assert mm < OWN_LENS[0]
    # Decentring trades with the principal point: both move the picture's middle.
    assert deg < (3 if coefficients == 4 else 1) * OWN_LENS[1]


def test_distortion_that_is_ordered_is_estimated() -> None:
    views = [view.corners for view in make_views(10).views]
    assert fit_lens(BOARD, views, SIZE, distorted=True).lens.distortion.any()
    assert not fit_lens(BOARD, [v.corners for v in make_views(10, lens=BENT).views], SIZE, False).lens.distortion.any()


def test_straightened_pixels_are_where_a_pinhole_sees_them() -> None:
    rays = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
    pinhole = rays @ BENT.K[:2, :2].T + BENT.K[:2, 2]
    assert np.abs(BENT.straighten(BENT.bend(rays)) - pinhole).max() < 0.01


def test_rectified_pictures_show_the_board_as_a_pinhole_does() -> None:
    corners = BOARD.detect(picture(pose((0.3, 0.2, 0.1), (-0.12, -0.09, 0.6))))
    seen = BOARD.detect(BENT.rectify(picture(pose((0.3, 0.2, 0.1), (-0.12, -0.09, 0.6)))))
    common = np.intersect1d(corners.ids, seen.ids)
    before = corners.pixels[np.searchsorted(corners.ids, common)]
    after = seen.pixels[np.searchsorted(seen.ids, common)]
    assert len(common) > 10
    assert np.abs(BENT.straighten(before) - after).max() < 0.3


# ---- false data


def test_a_view_with_the_wrong_pose_is_named_and_not_used() -> None:
    views = make_views(15)
    first = replace(views.views[4], T_base_tip=views.views[9].T_base_tip)
    moved = replace(views.views[7], T_base_tip=views.views[7].T_base_tip @ pose((0, 0, 0), (0.0, 0.02, 0.0)))
    spoilt = [first if i == 4 else moved if i == 7 else view for i, view in enumerate(views.views)]
    result = calibrate(BOARD, Views(SIZE, tuple(spoilt), {}), "cell")
    assert [view.name for view in result.views if not view.used] == ["004.png", "007.png"]
    assert sum("contradicts the others" in warning for warning in result.warnings) == 2
    mm, deg = difference(result.X, CAMERA["cell"])
    assert mm < OWN_LENS[0]
    assert deg < OWN_LENS[1]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
@pytest.mark.parametrize("lens", [LENS, None])
def test_a_board_of_another_size_is_measured(factor: float, lens: Lens | None) -> None:
    wrong = Board(square_m=factor * BOARD.square_m, marker_m=factor * BOARD.marker_m)
    with pytest.raises(BadInput, match=r"squares of 3[45]\.\d+ mm, not"):
        calibrate(wrong, make_views(15), "cell", lens)


def test_a_board_that_is_a_little_larger_is_told() -> None:
    wrong = Board(square_m=1.01 * BOARD.square_m, marker_m=BOARD.marker_m)
    result = calibrate(wrong, make_views(15), "cell", LENS)
    assert any("measure the print again" in warning for warning in result.warnings)


def test_parallel_views_do_not_determine_a_camera() -> None:
    with pytest.raises(BadInput, match="nearly parallel"):
        calibrate(BOARD, make_views(15, tilt=1.0), "cell")


def test_too_few_views_say_what_became_of_the_others() -> None:
    views = make_views(4)
    with pytest.raises(BadInput, match=r"seen in 4 pictures.*x\.png: it is blurred"):
        calibrate(BOARD, Views(SIZE, views.views, {"x.png": "it is blurred"}), "cell")


def test_the_other_mount_is_suspected() -> None:
    with pytest.raises(RunFailed, match=r"no camera on the wrist .* they fit with --mount cell"):
        calibrate(BOARD, make_views(15, "cell"), "wrist")


def test_inverted_poses_are_suspected() -> None:
    views = make_views(15, "wrist")
    inverted = tuple(replace(view, T_base_tip=inverse(view.T_base_tip)) for view in views.views)
    with pytest.raises(RunFailed, match="poses inverted"):
        calibrate(BOARD, Views(SIZE, inverted, {}), "wrist")


def test_poses_that_lag_by_one_are_suspected() -> None:
    views = make_views(15)
    lagging = tuple(
        replace(view, T_base_tip=before.T_base_tip)
        for view, before in zip(views.views, (views.views[-1], *views.views), strict=False)
    )
    with pytest.raises(RunFailed, match="takes the pose of the next"):
        calibrate(BOARD, Views(SIZE, lagging, {}), "cell")


def test_shuffled_poses_are_refused_without_a_false_hint() -> None:
    views = make_views(15)
    order = np.random.default_rng(5).permutation(15)
    shuffled = tuple(
        replace(view, T_base_tip=views.views[other].T_base_tip) for view, other in zip(views.views, order, strict=True)
    )
    with pytest.raises(RunFailed, match=r"contradict each other.*at rest at its own pose"):
        calibrate(BOARD, Views(SIZE, shuffled, {}), "cell")


def test_intrinsics_of_another_camera_are_suspected() -> None:
    foreign = Lens(SIZE, LENS.K * [[1.06], [1.06], [1.0]], NO_DISTORTION)
    result = calibrate(BOARD, make_views(15), "cell", foreign)
    assert any("do they belong to this camera" in warning for warning in result.warnings)
    with pytest.raises(BadInput, match=r"640×480 px, the intrinsics are for 1280×720"):
        calibrate(BOARD, make_views(15), "cell", Lens((1280, 720), LENS.K, NO_DISTORTION))


def test_few_and_narrow_views_are_warned_of() -> None:
    result = calibrate(BOARD, make_views(6, tilt=9.0), "cell")
    text = " ".join(result.warnings)
    assert "only 6 views" in text
    assert "second axis" in text


def test_a_lens_needs_five_views() -> None:
    with pytest.raises(BadInput, match="5 or more"):
        fit_lens(BOARD, [view.corners for view in make_views(4).views], SIZE)


# ---- from pictures


def test_find_board_sorts_pictures() -> None:
    T = pose((0.3, 0.2, 0.1), (-0.12, -0.09, 0.6))
    good, dark = picture(T), np.zeros((480, 640, 3), np.uint8)
    views = find_board(BOARD, [Shot("a", good, np.eye(4)), Shot("b", dark, np.eye(4))])
    assert [view.name for view in views.views] == ["a"]
    assert "uniform" in views.left_out["b"]
    assert views.size == (640, 480)
    with pytest.raises(BadInput, match="in none of 1 pictures; b: it is nearly uniform"):
        find_board(BOARD, [Shot("b", dark, np.eye(4))])
    with pytest.raises(BadInput, match="320×240 px, a has 640×480"):
        find_board(BOARD, [Shot("a", good, np.eye(4)), Shot("c", good[::2, ::2], np.eye(4))])
    with pytest.raises(BadInput, match="no pictures"):
        find_board(BOARD, [])


def test_corners_on_one_line_are_no_view() -> None:
    T = pose((0.0, 0.0, 0.0), (-0.12, -0.09, 0.6))
    seen = picture(T).copy()
    row = int(np.max(BOARD.detect(seen).pixels[:6, 1]))
    seen[row + 22 :] = 128
    corners = BOARD.detect(seen)
    assert len(corners) <= 6
    assert find_board(BOARD, [Shot("a", picture(T), np.eye(4)), Shot("b", seen, np.eye(4))]).left_out.keys() == {"b"}


def test_the_report_names_what_is_wrong() -> None:
    views = make_views(15)
    moved = replace(views.views[7], name="<seven>.png", T_base_tip=tip_pose("cell", pose((0, 0, 0), (0, 0, 0.5))))
    spoilt = tuple(moved if i == 7 else view for i, view in enumerate(views.views))
    result = calibrate(BOARD, Views(SIZE, spoilt, {"dark.png": "the lens is covered"}), "cell")
    page = render_report(result, "front")
    assert "&lt;seven&gt;.png (not used)" in page
    assert "the lens is covered" in page
    assert page.count("<line") == sum(view.corners for view in result.views if view.used)

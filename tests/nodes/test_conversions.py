"""What goes into a message comes out again, exactly."""

from __future__ import annotations

import json

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Header, String
from trajectory_msgs.msg import JointTrajectory

from embodied_vision import geometry
from embodied_vision.errors import BadInput
from embodied_vision.nodes import conversions as c
from embodied_vision.nodes import images
from embodied_vision.types import Camera, Features, PickPlace
from tests.nodes.samples import camera, frame

PATIENT = settings(max_examples=50, deadline=None)
"""Correctness is tested here, on machines that may be busy."""
STAMPS = st.integers(0, 2**31 * 10**9 - 1)
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COLORS = SIZES.flatmap(lambda size: arrays.arrays(np.uint8, (*size, 3)))


def sent(message):
    """The message after the trip over the wire."""
    return deserialize_message(serialize_message(message), type(message))


@PATIENT
@given(STAMPS)
def test_stamps_survive(stamp_ns: int) -> None:
    assert c.stamp_to_ns(c.ns_to_stamp(stamp_ns)) == stamp_ns


@PATIENT
@given(COLORS, STAMPS)
def test_color_survives(color: np.ndarray, stamp_ns: int) -> None:
    message = sent(c.color_to_image(color, stamp_ns, "camera"))
    assert c.stamp_to_ns(message.header.stamp) == stamp_ns
    np.testing.assert_array_equal(c.image_to_color(message), color)


@PATIENT
@given(COLORS, st.sampled_from(["bgr8", "rgba8", "bgra8"]), st.integers(0, 5))
def test_drivers_color_encodings_and_row_padding(color: np.ndarray, encoding: str, padding: int) -> None:
    pixels = color if encoding.startswith("rgb") else color[..., ::-1]
    if "a" in encoding:
        pixels = np.concatenate([pixels, np.full((*color.shape[:2], 1), 77, np.uint8)], axis=2)
    rows = np.pad(pixels.reshape(len(color), -1), ((0, 0), (0, padding)), constant_values=9)
    message = Image(height=color.shape[0], width=color.shape[1], encoding=encoding, step=rows.shape[1])
    message.data = rows.tobytes()
    np.testing.assert_array_equal(c.image_to_color(sent(message)), color)


@PATIENT
@given(SIZES.flatmap(lambda size: arrays.arrays(np.uint16, size, elements=st.integers(0, 65534))))
def test_depth_survives_as_whole_millimetres(depth_mm: np.ndarray) -> None:
    depth = geometry.depth_to_metres(depth_mm)
    message = sent(c.depth_to_image(depth, 5, "camera"))
    assert message.encoding == "16UC1"
    np.testing.assert_array_equal(c.image_to_depth(message), depth)


@PATIENT
@given(
    SIZES.flatmap(lambda size: arrays.arrays(np.float32, size, elements=st.floats(0, 60, width=32) | st.just(np.nan)))
)
def test_float_depth_means_the_same_as_millimetres(depth: np.ndarray) -> None:
    message = Image(height=depth.shape[0], width=depth.shape[1], encoding="32FC1", step=4 * depth.shape[1])
    message.data = depth.tobytes()
    expected = geometry.depth_to_metres(geometry.quantise_depth(depth))
    np.testing.assert_array_equal(c.image_to_depth(message), expected)
    message.is_bigendian, message.data = 1, depth.astype(">f4").tobytes()
    np.testing.assert_array_equal(c.image_to_depth(message), expected)


@PATIENT
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 700)),
    st.sampled_from([(8.0, 8.0), (14.0, 14.0), (240 / 16, 424 / 16), (480 / 37, 640 / 37), (8.0, 26.5)]),
    st.tuples(st.floats(50, 2000), st.floats(50, 2000), st.floats(-50, 2000), st.floats(-50, 2000)),
    STAMPS,
)
def test_features_and_their_stride_survive_bit_for_bit(shape, stride, intrinsics, stamp_ns) -> None:
    grid = np.random.default_rng(shape[2]).normal(size=shape).astype(np.float32)
    grid[0, 0, 0] = np.nan
    fx, fy, cx, cy = intrinsics
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    features = Features(grid, stride, "encoder-1", "artefact-1", stamp_ns)
    image, info = sent(c.features_to_image(features, "camera")), sent(c.features_to_info(features, K, "camera"))
    back = c.image_to_features(image, info, K, encoder_id="encoder-1", artefact_id="artefact-1")
    assert image.encoding == f"32FC{shape[2]}"
    assert back.grid.tobytes() == grid.tobytes()
    assert (back.stride, back.stamp_ns, back.encoder_id) == (stride, stamp_ns, "encoder-1")


def test_a_pixel_of_the_color_image_lies_at_the_same_ray_of_the_grid() -> None:
    cam = camera()
    features = Features(np.zeros((30, 53, 2), np.float32), (8.0, 8.0), "e", "a", 1)
    grid_K = c.info_to_K(c.features_to_info(features, cam.K, "camera"))
    centre = np.array([(7 + 0.5) * 8 - 0.5, (3 + 0.5) * 8 - 0.5, 1.0])
    ray = np.linalg.solve(cam.K, centre)
    np.testing.assert_allclose((grid_K @ ray)[:2], [7, 3], atol=1e-9)


@PATIENT
@given(FINITE.filter(lambda v: abs(v) < 1e6), FINITE.filter(lambda v: abs(v) < 1e6), st.floats(-3.14, 3.14), STAMPS)
def test_a_decision_travels_as_poses_and_exactly_as_json(x: float, score: float, yaw: float, stamp_ns: int) -> None:
    action = PickPlace(
        pick=geometry.tool_down(x, -x, 0.1, yaw),
        place=geometry.tool_down(0.5, 0.1, 0.2, -yaw),
        scores={"pick": score},
        stamp_ns=stamp_ns,
    )
    decision = c.from_json(sent(c.to_json(action.to_dict())), "policy/decision")
    exact = PickPlace.from_dict(decision)
    assert exact.pick.tobytes() == action.pick.tobytes()
    assert exact.place.tobytes() == action.place.tobytes()
    back = c.poses_to_pick_place(sent(c.pick_place_to_poses(action)), decision)
    np.testing.assert_allclose(back.pick, action.pick, atol=1e-9)
    np.testing.assert_allclose(back.place, action.place, atol=1e-9)
    assert (back.decision_id, back.scores, back.stamp_ns) == (action.decision_id, {"pick": score}, stamp_ns)


def test_a_decision_of_another_stamp_is_refused() -> None:
    action = PickPlace(geometry.tool_down(0.5, 0, 0.1), geometry.tool_down(0.5, 0.1, 0.1), stamp_ns=10)
    with pytest.raises(BadInput, match="match them by stamp"):
        c.poses_to_pick_place(c.pick_place_to_poses(action), {**action.to_dict(), "stamp_ns": 11})


@PATIENT
@given(st.permutations(["a", "b", "c"]), st.integers(1, 5))
def test_joints_come_in_the_robots_order(order: list[str], points: int) -> None:
    rng = np.random.default_rng(points)
    names, values = ["a", "b", "c"], rng.normal(size=(3, points, 3))
    times = np.round(np.sort(rng.uniform(0, 5, points)), 9)
    shuffled = [names.index(name) for name in order]
    message = c.samples_to_trajectory(order, c.JointSamples(times, *values[..., shuffled]))
    assert c.stamp_to_ns(message.header.stamp) == 0
    back = c.trajectory_to_samples(sent(message), names)
    np.testing.assert_allclose(back.times_s, times, atol=1e-9)
    for part, expected in zip(back[1:], values, strict=True):
        np.testing.assert_array_equal(part, expected)
    state = sent(c.joint_state_message(order, values[0, 0, shuffled], values[1, 0, shuffled], 3))
    np.testing.assert_array_equal(c.joint_state_to_positions(state, names), values[0, 0])


@pytest.mark.parametrize(
    ("convert", "words"),
    [
        (lambda: c.image_to_color(Image(encoding="bayer_rggb8", width=1, height=1, step=2)), "bayer_rggb8"),
        (lambda: c.image_to_depth(Image(encoding="rgb8", width=1, height=1, step=3)), "16UC1"),
        (lambda: c.image_to_color(Image(encoding="rgb8", width=4, height=2, step=12)), "too few"),
        (lambda: c.from_json(String(data="{"), "policy/info"), "policy/info"),
        (lambda: c.from_json(String(data="[1]"), "policy/info"), "JSON object"),
        (lambda: c.joint_state_to_positions(JointState(name=["a"], position=[1.0]), ["a", "b"]), "lacks"),
        (lambda: c.joint_state_to_positions(JointState(name=["a"]), ["a"]), "0 positions"),
        (lambda: c.trajectory_to_samples(JointTrajectory(joint_names=["a"]), ["b"]), "robot has"),
        (lambda: c.trajectory_to_samples(JointTrajectory(joint_names=["a"]), ["a"]), "no points"),
    ],
)
def test_bad_messages_are_named(convert, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        convert()


def test_a_camera_that_is_not_the_calibrated_one_is_refused() -> None:
    cam = camera()
    c.check_calibration(cam, sent(c.camera_to_info(cam, 1)))
    other = Camera(cam.name, cam.width, cam.height, cam.K * [[1.01], [1.01], [1]], cam.T_base_camera)
    with pytest.raises(BadInput, match="calibrate again"):
        c.check_calibration(cam, c.camera_to_info(other, 1))
    with pytest.raises(BadInput, match="resolution"):
        c.check_calibration(cam, CameraInfo(width=1, height=1))
    distorted = c.camera_to_info(cam, 1)
    distorted.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(BadInput, match="rectify"):
        c.check_calibration(cam, distorted)


def test_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        c.to_json({"x": float("nan")})
    assert json.loads(c.to_json({"x": 0.1}).data) == {"x": 0.1}


def test_yuv_of_webcams_becomes_the_rgb_that_opencv_computes() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (6, 8, 2)).astype(np.uint8)
    codes = {
        "uyvy": cv2.COLOR_YUV2RGB_UYVY,
        "yuv422": cv2.COLOR_YUV2RGB_UYVY,
        "yuyv": cv2.COLOR_YUV2RGB_YUY2,
        "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    }
    for encoding, code in codes.items():
        message = Image(height=6, width=8, encoding=encoding, step=20)
        message.data = np.pad(packed.reshape(6, 16), ((0, 0), (0, 4))).tobytes()
        difference = c.image_to_color(sent(message)).astype(int) - cv2.cvtColor(packed, code)
        assert np.abs(difference).max() <= 1
    with pytest.raises(BadInput, match="even"):
        c.image_to_color(Image(height=1, width=3, encoding="uyvy", step=6, data=[0] * 6, header=Header(frame_id="cam")))


@PATIENT
@given(COLORS)
def test_compressed_color_is_decoded_whatever_the_plugin_chose(color: np.ndarray) -> None:
    png = CompressedImage(format="rgb8; png compressed bgr8", data=imagecodecs.png_encode(color))
    np.testing.assert_array_equal(c.image_to_color(sent(png)), color)
    smooth = np.full((48, 64, 3), color[0, 0])
    jpeg = images.compress_color(c.color_to_image(smooth, 7, "cam"))
    assert (c.stamp_to_ns(jpeg.header.stamp), jpeg.header.frame_id) == (7, "cam")
    assert np.abs(c.image_to_color(sent(jpeg)).astype(int) - smooth).max() <= 6


@PATIENT
@given(SIZES.flatmap(lambda size: arrays.arrays(np.uint16, size, elements=st.integers(0, 65534))))
def test_compressed_depth_is_lossless(depth_mm: np.ndarray) -> None:
    depth = geometry.depth_to_metres(depth_mm)
    message = sent(images.compress_depth(c.depth_to_image(depth, 5, "camera")))
    assert message.format == "16UC1; compressedDepth png"
    np.testing.assert_array_equal(images.image_to_raw_depth(message), depth_mm)
    np.testing.assert_array_equal(c.image_to_depth(message), depth)


@pytest.mark.parametrize("cut", [0, 1, 11, 12, 13, 40, -200])
def test_compressed_images_cut_short_are_refused_with_their_place(cut: int) -> None:
    one = frame()
    color = images.compress_color(c.color_to_image(one.color, 5, "wrist"))
    depth = images.compress_depth(c.depth_to_image(one.depth, 5, "wrist"))
    for message, read in ((color, c.image_to_color), (depth, c.image_to_depth)):
        message.data = message.data[:cut]
        with pytest.raises(BadInput, match="wrist"):
            read(sent(message))


def test_depth_where_color_belongs_is_refused_and_the_other_way_round() -> None:
    one = frame()
    color = images.compress_color(c.color_to_image(one.color, 5, "wrist"))
    depth = CompressedImage(format="16UC1; png compressed ", data=imagecodecs.png_encode(np.ones((4, 4), np.uint16)))
    with pytest.raises(BadInput, match="expected color"):
        c.image_to_color(depth)
    with pytest.raises(BadInput, match="wrist"):
        c.image_to_depth(color)


def test_an_image_message_is_a_single_copy_of_its_pixels() -> None:
    color = frame().color
    message = c.color_to_image(color, 5, "camera")
    assert bytes(message.data) == color.tobytes()
    assert np.shares_memory(c.image_to_color(message), np.frombuffer(message.data, np.uint8))

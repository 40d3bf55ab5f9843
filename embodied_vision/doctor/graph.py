"""A running graph against what its nodes need: cameras, calibration, joint states, who publishes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.control.guard_settings import GuardSettings
from embodied_vision.control.robot import RobotModel
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.clocks import check_clocks
from embodied_vision.doctor.expected import Expected
from embodied_vision.doctor.observation import Heard, Observation
from embodied_vision.errors import BadInput
from embodied_vision.types import Camera

TOLERANCE_PX = 0.5
"""How far the driver's intrinsics may be from the calibration's."""

PAIRED_SHARE = 0.9
"""Share of the color images that must have a depth image of their stamp."""

JOINT_STATE_AGE_S = GuardSettings().joint_state_age_s
"""The guard starts no trajectory from an older joint state."""

_INFO = topics.color_info("")

LATE_SHARE = 0.05
"""Share of the joint states that may be older, as on a machine that is busy for a moment."""


def check_graph(observation: Observation, expected: Expected) -> Iterator[Check]:
    """All checks of a graph that was listened to."""
    nodes = ", ".join(observation.nodes)
    yield Check("graph", True, f"{len(observation.nodes)} nodes: {nodes}")
    for camera in _cameras(observation, expected):
        yield from _check_camera(camera, observation, expected)
    yield from _check_joint_states(observation, expected)
    yield from _check_speakers(observation)
    yield from check_clocks(observation)


def _cameras(observation: Observation, expected: Expected) -> list[str]:
    named = [*expected.names("arm", "cameras"), *expected.names("encoder", "cameras")]
    seen = [topic.removesuffix(_INFO) for topic in observation.streams if topic.endswith(_INFO)]
    return sorted({*named, *seen})


def _silence(name: str, topic: str, stream: Heard | None, seconds: float) -> Check | None:
    """A failed check where nothing was heard."""
    if stream is None or not stream.publishers:
        return Check(name, False, f"nobody publishes {topic}", "start the driver, or remap its topic to this name")
    if stream.received_s:
        return None
    who = ", ".join(publisher.node for publisher in stream.publishers)
    remedy = "look at the driver's log, the Fast DDS profile of its process, and shared memory"
    return Check(name, False, f"{who} publishes {topic} ({stream.type}), nothing came in {seconds:g} s", remedy)


def _check_rate(name: str, stream: Heard, seconds: float, limit_s: float, timeout: str) -> Check:
    """Whether a stream comes often enough not to be taken for silent by the arm."""
    delivery = "reliable" if all(p.reliable for p in stream.publishers) else "best effort"
    if len(stream.received_s) < 2:
        value = f"{len(stream.received_s)} message in {seconds:g} s"
        return Check(name, False, value, f"raise the rate of its driver to {2 / limit_s:.0f} Hz or more")
    value = f"{stream.rate_hz:.1f} Hz, longest gap {1e3 * stream.longest_gap_s:.0f} ms, {delivery}"
    if stream.rate_hz * limit_s < 1:
        remedy = f"raise its rate to {2 / limit_s:.0f} Hz or more: the arm stands after {limit_s:g} s ({timeout})"
        return Check(name, False, value, remedy)
    late = stream.longest_gap_s > limit_s
    remedy = f"the gap would have stopped the arm ({timeout} {limit_s:g} s): free the processor, or raise it"
    return Check(name, True, value, remedy if late else "")


def _check_speakers(observation: Observation) -> Iterator[Check]:
    """One voice a command topic: the arm halts for a second one."""
    for topic, speakers in observation.speakers.items():
        if len(speakers) > 1:
            value = f"{', '.join(speakers)} publish on {topic}"
            yield Check(f"publishers of {topic}", False, value, "end all but one: the arm stops for a second one")
        elif speakers:
            yield Check(f"publishers of {topic}", True, f"{speakers[0]} alone")


# ---- cameras


def _check_camera(camera: str, observation: Observation, expected: Expected) -> Iterator[Check]:
    streams, seconds = observation.streams, observation.seconds
    travels = zip((topics.color(camera), topics.depth(camera)), expected.transports, strict=True)
    color_topic, depth_topic = (topic if how == "raw" else f"{topic}/{how}" for topic, how in travels)
    info_topic = topics.color_info(camera)
    heard: dict[str, Heard] = {}
    limit_s = float(expected.value("arm", "camera_timeout", 0.2))
    for part, topic in (("color", color_topic), ("depth", depth_topic), ("camera_info", info_topic)):
        name = f"camera {camera} {part}"
        silence = _silence(name, topic, streams.get(topic), seconds)
        if silence is not None and part == "depth" and _only_encodes(observation, expected):
            continue
        if silence is not None:
            yield silence
            continue
        heard[part] = streams[topic]
        yield _check_rate(name, streams[topic], seconds, limit_s, "camera_timeout")
    for part in ("color", "depth"):
        if part in heard:
            yield _check_encoding(f"camera {camera} {part} encoding", heard[part])
    if {"color", "depth"} <= heard.keys() and not any(heard[part].details["problem"] for part in ("color", "depth")):
        slop_s = float(expected.value("policy", "slop", 0.005))
        yield _check_registration(camera, heard["color"], heard["depth"], slop_s)
    if "camera_info" in heard:
        yield _check_calibration(camera, heard, str(expected.value("policy", "calibration", "")))


def _only_encodes(observation: Observation, expected: Expected) -> bool:
    """A graph without a policy, as of `launch camera`, has no use for depth."""
    nodes = observation.nodes
    return f"{expected.namespace}/encoder" in nodes and f"{expected.namespace}/policy" not in nodes


def _check_encoding(name: str, stream: Heard) -> Check:
    """Whether our nodes can read the images."""
    found = stream.details
    if found["problem"]:
        return Check(name, False, found["problem"], "change the driver's pixel format, or image_transport of the nodes")
    return Check(name, True, f"{found['encoding']}, {found['width']}x{found['height']}")


def _check_registration(camera: str, color: Heard, depth: Heard, slop_s: float) -> Check:
    """Depth belongs to the pixels of color: same frame, same size, same stamps."""
    name = f"camera {camera} depth registered to color"
    remedy = "use the driver's aligned_depth_to_color, or let depth_image_proc register it"
    frames = color.details["frame_id"], depth.details["frame_id"]
    if frames[0] != frames[1]:
        return Check(name, False, f"frames {frames[0]!r} and {frames[1]!r}", remedy)
    sizes = [f"{d['width']}x{d['height']}" for d in (color.details, depth.details)]
    if sizes[0] != sizes[1]:
        return Check(name, False, f"color is {sizes[0]}, depth {sizes[1]}", remedy)
    share = _paired(color.stamps_ns, depth.stamps_ns, slop_s)
    value = f"{sizes[0]} in {frames[0]!r}, {share:.0%} of the stamps within {1e3 * slop_s:g} ms"
    if share < PAIRED_SHARE:
        return Check(name, False, value, "let the driver synchronise color and depth, or raise the policy's slop")
    return Check(name, True, value)


def _paired(color_ns: Sequence[int], depth_ns: Sequence[int], slop_s: float) -> float:
    """Share of the color stamps, but for those at the ends, that a depth stamp lies near to."""
    depth = sorted(depth_ns)
    inner = [stamp for stamp in color_ns if depth[0] <= stamp <= depth[-1]]
    if not inner:
        return 0.0

    def near(stamp: int) -> bool:
        at = bisect_left(depth, stamp)
        return any(abs(stamp - other) <= slop_s * 1e9 for other in depth[max(0, at - 1) : at + 1])

    return sum(map(near, inner)) / len(inner)


def _check_calibration(camera: str, heard: dict[str, Heard], path: str) -> Check:
    """The calibration that the policy uses, against what the driver says and sends."""
    name, info = f"camera {camera} calibration", heard["camera_info"].details
    remedy = "calibrate again at the resolution that runs (`embodied-vision calibrate`), and name the file in the nodes"
    try:
        known = {one.name: one for one in read_cameras(path)}
    except BadInput as error:
        return Check(name, False, str(error), remedy)
    if camera not in known:
        return Check(name, False, f"not in the calibration, which has {sorted(known)}", remedy)
    fault = _fault(known[camera], info)
    if fault:
        return Check(name, False, fault, remedy)
    if "color" in heard and not heard["color"].details["problem"]:
        shown = heard["color"].details
        if (shown["width"], shown["height"]) != (info["width"], info["height"]):
            value = f"images are {shown['width']}x{shown['height']}, camera_info {info['width']}x{info['height']}"
            return Check(name, False, value, "let the driver publish the camera_info of these images")
    if any(abs(value) > 1e-6 for value in info["D"]):
        return Check(name, False, f"the images are distorted: {info['D']}", "rectify them first, as by image_proc")
    return Check(name, True, f"{path or 'as shipped'}: size and intrinsics agree with camera_info")


def _fault(camera: Camera, info: Mapping[str, Any]) -> str:
    if (info["width"], info["height"]) != (camera.width, camera.height):
        return f"made for {camera.width}x{camera.height}, camera_info says {info['width']}x{info['height']}"
    off = float(np.abs(np.asarray(info["K"], float) - camera.K).max())
    return "" if off <= TOLERANCE_PX else f"intrinsics differ from camera_info's by {off:.2f} px"


# ---- joint states


def _check_joint_states(observation: Observation, expected: Expected) -> Iterator[Check]:
    topic, name = "joint_states", "joint states"
    if not observation.streams[topic].publishers and f"{expected.namespace}/arm" not in observation.nodes:
        return  # cameras alone, without an arm
    silence = _silence(name, topic, observation.streams.get(topic), observation.seconds)
    if silence is not None:
        yield silence
        return
    stream = observation.streams[topic]
    limit_s = float(expected.value("arm", "joint_state_timeout", 0.15))
    yield _check_rate(name, stream, observation.seconds, limit_s, "joint_state_timeout")
    yield _check_joint_ages(stream.ages_s)
    try:
        model = RobotModel.load(expected.value("arm", "robot", "panda_suction"))
    except BadInput as error:
        yield Check("joint names", False, str(error), "correct the arm's parameter `robot`")
        return
    yield _check_joints(model, stream.details.get("joints", {}))


def _check_joint_ages(ages_s: Sequence[float]) -> Check:
    """A few late ones delay the arm; more than that and it does not get on."""
    late = sum(age > JOINT_STATE_AGE_S for age in ages_s) / len(ages_s)
    value = f"up to {1e3 * max(ages_s):.0f} ms, {late:.0%} above the limit of {1e3 * JOINT_STATE_AGE_S:.0f} ms"
    remedy = "see the stamps below; where they are right, shorten the way from driver to arm node"
    return Check("joint state age", late <= LATE_SHARE, value, remedy if late else "")


def _check_joints(model: RobotModel, joints: Mapping[str, Mapping[str, Any]]) -> Check:
    name = "joint names"
    missing = [joint for joint in model.joint_names if joint not in joints]
    if missing:
        value = f"{missing} of {model.name} are not in joint_states, which has {sorted(joints)}"
        return Check(name, False, value, "start the joint state broadcaster for all joints, or correct the description")
    unknown = [joint for joint in model.joint_names if joints[joint]["position"] is None]
    if unknown:
        return Check(name, False, f"{unknown} have no finite position", "look at the driver and its encoders")
    q = np.array([joints[joint]["position"] for joint in model.joint_names], float)
    beyond = np.maximum(model.limits.lower - q, q - model.limits.upper)
    if beyond.max() > 0:
        joint = model.joint_names[int(beyond.argmax())]
        value = f"{joint} stands at {q[int(beyond.argmax())]:.3f} rad, outside its limits"
        return Check(name, False, value, "move it back by hand or pendant; check its zero and the limits")
    without = [joint for joint in model.joint_names if not joints[joint]["velocity"]]
    note = f"no velocities of {without}: they are taken from positions, which is rougher" if without else ""
    return Check(name, True, f"all {len(q)} joints of {model.name} are there, within their limits", note)

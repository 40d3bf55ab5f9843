"""The files that a launch will use: calibration, robot, encoder and policy."""

from __future__ import annotations

from collections.abc import Iterator

from embodied_vision.calibration import read_cameras
from embodied_vision.doctor.check import Check, bounded
from embodied_vision.doctor.expected import Expected
from embodied_vision.doctor.limits import check_limits

LOAD_S = 60.0
"""Time that loading an encoder or a policy may take."""


def check_files(expected: Expected) -> Iterator[Check]:
    """Every file that the nodes' parameters name."""
    yield from bounded("calibration", lambda: _calibration(expected), "calibrate, and name the file in the nodes")
    robot = str(expected.value("arm", "robot", "panda_suction"))
    yield from bounded("robot", lambda: check_limits(robot), "correct its YAML; compare embodied_vision/robots")
    remedy = "copy its folder again, or name another in the parameters"
    yield from bounded("encoder and policy", lambda: list(_learned(expected)), remedy, LOAD_S)


def _calibration(expected: Expected) -> Check:
    path = str(expected.value("policy", "calibration", ""))
    known = [camera.name for camera in read_cameras(path)]
    missing = sorted({*expected.names("arm", "cameras"), *expected.names("encoder", "cameras")} - set(known))
    if missing:
        value = f"{path or 'the shipped file'} has {known}, the nodes use {missing} as well"
        return Check("calibration", False, value, "calibrate those cameras, or correct the parameter `cameras`")
    others = {str(expected.value(node, "calibration", "")) for node in ("cell", "recorder") if node in expected.values}
    if others - {path}:
        value = f"policy reads {path or 'the shipped one'}, others {sorted(others - {path})}"
        return Check("calibration", False, value, "give all nodes the same file")
    return Check("calibration", True, f"{path or 'as shipped'}: {', '.join(known)}")


def _learned(expected: Expected) -> Iterator[Check]:
    """Encoder and policy as the nodes load them: sha256 of every file, runtime, and that they belong together."""
    from embodied_vision.encoders.registry import load_encoder
    from embodied_vision.errors import EmbodiedVisionError
    from embodied_vision.policies.locate import locate
    from embodied_vision.policies.policy import Policy

    name = str(expected.value("encoder", "encoder", "default"))
    remedy = "copy its folder again, install what it runs on, or name another in the encoder's parameters"
    try:
        encoder = load_encoder(name)
    except (EmbodiedVisionError, ImportError) as error:
        yield Check(f"encoder {name}", False, str(error), remedy)
        return
    yield Check(f"encoder {name}", True, f"{encoder.encoder_id} ({encoder.artefact_id})")
    read = str(expected.value("policy", "encoder", "default"))
    if read != name:
        value = f"the encoder node has {name!r}, the policy node {read!r}"
        yield Check("encoder of the policy", False, value, "give both nodes the same")
    checkpoint = str(expected.value("policy", "checkpoint", ""))
    try:
        policy = Policy.load(locate(checkpoint), encoder)
    except EmbodiedVisionError as error:
        yield Check(f"policy {checkpoint}", False, str(error), "copy the checkpoint again, or train the policy again")
        return
    yield Check(f"policy {checkpoint}", True, f"{policy.checkpoint_id} for {policy.task!r}, bound to this encoder")

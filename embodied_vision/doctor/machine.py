"""The machine: packages, ROS and its transport, simulator, shipped checkpoints, disk, processors."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

from embodied_vision.doctor.check import Check
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.launching import shared_memory
from embodied_vision.launching.environment import (
    PROFILE,
    PROFILE_VARIABLES,
    Environment,
    rclpy_is_ours,
    segment_bytes,
)
from embodied_vision.launching.loopback import image_loopback
from embodied_vision.launching.security import is_asked_for, require_enforced
from embodied_vision.paths import PACKAGE

DISTRIBUTION = "embodied_vision"
_WANTED_SEGMENT = 64 << 20
_WANTED_DISK = 2 << 30
RUN_S = 60.0
"""Longest time of a process that tries something out."""
_REQUIREMENT = re.compile(r"^([\w.-]+)[^>;]*(?:>=\s*([\d.]+))?[^;]*(?:;.*extra == ['\"](\w+)['\"])?")
_RENDER = """
import pybullet
client = pybullet.connect(pybullet.DIRECT)
pybullet.getCameraImage(32, 24, renderer=pybullet.ER_TINY_RENDERER)
print(pybullet.getAPIVersion())
"""


def check_machine() -> Iterator[Check]:
    """What is installed, and what there is of disk and processors."""
    yield _python()
    yield from _packages()
    yield from _checkpoints()
    yield _disk()
    yield _processors()
    yield _torch_threads()


def check_transport(environment: Environment) -> Iterator[Check]:
    """ROS and the way of images between two processes, in the environment that a launch would use.

    Where rclpy cannot be used, that is all there is to say.
    """
    yield _environment_variables(environment)
    rclpy = _rclpy(environment)
    yield rclpy
    if rclpy.ok:
        yield _middleware(environment)
        yield _profile(environment)
    yield _shared_memory()
    yield _stale_segments()
    if rclpy.ok:
        for width, height in ((424, 240), (640, 480)):
            yield _images(environment, width, height)
    yield _pybullet(environment)


def _python() -> Check:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, version, "" if ok else "install Python 3.11, the newest with a PyBullet wheel")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _packages() -> Iterator[Check]:
    """Every package that setup.py names; those of an extra may be missing."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Check("package embodied_vision", False, "not installed", "run `make setup`, or `pip install -e .[all]`")
        return
    seen = set()
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        name, least, extra = match.groups() if match else (requirement, None, None)
        if extra in ("dev", "all") or name in seen:
            continue
        seen.add(name)
        install = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install '{requirement}'"
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            note = f"{install} if you need {extra}" if extra else install
            yield Check(f"package {name}", extra is not None, "not installed", note)
            continue
        ok = least is None or _numbers(found) >= _numbers(least)
        yield Check(f"package {name}", ok, found, "" if ok else f"{install}, {least} or newer is needed")


def _environment_variables(environment: Environment) -> Check:
    value = "; ".join(environment.notes) or "nothing in the way"
    return Check("environment variables", True, value)


def _run(code: str, environment: Environment) -> tuple[bool, str]:
    """Run Python code in a process of its own: whether it worked, and its last line."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=dict(environment.variables),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {RUN_S:g} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"


def _rclpy(environment: Environment) -> Check:
    ok, value = _run("import rclpy; rclpy.init(); rclpy.create_node('doctor'); print(rclpy.__file__)", environment)
    origin = "from wheels" if rclpy_is_ours() else "from a ROS installation"
    remedy = f"pip install '{DISTRIBUTION}[ros]', or source an installed ROS of this Python"
    return Check("rclpy", ok, f"{value} ({origin})" if ok else value, "" if ok else remedy)


def _middleware(environment: Environment) -> Check:
    name = environment.variables.get("RMW_IMPLEMENTATION", "")
    ok, value = _run("from rclpy.utilities import get_rmw_implementation_identifier as i; print(i())", environment)
    if not ok:
        return Check("middleware", False, value, "unset RMW_IMPLEMENTATION, or install the middleware that it names")
    if "fastrtps" not in value:
        return Check("middleware", True, value, "the Fast DDS profile has no effect; see whether images arrive")
    return Check("middleware", True, f"{value}{' as RMW_IMPLEMENTATION says' if name else ''}")


def check_protection(variables: Mapping[str, str]) -> Check:
    """Who may speak: what a graph in this environment is protected by."""
    name = "who may speak"
    try:
        require_enforced(variables)
        protected = is_asked_for(variables, "")
    except BadInput as error:
        return Check(name, False, str(error), "ROS would go on unprotected without a word")
    reach = variables.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    peers = variables.get("ROS_STATIC_PEERS", "")
    value = f"discovery {reach}{f' and {peers}' if peers else ''}, DDS Security {'enforced' if protected else 'off'}"
    open_ = not protected and (reach not in ("LOCALHOST", "OFF") or bool(peers))
    note = "anybody on that network can command the arm; see docs/security.md" if open_ else ""
    return Check(name, True, value, note)


def _profile(environment: Environment) -> Check:
    name = next((name for name in PROFILE_VARIABLES if name in environment.variables), "")
    if not name:
        return Check("Fast DDS profile", False, "none is set", f"export {PROFILE_VARIABLES[0]}={PROFILE}")
    path = Path(environment.variables[name])
    remedy = f"unset {name}, or export {PROFILE_VARIABLES[0]}={PROFILE}"
    if not path.is_file():
        return Check("Fast DDS profile", False, f"{path} is missing", remedy)
    try:
        sizes = [int(text) for text in map(_text, ElementTree.parse(path).iterfind(".//{*}segment_size")) if text]
    except (ElementTree.ParseError, ValueError) as error:
        return Check("Fast DDS profile", False, f"{path} is no profile: {error}", remedy)
    value = f"{name}={path}"
    if not sizes:
        return Check("Fast DDS profile", True, value, "it has no segment_size: large images may get lost on the way")
    free = shared_memory.free_bytes()
    if max(sizes) > free:
        value = f"{value}: segments of {max(sizes) >> 20} MB, {free >> 20} MB free in {shared_memory.FOLDER}"
        return Check("Fast DDS profile", False, value, "give the container more shared memory, such as --shm-size=1g")
    return Check("Fast DDS profile", True, f"{value}, segments of {max(sizes) >> 10} kB")


def _text(element: ElementTree.Element) -> str:
    return (element.text or "").strip()


def _shared_memory() -> Check:
    free = shared_memory.free_bytes()
    size = segment_bytes(free, _WANTED_SEGMENT)
    value = f"{free >> 20} MB free in {shared_memory.FOLDER}, segments of {size >> 10} kB"
    remedy = "" if size == _WANTED_SEGMENT else "give the container more shared memory, such as --shm-size=1g"
    return Check("shared memory", size > 0, value, remedy)


def _stale_segments() -> Check:
    files = shared_memory.stale()
    size = 0
    for path in files:
        try:
            size += path.stat().st_blocks * 512
        except OSError:  # cleaned meanwhile
            continue
    ok = size <= shared_memory.free_bytes()
    value = f"{len(files)} files, {size >> 20} MB, left by dead processes"
    return Check("stale shared memory", ok, value, "the next launch removes them" if files else "")


def _images(environment: Environment, width: int, height: int) -> Check:
    name = f"images {width}x{height} between two processes"
    try:
        result = image_loopback(environment.variables, width, height)
    except EmbodiedVisionError as error:
        return Check(name, False, str(error), "look at the checks of rclpy, the profile and shared memory")
    value = f"{result.received} of {result.sent} arrived"
    if result.median_ms is not None:
        value += f", median {result.median_ms:.1f} ms"
    ok = result.received == result.sent
    return Check(name, ok, value, "" if ok else "look at the checks of the profile and shared memory")


def _pybullet(environment: Environment) -> Check:
    ok, value = _run(_RENDER, environment)
    remedy = "" if ok else f"pip install '{DISTRIBUTION}[sim]' with Python 3.11; only the simulated cell needs it"
    return Check("pybullet", ok, f"renders, API {value}" if ok else value, remedy)


def _checkpoints() -> Iterator[Check]:
    """Every shipped folder: its files against their sha256, and the policies' encoder against the shipped one."""
    from embodied_vision.encoders.registry import load_encoder
    from embodied_vision.policies import checkpoint, grasp_checkpoint
    from embodied_vision.policies.folder import format_of

    remedy = "get the checkpoints of this version again, such as by `git checkout checkpoints`"
    encoder_id = ""
    try:
        encoder_id = load_encoder().encoder_id
        yield Check("checkpoint encoder", True, encoder_id)
    except EmbodiedVisionError as error:
        yield Check("checkpoint encoder", False, str(error), remedy)
    folders = sorted(p for p in (PACKAGE / "checkpoints").glob("*") if p.is_dir() and p.name != "encoder")
    if not folders:
        yield Check("checkpoints", False, "no policy ships", remedy)
    for folder in folders:
        try:
            kind = grasp_checkpoint if format_of(folder) == grasp_checkpoint.FORMAT else checkpoint
            policy = kind.load(folder)
        except EmbodiedVisionError as error:
            yield Check(f"checkpoint {folder.name}", False, str(error), remedy)
            continue
        ok = policy.encoder_id in ("", encoder_id)
        value = policy.checkpoint_id if ok else f"{policy.checkpoint_id}, for the encoder {policy.encoder_id}"
        yield Check(f"checkpoint {folder.name}", ok, value, "" if ok else remedy)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    ok = free >= _WANTED_DISK
    return Check("disk", ok, f"{free >> 30} GB free in {Path.cwd()}", "" if ok else "free 2 GB for logs and episodes")


def _processors() -> Check:
    count, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    value = f"{count} cores, load {load:.1f}"
    if count < 2:
        return Check("processors", False, value, "the cell needs two cores to run in real time")
    busy = load > count
    return Check("processors", True, value, "end other work: the cell may not keep up with real time" if busy else "")


def _torch_threads() -> Check:
    import torch

    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    ok = threads <= cores
    return Check(
        "torch threads", ok, f"{threads}; nodes use 1", "" if ok else f"set OMP_NUM_THREADS to at most {cores}"
    )

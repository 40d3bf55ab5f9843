"""What `embodied-vision doctor` looks at: each check is a function that tells what it found and what to do."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from embodied_vision.errors import EmbodiedVisionError
from embodied_vision.launching import shared_memory
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import (
    PROFILE,
    PROFILE_VARIABLES,
    Environment,
    process_environment,
    rclpy_is_ours,
    segment_bytes,
)
from embodied_vision.launching.loopback import image_loopback
from embodied_vision.paths import PACKAGE

DISTRIBUTION = "embodied_vision"
_WANTED_SEGMENT = 64 << 20
_WANTED_DISK = 2 << 30
_REQUIREMENT = re.compile(r"^([\w.-]+)[^>;]*(?:>=\s*([\d.]+))?[^;]*(?:;.*extra == ['\"](\w+)['\"])?")
_RENDER = """
import pybullet
client = pybullet.connect(pybullet.DIRECT)
pybullet.getCameraImage(32, 24, renderer=pybullet.ER_TINY_RENDERER)
print(pybullet.getAPIVersion())
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        ok: whether it will do.
        value: what was found.
        remedy: what to do; empty when nothing needs doing.
    """

    name: str
    ok: bool
    value: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """All checks, in an order in which the first that fails explains later ones."""
    yield _python()
    yield from _packages()
    with hold_free_domain() as lock, tempfile.TemporaryDirectory() as folder:
        environment = process_environment(Path(folder), lock.domain)
        yield _sourced_ros(environment)
        yield _rclpy(environment)
        yield _profile(environment)
        yield _shared_memory()
        yield _stale_segments()
        for width, height in ((424, 240), (640, 480)):
            yield _images(environment, width, height)
        yield _pybullet(environment)
    yield from _checkpoints()
    yield _disk()
    yield _processors()
    yield _torch_threads()


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


def _sourced_ros(environment: Environment) -> Check:
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
            timeout=60.0,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, "no answer within 60 s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"


def _rclpy(environment: Environment) -> Check:
    ok, value = _run("import rclpy; rclpy.init(); rclpy.create_node('doctor'); print(rclpy.__file__)", environment)
    origin = "from wheels" if rclpy_is_ours() else "from a ROS installation"
    remedy = f"pip install '{DISTRIBUTION}[ros]', or source an installed ROS of this Python"
    return Check("rclpy", ok, f"{value} ({origin})" if ok else value, "" if ok else remedy)


def _profile(environment: Environment) -> Check:
    name = next(name for name in PROFILE_VARIABLES if name in environment.variables)
    path = Path(environment.variables[name])
    if not path.is_file():
        return Check("Fast DDS profile", False, f"{path} is missing", f"unset {name}, or install the package again")
    remedy = "" if path == PROFILE else "unset it if images get lost; see the environment variables above"
    return Check("Fast DDS profile", True, f"{name}={path}", remedy)


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

"""The episode store and its disk: can it be written, is there room, was anything left behind?"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from embodied_vision.calibration import read_cameras
from embodied_vision.doctor.check import Check, bounded
from embodied_vision.doctor.expected import Expected
from embodied_vision.episodes.commit import JOURNAL
from embodied_vision.episodes.contract import Contract, default_contract, read_contract
from embodied_vision.episodes.repair import claim
from embodied_vision.episodes.space import free_bytes
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError

WANTED_MIN = 10.0
"""Less room than for so long a recording is too little."""

RATE_HZ = 30.0
"""Of a camera whose rate neither the contract nor the graph tells."""

COLOR_BYTES, DEPTH_BYTES = 0.4, 1.0
"""Bytes of a pixel on the disk: JPEG of quality 90 and packed depth of noisy images, rather too many than too few."""

_PROBE_BYTES = 1 << 20
_SLOW_S = 1.0


def check_store(expected: Expected, rates: dict[str, float] | None = None) -> Iterator[Check]:
    """The recorder's store.

    Args:
        expected: parameters of the nodes.
        rates: camera → frames a second, as measured.
    """
    path = Path(str(expected.value("recorder", "store", "episodes"))).expanduser()
    yield from bounded("episode store", lambda: _writable(path), "give a folder on a disk of this machine that works")
    yield from bounded("episode store room", lambda: _room(path, expected, rates or {}), "free space on its disk")
    yield from bounded("episode store leftovers", lambda: _leftovers(path), "look at the store's folder")


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next((folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir()), Path("/"))


def _writable(path: Path) -> Check:
    """A file is written to the disk for good, and removed."""
    name, folder = "episode store", _existing(path)
    if path.exists() and not path.is_dir():
        return Check(name, False, f"{path} is no folder", "give the recorder's parameter `store` a folder")
    start_s = time.monotonic()
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(os.urandom(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remedy = "free space, change its owner, or give the recorder another `store`"
        return Check(name, False, f"{folder} cannot be written ({error.strerror})", remedy)
    took_s = time.monotonic() - start_s
    value = f"{path} can be written" if folder == path.absolute() else f"{path} will be made in {folder}"
    slow = f"{_PROBE_BYTES >> 20} MB took {took_s:.1f} s to reach the disk: frames will be lost; use a faster one"
    return Check(name, True, value, slow if took_s > _SLOW_S else "")


def _room(path: Path, expected: Expected, rates: dict[str, float]) -> Check:
    name = "episode store room"
    spare = int(expected.value("recorder", "min_free_mb", 500)) << 20
    free = free_bytes(path.absolute())
    contract_path = str(expected.value("recorder", "contract", ""))
    cameras = {camera.name: camera for camera in read_cameras(str(expected.value("recorder", "calibration", "")))}
    contract = read_contract(Path(contract_path)) if contract_path else default_contract(cameras)
    per_s = _bytes_per_second(contract, {n: c.width * c.height for n, c in cameras.items()}, rates)
    minutes = max(0, free - spare) / per_s / 60 if per_s else float("inf")
    value = f"{free >> 20} MB free, {spare >> 20} MB of them kept"
    value += f"; {minutes:.0f} minutes at {per_s / 1e6:.1f} MB/s" if per_s else ""
    ok = minutes >= WANTED_MIN
    return Check(name, ok, value, "" if ok else "free space, or push old episodes away (embodied-vision episodes push)")


def _bytes_per_second(contract: Contract, pixels: dict[str, int], rates: dict[str, float]) -> float:
    """Upper estimate of what a recording writes."""
    total = 0.0
    for source in contract.cameras:
        if source.name not in pixels:
            raise BadInput(f"the contract's camera {source.name!r} is not in the calibration; calibrate it")
        rate = source.rate or rates.get(source.name, 0.0) or RATE_HZ
        total += rate * pixels[source.name] * (COLOR_BYTES + DEPTH_BYTES)
    return total


def _leftovers(path: Path) -> Check:
    """Episodes whose writers died."""
    name = "episode store leftovers"
    if not path.is_dir():
        return Check(name, True, "none: the store is not there yet")
    store = EpisodeStore(path)
    dead = [found for found in store.staging_ids() if _is_dead(store.staging_path / found)]
    if not dead:
        return Check(name, True, "none")
    value = f"{len(dead)} episodes were never closed, such as {dead[0]}"
    return Check(name, False, value, f"embodied-vision episodes repair {path}")


def _is_dead(staging: Path) -> bool:
    try:
        with claim(staging / JOURNAL) as claimed:
            return claimed
    except (OSError, EpisodeError):  # nothing logged, or gone meanwhile
        return False

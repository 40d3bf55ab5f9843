"""The runtimes that can compute an exported encoder, and the choice between them by a short measured trial."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embodied_vision.errors import EncoderError

AUTO = "auto"
CACHE_VARIABLE = "EMBODIED_VISION_CACHE"
"""Names the folder where choices are remembered; without it, one in the user's cache."""
TRIAL_S = 0.3
"""How long each runtime is tried."""


class Runtime(Protocol):
    """A network that is ready to run.

    Attributes:
        artefact_id: runtime, its version and its precision.
    """

    artefact_id: str

    def run(self, pixels: NDArray[np.float32], keep: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(1, 3, rows, columns) to (1, h, w, D); `keep` (K,) for networks that leave patches out."""


def _onnxruntime(model: Path, threads: int, precision: str) -> Runtime:
    from embodied_vision.encoders.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, threads, precision)


def _openvino(model: Path, threads: int, precision: str) -> Runtime:
    from embodied_vision.encoders.openvino_runtime import OpenVinoRuntime

    return OpenVinoRuntime(model, threads, precision)


_OPENERS: dict[str, Callable[[Path, int, str], Runtime]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
EXACT = tuple(_OPENERS)
REDUCED = {
    "openvino-bfloat16": ("openvino", "bfloat16"),
    "openvino-int8": ("openvino", "int8"),
    "onnxruntime-int8": ("onnxruntime", "int8"),
}
"""Runtime and precision of those that compute less than float32."""
NAMES = (AUTO, *EXACT, *REDUCED)


@dataclass(frozen=True)
class Setting:
    """Which network of an artefact is computed, and by what.

    Attributes:
        runtime: one of `EXACT` or `REDUCED`.
        merge: pairs of tokens merged a block.
        region: the workspace's patches alone.
    """

    runtime: str
    merge: int = 0
    region: bool = False

    @property
    def name(self) -> str:
        """Such as `openvino-int8-merge8-region`."""
        return f"{self.runtime}{self.variant}"

    @property
    def variant(self) -> str:
        """What makes the network another one than the exact one; empty for that one."""
        return (f"-merge{self.merge}" if self.merge else "") + ("-region" if self.region else "")

    @property
    def precision(self) -> str:
        """Such as `float32`."""
        return REDUCED.get(self.runtime, ("", "float32"))[1]

    @property
    def exact(self) -> bool:
        """Whether it computes the features that torch gives for the whole image."""
        return self.runtime in EXACT and not self.variant

    @property
    def integers(self) -> bool:
        """Whether its file is that of 8-bit integers."""
        return self.precision == "int8"

    @property
    def file(self) -> str:
        """Of the network, in the artefact's folder."""
        return f"model{self.variant}{'-int8' if self.integers else ''}.onnx"


_SETTING = re.compile(r"(?P<runtime>[a-z0-9]+(-(bfloat16|int8))?)(-merge(?P<merge>[1-9]\d{0,3}))?(?P<region>-region)?")


def read_setting(name: str) -> Setting:
    """What `Setting.name` gave.

    Raises:
        EncoderError: it names no runtime.
    """
    found = _SETTING.fullmatch(name)
    if found is None or found["runtime"] not in (*EXACT, *REDUCED):
        raise EncoderError(
            f"runtime {name!r} is unknown; give one of {', '.join(NAMES)}, with -merge8 and -region behind it where "
            "these were exported"
        )
    return Setting(found["runtime"], int(found["merge"] or 0), bool(found["region"]))


def installed() -> tuple[str, ...]:
    """Names of the exact runtimes that can be imported here."""
    return tuple(name for name in _OPENERS if importlib.util.find_spec(name) is not None)


def open_runtime(name: str, model: Path, threads: int) -> Runtime:
    """Open an ONNX model.

    Args:
        name: one of `EXACT` or `REDUCED`.
        model: the file; quantised where the name ends in int8.
        threads: CPU threads.

    Raises:
        EncoderError: unknown or missing runtime, or a model that it does not take.
    """
    if name not in NAMES or name == AUTO:
        raise EncoderError(f"runtime {name!r} is unknown; give one of {', '.join(NAMES)}")
    kind, precision = REDUCED.get(name, (name, "float32"))
    if kind not in installed():
        raise EncoderError(
            f"runtime {kind!r} is not installed; pip install 'embodied-vision[{_EXTRAS[kind]}]', or give one of "
            f"{', '.join(installed()) or 'the folder that was exported from, which torch runs'}"
        )
    try:
        return _OPENERS[kind](model, threads, precision)
    except Exception as error:  # each runtime raises errors of its own
        text = " ".join(str(error).split())[:300]
        raise EncoderError(f"{name} cannot open {model} ({text}); export the encoder again") from error


def choose_runtime(candidates: Sequence[Runtime], pixels: NDArray[np.float32], key: str) -> Runtime:
    """The fastest of several runtimes for such an input, found by trial once and remembered on this machine.

    Args:
        candidates: one or more.
        pixels: an input.
        key: of the network, its input and its threads.
    """
    if len(candidates) == 1:
        return candidates[0]
    names = [candidate.artefact_id for candidate in candidates]
    path, entry = _memory(), f"{key} on {_machine()} of {', '.join(sorted(names))}"
    remembered = _read(path).get(entry)
    if remembered not in names:
        times = [_trial(candidate, pixels) for candidate in candidates]
        remembered = names[int(np.argmin(times))]
        _remember(path, entry, remembered)
    return candidates[names.index(remembered)]


def _trial(candidate: Runtime, pixels: NDArray[np.float32]) -> float:
    """Least time of a run in s; the first, which prepares things, does not count."""
    candidate.run(pixels)
    best, begun = np.inf, time.perf_counter()
    while time.perf_counter() - begun < TRIAL_S:
        before = time.perf_counter()
        candidate.run(pixels)
        best = min(best, time.perf_counter() - before)
    return float(best)


def _machine() -> str:
    """What decides how fast a runtime is here: the processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def _memory() -> Path:
    own, shared = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(shared) / "embodied-vision") / "runtimes.json"


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(path: Path, entry: str, name: str) -> None:
    """Keep a choice; where that cannot be done, the next start tries again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        beside.write_text(json.dumps({**_read(path), entry: name}, indent=1), encoding="utf-8")
        beside.replace(path)
    except OSError:
        return


def artefact_name(distribution: str, precision: str = "float32") -> str:
    """Such as `onnxruntime-1.32.0-float32`."""
    return f"{distribution}-{version(distribution)}-{precision}"

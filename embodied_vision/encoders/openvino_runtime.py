"""OpenVINO on the CPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from embodied_vision.encoders.runtimes import artefact_name


@cache
def _core() -> Any:
    """The only core of this process, which lasts as long as it.

    Its CPU plugin gives the thread that loads it a stack for signals. Of several cores the one that goes last puts the
    stack of another back, which is gone by then: the next signal ends the process.
    """
    return openvino.Core()


class OpenVinoRuntime:
    """An ONNX model in OpenVINO.

    Args:
        model: of the file.
        threads: CPU threads.
        precision: `float32`, also where the processor could do with less; `bfloat16`, which pays where it has
            instructions for it; or `int8` for a model that is quantised.
    """

    def __init__(self, model: Path, threads: int, precision: str = "float32") -> None:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = _core()
        self._request = core.compile_model(core.read_model(str(model)), "CPU", settings).create_infer_request()
        self.artefact_id = artefact_name("openvino", precision)

    def run(self, pixels: NDArray[np.float32], keep: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(1, 3, rows, columns) to (1, h, w, D); `keep` (K,) for networks that leave patches out."""
        values = {0: pixels} if keep is None else {0: pixels, 1: keep}
        return np.array(self._request.infer(values)[0])  # the runtime uses its own memory again

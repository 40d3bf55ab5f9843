"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from embodied_vision.encoders.runtimes import artefact_name


class OnnxRuntime:
    """An ONNX model in ONNX Runtime.

    Its threads sleep between runs: spinning would take a core away from whoever moves the arm.
    """

    def __init__(self, model: Path, threads: int, precision: str = "float32") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self.artefact_id = artefact_name("onnxruntime", precision)

    def run(self, pixels: NDArray[np.float32], keep: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(1, 3, rows, columns) to (1, h, w, D); `keep` (K,) for networks that leave patches out."""
        values = (pixels,) if keep is None else (pixels, keep)
        features: NDArray[np.float32] = self._session.run(None, dict(zip(self._inputs, values, strict=True)))[0]
        return features

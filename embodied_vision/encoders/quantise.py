"""An ONNX network in 8-bit integers: static, a scale a channel, calibrated on images; what is sensitive stays float.

Sensitive are the products whose input has outliers: one scale for all its values leaves few steps for the others
(Dettmers et al. 2022, arXiv:2208.07339).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

KINDS = ("Conv", "MatMul", "Gemm")
"""Nodes that are computed in integers."""

CHOOSING = {"ReduceMax", "ArgMax", "TopK"}
"""A product that only these read decides which tokens are merged: its values are compared, so it stays float."""

Inputs = Mapping[str, NDArray[Any]]


class _Calibration(CalibrationDataReader):
    def __init__(self, inputs: Sequence[Inputs]) -> None:
        self._rest = iter(inputs)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        values = next(self._rest, None)
        return None if values is None else dict(values)


def prepare(model: Path, prepared: Path) -> None:
    """Write the network as quantisation wants it: shapes inferred, constants folded."""
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)


def _products(network: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes that can be computed in integers."""
    readers: dict[str, set[str]] = {}
    for node in network.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    of_kind = [node for node in network.graph.node if node.op_type in KINDS]
    return [node for node in of_kind if not readers.get(node.output[0], {""}) <= CHOOSING]


def by_sensitivity(prepared: Path, inputs: Sequence[Inputs]) -> list[str]:
    """Names of the nodes that can be computed in integers, the most sensitive first."""
    network = onnx.load(prepared)
    nodes = _products(network)
    known = {output.name for output in network.graph.output} | {value.name for value in network.graph.input}
    wanted = dict.fromkeys(node.input[0] for node in nodes)
    network.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    made = [name for name in wanted if name not in {value.name for value in network.graph.input}]
    ratios = dict.fromkeys(wanted, 0.0)
    for values in inputs:
        for name, value in zip(made, session.run(made, dict(values)), strict=True):
            rms = float(np.sqrt(np.mean(np.square(value, dtype=np.float64))))
            ratios[name] = max(ratios[name], float(np.abs(value).max()) / max(rms, 1e-12))
    return [node.name for node in sorted(nodes, key=lambda node: -ratios[node.input[0]])]


def quantise(prepared: Path, target: Path, inputs: Sequence[Inputs], keep: Sequence[str]) -> None:
    """Write the network in integers but for the nodes `keep` and those that choose."""
    network = onnx.load(prepared)
    able = {node.name for node in _products(network)}
    choosing = [node.name for node in network.graph.node if node.op_type in KINDS and node.name not in able]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        settings: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(
            str(prepared),
            str(target),
            _Calibration(inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=list(KINDS),
            nodes_to_exclude=[*keep, *choosing],
            **settings,
        )
    finally:
        root.setLevel(level)

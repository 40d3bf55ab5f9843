"""An encoder's network as an ONNX file that other runtimes compute, written only when they compute the same."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors
from torch import Tensor, nn

from embodied_vision.encoders.artefact import MANIFEST, read_manifest, write_files
from embodied_vision.encoders.front import Front
from embodied_vision.encoders.runtimes import REDUCED, installed, open_runtime
from embodied_vision.errors import EncoderError

KIND = "graph"
MODEL, INTEGERS, SAMPLE = "model.onnx", "model-int8.onnx", "sample.safetensors"
LEAST_COSINE, LARGEST_ERROR = 0.9999, 1e-3
"""Of every patch's features, and of every value as a share of the features' root mean square."""
REDUCED_COSINE = 0.99
"""Least cosine of a patch's features where less than float32 is computed."""
FLOAT_SHARES = (0.0, 0.125, 0.25, 0.5)
"""Of the products in the network, so many stay float until the features are near enough: the most sensitive ones."""


class TorchEncoder(Protocol):
    """An encoder whose network is a torch module."""

    @property
    def encoder_id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def front(self) -> Front: ...

    def graph(self, pixels: Tensor) -> Tensor:
        """The network: (1, 3, rows, columns) as `front` prepares it to (1, h, w, D)."""


@dataclass(frozen=True)
class Parity:
    """How far a runtime's features are from torch's.

    Attributes:
        cosine: the least of all patches.
        max_error: largest difference of a value, as a share of the features' root mean square.
    """

    cosine: float
    max_error: float

    @property
    def exact(self) -> bool:
        """Whether the runtime computes the same encoder. Not where a figure is NaN."""
        return self.cosine >= LEAST_COSINE and self.max_error <= LARGEST_ERROR

    @property
    def near(self) -> bool:
        """Whether its features may be tried on a task."""
        return self.cosine >= REDUCED_COSINE


def parity(features: NDArray[np.float32], reference: NDArray[np.float32]) -> Parity:
    """Compare features (..., D) with those of torch."""
    if features.shape != reference.shape:
        return Parity(float("nan"), float("nan"))
    a, b = features.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # features that are not finite agree with nothing
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosine = ((a * b).sum(-1) / np.maximum(lengths, 1e-30)).min()
        return Parity(float(cosine), float(np.abs(a - b).max() / max(np.sqrt(np.mean(b * b)), 1e-30)))


def sample_images(size: tuple[int, int], count: int = 4, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Made-up images of (H, W) px with structure at every scale, for where none of a real camera are at hand."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        image = np.full((*size, 3), 128.0)
        for cell in (2, 8, 32, 128):
            coarse = rng.normal(size=(-(-size[0] // cell), -(-size[1] // cell), 3))
            image += 25 * np.kron(coarse, np.ones((cell, cell, 1)))[: size[0], : size[1]]
        out.append(np.clip(image, 0, 255).astype(np.uint8))
    return out


class _Graph(nn.Module):
    """The network alone, as a module that can be traced."""

    def __init__(self, encoder: TorchEncoder) -> None:
        super().__init__()
        self._encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self._encoder.graph(pixels)


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Errors alone are logged."""
    former = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(former)


def to_onnx(encoder: TorchEncoder, pixels: NDArray[np.float32], path: Path) -> None:
    """Write the network for inputs of the shape of `pixels` (1, 3, rows, columns).

    Raises:
        EncoderError: torch cannot write it, or the exporter is not installed.
    """
    try:
        import onnxscript  # noqa: F401 torch's exporter is built on it
    except ImportError as error:
        raise EncoderError("exporting needs onnx and onnxscript; pip install 'embodied-vision[onnx]'") from error
    try:
        with warnings.catch_warnings(), torch.inference_mode(), _quiet("torch.onnx"):
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                _Graph(encoder).eval(),
                (torch.from_numpy(pixels),),
                dynamo=True,
                input_names=["pixels"],
                output_names=["features"],
                verbose=False,
            )
            program.save(str(path), external_data=False)
    except Exception as error:  # the exporter's errors are of many kinds
        text = " ".join(str(error).split())[:400]
        raise EncoderError(
            f"encoder {encoder.encoder_id} cannot be exported ({text}); a file holds 2 GB at most, and some networks "
            "cannot be written: run those with torch"
        ) from error


def export(
    encoder: TorchEncoder,
    folder: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    threads: int = 2,
    source: str = "",
    reduced: bool = False,
) -> dict[str, Parity]:
    """Write an artefact of an encoder, for images of one size where its input depends on that.

    Args:
        encoder: what to write.
        folder: where to; an artefact that is there is replaced.
        images: uint8 (H, W, 3), all of one size, on which every runtime that is installed has to agree with torch. The
            first is kept in the artefact, and checked again whenever it is loaded.
        threads: of the runtimes.
        source: name or path of the encoder, for the record.
        reduced: add bfloat16 and 8-bit integers, calibrated on the images. They give other features, so each is used
            only for policies that it was measured with.

    Returns:
        By runtime, its agreement over all images. One that does not agree, or is not near, is left out of the artefact.

    Raises:
        EncoderError: no image, none of the runtimes is installed or agrees, or the network cannot be written.
    """
    if not images or len({image.shape for image in images}) != 1:
        raise EncoderError(f"{len(images)} images of {len({i.shape for i in images})} sizes; give images of one size")
    if not installed():
        raise EncoderError("neither onnxruntime nor openvino is installed; pip install 'embodied-vision[onnx]'")
    prepared = [encoder.front.prepare(image) for image in images]
    with torch.inference_mode():
        expected = [encoder.graph(torch.from_numpy(p.pixels)).contiguous().numpy() for p in prepared]
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        model = Path(scratch) / MODEL
        to_onnx(encoder, prepared[0].pixels, model)
        compare = partial(_compare, [p.pixels for p in prepared], expected, threads)
        found = {name: compare(name, model) for name in installed()}
        agreed = {name: measured for name, measured in found.items() if measured.exact}
        kept_float: list[str] = []
        if not agreed:
            raise EncoderError(
                f"no runtime computes {encoder.encoder_id} as torch does, so nothing is written: "
                + "; ".join(f"{name}: {_words(measured)}" for name, measured in found.items())
            )
        contents = {MODEL: model.read_bytes(), SAMPLE: save_tensors({"color": images[0], "features": expected[0]})}
        near: dict[str, dict[str, Any]] = {}
        if reduced:
            tried, kept_float = _reduce(model, [p.pixels for p in prepared], compare)
            found |= tried
            near = {name: {**asdict(p), "passed": []} for name, p in tried.items() if p.near}
            if any(name.endswith("int8") for name in near):
                contents[INTEGERS] = (Path(scratch) / INTEGERS).read_bytes()
    manifest = {
        "schema": 1,
        "kind": KIND,
        "encoder_id": encoder.encoder_id,
        "dimension": encoder.dimension,
        "front": encoder.front.to_dict(),
        "image_size": None if encoder.front.any_image else list(images[0].shape[:2]),
        "source": source,
        "torch": torch.__version__,
        "images": {"count": len(images), "sha256": _digest(images)},
        "runtimes": {name: asdict(measured) for name, measured in agreed.items()},
        "reduced": near,
    }
    if INTEGERS in contents:
        manifest["kept_float"] = kept_float
    write_files(folder, contents, manifest)
    return found


def read_reduced(folder: Path) -> dict[str, dict[str, Any]]:
    """What an artefact says of each runtime of less precision that it holds.

    Raises:
        EncoderError: it is no artefact.
    """
    manifest = read_manifest(folder)
    try:
        return {str(name): dict(entry) for name, entry in manifest["reduced"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EncoderError(f"{folder / MANIFEST} is no exported encoder ({error!r}); export it again") from error


def note_passed(folder: Path, runtime: str, policy: Mapping[str, Any]) -> None:
    """List a policy that a runtime of less precision was measured with; the former entry of that policy goes."""
    manifest = read_manifest(folder)
    entry = manifest["reduced"][runtime]
    others = [one for one in entry["passed"] if one.get("checkpoint_id") != policy["checkpoint_id"]]
    entry["passed"] = [*others, dict(policy)]
    beside = folder / f".{MANIFEST}.{uuid.uuid4().hex[:8]}"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / MANIFEST)


def _compare(
    pixels: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]], threads: int, name: str, model: Path
) -> Parity:
    """Agreement of a runtime over all inputs."""
    runtime = open_runtime(name, model, threads)
    each = [parity(runtime.run(one), grid) for one, grid in zip(pixels, expected, strict=True)]
    return Parity(min(p.cosine for p in each), max(p.max_error for p in each))


def _reduce(
    model: Path, pixels: Sequence[NDArray[np.float32]], compare: Callable[[str, Path], Parity]
) -> tuple[dict[str, Parity], list[str]]:
    """Agreement of the reduced runtimes, and the nodes that stayed float in the quantised model beside `model`."""
    names = [name for name, (kind, _) in REDUCED.items() if kind in installed()]
    found = {name: compare(name, model) for name in names if not name.endswith("int8")}
    integers = [name for name in names if name.endswith("int8")]
    try:
        from embodied_vision.encoders import quantise
    except ImportError:  # onnxruntime's own tools want onnx
        return found, []
    ready, target = model.with_name("prepared.onnx"), model.with_name(INTEGERS)
    quantise.prepare(model, ready)
    order = quantise.by_sensitivity(ready, pixels)
    keep: list[str] = []
    for share in FLOAT_SHARES:
        keep = order[: round(share * len(order))]
        quantise.quantise(ready, target, pixels, keep)
        found |= {name: compare(name, target) for name in integers}
        if all(found[name].near for name in integers):
            break
    return found, sorted(keep)


def _words(measured: Parity) -> str:
    return (
        f"least cosine {measured.cosine:.6f} (at least {LEAST_COSINE}), largest error {measured.max_error:.2e} of the "
        f"root mean square (at most {LARGEST_ERROR:g})"
    )


def _digest(images: Sequence[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()

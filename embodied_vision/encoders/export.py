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
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors
from torch import Tensor, nn

from embodied_vision.encoders.artefact import MANIFEST, read_manifest, write_files
from embodied_vision.encoders.front import Front, Prepared
from embodied_vision.encoders.region import Part, Region, TorchNetwork, part_of
from embodied_vision.encoders.runtimes import REDUCED, Setting, installed, open_runtime
from embodied_vision.errors import EncoderError
from embodied_vision.types import Camera

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

    def __init__(self, encoder: Any, merge: int) -> None:
        super().__init__()
        self._encoder, self._more = encoder, {"merge": merge} if merge else {}

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        more = self._more if keep is None else {**self._more, "keep": keep}
        features: Tensor = self._encoder.graph(pixels, **more)
        return features


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Errors alone are logged."""
    former = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(former)


def to_onnx(
    encoder: TorchEncoder,
    pixels: NDArray[np.float32],
    path: Path,
    keep: NDArray[np.int64] | None = None,
    merge: int = 0,
) -> None:
    """Write the network for inputs of the shape of `pixels` (1, 3, rows, columns).

    Args:
        encoder: what to write.
        pixels: an input.
        path: of the file.
        keep: the network's second input, indices (K,) of the patches that it computes; None for all.
        merge: pairs of tokens merged a block; 0 for the encoder's own number.

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
                _Graph(encoder, merge).eval(),
                tuple(torch.from_numpy(value) for value in (pixels, keep) if value is not None),
                dynamo=True,
                input_names=["pixels"] if keep is None else ["pixels", "keep"],
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


@dataclass(frozen=True, eq=False)
class _Case:
    """An image as one network of the artefact takes it.

    Attributes:
        values: the network's inputs by name.
        expected: what torch gives for the whole image, (n, D) of the patches that count.
        pick: what the network gives (1, h, w, D) to the same patches.
    """

    values: dict[str, NDArray[Any]]
    expected: NDArray[np.float32]
    pick: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def export(
    encoder: TorchEncoder,
    folder: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    threads: int = 2,
    source: str = "",
    reduced: bool = False,
    merge: Sequence[int] = (),
    region: Region | None = None,
    cameras: Sequence[Camera] = (),
) -> dict[str, Parity]:
    """Write an artefact of an encoder, for images of one size where its input depends on that.

    Args:
        encoder: what to write.
        folder: where to; an artefact that is there is replaced.
        images: uint8 (H, W, 3), all of one size, on which every runtime that is installed has to agree with torch. The
            first is kept in the artefact, and checked again whenever it is loaded.
        threads: of the runtimes.
        source: name or path of the encoder, for the record.
        reduced: add bfloat16 and 8-bit integers, calibrated on the images.
        merge: add networks that merge so many pairs of tokens a block.
        region: add networks that compute the region's patches alone.
        cameras: of the images, for the region.

    What is added gives other features, so each is used only for policies that it was measured with.

    Returns:
        By setting, its agreement over all images. One that does not agree, or is not near, is left out of the artefact.

    Raises:
        EncoderError: no image, none of the runtimes is installed or agrees, or a network cannot be written.
    """
    if not isinstance(encoder, TorchNetwork):
        raise EncoderError(
            f"{type(encoder).__name__} {encoder.encoder_id} is no network that could be exported; give the encoder "
            "without tile, dense, region and reuse, and --region for the workspace's patches"
        )
    if not images or len({image.shape for image in images}) != 1:
        raise EncoderError(f"{len(images)} images of {len({i.shape for i in images})} sizes; give images of one size")
    if not installed():
        raise EncoderError("neither onnxruntime nor openvino is installed; pip install 'embodied-vision[onnx]'")
    if region is not None and len(cameras) != len(images):
        raise EncoderError(f"{len(images)} images of {len(cameras)} cameras; a region needs the camera of every image")
    if any(pairs < 1 for pairs in merge) or (merge and not getattr(encoder, "drops_tokens", False)):
        raise EncoderError(
            f"merge {list(merge)} for {encoder.encoder_id}; give a vision transformer, and numbers from 1 on, such as 8"
        )
    prepared = [encoder.front.prepare(image) for image in images]
    with torch.inference_mode():
        expected = [encoder.graph(torch.from_numpy(p.pixels)).contiguous().numpy() for p in prepared]
    part = None if region is None else part_of(encoder, region, images, cameras)
    whole = [_whole(one, grid) for one, grid in zip(prepared, expected, strict=True)]
    parts = []
    if part is not None:
        each = zip(images, cameras, expected, strict=True)
        parts = [_part(encoder.front, part, image, camera, grid) for image, camera, grid in each]
    contents: dict[str, bytes] = {SAMPLE: save_tensors({"color": images[0], "features": expected[0]})}
    near: dict[str, dict[str, Any]] = {}
    kept_float: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        model = Path(scratch) / MODEL
        to_onnx(encoder, prepared[0].pixels, model)
        found = {name: _compare(whole, threads, name, model) for name in installed()}
        agreed = {name: measured for name, measured in found.items() if measured.exact}
        if not agreed:
            raise EncoderError(
                f"no runtime computes {encoder.encoder_id} as torch does, so nothing is written: "
                + "; ".join(f"{name}: {_words(measured)}" for name, measured in found.items())
            )
        contents[MODEL] = model.read_bytes()
        for pairs, cases in product((0, *merge), (whole, parts)):
            if not cases:
                continue
            plain = Setting("", pairs, cases is parts)
            path = Path(scratch) / plain.file
            tried: dict[str, Parity] = {}
            if plain.variant:
                to_onnx(encoder, cases[0].values["pixels"], path, cases[0].values.get("keep"), pairs)
                tried = {name: _compare(cases, threads, name, path) for name in installed()}
            if reduced and (not plain.variant or any(measured.near for measured in tried.values())):
                less, kept = _reduce(path, cases, threads)
                tried |= less
                kept_float |= {plain.variant: kept} if kept else {}
            for name, measured in tried.items():
                setting = replace(plain, runtime=name)
                found[setting.name] = measured
                if measured.near:
                    near[setting.name] = {**asdict(measured), "passed": []}
                    contents.setdefault(setting.file, (Path(scratch) / setting.file).read_bytes())
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
        "kept_float": kept_float,
        "part": None if part is None else {**part.to_dict(), "sample_camera": cameras[0].to_dict()},
    }
    write_files(folder, contents, manifest)
    return found


def _whole(prepared: Prepared, expected: NDArray[np.float32]) -> _Case:
    """An image all of whose patches count."""

    def every(features: NDArray[np.float32]) -> NDArray[np.float32]:
        return features.reshape(-1, features.shape[-1])

    return _Case({"pixels": prepared.pixels}, every(expected), every)


def _part(front: Front, part: Part, image: NDArray[np.uint8], camera: Camera, expected: NDArray[np.float32]) -> _Case:
    """An image of which the region's patches count."""
    taken = part.take(front, image, camera)
    assert taken is not None, "the part was made for these images"
    values: dict[str, NDArray[Any]] = {"pixels": taken.pixels}
    if taken.keep is not None:
        values["keep"] = taken.keep
    rows, columns = taken.wanted.shape
    return _Case(values, expected[0, :rows, :columns][taken.wanted], lambda out: taken.grid(out)[taken.wanted])


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


def _compare(cases: Sequence[_Case], threads: int, name: str, model: Path) -> Parity:
    """Agreement of a runtime over all images."""
    runtime = open_runtime(name, model, threads)
    each = [parity(case.pick(runtime.run(**case.values)), case.expected) for case in cases if len(case.expected)]
    return Parity(min(p.cosine for p in each), max(p.max_error for p in each))


def _reduce(model: Path, cases: Sequence[_Case], threads: int) -> tuple[dict[str, Parity], list[str]]:
    """Agreement of the reduced runtimes, and the nodes that stayed float in the quantised model beside `model`."""
    names = [name for name, (kind, _) in REDUCED.items() if kind in installed()]
    found = {name: _compare(cases, threads, name, model) for name in names if not name.endswith("int8")}
    integers = [name for name in names if name.endswith("int8")]
    try:
        from embodied_vision.encoders import quantise
    except ImportError:  # onnxruntime's own tools want onnx
        return found, []
    inputs = [case.values for case in cases]
    ready, target = model.with_name("prepared.onnx"), model.with_name(f"{model.stem}-int8.onnx")
    quantise.prepare(model, ready)
    order = quantise.by_sensitivity(ready, inputs)
    keep: list[str] = []
    for share in FLOAT_SHARES:
        keep = order[: round(share * len(order))]
        quantise.quantise(ready, target, inputs, keep)
        found |= {name: _compare(cases, threads, name, target) for name in integers}
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

"""An encoder that was exported, computed by another runtime than torch; same id, same features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors

from embodied_vision.digests import read_verified
from embodied_vision.encoders.artefact import MANIFEST, read_manifest
from embodied_vision.encoders.base import check_image
from embodied_vision.encoders.export import KIND, MODEL, SAMPLE, Parity, parity
from embodied_vision.encoders.front import Front, front_from_dict
from embodied_vision.encoders.region import Part, Region, Taken
from embodied_vision.encoders.runtimes import (
    AUTO,
    Runtime,
    Setting,
    choose_runtime,
    installed,
    open_runtime,
    read_setting,
)
from embodied_vision.errors import EncoderError
from embodied_vision.types import Camera, Features

_log = logging.getLogger(__name__)


class ExportedEncoder:
    """What `encoder export` wrote.

    Attributes:
        image_size: (rows, columns) of the images that it takes; None for any.
        part: what of an image is computed; None for all of it. Without a camera, or where the region takes more of an
            image than was exported for, the whole image is computed by an exact runtime: the artefact id tells.
    """

    def __init__(
        self,
        encoder_id: str,
        front: Front,
        runtime: Runtime,
        dimension: int,
        image_size: tuple[int, int] | None,
        where: str = "the encoder",
        variant: str = "",
    ) -> None:
        self._encoder_id, self._front, self._runtime = encoder_id, front, runtime
        self._dimension, self.image_size, self._where, self._variant = dimension, image_size, where, variant
        self.part: Part | None = None
        self._exact: ExportedEncoder | None = None
        self._told: set[str] = set()

    @classmethod
    def load(cls, folder: str | Path, runtime: str = AUTO, *, trial: bool = False) -> ExportedEncoder:
        """Load an artefact and compute its sample image; the runtime must give what torch gave.

        Args:
            folder: as `export` wrote it.
            runtime: `onnxruntime`, `openvino`, `auto` for the faster of both here, or the name of a setting that
                computes less.
            trial: take one that computes less also before a policy was measured with it.

        Raises:
            EncoderError: the folder is damaged, the runtime is missing, or it computes something else.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        where = str(folder / MANIFEST)
        setting = Setting(runtime) if runtime == AUTO else read_setting(runtime)
        less = runtime != AUTO and not setting.exact
        try:
            if manifest["kind"] != KIND:
                raise ValueError(f"kind {manifest['kind']!r}")
            encoder_id, dimension = str(manifest["encoder_id"]), int(manifest["dimension"])
            rows_columns = manifest["image_size"]
            image_size = None if rows_columns is None else (int(rows_columns[0]), int(rows_columns[1]))
            hashes, exact, reduced = dict(manifest["sha256"]), list(manifest["runtimes"]), dict(manifest["reduced"])
            untried = runtime in reduced and not list(reduced[runtime]["passed"])
            front = front_from_dict(manifest["front"], where)
            part = Part.from_dict(manifest["part"]) if setting.region and manifest.get("part") else None
            camera = Camera.from_dict(manifest["part"]["sample_camera"]) if part is not None else None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EncoderError(f"{where} is no exported encoder ({error!r}); export it again") from error
        if less and (runtime not in reduced or setting.region != (part is not None)):
            raise EncoderError(
                f"{folder} was not exported for {runtime}, or its features were too far off; it has "
                f"{', '.join([*exact, *reduced])}. Export it with --reduced, --merge or --region"
            )
        if untried and not trial:
            raise EncoderError(
                f"{folder}: no policy was measured with {runtime}, whose features differ from those of training; run "
                f"`embodied-vision encoder gate {folder} --runtime {runtime} --task TASK` first"
            )
        model = MODEL if runtime == AUTO else setting.file
        color, expected = _sample(folder, hashes, model)
        names = [name for name in exact if name in installed()] if runtime == AUTO else [setting.runtime]
        if not names:
            raise EncoderError(
                f"{folder} was exported for {', '.join(exact)}, of which none is installed; pip install "
                "'embodied-vision[onnx]' or 'embodied-vision[openvino]', or run the encoder it was made from"
            )
        pixels, threads = front.prepare(color).pixels, torch.get_num_threads()
        taken = part.take(front, color, camera) if part is not None and camera is not None else None
        candidates, refused = [], []
        for name in names:
            candidate = open_runtime(name, folder / model, threads)
            measured = _agreement(candidate, pixels, taken, expected)
            if measured.near if less else measured.exact:
                candidates.append(candidate)
            else:
                refused.append(f"{name} (cosine {measured.cosine:.6f}, error {measured.max_error:.2e})")
        if not candidates:
            raise EncoderError(
                f"{folder}: {', '.join(refused)} does not compute here what torch did at the export; export the "
                "encoder again on this machine"
            )
        shape = "x".join(str(side) for side in pixels.shape)
        chosen = choose_runtime(candidates, pixels, f"{encoder_id}, {shape}, {threads} threads")
        encoder = cls(encoder_id, front, chosen, dimension, image_size, str(folder), setting.variant)
        if part is not None:
            encoder.part, encoder._exact = part, cls.load(folder)
        return encoder

    @property
    def encoder_id(self) -> str:
        """That of the encoder which was exported."""
        return self._encoder_id

    @property
    def artefact_id(self) -> str:
        """Runtime and precision, and what else makes it compute less."""
        return self._runtime.artefact_id + self._variant

    @property
    def dimension(self) -> int:
        """Feature channels D."""
        return self._dimension

    @property
    def region(self) -> Region | None:
        """Of which the patches are computed; None for whole images."""
        return None if self.part is None else self.part.region

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape, or not the size that was exported for.
        """
        return self.encode_seen(color, None, stamp_ns)

    def encode_seen(self, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image of a camera, None where it is not known.

        Raises:
            EncoderError: the image has another type or shape, or not the size that was exported for, or not that of
                the camera.
        """
        check_image(color)
        if self.image_size is not None and color.shape[:2] != self.image_size:
            rows, columns = self.image_size
            raise EncoderError(
                f"image of {'x'.join(str(side) for side in color.shape[1::-1])} px, {self._where} was exported for "
                f"{columns}x{rows}; export it for the size of your camera (encoder export --image-size)"
            )
        if self.part is not None:
            return self._encode_part(self.part, color, camera, stamp_ns)
        prepared = self._front.prepare(color)
        rows, columns = prepared.grid
        grid = np.ascontiguousarray(self._runtime.run(prepared.pixels)[0, :rows, :columns])
        return Features(grid, prepared.stride, self.encoder_id, self.artefact_id, stamp_ns)

    def _encode_part(self, part: Part, color: NDArray[np.uint8], camera: Camera | None, stamp_ns: int) -> Features:
        taken = None if camera is None else part.take(self._front, color, camera)
        if taken is None:
            assert self._exact is not None, "loaded with the part"
            name = "an image of an unknown camera" if camera is None else f"the workspace in images of {camera.name!r}"
            if name not in self._told:
                self._told.add(name)
                _log.warning("%s: %s does not fit what was exported, whole images are encoded", self._where, name)
            return self._exact.encode(color, stamp_ns)
        features = self._runtime.run(taken.pixels, taken.keep)
        return Features(taken.grid(features), taken.stride, self.encoder_id, self.artefact_id, stamp_ns)


def _agreement(
    runtime: Runtime, pixels: NDArray[np.float32], taken: Taken | None, expected: NDArray[np.float32]
) -> Parity:
    """With what torch made of the whole sample image; of a part, where it is wanted."""
    if taken is None:
        return parity(runtime.run(pixels), expected)
    if not taken.wanted.any():
        return Parity(1.0, 0.0)
    rows, columns = taken.wanted.shape
    return parity(
        taken.grid(runtime.run(taken.pixels, taken.keep))[taken.wanted], expected[0, :rows, :columns][taken.wanted]
    )


def _sample(folder: Path, hashes: Mapping[str, str], model: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The artefact's image and what torch made of it, after its file and that of the model were checked."""
    wanted = {name: hashes.get(name, "") for name in (model, SAMPLE)}
    contents = read_verified(folder, wanted, "encoder", EncoderError)
    try:
        sample = load_tensors(contents[SAMPLE])
        return sample["color"], sample["features"]
    except Exception as error:  # safetensors raises its own untyped error from Rust
        raise EncoderError(f"{folder / SAMPLE} cannot be read ({error}); export the encoder again") from error

"""An encoder that was exported, computed by another runtime than torch; same id, same features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors

from embodied_vision.digests import read_verified
from embodied_vision.encoders.artefact import MANIFEST, read_manifest
from embodied_vision.encoders.export import INTEGERS, KIND, MODEL, SAMPLE, parity
from embodied_vision.encoders.front import Front, front_from_dict
from embodied_vision.encoders.runtimes import AUTO, REDUCED, Runtime, choose_runtime, installed, open_runtime
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features


class ExportedEncoder:
    """What `encoder export` wrote.

    Attributes:
        image_size: (rows, columns) of the images that it takes; None for any.
    """

    def __init__(
        self,
        encoder_id: str,
        front: Front,
        runtime: Runtime,
        dimension: int,
        image_size: tuple[int, int] | None,
        where: str = "the encoder",
    ) -> None:
        self._encoder_id, self._front, self._runtime = encoder_id, front, runtime
        self._dimension, self.image_size, self._where = dimension, image_size, where

    @classmethod
    def load(cls, folder: str | Path, runtime: str = AUTO, *, trial: bool = False) -> ExportedEncoder:
        """Load an artefact and compute its sample image; the runtime must give what torch gave.

        Args:
            folder: as `export` wrote it.
            runtime: `onnxruntime`, `openvino`, `auto` for the faster of both here, or one of less precision.
            trial: take one of less precision also before a policy was measured with it.

        Raises:
            EncoderError: the folder is damaged, the runtime is missing, or it computes something else.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        where = str(folder / MANIFEST)
        try:
            if manifest["kind"] != KIND:
                raise ValueError(f"kind {manifest['kind']!r}")
            encoder_id, dimension = str(manifest["encoder_id"]), int(manifest["dimension"])
            rows_columns = manifest["image_size"]
            image_size = None if rows_columns is None else (int(rows_columns[0]), int(rows_columns[1]))
            hashes, exact, reduced = dict(manifest["sha256"]), list(manifest["runtimes"]), dict(manifest["reduced"])
            untried = runtime in reduced and not list(reduced[runtime]["passed"])
            front = front_from_dict(manifest["front"], where)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EncoderError(f"{where} is no exported encoder ({error!r}); export it again") from error
        if runtime in REDUCED and runtime not in reduced:
            raise EncoderError(
                f"{folder} was not exported for {runtime}, or its features were too far off; it has "
                f"{', '.join([*exact, *reduced])}. Export it with --reduced"
            )
        if untried and not trial:
            raise EncoderError(
                f"{folder}: no policy was measured with {runtime}, whose features differ from those of training; run "
                f"`embodied-vision encoder gate {folder} --runtime {runtime} --task TASK` first"
            )
        model = INTEGERS if runtime.endswith("int8") else MODEL
        color, expected = _sample(folder, hashes, model)
        names = [name for name in exact if name in installed()] if runtime == AUTO else [runtime]
        if not names:
            raise EncoderError(
                f"{folder} was exported for {', '.join(exact)}, of which none is installed; pip install "
                "'embodied-vision[onnx]' or 'embodied-vision[openvino]', or run the encoder it was made from"
            )
        pixels, threads = front.prepare(color).pixels, torch.get_num_threads()
        candidates, refused = [], []
        for name in names:
            candidate = open_runtime(name, folder / model, threads)
            measured = parity(candidate.run(pixels), expected)
            if measured.near if name in REDUCED else measured.exact:
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
        return cls(encoder_id, front, chosen, dimension, image_size, str(folder))

    @property
    def encoder_id(self) -> str:
        """That of the encoder which was exported."""
        return self._encoder_id

    @property
    def artefact_id(self) -> str:
        """Runtime and precision."""
        return self._runtime.artefact_id

    @property
    def dimension(self) -> int:
        """Feature channels D."""
        return self._dimension

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image.

        Raises:
            EncoderError: the image has another type or shape, or not the size that was exported for.
        """
        if self.image_size is not None and color.shape[:2] != self.image_size:
            rows, columns = self.image_size
            raise EncoderError(
                f"image of {'x'.join(str(side) for side in color.shape[1::-1])} px, {self._where} was exported for "
                f"{columns}x{rows}; export it for the size of your camera (encoder export --image-size)"
            )
        prepared = self._front.prepare(color)
        rows, columns = prepared.grid
        grid = np.ascontiguousarray(self._runtime.run(prepared.pixels)[0, :rows, :columns])
        return Features(grid, prepared.stride, self.encoder_id, self.artefact_id, stamp_ns)


def _sample(folder: Path, hashes: Mapping[str, str], model: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The artefact's image and what torch made of it, after its file and that of the model were checked."""
    wanted = {name: hashes.get(name, "") for name in (model, SAMPLE)}
    contents = read_verified(folder, wanted, "encoder", EncoderError)
    try:
        sample = load_tensors(contents[SAMPLE])
        return sample["color"], sample["features"]
    except Exception as error:  # safetensors raises its own untyped error from Rust
        raise EncoderError(f"{folder / SAMPLE} cannot be read ({error}); export the encoder again") from error

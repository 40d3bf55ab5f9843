"""A teacher's features of all frames, computed once and kept beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.correspondence import ViewSource
from embodied_vision.errors import EncoderError, RunFailed
from embodied_vision.geometry import sample_grid
from embodied_vision.types import Features, FloatArray

STATISTICS_SETS = 200
"""So many sets of frames, spread over all, say how large each channel is."""


class TeacherFeatures:
    """Features of every frame of some view sets, float16, a file a set in a folder named by the teacher's id."""

    def __init__(self, folder: Path, encoder: Encoder, sets: ViewSource) -> None:
        """
        Args:
            folder: in which the teacher's own folder is made; belongs to these sets.
            encoder: the teacher.
            sets: the frames.
        """
        self.encoder_id = encoder.encoder_id
        self._folder = folder / encoder.encoder_id
        self._encoder = encoder
        self._sets = sets

    def __len__(self) -> int:
        """Number of sets."""
        return len(self._sets)

    def fill(self) -> Iterator[int]:
        """Encode the frames of the sets that are not there yet, yielding the number of sets that are done.

        Raises:
            EncoderError: the teacher gives values that are not finite, or too large for float16.
            RunFailed: no room.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(len(self._sets)):
            if not self._path(number).is_file():
                self._encode(number)
            yield number + 1

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"

    def _encode(self, number: int) -> None:
        tensors: dict[str, NDArray[np.float16]] = {}
        strides = {}
        for i, frame in enumerate(self._sets[number].frames):
            features = self._encoder.encode(frame.color)
            with np.errstate(over="ignore"):
                grid = features.grid.astype(np.float16)
            if not np.isfinite(grid).all():
                raise EncoderError(
                    f"teacher {self.encoder_id} gives values that are not finite, or beyond 65504, for frame {i} of "
                    f"set {number}; choose another one of its layers"
                )
            tensors[str(i)] = np.ascontiguousarray(grid)
            strides[str(i)] = f"{features.stride[0]} {features.stride[1]}"
        part = self._path(number).with_suffix(".part")
        try:
            save_file(tensors, part, metadata=strides)
            os.replace(part, self._path(number))
        except (OSError, SafetensorError) as error:
            raise RunFailed(f"{part} cannot be written ({error}); make room and go on with --resume") from error

    def _features(self, number: int, frame: int) -> Features:
        path = self._path(number)
        try:
            with safe_open(path, framework="numpy") as file:
                rows_px, columns_px = (float(part) for part in file.metadata()[str(frame)].split())
                grid = file.get_tensor(str(frame)).astype(np.float32)
        except Exception as error:  # safetensors raises its own untyped error from Rust
            raise EncoderError(f"{path} cannot be read ({error}); delete it to make it again") from error
        return Features(grid, (rows_px, columns_px), self.encoder_id, "kept", 0)

    def at(self, number: int, frame: int, pixels: FloatArray) -> NDArray[np.float32]:
        """Features (N, C) at pixels (N, 2) as u, v of a frame's image."""
        return sample_grid(self._features(number, frame), pixels)

    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation (C,) of each channel over some sets; a channel that never changes has deviation 1.

        Raises:
            EncoderError: `fill` has not been through.
        """
        numbers = np.unique(np.linspace(0, len(self._sets) - 1, STATISTICS_SETS).astype(int))
        count, first, second = 0, 0.0, 0.0
        for number in numbers:
            for frame in range(len(self._sets[int(number)].frames)):
                grid = self._features(int(number), frame).grid
                flat = grid.reshape(-1, grid.shape[2]).astype(np.float64)
                count, first, second = count + len(flat), first + flat.sum(0), second + (flat**2).sum(0)
        mean = np.asarray(first) / count
        deviation = np.sqrt(np.maximum(np.asarray(second) / count - mean**2, 0))
        usual = float(np.sqrt((deviation**2).mean()))
        deviation = np.where(deviation > 1e-3 * usual, deviation, 1.0)
        return mean.astype(np.float32), deviation.astype(np.float32)

"""From a name or a path to an encoder."""

from __future__ import annotations

from pathlib import Path

from embodied_vision.encoders.artefact import MANIFEST, read_manifest
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.compact import CompactEncoder
from embodied_vision.encoders.export import KIND
from embodied_vision.encoders.runtimes import AUTO
from embodied_vision.errors import EncoderError
from embodied_vision.paths import shipped

DEFAULT = "default"


def load_encoder(name_or_path: str | Path = DEFAULT, runtime: str = AUTO) -> Encoder:
    """Load an encoder.

    Args:
        name_or_path: `default` for the one that ships; a folder written by `encoder pretrain` or `encoder export`; a
            folder of a transformers vision model; or a hub name such as `facebook/dinov2-small` that is in the local
            cache.
        runtime: of an exported encoder, `onnxruntime`, `openvino` or `auto` for the fastest one here; torch runs the
            others.

    Raises:
        EncoderError: nothing of that name, or it is damaged.
    """
    if str(name_or_path) == DEFAULT:
        return CompactEncoder.load(shipped("encoder"))
    path = Path(name_or_path)
    if (path / MANIFEST).is_file():
        if read_manifest(path).get("kind") == KIND:
            from embodied_vision.encoders.exported import ExportedEncoder

            return ExportedEncoder.load(path, runtime)
        return CompactEncoder.load(path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise EncoderError(
            f"{path} holds neither {MANIFEST} (written by `embodied-vision encoder pretrain` or `export`) "
            "nor config.json (of a transformers model); give a folder that holds one of them"
        )
    from embodied_vision.encoders.huggingface import HuggingFaceEncoder

    return HuggingFaceEncoder(str(name_or_path))

"""Low-rank adapters of transformers models: folders of a few megabytes, merged into their base's weights when loaded.

The weight W of a linear layer becomes W + alpha / rank · B A (LoRA, Hu et al. 2022, arXiv:2106.09685). The files are
those of the library peft, so that its users' tools read what is written here, and the other way round; the manifest
beside them says which base they belong to.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from embodied_vision.digests import read_verified
from embodied_vision.encoders.artefact import CARD, MANIFEST, identity, read_manifest, write_files
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.errors import EncoderError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Before the name of each weight in peft's files."""
_NOT_OF_THE_ID = ("base_model_name_or_path", "inference_mode", "peft_version", "revision", "target_modules")
"""Settings that shape no feature, or that the names of the weights say already."""


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to.

    Attributes:
        name: folder or hub name.
        options: of the encoder that it was trained on, such as `size`; taken again where none are given.
        encoder_id: of that encoder; empty where unknown.
        weights_sha256: of the model's weights, `HuggingFaceEncoder.weights_sha256`; empty where unknown.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    encoder_id: str = ""
    weights_sha256: str = ""


@dataclass(frozen=True, eq=False)
class Adapter:
    """What an adapter's folder holds.

    Attributes:
        where: the folder.
        base: that it belongs to.
        config: content of `adapter_config.json`.
        tensors: weights by the names of the file, float32, all finite.
    """

    where: Path
    base: Base
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def adapter_id(base_id: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Id of an encoder with an adapter: a hash of the base's id, the adapter's settings and its weights."""
    shaping = {name: value for name, value in config.items() if name not in _NOT_OF_THE_ID}
    family = base_id.partition("-")[0]
    weights = {name: value.cpu().numpy() for name, value in tensors.items()}
    return identity(f"{family}-lora", weights, {"base": base_id, "adapter": shaping})


def read_adapter(folder: Path) -> Adapter:
    """Read a folder that `write_adapter` wrote, or the library peft.

    Raises:
        EncoderError: it is damaged, no LoRA, not in safetensors, or holds values that are not finite.
    """
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    hashes = manifest.get("sha256")
    if manifest and not (isinstance(hashes, Mapping) and {CONFIG, WEIGHTS} <= set(hashes)):
        raise EncoderError(f"{folder / MANIFEST} has no sha256 of {CONFIG} and {WEIGHTS}; copy the adapter again")
    if isinstance(hashes, Mapping):
        contents = read_verified(folder, hashes, "adapter", EncoderError)
    else:
        contents = {name: _read(folder / name) for name in (CONFIG, WEIGHTS)}
    try:
        config = json.loads(contents[CONFIG])
        kind, whole = config["peft_type"], config.get("modules_to_save")
        base = _base(manifest["base"]) if manifest else Base(str(config["base_model_name_or_path"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{folder}: {CONFIG} or {MANIFEST} cannot be read ({error!r}); copy it again") from error
    if kind != "LORA" or whole:
        what = f"of kind {kind}" if kind != "LORA" else f"and whole layers {whole}"
        raise EncoderError(f"{folder} is an adapter {what}; give a LoRA, which is merged into the weights")
    try:
        tensors = {name: value.to(torch.float32) for name, value in load_tensors(contents[WEIGHTS]).items()}
    except Exception as error:  # safetensors raises its own untyped error from Rust
        raise EncoderError(f"{folder / WEIGHTS} is not a safetensors file ({error}); copy it again") from error
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise EncoderError(
                f"{folder / WEIGHTS}: {name} holds values that are not finite; train the adapter again with a lower "
                "--learning-rate"
            )
    return Adapter(folder, base, config, tensors)


def _base(about: Mapping[str, Any]) -> Base:
    options = {str(name): str(value) for name, value in about["options"].items()}
    return Base(str(about["name"]), options, str(about["encoder_id"]), str(about["weights_sha256"]))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error}); only adapters in safetensors are: save it again with a current peft"
        ) from error


def write_adapter(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], card: str
) -> None:
    """Write an adapter; a reader sees the old folder or the new one, whole.

    Args:
        folder: where to.
        config: of peft.
        tensors: by peft's names.
        manifest: whose `base` are the fields of `Base`.
        card: Markdown.
    """
    weights = save_tensors({name: value.contiguous() for name, value in tensors.items()}, {"format": "pt"})
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    write_files(folder, {CONFIG: text.encode(), WEIGHTS: weights, CARD: card.encode()}, manifest)


def peft_library() -> Any:
    """The library peft.

    Raises:
        EncoderError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise EncoderError(
            f"low-rank adapters need the library peft ({error}); pip install 'embodied-vision[adapters]'"
        ) from error
    return peft


def attach(model: nn.Module, config: Mapping[str, Any]) -> Any:
    """Put an adapter's layers, which change nothing yet, into a model in place, and return peft's view of it.

    Raises:
        EncoderError: peft is not installed, or the adapter does not fit the model.
    """
    peft = peft_library()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.filterwarnings("error", "Unexpected keyword")  # a setting that this peft would leave out
            warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks for what transformers renamed
            return peft.PeftModel(model, peft.PeftConfig.from_peft_type(**config))
    except (KeyError, RuntimeError, TypeError, UserWarning, ValueError) as error:
        raise EncoderError(
            f"the adapter does not fit {type(model).__name__} ({' '.join(str(error).split())[:300]}); give the model "
            "that it was trained on, and a peft no older than the one that wrote it"
        ) from error


def merge(model: nn.Module, adapter: Adapter) -> None:
    """Add an adapter to the weights of its base, in place.

    Raises:
        EncoderError: it does not fit the model.
    """
    peft = peft_library()
    attached = attach(model, adapter.config)
    try:
        told = peft.set_peft_model_state_dict(attached, dict(adapter.tensors))
        wrong = [*told.unexpected_keys, *(name for name in told.missing_keys if "lora_" in name)]
        if wrong:
            raise ValueError(f"{len(wrong)} of its weights have no place there or are missing, such as {wrong[0]}")
        attached.merge_and_unload(safe_merge=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise EncoderError(
            f"adapter {adapter.where} does not fit {adapter.base.name} ({' '.join(str(error).split())[:300]}); give "
            "the model that it was trained on"
        ) from error


class AdaptedEncoder(HuggingFaceEncoder):
    """A transformers model with an adapter merged into its weights: it costs what the model alone costs."""

    def __init__(self, adapter: Adapter, base: str, **settings: Any) -> None:
        """
        Args:
            adapter: as `read_adapter` gives it.
            base: folder or hub name of the model that it belongs to.
            settings: of the model, see `HuggingFaceEncoder`.

        Raises:
            EncoderError: the base cannot be loaded, has other weights than the one that the adapter was trained on, or
                the adapter does not fit it.
        """
        try:
            super().__init__(base, **settings)
        except EncoderError as error:
            raise EncoderError(
                f"the base of adapter {adapter.where}: {error}. Where it lies elsewhere, give {adapter.where}+base=NAME"
            ) from error
        expected = adapter.base.weights_sha256
        found = self.weights_sha256() if expected else ""
        if found != expected:
            raise EncoderError(
                f"adapter {adapter.where} was trained on {adapter.base.name} with weights of sha256 {expected[:16]}…, "
                f"those of {base} have {found[:16]}…; give that model with {adapter.where}+base=NAME, or train an "
                "adapter of this one"
            )
        merge(self.backbone, adapter)
        self._encoder_id = adapter_id(self._encoder_id, adapter.config, adapter.tensors)

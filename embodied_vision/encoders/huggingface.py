"""Any vision backbone of transformers as an encoder of dense patch features.

CLS, distillation and register tokens stand before the patches and are dropped; a hierarchical network's last
feature map is taken as it is. Features are the model's `last_hidden_state`, not rescaled. Vision transformers can merge
similar patches on the way and leave patches out.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embodied_vision.encoders.artefact import identity, weights_sha256
from embodied_vision.encoders.device import AUTO, choose_device, computing_on
from embodied_vision.encoders.front import ResizedFront
from embodied_vision.encoders.merging import TokenPath, blocks_of
from embodied_vision.encoders.processor import FILES, Preprocessing, read_preprocessing
from embodied_vision.errors import EncoderError
from embodied_vision.types import Features

LAYER = "last_hidden_state"
_HEADS = ("pooler", "head")
"""Parts beyond the patch features; a checkpoint may lack them."""


class HuggingFaceEncoder:
    """Dense features of a transformers model: DINOv2, DINOv3, SigLIP, SigLIP 2, CLIP, ViT, MAE, ConvNeXt, Swin, …

    The whole image is resized to the input size of the model's processor, so patches of a wide image are wide
    ones: `Features.stride` says how wide. Weights come from safetensors files only, and code of a repository is run
    only when it is asked for.
    """

    def __init__(
        self,
        name_or_path: str,
        *,
        revision: str | None = None,
        image_size: tuple[int, int] | None = None,
        layers: Sequence[int] = (),
        merge: int = 0,
        device: str = AUTO,
        run_code: bool = False,
        local_files_only: bool = True,
    ) -> None:
        """
        Args:
            name_or_path: a folder, or a hub name such as `facebook/dinov2-small`.
            revision: branch, tag or commit of a hub name.
            image_size: (rows, columns) in px to resize to instead of the processor's size; multiples of the patch.
            layers: hidden states whose features stand side by side in each patch, 0 before the first layer, -1 after
                the last; none for the model's `last_hidden_state`.
            merge: pairs of similar patches that become one token after each block; vision transformers alone.
            device: where to compute, see `choose_device`.
            run_code: run the code that comes with a model which transformers does not know itself.
            local_files_only: take a hub name from the local cache and never from the network.

        Raises:
            EncoderError: the model is missing, gated, damaged, has no safetensors or no patch features.
        """
        _check_path(name_or_path)
        hub = {"revision": revision, "local_files_only": local_files_only}
        self._device = choose_device(device)
        self._model, missing = _load_model(name_or_path, hub, run_code)
        self._preprocessing = _load_preprocessing(name_or_path, hub, image_size)
        self._config: Any = self._model.config  # of the vision tower
        self._name = name_or_path
        self._patch_px = _patch_px(self._config, name_or_path)
        if image_size is not None and any(side < 1 or side % self._patch_px for side in image_size):
            raise EncoderError(
                f"image_size {image_size} is not made of whole patches of {self._patch_px} px; "
                f"give multiples of {self._patch_px}"
            )
        blocks = [] if getattr(self._config, "depths", None) else blocks_of(self._model)
        self._path = TokenPath(blocks) if blocks else None
        self._merge = merge
        if merge < 0 or (merge and not blocks):
            raise EncoderError(
                f"merge={merge} for {name_or_path} of family {self._config.model_type!r}; give a vision transformer "
                "(DINOv2, DINOv3 ViT, SigLIP, CLIP, ViT, DeiT, MAE) a number of tokens from 1 on, such as merge=8"
            )
        self._missing = missing
        family = str(self._config.model_type)
        self._layers = tuple(layers)
        layer = f"hidden_states{list(self._layers)}" if self._layers else LAYER
        settings = {"family": family, "layer": layer, "preprocessing": asdict(self._preprocessing)}
        settings |= _code_of(self._model)
        self._encoder_id = identity(family, self._weights(), settings) + (f"-merge{merge}" if merge else "")
        smallest = torch.from_numpy(self.front.prepare(np.zeros((32, 32, 3), np.uint8)).pixels)
        try:
            with torch.inference_mode():
                self._dimension = int(self.graph(smallest, merge=0).shape[3])
        except RuntimeError as error:
            rows, columns = smallest.shape[2:]
            raise EncoderError(
                f"encoder {name_or_path!r} cannot compute images of {rows} x {columns} px "
                f"({str(error).splitlines()[0]}); give a larger size, or that of its processor"
            ) from error

    def _weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights that the checkpoint holds."""
        return {k: v.cpu().numpy() for k, v in self._model.state_dict().items() if k not in self._missing}

    def weights_sha256(self) -> str:
        """Hash of the checkpoint's weights alone, however many files they lie in."""
        return weights_sha256(self._weights())

    @property
    def encoder_id(self) -> str:
        """Hash of weights, preprocessing and layer."""
        return self._encoder_id

    @property
    def artefact_id(self) -> str:
        """Runtime and precision."""
        where = "" if self._device.type == "cpu" else f"-{self._device.type}"
        return f"torch-{torch.__version__}{where}-float32"

    @property
    def dimension(self) -> int:
        """Feature channels D."""
        return self._dimension

    def encode(self, color: NDArray[np.uint8], stamp_ns: int = 0) -> Features:
        """Features of a uint8 (H, W, 3) RGB image; the stride is in px of that image.

        Raises:
            EncoderError: the image has another type or shape.
        """
        prepared = self.front.prepare(color)
        with torch.inference_mode(), computing_on(self._device):
            grid = self.graph(torch.from_numpy(prepared.pixels).to(self._device))[0].contiguous().cpu().numpy()
        return Features(grid, prepared.stride, self.encoder_id, self.artefact_id, stamp_ns)

    @property
    def front(self) -> ResizedFront:
        """What comes before the network."""
        return ResizedFront(self._preprocessing, self._patch_px)

    @property
    def backbone(self) -> nn.Module:
        """The model, frozen."""
        model: nn.Module = self._model
        return model

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    @property
    def drops_tokens(self) -> bool:
        """Whether `graph` can leave patches out and merge them."""
        return self._path is not None

    def graph(self, pixels: Tensor, keep: Tensor | None = None, merge: int | None = None) -> Tensor:
        """The network: (1, 3, H, W) as `front` prepares it to (1, rows, columns, D); it computes where the image lies.

        Args:
            pixels: the image.
            keep: indices (K,) of the patches to compute, row by row and ascending; the others are 0. None for all.
            merge: pairs of tokens merged a block, in place of the encoder's own number.
        """
        if pixels.device != self._model.device:
            self._model.to(pixels.device)
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        inputs = self._inputs(pixels, size)
        merge = self._merge if merge is None else merge
        if keep is not None or merge:
            return self._reduced(inputs, size, keep, merge)
        if not self._layers:
            return self._grid(self._model(**inputs).last_hidden_state, size)[None]
        states = self._model(**inputs, output_hidden_states=True).hidden_states
        return torch.cat([self._grid(state, size) for state in self._chosen(states)], dim=2)[None]

    def _reduced(self, inputs: dict[str, Any], size: tuple[int, int], keep: Tensor | None, merge: int) -> Tensor:
        """`graph` with fewer tokens."""
        assert self._path is not None, "asked for by those who saw `drops_tokens`"
        rows, columns = size[0] // self._patch_px, size[1] // self._patch_px
        self._path.begin(rows * columns, merge=merge, keep=keep, record=bool(self._layers))
        try:
            patches = self._path.patches(self._model(**inputs).last_hidden_state)
            if self._layers:
                patches = torch.cat(self._chosen(self._path.states), dim=1)
            return patches.reshape(1, rows, columns, -1)
        finally:
            self._path.end()

    def _chosen(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states that were asked for."""
        try:
            return [states[layer] for layer in self._layers]
        except IndexError as error:
            raise EncoderError(
                f"{self._name} has {len(states)} hidden states and was asked for {list(self._layers)}; give numbers "
                f"from {-len(states)} to {len(states) - 1}"
            ) from error

    def _inputs(self, pixels: Tensor, size: tuple[int, int]) -> dict[str, Any]:
        """Arguments of the model's forward pass."""
        rows, columns = size[0] // self._patch_px, size[1] // self._patch_px
        accepted = inspect.signature(self._model.forward).parameters
        if "spatial_shapes" in accepted:  # SigLIP 2 NaFlex takes patches
            p = self._patch_px
            patches = pixels[0].reshape(3, rows, p, columns, p).permute(1, 3, 2, 4, 0).reshape(1, rows * columns, -1)
            return {
                "pixel_values": patches,
                "pixel_attention_mask": torch.ones(1, rows * columns, dtype=torch.int32),
                "spatial_shapes": torch.tensor([[rows, columns]], device="cpu"),
            }
        inputs: dict[str, Any] = {"pixel_values": pixels}
        if "noise" in accepted:  # MAE shuffles its patches by the order of a noise
            inputs["noise"] = torch.arange(rows * columns, dtype=torch.float32)[None]
        trained = getattr(self._config, "image_size", None)
        trained_size = (trained, trained) if isinstance(trained, int) else tuple(trained or size)
        if "interpolate_pos_encoding" in accepted and trained_size != size:
            inputs["interpolate_pos_encoding"] = True
        return inputs

    def _grid(self, hidden: Tensor, size: tuple[int, int]) -> Tensor:
        """(rows, columns, D) patch features out of the last hidden state."""
        rows, columns = size[0] // self._patch_px, size[1] // self._patch_px
        if hidden.ndim == 4:
            grid = hidden[0].permute(1, 2, 0)
            if grid.shape[:2] != (rows, columns):
                raise EncoderError(
                    f"{self._name} gives a map of {tuple(grid.shape[:2])} for {size} px, expected {(rows, columns)}; "
                    f"pass an image_size in multiples of {self._patch_px}"
                )
            return grid
        extra = hidden.shape[1] - rows * columns
        registers = int(getattr(self._config, "num_register_tokens", 0) or 0)
        allowed = {1 + registers} if registers else {0, 1, 2}
        if extra not in allowed:
            raise EncoderError(
                f"{self._name} gives {hidden.shape[1]} tokens for {rows} × {columns} patches, so {extra} before them, "
                f"expected one of {sorted(allowed)}; this family has no dense patch features that are understood"
            )
        return hidden[0, extra:].reshape(rows, columns, -1)


def _check_path(name: str) -> None:
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not Path(name).is_dir():
        raise EncoderError(f"no folder {name}; give a folder of a transformers model or a hub name such as owner/model")


def _holds(name: str, file: str, hub: dict[str, Any]) -> bool:
    """Whether a folder or the local cache holds a file of a model."""
    from transformers.utils import cached_file

    try:
        here = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **{**hub, "local_files_only": True})
    except OSError:
        return False
    return here is not None


def _remedy(name: str, error: Exception, pickled: bool = False) -> EncoderError:
    """What to do about an error of transformers or of the hub."""
    text = " ".join(str(error).split())
    kinds = {kind.__name__ for e in (error, error.__cause__) if e is not None for kind in type(e).__mro__}
    if "GatedRepoError" in kinds or "gated" in text.lower():
        advice = f"accept its licence at https://huggingface.co/{name}, then `hf auth login` and `hf download {name}`"
    elif "safetensors" in text or pickled:
        advice = "only whole safetensors weights are read; convert the model with `save_pretrained`, or copy it again"
    elif "trust_remote_code" in text or "auto_map" in text:
        advice = (
            "it needs code from its repository, which is not run unless you ask for it: read that code and give "
            f"{name}+code=run, or take a model that transformers knows itself"
        )
    elif Path(name).is_dir():
        advice = "give a folder that `save_pretrained` wrote, with config.json and model.safetensors"
    else:
        advice = f"check the name; if it is right, get the model once with `hf download {name}`"
    return EncoderError(f"encoder {name!r} cannot be loaded: {text[:300]}; {advice}")


def _code_of(model: Any) -> dict[str, str]:
    """Setting of a model whose code came with it: a hash of that code; empty for the models of transformers."""
    module = sys.modules[type(model).__module__]
    if not module.__name__.startswith("transformers_modules."):
        return {}
    files = sorted(Path(str(module.__file__)).parent.glob("*.py"))
    return {"code": hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()}


def _load_model(name: str, hub: dict[str, Any], run_code: bool) -> tuple[Any, set[str]]:
    """The vision model in float32 and the names of its weights that the checkpoint does not hold."""
    import transformers
    from safetensors import SafetensorError

    if _holds(name, "adapter_config.json", hub):  # transformers would add it, or not, as peft is installed or not
        raise EncoderError(
            f"encoder {name!r} holds an adapter beside the model; move adapter_config.json and "
            "adapter_model.safetensors to a folder of their own, and give that one for the model with the adapter"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=run_code, **hub)
        if getattr(config, "auto_map", None) and not run_code:
            raise ValueError("its config names code of its own (auto_map)")
        towers = {
            "siglip": transformers.SiglipVisionModel,
            "siglip2": transformers.Siglip2VisionModel,
            "clip": transformers.CLIPVisionModel,
        }
        loader: Any = towers.get(config.model_type, transformers.AutoModel)
        options: dict[str, Any] = {"mask_ratio": 0.0} if config.model_type == "vit_mae" else {}
        if config.model_type not in towers:  # with peft installed, AutoModel asks the hub for an adapter otherwise
            options["adapter_kwargs"] = {"local_files_only": hub["local_files_only"]}
        model, about = loader.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=run_code,
            dtype=torch.float32,
            output_loading_info=True,
            **hub,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _remedy(name, error, pickled=_holds(name, "pytorch_model.bin", hub)) from error
    missing = set(about["missing_keys"])
    needed = sorted(key for key in missing if not any(part in _HEADS for part in key.split(".")))
    if needed:
        raise EncoderError(
            f"encoder {name!r}: the checkpoint lacks {len(needed)} weights, such as {needed[0]!r}; "
            "it belongs to another architecture, or is not complete: copy it again"
        )
    return model.eval().requires_grad_(False), missing


def _load_preprocessing(name: str, hub: dict[str, Any], image_size: tuple[int, int] | None) -> Preprocessing:
    from transformers.utils import cached_file

    for file in FILES:
        try:
            path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **hub)
        except OSError as error:
            raise _remedy(name, error) from error
        if path is not None:
            return read_preprocessing(Path(path), image_size)
    raise EncoderError(
        f"encoder {name!r} has neither {' nor '.join(FILES)}, so its input size and normalisation are unknown; "
        "copy the file from the model that it was made from"
    )


def _patch_px(config: Any, name: str) -> int:
    """Edge in px of the square that one feature describes."""
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, list | tuple):
        patch = patch[0] if len(set(patch)) == 1 else None
    depths = getattr(config, "depths", None)
    if depths:  # a hierarchy that halves its map at each stage after the first
        return int(patch or 4) * 2 ** (len(depths) - 1)
    if not isinstance(patch, int):
        raise EncoderError(
            f"encoder {name!r} of family {config.model_type!r} names no patch size; take a vision transformer, "
            "a ConvNeXt or a Swin"
        )
    return patch

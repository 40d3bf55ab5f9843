"""Fewer tokens in a vision transformer: those of a part of the image alone, and similar ones merged on the way.

Merging follows Bolya et al. 2023 (ToMe, ICLR, arXiv:2210.09461): patches are dealt out into two sets in turn, each of
the one looks for the other's patch whose attention keys are nearest to its own, and the nearest pairs become their
mean, weighted by how many patches they stand for. Attention counts a token as often as that (the log of its size is
added to the scores). Tokens are merged between blocks and not within them, so that each family computes its blocks
itself. Tokens that stand for no patch (class, distillation, registers) take no part. At the end each patch has the
features of the token that it went into. DINOv3 turns keys and queries by their place: a merged token lies at the mean
of its angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Blocks of a vision transformer of transformers, in order; none for a network of another kind."""
    found = [
        list(part)
        for part in model.modules()
        if isinstance(part, nn.ModuleList) and len(part) and all(hasattr(_attention(block), "k_proj") for block in part)
    ]
    return found[0] if len(found) == 1 else []


def _attention(block: nn.Module) -> Any:
    """Of a block."""
    return getattr(block, "attention", None) or getattr(block, "self_attn", None)


class TokenPath:
    """Drops and merges the tokens of a vision transformer while its own forward pass runs, by hooks in its blocks.

    One pass at a time: `begin`, the model's forward, then `patches` of what it gave.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        """
        Args:
            blocks: of the model, one or more.
        """
        self._count, self._running = len(blocks), False
        self._width = int(_attention(blocks[0]).head_dim)
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(self._before(number), with_kwargs=True)
            block.register_forward_hook(self._after(number))
            _attention(block).k_proj.register_forward_hook(self._see_keys)

    def begin(self, patches: int, *, merge: int = 0, keep: Tensor | None = None, record: bool = False) -> None:
        """Say what the next forward pass computes.

        Args:
            patches: of the image.
            merge: pairs of patches merged after each block but the last, as long as there are so many.
            keep: indices (K,) of the patches that are computed, ascending; None for all.
            record: list in `states` what each patch is before the first block and after each.
        """
        self._patches, self._merge, self._keep, self._record = patches, merge, keep, record
        self._running = True
        self._sizes: Tensor | None = None
        self._origin: Tensor | None = None
        self._rope: tuple[Tensor, Tensor] | None = None
        self.states: list[Tensor] = []

    def end(self) -> None:
        """The forward pass is over, or failed."""
        self._running = False

    def patches(self, tokens: Tensor) -> Tensor:
        """(1, prefix + tokens, D) to (patches, D): what each patch went into; 0 where it was left out."""
        rows = tokens[0, self._prefix :]
        if self._origin is not None:
            rows = rows[self._origin]
        if self._keep is None:
            return rows
        return torch.zeros(self._patches, rows.shape[1], dtype=rows.dtype).index_put((self._keep,), rows)

    # ---- hooks

    def _before(self, number: int) -> Any:
        def replace(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self._running:
                return None
            tokens = args[0]
            if number == 0:
                self._prefix = tokens.shape[1] - self._patches
                self._rope = kwargs.get("position_embeddings")
                if self._keep is not None:
                    tokens = torch.cat([tokens[:, : self._prefix], tokens[:, self._prefix :][:, self._keep]], 1)
                    self._rope = self._rope and (self._rope[0][self._keep], self._rope[1][self._keep])
                if self._record:
                    self.states.append(self.patches(tokens))
            # Of the arguments after the tokens only the mask goes by position. Masks are of padding, which is not here.
            kwargs = {**kwargs, "attention_mask": self._bias()}
            if self._rope is not None:
                kwargs["position_embeddings"] = self._rope
            return (tokens,), kwargs

        return replace

    def _after(self, number: int) -> Any:
        def replace(_block: nn.Module, _args: tuple[Any, ...], tokens: Tensor) -> Tensor | None:
            if not self._running:
                return None
            if self._record:
                self.states.append(self.patches(tokens))
            last = number == self._count - 1
            return tokens if last or not self._merge else self._merged(tokens)

        return replace

    def _see_keys(self, _layer: nn.Module, _args: tuple[Any, ...], keys: Tensor) -> None:
        if self._running:
            self._keys = keys

    # ---- tokens

    def _bias(self) -> Tensor | None:
        """Added to the attention scores (1, 1, 1, tokens): the log of how many patches a token stands for."""
        if self._sizes is None:
            return None
        return torch.cat([torch.zeros(self._prefix, 1), torch.log(self._sizes)]).reshape(1, 1, 1, -1)

    def _merged(self, tokens: Tensor) -> Tensor:
        """(1, prefix + n, D) to (1, prefix + n - merge, D)."""
        prefix, rows = tokens[0, : self._prefix], tokens[0, self._prefix :]
        count = rows.shape[0]
        pairs = min(self._merge, count // 2)
        if pairs == 0:
            return tokens
        keys = self._keys[0, self._prefix :].reshape(count, -1, self._width).mean(1)
        keys = keys / keys.norm(dim=1, keepdim=True).clamp_min(1e-12)
        similar, match = (keys[0::2] @ keys[1::2].T).max(1)
        order = similar.topk(similar.shape[0]).indices
        gone, into = 2 * order[:pairs], 2 * match[order[:pairs]] + 1
        stay = torch.cat([2 * order[pairs:], torch.arange(1, count, 2)]).topk(count - pairs, largest=False).values

        sizes = torch.ones(count, 1) if self._sizes is None else self._sizes
        values = [rows] if self._rope is None else [rows, *self._rope]
        weighted = torch.cat([*values, torch.ones(count, 1)], 1) * sizes
        places = into[:, None].expand(pairs, weighted.shape[1])
        summed = weighted.scatter_add(0, places, weighted[gone])[stay]
        self._sizes = summed[:, -1:]
        means = summed[:, :-1] / self._sizes
        place = torch.zeros(count, dtype=torch.int64).index_put((stay,), torch.arange(count - pairs))
        place = place.index_put((gone,), place[into])
        self._origin = place if self._origin is None else place[self._origin]
        if self._rope is not None:
            width = self._rope[0].shape[1]
            means, cosine, sine = means.split([rows.shape[1], width, width], 1)
            length = (cosine**2 + sine**2).sqrt().clamp_min(1e-12)
            self._rope = (cosine / length, sine / length)
        return torch.cat([prefix, means])[None]

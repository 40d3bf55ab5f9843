"""A policy is bound to the encoder whose features it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embodied_vision.encoders.base import Encoder
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.policies.trained_head import TrainedHead
from embodied_vision.types import Features


def require_encoder(checkpoint: TrainedHead[Any], encoder: Encoder | None) -> None:
    """Refuse a checkpoint that was trained with another encoder than the one in use, None for none.

    Raises:
        CheckpointError: it was.
    """
    given = encoder.encoder_id if encoder is not None else ""
    if given != checkpoint.encoder_id:
        raise CheckpointError(
            f"{checkpoint.what} {checkpoint.checkpoint_id} for {checkpoint.task!r} was trained on features of encoder "
            f"{checkpoint.encoder_id or 'none'!r}, the encoder in use is {given or 'none'!r}; "
            "start that encoder or train it again"
        )


def require_features(features: Sequence[Features], encoder_id: str) -> None:
    """Refuse features of another encoder.

    Raises:
        BadInput: some are.
    """
    for feature in features:
        if feature.encoder_id != encoder_id:
            raise BadInput(
                f"features come from encoder {feature.encoder_id!r}, the policy reads {encoder_id!r}; "
                "start the encoder that its checkpoint names"
            )

"""Color image → dense features. One small interface, one file a runtime, a registry."""

from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import load_encoder

__all__ = ["Encoder", "load_encoder"]

"""A candidate in the shadow of the policy that acts; what it does is logged and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embodied_vision.encoders.base import Encoder
from embodied_vision.errors import EmbodiedVisionError
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.policies.locate import locate
from embodied_vision.policies.policy import Explanation
from embodied_vision.types import RGBD, Features

if TYPE_CHECKING:
    from embodied_vision.learning.shadow import Shadow


class Shadowing:
    """Told of each decision, and decides itself once that went out; all of it in the policy's thread."""

    def __init__(self, node: ManagedNode) -> None:
        """Declare the parameter on a node that is being made."""
        node.param("shadow", "", "folder of a candidate that decides beside the policy and only logs; empty for none")
        self._node = node
        self._shadow: Shadow | None = None
        self._seen: tuple[Explanation, str, tuple[RGBD, ...], tuple[Features, ...]] | None = None

    def load(self, encoder: Encoder | None) -> None:
        """Load the candidate that the parameter names.

        Raises:
            CheckpointError: it is missing, damaged, or reads another encoder.
        """
        named = self._node.value("shadow")
        if not named:
            self._shadow = None
            return
        from embodied_vision.learning.shadow import Shadow  # what learning needs is loaded only where it is used

        self._shadow = Shadow(locate(named), encoder)
        candidate = self._shadow.policy.checkpoint_id
        self._node.get_logger().info(f"{candidate} decides in the shadow, logged to {self._shadow.path}")

    def saw(self, made: Explanation, acting: str, frames: Sequence[RGBD], features: Sequence[Features]) -> None:
        """A decision of the checkpoint `acting` went out."""
        self._seen = (made, acting, tuple(frames), tuple(features)) if self._shadow is not None else None

    def follow(self) -> None:
        """Decide on what the last decision was made on."""
        seen, self._seen = self._seen, None
        if self._shadow is None or seen is None:
            return
        try:
            self._shadow.follow(*seen)
        except EmbodiedVisionError as error:
            self._node.get_logger().warning(f"the shadow is not logged: {error}")

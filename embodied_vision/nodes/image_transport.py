"""How images travel, by parameter: raw, or compressed on the topics that image_transport's plugins use."""

from __future__ import annotations

from sensor_msgs.msg import CompressedImage, Image

from embodied_vision.nodes.images import AnyImage
from embodied_vision.nodes.lifecycle import ManagedNode

RAW, COMPRESSED, COMPRESSED_DEPTH = "raw", "compressed", "compressedDepth"


def declare_color_transport(node: ManagedNode) -> None:
    """Declare the parameter that says how color images travel."""
    node.param(
        "image_transport",
        RAW,
        "how color images travel, as image_transport names it: compressed is TOPIC/compressed, JPEG or PNG",
        choices=(RAW, COMPRESSED),
        read_only=True,
    )


def declare_depth_transport(node: ManagedNode) -> None:
    """Declare the parameter that says how depth images travel."""
    node.param(
        "depth_image_transport",
        RAW,
        "how depth images travel: compressedDepth is TOPIC/compressedDepth, 16-bit PNG",
        choices=(RAW, COMPRESSED_DEPTH),
        read_only=True,
    )


def color_stream(node: ManagedNode, topic: str) -> tuple[type[AnyImage], str]:
    """Message type and name of the topic on which the color images of `topic` travel."""
    return stream_of(node.value("image_transport"), topic)


def depth_stream(node: ManagedNode, topic: str) -> tuple[type[AnyImage], str]:
    """Message type and name of the topic on which the depth images of `topic` travel."""
    return stream_of(node.value("depth_image_transport"), topic)


def stream_of(transport: str, topic: str) -> tuple[type[AnyImage], str]:
    """Message type and name of the topic on which images travel in this way."""
    return (Image, topic) if transport == RAW else (CompressedImage, f"{topic}/{transport}")

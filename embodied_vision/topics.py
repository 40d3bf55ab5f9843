"""Names of the topics that exist once a camera. Relative, so that namespaces and remaps work."""

from __future__ import annotations

from collections.abc import Sequence


def color(camera: str) -> str:
    """Color images."""
    return f"{camera}/color/image_raw"


def color_info(camera: str) -> str:
    """Intrinsics of the color images."""
    return f"{camera}/color/camera_info"


def health(camera: str) -> str:
    """What is known of each color image: JSON with `stamp_ns`, `problem` and `unchanged_ns`."""
    return f"{camera}/health"


def depth(camera: str) -> str:
    """Depth images, registered to color."""
    return f"{camera}/aligned_depth_to_color/image_raw"


def features(camera: str, cameras: Sequence[str]) -> str:
    """Features of a camera's color images: `features`, under the camera's name where there are several."""
    return "features" if len(cameras) == 1 else f"{camera}/features"


def features_info(camera: str, cameras: Sequence[str]) -> str:
    """Intrinsics of the feature grid."""
    return f"{features(camera, cameras)}/camera_info"

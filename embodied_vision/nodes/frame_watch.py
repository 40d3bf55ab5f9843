"""Tells the graph of every color image whether it can be believed, as whoever sees them all does."""

from __future__ import annotations

from dataclasses import replace

from std_msgs.msg import String

from embodied_vision import topics
from embodied_vision.errors import BadInput
from embodied_vision.frame_health import FrameHealth, FrameReport
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import to_json
from embodied_vision.nodes.images import ColorImage
from embodied_vision.nodes.lifecycle import ManagedNode

INFOS_ALONE = 3
"""So many camera infos may come without an image."""


class FrameWatch:
    """Publishes `CAMERA/health` for each image of one camera: its stamp, what is wrong, since when it is the same.

    Args:
        node: publishes.
        camera: name.
    """

    def __init__(self, node: ManagedNode, camera: str) -> None:
        self._node = node
        self._publisher = node.create_publisher(String, topics.health(camera), qos.SENSOR)
        self.begin()

    def begin(self) -> None:
        """Nothing of what was seen before counts."""
        self._health = FrameHealth()
        self._report = FrameReport(0, "", 0)
        self._infos = 0

    @property
    def problem(self) -> str:
        """What is wrong with the camera now, in words; empty when nothing is."""
        return self._report.problem

    def look(self, image: ColorImage) -> None:
        """Take an image."""
        self._infos = 0
        try:
            self._tell(self._health.look(image.pixels, image.stamp_ns, self._node.now_ns()))
        except BadInput as error:
            self._tell(self._health.unusable(error, image.stamp_ns))

    def hear_info(self) -> None:
        """A camera info has come, for an image that should come too."""
        self._infos += 1
        if self._infos > INFOS_ALONE:
            problem = f"its camera_info comes, but no image for {self._infos} periods; look at driver and transport"
            self._tell(replace(self._report, problem=problem))

    def _tell(self, report: FrameReport) -> None:
        self._report = report
        self._publisher.publish(to_json(vars(report)))

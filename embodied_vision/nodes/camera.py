"""Publishes a folder of pictures, a video file or a V4L2 device as a calibrated camera."""

from __future__ import annotations

import sys
import threading
import time

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    camera_to_info,
    color_to_image,
    depth_to_image,
    optical_frame,
    to_json,
)
from embodied_vision.nodes.image_transport import (
    RAW,
    color_stream,
    declare_color_transport,
    declare_depth_transport,
    depth_stream,
)
from embodied_vision.nodes.images import compress_color, compress_depth
from embodied_vision.nodes.lifecycle import OK, ManagedNode
from embodied_vision.nodes.running import run
from embodied_vision.nodes.trace import Tracer
from embodied_vision.sources import Source, fit, open_source
from embodied_vision.types import Camera


class CameraNode(ManagedNode):
    """Reads and publishes in a thread of its own; depth is all 0 where the source has none."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.param("source", "", "folder of pictures (or of color/ and depth/), video file, or device", read_only=True)
        self.param("camera", "", "which camera of the calibration; empty for its first", read_only=True)
        self.param("calibration", "", "YAML with the cameras; empty for the simulated cell's", read_only=True)
        self.param("rate", 15.0, "frames a second; a device may give fewer", (0.1, 240.0))
        self.param("loop", True, "start again at the end of a folder or file")
        self.param("resize", False, "scale images to the size of the calibration instead of refusing them")
        self.param(
            "readers", 0, "start when so many nodes subscribe to the color images and their camera info", (0, 100)
        )
        declare_color_transport(self)
        declare_depth_transport(self)
        self._tracer = Tracer(self)
        self._status = self.create_publisher(String, "~/status", qos.STATUS)
        self._source: Source | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._published = 0

    def setup(self) -> None:
        self._camera = self._choose()
        name = self._camera.name
        self._source = open_source(self.value("source"), (self._camera.width, self._camera.height))
        self._color = self.create_publisher(*color_stream(self, topics.color(name)), qos.SENSOR)
        self._depth = self.create_publisher(*depth_stream(self, topics.depth(name)), qos.SENSOR)
        self._info = self.create_publisher(CameraInfo, topics.color_info(name), qos.SENSOR)

    def _choose(self) -> Camera:
        cameras = {camera.name: camera for camera in read_cameras(self.value("calibration"))}
        wanted = self.value("camera") or next(iter(cameras))
        if wanted not in cameras:
            raise BadInput(f"the calibration has no camera {wanted!r}, only {sorted(cameras)}; name one of these")
        return cameras[wanted]

    def start(self) -> None:
        self._published = 0
        self._ended.clear()
        self._thread = threading.Thread(target=self._play, name="camera", daemon=True)
        self._thread.start()
        self.every(0.5, lambda: self._report_status(done=False) if self._thread_lives() else None)

    def _thread_lives(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def halt(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def teardown(self) -> None:
        if self._source is None:
            return
        self._source.close()
        self._source = None
        for publisher in (self._color, self._depth, self._info):
            self.destroy_publisher(publisher)

    # ---- in the camera's thread

    def _play(self) -> None:
        try:
            while not self._subscribed() and not self._ended.wait(0.02):
                pass
            due = time.monotonic()
            while not self._ended.is_set() and self._publish_next():
                due = max(due + 1.0 / self.value("rate"), time.monotonic())
                self._ended.wait(due - time.monotonic())
            self._report_status(done=True)
        except EmbodiedVisionError as error:
            self._give_up_later(str(error), error.exit_code)
        except Exception as error:
            self._give_up_later(f"{self.value('source')} cannot be published: {error!r}", 1)

    def _give_up_later(self, message: str, exit_code: int) -> None:
        self.post(lambda: self.give_up(message, exit_code))

    def _subscribed(self) -> bool:
        wanted: int = self.value("readers")
        return all(publisher.get_subscription_count() >= wanted for publisher in (self._color, self._depth, self._info))

    def _publish_next(self) -> bool:
        assert self._source is not None
        images = self._source.read()
        if images is None and self.value("loop") and self._source.rewind():
            images = self._source.read()
        if images is None:
            return False
        stamp_ns = self.now_ns()
        size = (self._camera.width, self._camera.height)
        color, depth = fit(images, size) if self.value("resize") else images
        if (color.shape[1], color.shape[0]) != size:
            raise BadInput(
                f"{self.value('source')} gives {color.shape[1]}x{color.shape[0]}, the calibration of "
                f"{self._camera.name!r} says {size[0]}x{size[1]}; calibrate at this size or set resize"
            )
        frame_id = optical_frame(self._camera.name)
        self._info.publish(camera_to_info(self._camera, stamp_ns))
        color_image = color_to_image(color, stamp_ns, frame_id)
        depth_image = depth_to_image(depth, stamp_ns, frame_id)
        raw_color, raw_depth = self.value("image_transport") == RAW, self.value("depth_image_transport") == RAW
        self._color.publish(color_image if raw_color else compress_color(color_image))
        self._depth.publish(depth_image if raw_depth else compress_depth(depth_image))
        self._tracer.mark("camera.publish", stamp_ns)
        self._published += 1
        return True

    def _report_status(self, *, done: bool) -> None:
        self._status.publish(to_json({"frames_published": self._published, "done": done}))
        self.health(OK, "at the end" if done else "publishing", frames=self._published)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(CameraNode))


if __name__ == "__main__":
    main()

"""Color images in, features out. Each frame is encoded once, or counted as skipped on purpose.

The frames of one moment from all cameras are encoded together, so that their features share a stamp however slow the
encoder is; whoever reads features, one head or several, reads the same ones.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.cores import use_cores
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.region import encode_seen
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import BadInput, EmbodiedVisionError
from embodied_vision.newest_set import NewestSet
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    features_to_image,
    features_to_info,
    from_json,
    info_to_K,
    to_json,
)
from embodied_vision.nodes.frame_watch import FrameWatch
from embodied_vision.nodes.image_transport import color_stream, declare_color_transport
from embodied_vision.nodes.images import AnyImage, ColorImage
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.running import run
from embodied_vision.nodes.trace import Tracer
from embodied_vision.types import Camera, FloatArray


@dataclass
class Counts:
    """What became of the frames that were received; the others wait or are being encoded.

    `apart` counts those of the encoded ones whose siblings were not there.
    """

    received: int = 0
    encoded: int = 0
    skipped: int = 0
    failed: int = 0
    apart: int = 0


class EncoderNode(ManagedNode):
    """Encodes in a thread of its own, and while that is busy keeps the newest set of frames for it."""

    def __init__(self) -> None:
        super().__init__("encoder")
        self.param("encoder", "default", "encoder to run: `default`, a folder, or a cached hub name", read_only=True)
        self.param("cameras", ["camera"], "names of the cameras whose color images are encoded", read_only=True)
        self.param(
            "slop", 0.005, "largest difference of stamps within one set of frames, s", (0.0, 1.0), read_only=True
        )
        self.param(
            "sibling_wait",
            0.25,
            "longest wait of a frame for those of the other cameras, s; not less than the period of the slowest",
            (0.0, 10.0),
            read_only=True,
        )
        self.param(
            "calibration",
            "",
            "YAML with the cameras, for encoders of the workspace's region; empty for the simulated cell's",
            read_only=True,
        )
        self.param("threads", 1, "CPU threads of one encoding", (1, 64), read_only=True)
        self.param(
            "moving_rate",
            2.0,
            "frames a second that are encoded while the arm moves, when nobody decides on them; 0: all frames",
            (0.0, 1000.0),
        )
        self.param("status_period", 0.5, "time between two messages on encoder/status, s", (0.05, 10.0))
        declare_color_transport(self)
        self._tracer = Tracer(self)
        self._info = self.create_publisher(String, "encoder/info", qos.STATUS)
        self._status = self.create_publisher(String, "encoder/status", qos.STATUS)
        self._cameras: list[str] = list(self.value("cameras"))
        self._features = {
            camera: (
                self.create_publisher(Image, topics.features(camera, self._cameras), qos.SENSOR),
                self.create_publisher(CameraInfo, topics.features_info(camera, self._cameras), qos.SENSOR),
            )
            for camera in self._cameras
        }
        self._watches = {camera: FrameWatch(self, camera) for camera in self._cameras}
        self._encoder: Encoder | None = None
        self._slop_ns = round(self.value("slop") * 1e9)
        self._intrinsics: dict[str, FloatArray] = {}
        self._calibrated: dict[str, Camera] = {}
        self._frames = self._no_frames()
        self._arm_moves = False
        self._last_taken_ns: dict[str, int] = {}
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._stopping = False
        self._counts = Counts()
        self._trouble: dict[str, str] = {}

    def setup(self) -> None:
        if twice := sorted({camera for camera in self._cameras if self._cameras.count(camera) > 1}):
            raise BadInput(f"cameras names {', '.join(twice)} more than once; name each camera once")
        use_cores(self.value("threads"))
        self._calibrated = {camera.name: camera for camera in read_cameras(self.value("calibration"))}
        self._encoder = load_encoder(self.value("encoder"))
        self._info.publish(
            to_json(
                {
                    "encoder_id": self._encoder.encoder_id,
                    "artefact_id": self._encoder.artefact_id,
                    "dimension": self._encoder.dimension,
                    "encoder": self.value("encoder"),
                    "threads": self.value("threads"),
                }
            )
        )
        self.get_logger().info(f"encoder {self._encoder.encoder_id}, artefact {self._encoder.artefact_id}")

    def start(self) -> None:
        self._counts, self._frames, self._stopping, self._trouble = Counts(), self._no_frames(), False, {}
        self._worker = threading.Thread(target=self._work, name="encode", daemon=True)
        self._worker.start()
        for camera in self._cameras:
            self._watches[camera].begin()
            self.subscribe_sensor(CameraInfo, topics.color_info(camera), self._on_info(camera))
            self.subscribe_sensor(*color_stream(self, topics.color(camera)), self._on_image(camera))
        self.subscribe(String, "arm/status", qos.STATUS, self._on_arm_status)
        self.every(self.value("status_period"), self._report_counts)

    def halt(self) -> None:
        if self._worker is None:
            return
        with self._changed:
            self._stopping = True
            self._frames.clear()
            self._changed.notify()
        self._worker.join()
        self._worker = None
        self._report_counts()

    def teardown(self) -> None:
        self._encoder = None

    def _no_frames(self) -> NewestSet:
        return NewestSet(self._cameras, self._slop_ns, self.value("sibling_wait"))

    # ---- in the executor's thread

    def _on_info(self, camera: str) -> Callable[[CameraInfo], None]:
        def remember(message: CameraInfo) -> None:
            self._intrinsics[camera] = info_to_K(message)
            self._watches[camera].hear_info()

        return remember

    def _on_arm_status(self, message: String) -> None:
        self._arm_moves = from_json(message, "arm/status").get("state") == "moving"

    def _is_due(self, camera: str, stamp_ns: int) -> bool:
        """Whether a frame is worth its cost: every one at rest, some while the arm moves, with their siblings."""
        rate = self.value("moving_rate") if self._arm_moves else 0.0
        if rate and 0 <= stamp_ns - self._last_taken_ns.get(camera, 0) < 1e9 / rate:
            siblings = [last for name, last in self._last_taken_ns.items() if name != camera]
            if not any(abs(stamp_ns - last) <= self._slop_ns for last in siblings):
                return False
        self._last_taken_ns[camera] = stamp_ns
        return True

    def _on_image(self, camera: str) -> Callable[[AnyImage], None]:
        def take(message: AnyImage) -> None:
            image = ColorImage(message)
            self._tracer.mark("encoder.receive", image.stamp_ns)
            due = self._is_due(camera, image.stamp_ns)
            with self._changed:
                self._counts.received += 1
                if due:
                    self._frames.add(camera, image.stamp_ns, image, time.monotonic())
                    self._changed.notify()
                else:
                    self._counts.skipped += 1
            self._watches[camera].look(image)

        return take

    def _report_counts(self) -> None:
        with self._changed:
            counts = {**vars(self._counts), "skipped": self._counts.skipped + self._frames.dropped}
            counts["waiting"] = counts["received"] - counts["encoded"] - counts["skipped"] - counts["failed"]
            trouble = "; ".join(dict.fromkeys(filter(None, self._trouble.values())))
            apart, absent = not self._frames.whole, self._frames.absent
        self._status.publish(to_json({**counts, "trouble": trouble}))
        if not self.is_active:
            return
        doubts = [f"{name}: {watch.problem}" for name, watch in self._watches.items() if watch.problem]
        if apart:
            doubts.append(self._why_apart(absent))
        if trouble:
            self.health(ERROR, trouble, **counts)
        elif counts["received"] == 0:
            self.health(WARN, f"no images on {', '.join(topics.color(c) for c in self._cameras)} yet", **counts)
        elif doubts:
            self.health(WARN, "; ".join(doubts), **counts)
        else:
            self.health(OK, "encoding", **counts)

    def _why_apart(self, absent: list[str]) -> str:
        if absent:
            return f"no image of {', '.join(absent)} to those of its siblings, which are encoded without it"
        return (
            f"stamps of {', '.join(self._cameras)} differ by more than the slop of {self.value('slop'):g} s, so that "
            "their features go together for no policy; synchronise the cameras, or raise slop here and in the policy"
        )

    # ---- in the worker's thread

    def _next(self) -> dict[str, ColorImage]:
        """The frames to encode now, by camera; empty when the work is over."""
        with self._changed:
            while not self._stopping:
                now_s = time.monotonic()
                if taken := self._frames.take(now_s):
                    self._counts.apart += 0 if self._frames.whole else len(taken)
                    return taken
                self._changed.wait(self._frames.due_in(now_s))
            return {}

    def _work(self) -> None:
        use_cores(self.value("threads"))
        while images := self._next():
            for camera, image in images.items():
                try:
                    self._encode(camera, image)
                except EmbodiedVisionError as error:
                    self._fail(camera, str(error))
                except Exception as error:
                    self._fail(camera, f"encoding failed: {error!r}")

    def _skip(self, camera: str, reason: str = "") -> None:
        with self._changed:
            self._counts.skipped += 1
            self._trouble[camera] = reason

    def _fail(self, camera: str, message: str) -> None:
        with self._changed:
            self._counts.failed += 1
            new = message != self._trouble.get(camera)
            self._trouble[camera] = message
        if new:
            self.get_logger().error(message)

    def _encode(self, camera: str, image: ColorImage) -> None:
        assert self._encoder is not None
        if self._stopping:
            self._skip(camera)
            return
        K = self._intrinsics.get(camera)
        if K is None:
            self._skip(
                camera, f"images of {camera!r} come without {topics.color_info(camera)}; let its driver publish it"
            )
            return
        clocks = {"encoder.begin": time.monotonic_ns()}
        color = image.pixels
        clocks["encoder.converted"] = time.monotonic_ns()
        features = encode_seen(self._encoder, color, self._calibrated.get(camera), image.stamp_ns)
        clocks["encoder.encoded"] = time.monotonic_ns()
        bad = int(features.grid.size - np.isfinite(features.grid).sum())
        if bad:
            raise BadInput(
                f"encoder {features.encoder_id} computed {bad} non-finite features for the frame stamped "
                f"{image.stamp_ns}, not published; check its weights and runtime"
            )
        to_features, to_info = self._features[camera]
        to_info.publish(features_to_info(features, K, image.header.frame_id))
        to_features.publish(features_to_image(features, image.header.frame_id))
        self._tracer.marks(image.stamp_ns, {**clocks, "encoder.publish": time.monotonic_ns()})
        with self._changed:
            self._counts.encoded += 1
            self._trouble[camera] = ""


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(EncoderNode))


if __name__ == "__main__":
    main()

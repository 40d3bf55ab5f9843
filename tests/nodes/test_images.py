"""The pixels of a color image message are made once, however many look at them."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from sensor_msgs.msg import CompressedImage

from embodied_vision.errors import BadInput
from embodied_vision.nodes import conversions, images
from tests.nodes.samples import frame


def test_several_readers_share_one_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, calls = images.image_to_color, []

    def counted(message: images.AnyImage) -> np.ndarray:
        calls.append(message)
        return decode(message)

    monkeypatch.setattr(images, "image_to_color", counted)
    message = images.compress_color(conversions.color_to_image(frame().color, 7, "camera"))
    image = images.ColorImage(message)
    found: list[np.ndarray] = []
    threads = [Thread(target=lambda: found.append(image.pixels)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 8
    assert all(pixels is found[0] for pixels in found)
    np.testing.assert_array_equal(found[0], decode(message))
    assert (image.stamp_ns, image.header.frame_id) == (7, "camera")


def test_a_damaged_image_is_refused_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.ColorImage(CompressedImage(format="rgb8; jpeg compressed bgr8", data=b"\xff\xd8\xff"))
    words = []
    for _ in range(2):
        with pytest.raises(BadInput) as caught:
            _ = image.pixels
        words.append(str(caught.value))
    assert words[0] == words[1]

"""Plays recorded frames at a rate: to the graph, or to its bare twin under `bare/`. Commands and answers are JSON.

A command on standard input is `{"to": "graph" or "bare", "rate": Hz, "seconds": s}`; the answer on standard output is
`{"stamps": {camera: [[stamp, color, depth], …]}}`, the last two CLOCK_MONOTONIC in ns just before each was published.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import rclpy
from sensor_msgs.msg import CameraInfo, Image

from embodied_vision import topics
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import camera_to_info, color_to_image, depth_to_image, ns_to_stamp

READERS = {"graph": (3, 2, 2), "bare": (4, 3, 0)}
"""Of color images, depth images and camera infos: encoder, policy and recorder; and who only hears, of the twin."""


def main() -> None:
    """Play until standard input ends."""
    store = EpisodeStore(Path(sys.argv[1]))
    episode = store.open(store.ids()[0])
    rclpy.init()
    node = rclpy.create_node("player")
    images, publishers = {}, {}
    for name in episode.cameras:
        frames = episode.frames(name)
        images[name] = [
            (
                color_to_image(frames[i].color, 0, f"{name}_optical_frame"),
                depth_to_image(frames[i].depth, 0, f"{name}_optical_frame"),
                camera_to_info(frames.camera, 0),
            )
            for i in range(len(frames))
        ]
        for to, prefix in (("graph", ""), ("bare", "bare/")):
            publishers[to, name] = tuple(
                node.create_publisher(kind, prefix + topic, qos.SENSOR)
                for kind, topic in (
                    (Image, topics.color(name)),
                    (Image, topics.depth(name)),
                    (CameraInfo, topics.color_info(name)),
                )
            )
    while any(
        publisher.get_subscription_count() < wanted
        for (to, _), made in publishers.items()
        for publisher, wanted in zip(made, READERS[to], strict=True)
    ):
        time.sleep(0.05)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        stamps: dict[str, list[tuple[int, int, int]]] = {name: [] for name in images}
        due = time.monotonic()
        for number in range(round(command["rate"] * command["seconds"])):
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 1 / command["rate"]) + 1 / command["rate"]
            stamp_ns = time.time_ns()
            for index, (name, ring) in enumerate(images.items()):
                color, depth, info = ring[number % len(ring)]
                to_color, to_depth, to_info = publishers[command["to"], name]
                for message in (color, depth, info):
                    message.header.stamp = ns_to_stamp(stamp_ns + index)  # so that marks tell the cameras apart
                to_info.publish(info)
                color_ns = time.monotonic_ns()
                to_color.publish(color)
                depth_ns = time.monotonic_ns()
                to_depth.publish(depth)
                stamps[name].append((stamp_ns + index, color_ns, depth_ns))
        print(json.dumps({"stamps": stamps}), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()

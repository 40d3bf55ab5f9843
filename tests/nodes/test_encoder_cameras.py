"""One encoder node for several cameras and several heads."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from embodied_vision.nodes import conversions, images, qos
from embodied_vision.policies.policy import Policy
from tests.nodes.conftest import Graph, until
from tests.nodes.samples import camera, frame, write_encoder, write_policy

CAMERAS = ("left", "right")
SLOP_NS = 5_000_000
WAIT_S = 0.25


class Cameras:
    """Two cameras at 30 Hz, the second 2 ms behind the first, until they are told to stop."""

    def __init__(self, graph: Graph) -> None:
        color = frame().color
        self._image = conversions.color_to_image(color, 0, "camera")
        self._publishers = {name: graph.publisher(Image, f"{name}/color/image_raw") for name in CAMERAS}
        for name in CAMERAS:
            infos = graph.publisher(CameraInfo, f"{name}/color/camera_info")
            infos.publish(conversions.camera_to_info(camera(), 1))
        self.silent: set[str] = set()
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(1 / 30):
            now_ns = time.time_ns()
            for k, (name, publisher) in enumerate(self._publishers.items()):
                if name not in self.silent:
                    self._image.header.stamp = conversions.ns_to_stamp(now_ns + k * 2_000_000)
                    publisher.publish(self._image)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def test_two_cameras_stay_together_at_an_encoder_slower_than_they_are(graph: Graph) -> None:
    heard: dict[str, list[tuple[float, int]]] = {name: [] for name in CAMERAS}

    def hear(name: str) -> Any:
        return lambda m: heard[name].append((time.monotonic(), conversions.stamp_to_ns(m.header.stamp)))

    for name in CAMERAS:
        graph.subscribe(Image, f"{name}/features", hear(name))
    node = graph.start("encoder", encoder="default+dense=2", cameras=list(CAMERAS), sibling_wait=WAIT_S)

    def paired(since: int = 0) -> int:
        right = {stamp for _, stamp in heard["right"][since:]}
        return sum(any(abs(stamp - other) <= SLOP_NS for other in right) for _, stamp in heard["left"][since:])

    cameras = Cameras(graph)
    try:
        until(lambda: len(heard["right"]) >= 4, what="features of both")
        status = graph.wait("encoder/status", lambda s: s["encoded"] >= 8, node)
        assert status["skipped"] > status["encoded"], "the encoder was not too slow"
        assert status["apart"] <= 2, "only what came before both cameras were there"
        assert len(heard["left"]) - paired() <= 2, "one under way, one from before both were there"
        set_s = float(np.max(np.diff([at for at, _ in heard["left"]])))

        cameras.silent.add("right")
        fell_s, seen = time.monotonic(), len(heard["left"])
        until(lambda: len(heard["left"]) >= seen + 4, what="the left one goes on by itself")
        times = [fell_s, *(at for at, _ in heard["left"][seen:])]
        assert max(np.diff(times)) <= WAIT_S + 3 * set_s + 0.5  # exactly, with a clock of its own: test_newest_set.py
        assert graph.wait("encoder/status", lambda s: s["apart"] >= 3, node)["waiting"] <= 10

        cameras.silent.clear()
        back = (len(heard["left"]), len(heard["right"]))
        until(lambda: len(heard["right"]) >= back[1] + 3, what="features of both again")
        fresh = {stamp for _, stamp in heard["left"]}
        met = [any(abs(stamp - other) <= SLOP_NS for other in fresh) for _, stamp in heard["right"][back[1] + 1 :]]
        assert all(met)
    finally:
        cameras.end()
    assert graph.end(node) == 0


def test_one_encoding_feeds_several_heads(graph: Graph) -> None:
    """A second policy node, of another checkpoint, reads the same features; each frame is encoded once."""
    encoder = write_encoder(graph.run_dir / "encoder")
    heads = {"policy": 3, "second": 4}
    nodes = [graph.start("encoder", wait=False, encoder=str(graph.run_dir / "encoder"), image_transport="compressed")]
    decisions: dict[str, list[dict[str, Any]]] = {name: [] for name in heads}
    for name, seed in heads.items():
        write_policy(graph.run_dir / name, encoder.encoder_id, seed)
        own = ("pick_place", "policy/decision", "policy/info")
        remaps = [] if name == "policy" else [part for t in own for part in ("-r", f"{t}:={name}/{t.split('/')[-1]}")]
        nodes.append(
            graph.start(
                name,
                "embodied_vision.nodes.policy",
                wait=False,
                extra=remaps,
                encoder=str(graph.run_dir / "encoder"),
                checkpoint=str(graph.run_dir / name),
                image_transport="compressed",
                timeout=20.0,
            )
        )
        take = decisions[name].append
        graph.subscribe(String, f"{name}/decision", lambda m, take=take: take(json.loads(m.data)), qos.DECISION)
    graph.ready(*nodes)
    colors = graph.publisher(CompressedImage, "camera/color/image_raw/compressed", readers=3)
    depths = graph.publisher(Image, "camera/aligned_depth_to_color/image_raw", readers=2)
    infos = graph.publisher(CameraInfo, "camera/color/camera_info", readers=3)
    sent: dict[int, CompressedImage] = {}

    def send() -> None:
        one = frame(seed=len(sent), stamp_ns=time.time_ns())
        infos.publish(conversions.camera_to_info(one.camera, one.stamp_ns))
        sent[one.stamp_ns] = images.compress_color(conversions.color_to_image(one.color, one.stamp_ns, "camera"))
        depths.publish(conversions.depth_to_image(one.depth, one.stamp_ns, "camera"))
        colors.publish(sent[one.stamp_ns])

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(graph.client.trigger, f"{name}/predict") for name in heads]
        for _ in range(60):
            if all(answer.done() for answer in answers):
                break
            send()
            time.sleep(0.3)
        assert [decisions[name][0]["decision_id"] for name in heads] == [answer.result() for answer in answers]
    status = graph.wait("encoder/status", lambda s: s["received"] == len(sent) and not s["waiting"], *nodes)
    assert (status["encoded"], status["skipped"], status["failed"]) == (len(sent), 0, 0)
    for name in heads:
        decision = decisions[name][0]
        policy = Policy.load(graph.run_dir / name, encoder)
        assert decision["checkpoint_id"] == policy.checkpoint_id
        stamp_ns = decision["stamp_ns"]
        one = frame(seed=list(sent).index(stamp_ns), stamp_ns=stamp_ns)
        color = conversions.image_to_color(sent[stamp_ns])
        alone = policy.decide([type(one)(color, one.depth, one.camera, stamp_ns)], [encoder.encode(color, stamp_ns)])
        assert decision["pick"] == alone.pick.tolist()
    assert decisions["policy"][0]["checkpoint_id"] != decisions["second"][0]["checkpoint_id"]

"""Everything that an episode says, to be compared before and after something happened to its files."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter

from .samples import START_NS, make_action, make_camera, make_frame


def write_rich_episode(store: EpisodeStore, frames: int = 4) -> str:
    """Two cameras, JPEG and lossless images, two streams, decisions: every kind of file that there is."""
    cameras = [make_camera("front"), make_camera("wrist/left", 9, 14)]
    with EpisodeWriter(
        store, task="t", robot="r", cameras=cameras, attributes={"note": "x", "scale": [1.5]}, tags=["good"]
    ) as writer:
        for number in range(frames):
            for camera in cameras:
                writer.append_frame(make_frame(camera, number))
            writer.append("joint_states", START_NS + number, np.arange(7.0) + number / 3)
            writer.append("gripper/width", START_NS + number, [number / 7])
        for number in range(2):
            writer.append_decision(make_action(number), [make_frame(c, number) for c in cameras], {"number": number})
        return writer.close({"reward": 0.5, "solved": False, "reason": "none"})


def contents(episode: Episode) -> dict[str, Any]:
    """All of an episode, through every way of reading, as plain comparable values.

    Raises:
        EpisodeError: something of it is damaged.
    """
    found: dict[str, Any] = {
        name: getattr(episode, name)
        for name in ("id", "task", "robot", "encoder_id", "policy_id", "outcome", "tags", "history", "attributes")
    }
    found |= {"created_ns": episode.created_ns, "closed_ns": episode.closed_ns}
    for name, camera in episode.cameras.items():
        found[f"camera {name}"] = camera.to_dict()
        frames = episode.frames(name)
        found[f"stamps {name}"] = frames.stamps_ns.tolist()
        found[f"color {name}"] = [_bytes(frames.color(number)) for number in range(len(frames))]
        found[f"depth {name}"] = [_bytes(frames.depth_mm(number)) for number in range(len(frames))]
        together = frames.colors(np.arange(len(frames)), threads=1)
        assert [_bytes(image) for image in together] == found[f"color {name}"]
    for name in episode.streams:
        stamps, values = episode.stream(name)
        found[f"stream {name}"] = (stamps.tolist(), _bytes(values))
    found["decisions"] = [
        (
            decision.action.to_dict(),
            decision.info,
            [(f.camera.name, f.stamp_ns, _bytes(f.color), _bytes(f.depth)) for f in decision.frames],
        )
        for decision in episode.decisions
    ]
    return found


def _bytes(array: Any) -> tuple[Any, ...]:
    return array.shape, array.dtype.name, array.tobytes()

"""Pictures of decisions and of the maps that led to them, kept for the scenes that a policy fails."""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from embodied_vision import pictures
from embodied_vision.geometry import yaw_of
from embodied_vision.learning.scene_results import Examined
from embodied_vision.policies.policy import Explanation

INDEX = "decisions.json"
FINE_FACTOR = 3
MAPS: dict[str, tuple[str, Callable[[Explanation], pictures.Picture]]] = {
    "action": ("color and action", lambda e: pictures.action_on_scene(e.scene, e.action)),
    "height": ("height", lambda e: pictures.height_shades(e.scene)),
    "pick": ("where to pick", lambda e: pictures.heat(e.scene, e.pick_probability)),
    "place": ("where to place", lambda e: pictures.heat(e.scene, e.place_probability)),
    "fine": (
        "where to place, fine",
        lambda e: pictures.enlarge(pictures.shades(e.fine_probability), FINE_FACTOR),
    ),
}
"""Name of each picture → its caption, and how it is drawn."""


class Drawing:
    """The decisions of one scene, drawn one by one and held in memory until it is known whether to keep them."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._decisions: list[dict[str, Any]] = []

    def add(self, explanation: Explanation) -> None:
        """Draw one more decision."""
        number = len(self._decisions) + 1
        names = {}
        for name, (_, draw) in MAPS.items():
            names[name] = f"{number:02d}-{name}.png"
            buffer = io.BytesIO()
            Image.fromarray(draw(explanation)).save(buffer, "PNG")
            self._files[names[name]] = buffer.getvalue()
        action = explanation.action
        poses = {
            pose: {"xyz_m": [round(float(x), 4) for x in T[:3, 3]], "yaw_rad": round(yaw_of(T), 4)}
            for pose, T in (("pick", action.pick), ("place", action.place))
        }
        self._decisions.append({"pictures": names, **poses, "scores": dict(action.scores)})

    def save(self, folder: Path, examined: Examined) -> None:
        """Write the pictures and what they show, `folder` in one rename."""
        staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        staging.mkdir(parents=True)
        for name, data in self._files.items():
            (staging / name).write_bytes(data)
        index = {**asdict(examined), "decisions": self._decisions}
        (staging / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)


def decisions(folder: Path, examined: Examined) -> list[dict[str, Any]]:
    """The decisions that a folder holds pictures of; none when they are not of this examination."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if any(index.get(name) != value for name, value in asdict(examined).items()):
        return []
    found: list[dict[str, Any]] = index["decisions"]
    return found

"""Real episodes that cost next to nothing: one is written, the others share its files but for the metadata."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.manifest import read_manifest, write_manifest
from embodied_vision.episodes.schema import GROUP
from embodied_vision.types import new_id

ROOT = f"{GROUP}/zarr.json"


def write_small(store: EpisodeStore) -> str:
    """An episode without cameras."""
    with EpisodeWriter(store, task="stack", robot="panda", cameras=[]) as writer:
        for number in range(3):
            writer.append("joint_states", number * 10**9, [0.0] * 7)
        return writer.close({"solved": True, "reward": 1.0})


def copy_of(template: Path, folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make `folder` the episode in `template` under its own id, with other root attributes."""
    files = read_manifest(template)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name != ROOT:
            os.link(template / name, folder / name)
    root = json.loads((template / ROOT).read_text())
    root["attributes"].update({"id": folder.name, **attributes})
    (folder / ROOT).write_text(json.dumps(root))
    del files[ROOT]
    write_manifest(folder, folder.name, files)


class SmallStore:
    """A store of episodes as small as the one that it begins with, outside of it."""

    def __init__(self, path: Path) -> None:
        self.store = EpisodeStore(path / "store")
        template = EpisodeStore(path / "template")
        self.template = template.episodes_path / write_small(template)
        self.store.episodes_path.mkdir(parents=True)
        self.beside = path / "beside"

    def add(self, **attributes: Any) -> str:
        """A new episode."""
        episode_id = new_id()
        self._appear(episode_id, attributes)
        return episode_id

    def edit(self, episode_id: str, **attributes: Any) -> None:
        """Another episode in the place of one."""
        self.delete(episode_id)
        self._appear(episode_id, attributes)

    def delete(self, episode_id: str) -> None:
        shutil.rmtree(self.store.episodes_path / episode_id)

    def damage(self, episode_id: str, name: str = ROOT) -> None:
        """Cut a file short, in its place."""
        path = self.store.episodes_path / episode_id / name
        os.truncate(path, path.stat().st_size - 1)

    def restore(self, episode_id: str, name: str = ROOT) -> None:
        """Undo `damage`, in its place."""
        with open(self.store.episodes_path / episode_id / name, "a") as file:
            file.write("}")

    def _appear(self, episode_id: str, attributes: Mapping[str, Any]) -> None:
        copy_of(self.template, self.beside / episode_id, attributes)
        os.rename(self.beside / episode_id, self.store.episodes_path / episode_id)

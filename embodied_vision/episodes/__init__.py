"""The episode store: what the arm saw, decided and did, one Zarr group an episode. No ROS, no torch.

store = EpisodeStore("runs/episodes")
with EpisodeWriter(store, task="block-insertion", robot="panda_suction", cameras=[camera]) as writer:
    writer.append_frame(frame)
    writer.append("joint_states", stamp_ns, positions)
    writer.append_decision(action, frames=[frame])
    writer.close({"reward": 1.0, "solved": True})
for episode in store.select(task="block-insertion", outcome={"solved": True}):
    episode.frames("camera")[0]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embodied_vision.episodes.reader import Decision, Decisions, Episode, Frames
    from embodied_vision.episodes.store import EpisodeStore
    from embodied_vision.episodes.writer import EpisodeWriter

__all__ = ["Decision", "Decisions", "Episode", "EpisodeStore", "EpisodeWriter", "Frames"]

_WHERE = {"EpisodeStore": "store", "EpisodeWriter": "writer"}


def __getattr__(name: str) -> Any:
    """Imported when used: who lists a store needs neither NumPy nor codecs."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE.get(name, 'reader')}"), name)

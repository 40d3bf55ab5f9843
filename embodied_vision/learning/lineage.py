"""From an action to the policy that decided it and what that learnt from, and from an episode to all who saw it.

Nothing is kept for this: a decision's log names its checkpoint, and a checkpoint's manifest its parent and episodes.
"""

from __future__ import annotations

import bisect
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embodied_vision.episodes.edit import delete
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning.promotion import Pointer
from embodied_vision.paths import shipped
from embodied_vision.policies import checkpoint as checkpoints

_NEAR = 16
"""Episodes begun before a decision that are looked into before all others."""


@dataclass(frozen=True)
class Ancestor:
    """A checkpoint in a line of descent.

    Attributes:
        checkpoint_id: its id.
        folder: where it lies; empty where it is not known any more.
        episodes: that it learnt from and its parent did not.
        command, git_commit: what made it.
    """

    checkpoint_id: str
    folder: str
    episodes: Sequence[str]
    command: str = ""
    git_commit: str = ""


@dataclass(frozen=True)
class Origin:
    """Where an action comes from.

    Attributes:
        decision_id: of the action.
        episode: in which it was taken.
        number: of the decision in it, from 0.
        encoder_id: whose features were read.
        line: the policy that decided, its parent, and so on.
    """

    decision_id: str
    episode: str
    number: int
    encoder_id: str
    line: Sequence[Ancestor]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class Seen:
    """A policy that learnt from an episode.

    Attributes:
        task, checkpoint_id: which.
        use: "in use", "former" or "stored".
    """

    task: str
    checkpoint_id: str
    use: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def origin(decision_id: str, store: EpisodeStore, policies: Path) -> Origin:
    """Trace an action back.

    Raises:
        BadInput: no episode of the store holds it.
    """
    for episode in _likely(decision_id, store):
        for number in range(len(episode.decisions)):
            if episode.decisions.action(number).decision_id == decision_id:
                info = episode.decisions[number].info
                checkpoint_id = str(info.get("checkpoint_id") or episode.policy_id)
                encoder_id = str(info.get("encoder_id") or episode.encoder_id)
                return Origin(decision_id, episode.id, number, encoder_id, line(checkpoint_id, episode.task, policies))
    raise BadInput(f"no episode in {store.path} holds decision {decision_id!r}; name the store that it was logged in")


def _likely(decision_id: str, store: EpisodeStore) -> Iterator[Episode]:
    """All episodes, the likeliest first: ids begin with the time, and an episode is begun before its decisions."""
    ids = store.ids()
    place = bisect.bisect_right(ids, decision_id)
    near = ids[max(place - _NEAR, 0) : place][::-1]
    yield from map(store.open, near)
    yield from (store.open(episode_id) for episode_id in ids if episode_id not in set(near))


def line(checkpoint_id: str, task: str, policies: Path) -> list[Ancestor]:
    """A checkpoint, its parent and so on, as far as they are known: among the policies of a task, or shipped."""
    found: list[Ancestor] = []
    while checkpoint_id and checkpoint_id not in {ancestor.checkpoint_id for ancestor in found}:
        folder = find(checkpoint_id, task, policies)
        if folder is None:
            return [*found, Ancestor(checkpoint_id, "", ())]
        training = checkpoints.read_manifest(folder).get("training", {})
        parent = str(training.get("parent", ""))
        above = find(parent, task, policies) if parent else None
        inherited = set(_episodes(above)) if above is not None else set()
        own = [episode for episode in _episodes(folder) if episode not in inherited]
        words = {name: str(training.get(name, "")) for name in ("command", "git_commit")}
        found.append(Ancestor(checkpoint_id, str(folder), own, **words))
        checkpoint_id = parent
    return found


def find(checkpoint_id: str, task: str, policies: Path) -> Path | None:
    """Folder of a checkpoint by its id."""
    stored = Pointer(policies, task).path(checkpoint_id)
    if (stored / "manifest.json").is_file():
        return stored
    try:
        folder = shipped(task)
        return folder if checkpoints.read_manifest(folder).get("checkpoint_id") == checkpoint_id else None
    except (BadInput, CheckpointError):
        return None


def _episodes(folder: Path) -> list[str]:
    return list(checkpoints.read_manifest(folder).get("training", {}).get("episodes", ()))


def tasks_in(policies: Path) -> list[str]:
    """Tasks that a folder of policies holds."""
    if not policies.is_dir():
        raise BadInput(f"no folder of policies at {policies}; `embodied-vision learn` makes one")
    return sorted(path.parent.name for path in policies.glob("*/checkpoints"))


def seen_by(episode_id: str, policies: Path) -> list[Seen]:
    """All stored policies that learnt from an episode, directly or through an ancestor.

    Raises:
        BadInput: no such folder of policies.
        CheckpointError: a manifest is damaged.
    """
    found = []
    for task in tasks_in(policies):
        pointer = Pointer(policies, task)
        uses = {pointer.former: "former", pointer.current: "in use"}
        for checkpoint_id in pointer.stored():
            if episode_id in learnt_from(pointer.path(checkpoint_id), task, policies):
                found.append(Seen(task, checkpoint_id, uses.get(checkpoint_id, "stored")))
    return found


def learnt_from(folder: Path, task: str, policies: Path) -> set[str]:
    """All episodes that a checkpoint or one of its ancestors learnt from."""
    training: Mapping[str, Any] = checkpoints.read_manifest(folder).get("training", {})
    above = {episode for a in line(str(training.get("parent", "")), task, policies) for episode in a.episodes}
    return above | set(_episodes(folder))


def erase(episode_id: str, store: EpisodeStore) -> None:
    """Delete an episode for good, and the scenes that training kept of it.

    Raises:
        EpisodeError: there is none, or it is being changed.
    """
    delete(store, episode_id)
    for cached in store.path.glob(f"cache/*/{episode_id}*"):
        cached.unlink(missing_ok=True)
    shutil.rmtree(store.trash_path / episode_id, ignore_errors=True)


def untouched(task: str, episode_ids: Sequence[str], policies: Path) -> tuple[Path | None, list[str]]:
    """Where to begin again without some episodes: the nearest ancestor that saw none of them, and what it lacks.

    Returns:
        Folder of the ancestor, None where all of them did; and the other episodes that the policy in use learnt from
        and the ancestor did not.

    Raises:
        BadInput: no policy of the task is in use.
    """
    pointer, without = Pointer(policies, task), set(episode_ids)
    if pointer.current is None:
        raise BadInput(f"no policy of {task!r} is in use in {policies}; nothing is to be trained again")
    everything = learnt_from(pointer.path(pointer.current), task, policies) - without
    for ancestor in line(pointer.current, task, policies):
        if not ancestor.folder:
            break
        known = learnt_from(Path(ancestor.folder), task, policies)
        if not known & without:
            return Path(ancestor.folder), sorted(everything - known)
    return None, sorted(everything)

"""The power goes while episodes are changed, on a disk that promises no more than POSIX, see `power`.

Without hard links and without an exchange of folders: that leaves most to the order of the syncs.
`EPISODE_CUTS=all` tries every moment; without it they are thinned out.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.edit import delete, relabel
from embodied_vision.episodes.merge import merge_one
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.trim import trim
from embodied_vision.episodes.verify import verify, verify_folder

from .power import Disk, Luck, recorded
from .samples import contents, write_episode

States = list[dict[str, object]]


def seen(store: EpisodeStore) -> dict[str, object]:
    return {episode.id: contents(episode) for episode in map(store.open, store.ids())}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Disk, States]:
    """A store whose episode comes from another one, is changed, and goes; and what it held in between."""

    def cannot(*args: Any, **_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(args[0]))

    source = EpisodeStore(tmp_path_factory.mktemp("source"))
    episode_id = write_episode(source, frames=3)
    root = tmp_path_factory.mktemp("disk")
    store, states = EpisodeStore(root / "new" / "store"), []
    steps = (
        lambda: merge_one(store, source, episode_id),
        lambda: relabel(store, episode_id, {"solved": False}),
        lambda: trim(store, episode_id, stop_s=0.1),
        lambda: delete(store, episode_id, keep=True),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", cannot)
        patch.setattr("embodied_vision.episodes.swap.exchange", cannot)
        with recorded(root) as disk:
            for step in steps:
                step()
                states.append(seen(store))
                disk.mark("done")
    assert [len(state) for state in states] == [1, 1, 1, 0]
    return disk, [{}, *states]


@pytest.mark.parametrize("luck", Luck)
def test_power_cut_within_an_edit(recording: tuple[Disk, States], tmp_path: Path, luck: Luck) -> None:
    disk, states = recording
    rng = random.Random(luck.value)
    moments = disk.forcing
    if os.environ.get("EPISODE_CUTS") != "all":
        ends = {at for at, _ in disk.marks}
        near = {moment for moment in moments if any(0 <= end - moment < 12 for end in ends)}  # the swaps
        moments = sorted({*moments[rng.randrange(12) :: 12], *near})
    assert len(moments) > 25
    for moment in moments:
        root = tmp_path / str(moment)
        disk.restore(moment, luck, root, rng)
        store = EpisodeStore(root / "new" / "store")
        done = sum(at <= moment for at, _ in disk.marks)
        repair(store)
        assert seen(store) in states[done : done + 2], (moment, luck)
        assert all(report.ok for report in verify(store))
        assert store.edit_ids() == []
        if done == len(states) - 2 and not store.ids():  # deleted, but to be kept
            (kept,) = store.trash_path.iterdir()
            assert verify_folder(kept).ok

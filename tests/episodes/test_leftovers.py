"""What a killed writer left is finished, dropped, or left alone, and never anybody else's work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter, writer
from embodied_vision.episodes.leftovers import clear
from embodied_vision.episodes.verify import verify

from .samples import fill, make_camera


def mine(head: Mapping[str, Any]) -> bool:
    return bool(head["policy_id"] == "oracle")


def begin(store: EpisodeStore, policy_id: str) -> EpisodeWriter:
    made = EpisodeWriter(store, task="t", robot="r", cameras=[make_camera()], policy_id=policy_id)
    fill(made, make_camera(), frames=2)
    return made


def test_unfinished_work_that_can_be_repeated_is_dropped(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    ours, theirs, live = begin(store, "oracle"), begin(store, "policy"), begin(store, "oracle")
    ours.release()
    theirs.release()
    assert clear(store, mine) == []
    assert store.staging_ids() == sorted([theirs.id, live.id])
    assert store.ids() == []
    live.close({"reward": 1.0})
    assert store.ids() == [live.id]


@pytest.mark.parametrize("step", ["commit", "remove_staging"])
def test_complete_work_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The writer dies within `close`, before or after the episode appears."""

    def die(*_: Any) -> None:
        raise SystemExit

    store = EpisodeStore(tmp_path)
    ours = begin(store, "oracle")
    with monkeypatch.context() as patch:
        patch.setattr(writer, step, die)
        with pytest.raises(SystemExit):
            ours.close({"reward": 1.0})
    assert clear(store, mine) == [ours.id]
    assert store.ids() == [ours.id]
    assert store.staging_ids() == []
    assert verify(store)[0].ok
    assert store.open(ours.id).outcome == {"reward": 1.0}


def test_folders_in_which_nothing_was_logged_yet_go(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    for name in ("a", "b", "c"):
        (store.staging_path / name).mkdir(parents=True)
    (store.staging_path / "b" / "journal").touch()
    (store.staging_path / "c" / "journal").write_bytes(b"\xeeEVJ\x00")  # a torn first record
    assert clear(store, mine) == []
    assert store.staging_ids() == []

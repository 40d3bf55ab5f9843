"""Damage is reported by file, and never read as data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EpisodeError

from .samples import files_of, read_all, write_episode


def flip(path: Path, position: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(position * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "bit flipped at the start": lambda path: flip(path, 0.0),
    "bit flipped in the middle": lambda path: flip(path, 0.5),
    "bit flipped at the end": lambda path: flip(path, 1.0),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> EpisodeStore:
    store = EpisodeStore(tmp_path_factory.mktemp("store"))
    write_episode(store, frames=3)
    return store


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found_by_verify_and_never_read(intact: EpisodeStore, tmp_path, damage: str) -> None:
    (episode_id,) = intact.ids()
    assert verify(intact)[0].ok
    store = EpisodeStore(tmp_path / "copy")
    shutil.copytree(intact.path, store.path)
    folder = store.episodes_path / episode_id
    assert len(files_of(folder)) > 20
    for path in files_of(folder):
        original = path.read_bytes()
        DAMAGES[damage](path)
        (report,) = verify(store)
        assert not report.ok
        assert [file for file, _ in report.problems] == [str(path.relative_to(folder))]
        with pytest.raises(EpisodeError, match=path.name):
            read_all(store.open(episode_id))
        path.write_bytes(original)
    assert verify(store)[0].ok


def test_file_that_nobody_wrote_is_reported(intact: EpisodeStore, tmp_path) -> None:
    store = EpisodeStore(tmp_path / "copy")
    shutil.copytree(intact.path, store.path)
    (store.episodes_path / store.ids()[0] / "data.zarr" / "note.txt").write_text("hello")
    assert verify(store)[0].problems == (("data.zarr/note.txt", "not in the manifest"),)


def test_manifest_of_another_episode_is_refused(intact: EpisodeStore, tmp_path) -> None:
    store = EpisodeStore(tmp_path / "copy")
    shutil.copytree(intact.path, store.path)
    (store.episodes_path / store.ids()[0]).rename(store.episodes_path / "renamed")
    with pytest.raises(EpisodeError, match="manifest"):
        store.open("renamed")


def test_verify_of_an_unknown_id_is_refused(intact: EpisodeStore) -> None:
    with pytest.raises(EpisodeError, match="nothing"):
        verify(intact, ["nothing"])

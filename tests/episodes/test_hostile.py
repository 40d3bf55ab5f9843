"""Stores that lead elsewhere: ids and names that climb out, links, pipes and devices instead of files and folders."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.commit import JOURNAL
from embodied_vision.episodes.manifest import MANIFEST
from embodied_vision.episodes.repair import repair
from embodied_vision.episodes.select import find_id
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput, EpisodeError

from .contents import contents
from .forged import bounded, reseal, rewrite, tree, write_small_episode
from .samples import START_NS, assert_holds, files_of, make_camera, make_frame

IDS = [
    *("..", ".", "", "/", "../outside", "../../outside", "a/../../outside", "/etc", "a\0b", "\0", "a\nb", " a"),
    *("-a", "_a", "a" * 5000, "..\\outside", "%2e%2e/outside", "\u2024\u2024/outside", "\uff0e\uff0e\uff0foutside"),
    *("epis\u043ede", "\u202eedosipe", "a\u200b", "\ud800", "*", "~", "$HOME", "CON.", "a b"),
]


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    store = EpisodeStore(tmp_path / "store")
    write_small_episode(store)
    return store


def test_ids_that_lead_elsewhere_are_refused(store: EpisodeStore) -> None:
    outside = store.path.with_name("outside")
    shutil.copytree(store.episodes_path / store.ids()[0], outside)
    shutil.copytree(store.episodes_path / store.ids()[0], store.episodes_path / "outside")
    for episode_id in IDS:
        for attempt in (store.open, store.folder, lambda wanted: verify(store, [wanted]), lambda w: find_id(store, w)):
            with pytest.raises(EpisodeError):
                attempt(episode_id)


def test_names_that_lead_elsewhere_are_refused(store: EpisodeStore) -> None:
    before = tree(store.path)
    episode = store.open(store.ids()[0])
    names = [*(name for name in IDS if name not in ("-a", "_a")), "a//b", "/a", "a/", "a/../b", "a.b"]
    for name in names:
        with pytest.raises(BadInput):
            EpisodeWriter(store, task="t", robot="r", cameras=[make_camera(name)])
        for read in (episode.frames, episode.stream):
            with pytest.raises(BadInput):
                read(name)
    assert tree(store.path) == before
    with EpisodeWriter(store, task="t", robot="r", cameras=[]) as writer:
        for name in names:
            with pytest.raises(BadInput):
                writer.append(name, 0, [1.0])
        writer.close({})
    assert all(report.ok for report in verify(store))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "data.zarr/../../../secret", "a\0b", "data.zarr//x", "."])
def test_manifest_that_names_files_elsewhere(store: EpisodeStore, name: str) -> None:
    (store.path / "secret").write_text("secret")
    folder = store.episodes_path / store.ids()[0]

    def change(manifest):
        manifest["files"][name] = {
            "size": 6,
            "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        }
        return resealed(manifest)

    rewrite(folder / MANIFEST, change)
    with pytest.raises(EpisodeError, match=r"manifest\.json.*no file below"):
        store.open(folder.name)
    ((report,)) = verify(store)
    assert [file for file, _ in report.problems] == [MANIFEST]


def resealed(manifest):
    from embodied_vision.episodes.manifest import _own_sha256

    del manifest["sha256"]
    return {**manifest, "sha256": _own_sha256(manifest)}


def link_to_copy(path: Path, outside: Path) -> None:
    """Move it out of the store and leave a link, as a person does whose disk is full."""
    path.rename(outside)
    path.symlink_to(outside)


def link_to_itself(path: Path, outside: Path) -> None:
    remove(path)
    path.symlink_to(path.name)


def link_to_parent(path: Path, outside: Path) -> None:
    remove(path)
    path.symlink_to("..")


def pipe(path: Path, outside: Path) -> None:
    remove(path)
    os.mkfifo(path)


def unix_socket(path: Path, outside: Path) -> None:
    remove(path)
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path, outside: Path) -> None:
    remove(path)
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: reading it never ends
    except PermissionError:
        pytest.skip("only root makes devices")


def folder(path: Path, outside: Path) -> None:
    remove(path)
    path.mkdir()


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


PUT_INSTEAD: list[Callable[[Path, Path], None]] = [
    *(link_to_copy, link_to_itself, link_to_parent, pipe, unix_socket, device, folder)
]


@pytest.mark.parametrize("put", PUT_INSTEAD)
def test_no_file_of_an_episode(store: EpisodeStore, tmp_path: Path, put: Callable[[Path, Path], None]) -> None:
    (episode_id,) = store.ids()
    original = tmp_path / "original"
    shutil.copytree(store.episodes_path, original)
    names = [str(path.relative_to(original)) for path in files_of(original)]
    for number, name in enumerate(names):
        if (number + PUT_INSTEAD.index(put)) % 3:
            continue  # each file sees some, each kind of thing some of every sort of file
        put(store.episodes_path / name, tmp_path / f"outside{number}")

        def work(name: str = name) -> None:
            with pytest.raises(EpisodeError, match=name.rpartition("/")[2]):
                contents(store.open(episode_id))
            (report,) = verify(store)
            assert [f"{episode_id}/{file}" for file, _ in report.problems] == [name]

        bounded(work)
        remove(store.episodes_path / name)
        shutil.copy(original / name, store.episodes_path / name)
    assert verify(store)[0].ok


@pytest.mark.parametrize("put", [link_to_copy, link_to_itself, link_to_parent, pipe])
def test_no_folder_of_an_episode(store: EpisodeStore, tmp_path: Path, put: Callable[[Path, Path], None]) -> None:
    (episode_id,) = store.ids()
    original = tmp_path / "original"
    shutil.copytree(store.episodes_path, original)
    folders = sorted(path for path in original.rglob("*") if path.is_dir())
    for number, path in enumerate(folders):
        if (number + PUT_INSTEAD.index(put)) % 2:
            continue
        target = store.episodes_path / path.relative_to(original)
        put(target, tmp_path / f"outside{number}")

        def work(target: Path = target) -> None:
            with pytest.raises(EpisodeError):
                contents(store.open(episode_id))
            assert not any(report.ok for report in verify(store))

        bounded(work)
        remove(target)
        shutil.copytree(path, target)
    assert verify(store)[0].ok


def test_link_that_no_manifest_names_is_reported(store: EpisodeStore) -> None:
    group = store.episodes_path / store.ids()[0] / "data.zarr"
    (group / "there").symlink_to("/etc")
    (group / "here").symlink_to(".")
    assert {file for file, _ in verify(store)[0].problems} == {"data.zarr/there", "data.zarr/here"}


def left_behind(store: EpisodeStore) -> Path:
    """Staging folder of a writer that let go."""
    camera = make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec="lossless") as writer:
        writer.append_frame(make_frame(camera, 0))
        writer.append("joint_states", START_NS, [1.0])
    return store.staging_path / writer.id


@pytest.mark.parametrize("put", PUT_INSTEAD)
@pytest.mark.parametrize("where", ["", JOURNAL, "build"])
def test_staging_that_leads_elsewhere(tmp_path: Path, put: Callable[[Path, Path], None], where: str) -> None:
    """What is no journal is left for a person; others come back all the same, and nothing is touched elsewhere."""
    if where == "" and put is folder:
        return
    store = EpisodeStore(tmp_path / "store")
    staging = left_behind(store)
    if where == "build":
        (staging / where).mkdir()
        (staging / where / "precious").write_text("precious")
    other = left_behind(store)
    put(staging / where, tmp_path / "outside")
    before = tree(tmp_path / "outside") if (tmp_path / "outside").is_dir() else {}

    def work() -> None:
        states = {result.id: result.state for result in repair(store)}
        assert states[other.name] == "recovered"
        if where == "build":
            assert states[staging.name] == "recovered"
        else:
            assert states.get(staging.name, "failed") == "failed"

    bounded(work)
    assert_holds(store.open(other.name), 1)
    if (tmp_path / "outside").is_dir():
        assert tree(tmp_path / "outside") == before
    if where != "build":
        assert os.path.lexists(staging / where)
        assert store.ids() == [other.name]


@pytest.mark.parametrize("name", ["staging", "episodes", "quarantine"])
def test_store_whose_folders_lead_elsewhere_is_not_written(tmp_path: Path, name: str) -> None:
    store = EpisodeStore(tmp_path / "store")
    staging = left_behind(store)
    journal = staging / JOURNAL
    journal.write_bytes(journal.read_bytes() + b"damaged")  # so that it would go to quarantine
    outside = tmp_path / "outside"
    outside.mkdir()
    (store.path / name).rename(outside / name) if name == "staging" else (outside / name).mkdir()
    (store.path / name).symlink_to(outside / name)
    before = tree(tmp_path)
    with pytest.raises(EpisodeError, match=f"{name}.*symbolic link"):
        repair(store)
    with pytest.raises(EpisodeError, match=f"{name}.*symbolic link"):
        EpisodeWriter(store, task="t", robot="r", cameras=[])
    assert tree(tmp_path) == before


def test_quarantine_keeps_what_it_has(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    staging = left_behind(store)
    (staging / JOURNAL).write_bytes(b"nonsense")
    (store.quarantine_path / staging.name).mkdir(parents=True)
    (store.quarantine_path / staging.name / "precious").write_text("precious")
    assert [result.state for result in repair(store)] == ["failed"]
    assert {path.parent.name for path in store.quarantine_path.rglob(JOURNAL)} == {f"{staging.name}.2"}
    assert (store.quarantine_path / staging.name / "precious").exists()


def test_giant_metadata_are_not_read(store: EpisodeStore) -> None:
    folder = store.episodes_path / store.ids()[0]
    for name in (MANIFEST, "data.zarr/zarr.json"):
        original = (folder / name).read_bytes()
        os.truncate(folder / name, 1 << 31)
        if name != MANIFEST:
            rewrite(folder / MANIFEST, lambda m, name=name: resealed(set_size(m, name, 1 << 31)))

        def work() -> None:
            with pytest.raises(EpisodeError, match="2147483648 bytes"):
                store.open(folder.name)

        bounded(work)
        (folder / name).write_bytes(original)
    reseal(folder)
    store.open(folder.name)


def set_size(manifest, name: str, size: int):
    manifest["files"][name]["size"] = size
    return manifest

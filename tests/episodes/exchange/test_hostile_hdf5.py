"""HDF5 files that lie, are cut short or lead elsewhere: refused with a clear error, in little memory."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.exchange import find_format
from episodes.exchange import moving
from episodes.exchange.limited import import_limited

FLIPS, CUTS = int(os.environ.get("EMBODIED_VISION_FLIPS", "25")), 10
"""How many files with flipped bits, and how many that are cut short, are tried."""
SECRET = b"nothing outside of a file may be read or written"
Break = Callable[[h5py.File, Path], object]


def plain(path: Path) -> Path:
    """One demo of others, small."""
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo.attrs["num_samples"] = 3
        demo["actions"] = np.zeros((3, 2))
        demo["obs/front_image"] = np.full((3, 8, 8, 3), 7, np.uint8)
        demo["obs/joints"] = np.ones((3, 2))
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift"})
    return path


def put(name: str, **how: object) -> Break:
    """Replace a dataset by one that is made so."""

    def breaks(file: h5py.File, outside: Path) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return breaks


def link(name: str, make: Callable[[Path], object]) -> Break:
    """Replace something by a link."""

    def breaks(file: h5py.File, outside: Path) -> None:
        del file[name]
        file[name] = make(outside)

    return breaks


def attribute(name: str, key: str, value: object) -> Break:
    return lambda file, outside: file[name].attrs.__setitem__(key, value)


def virtual(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout((3, 8, 8, 3), np.uint8)
    layout[:] = h5py.VirtualSource(outside / "other.hdf5", "image", (3, 8, 8, 3))
    del file["data/demo_0/obs/front_image"]
    file["data/demo_0/obs"].create_virtual_dataset("front_image", layout)


def external(file: h5py.File, outside: Path) -> None:
    del file["data/demo_0/obs/joints"]
    stored = [(str(outside / "secret"), 0, 48)]
    file["data/demo_0/obs"].create_dataset("joints", (3, 2), np.float64, external=stored)


def bomb(file: h5py.File, outside: Path) -> None:
    del file["data/demo_0/obs/joints"]
    found = file["data/demo_0/obs"].create_dataset("joints", (3, 2), np.float64, chunks=(3, 2), compression="gzip")
    packed = zlib.compress(bytes(2**26), 6)
    found.id.write_direct_chunk((0, 0), packed)


def small_bomb(file: h5py.File, outside: Path) -> None:
    """As many bytes on file as the chunk may have, but a thousand times as many unpacked."""
    side = 2**18
    del file["data/demo_0/obs/joints"]
    found = file["data/demo_0/obs"].create_dataset(
        "joints", (3, side), np.float64, chunks=(3, side), compression="gzip"
    )
    deflate = zlib.compressobj(6)
    packed = b"".join(deflate.compress(bytes(2**24)) for _ in range(48)) + deflate.flush()
    found.id.write_direct_chunk((0, 0), packed)


def own_stream(name: str) -> Break:
    def breaks(file: h5py.File, outside: Path) -> None:
        put("embodied_vision/demo_0/streams/0/name", data=np.frombuffer(name.encode(), np.uint8))(file, outside)

    return breaks


def own_camera(name: str) -> Break:
    def breaks(file: h5py.File, outside: Path) -> None:
        description = json.loads(bytes(file["embodied_vision/demo_0/episode"][()]))
        description["cameras"][0]["name"] = name
        text = np.frombuffer(json.dumps(description).encode(), np.uint8)
        put("embodied_vision/demo_0/episode", data=text)(file, outside)

    return breaks


OTHERS: dict[str, tuple[Break, str]] = {
    "external link": (link("data/demo_0/obs", lambda o: h5py.ExternalLink(o / "other.hdf5", "/obs")), "is a link"),
    "external image": (
        link("data/demo_0/obs/front_image", lambda o: h5py.ExternalLink(o / "other.hdf5", "/image")),
        "is a link",
    ),
    "soft link": (link("data/demo_0/obs/joints", lambda o: h5py.SoftLink("/data/demo_0/actions")), "is a link"),
    "soft cycle": (link("data/demo_0", lambda o: h5py.SoftLink("/data/demo_0")), "is a link"),
    "dangling": (link("data/demo_0/actions", lambda o: h5py.SoftLink("/nowhere")), "is a link"),
    "group as array": (
        lambda f, o: (f.__delitem__("data/demo_0/actions"), f.create_group("data/demo_0/actions")),
        "no dataset",
    ),
    "array as group": (put("data/demo_0/actions", data=[1.0]), "says to have 3 samples"),
    "virtual": (virtual, "other files"),
    "external storage": (external, "other files"),
    "giant": (put("data/demo_0/obs/joints", shape=(3, 2**40), dtype="f8", chunks=(1, 1024)), "stores 0"),
    "giant fill": (
        put("data/demo_0/actions", shape=(2**40, 2), dtype="f8", chunks=(1024, 2), fillvalue=1.0),
        "stores 0",
    ),
    "giant contiguous": (put("data/demo_0/actions", shape=(2**40,), dtype="u1"), "stores 0"),
    "giant image": (
        put("data/demo_0/obs/front_image", shape=(3, 2**20, 2**20, 3), dtype="u1", chunks=(1, 64, 64, 3)),
        "stores 0",
    ),
    "giant chunk": (
        put("data/demo_0/obs/joints", shape=(3, 2**26), dtype="f8", chunks=(1, 2**26)),
        "has chunks of 536870912 bytes",
    ),
    "bomb": (bomb, "is stored as"),
    "small bomb": (small_bomb, "unpacks to more"),
    "other filter": (put("data/demo_0/actions", data=np.zeros((3, 2)), compression="lzf"), "packed by filters"),
    "text": (put("data/demo_0/actions", data=np.array([b"a", b"b", b"c"])), "expected numbers"),
    "objects": (put("data/demo_0/actions", data=["a", "b", "c"], dtype=h5py.string_dtype()), "expected numbers"),
    "compound": (put("data/demo_0/actions", data=np.zeros(3, [("a", "f8"), ("b", "i4")])), "expected numbers"),
    "references": (put("data/demo_0/actions", shape=(3,), dtype=h5py.ref_dtype), "expected numbers"),
    "scalar": (put("data/demo_0/actions", data=1.0), "expected numbers"),
    "no space": (put("data/demo_0/actions", data=h5py.Empty("f8")), "expected numbers"),
    "no rows": (
        lambda f, o: (
            put("data/demo_0/actions", data=np.zeros((0, 2)))(f, o),
            f["data/demo_0"].attrs.__delitem__("num_samples"),
        ),
        "has 0 samples",
    ),
    "wrong count": (attribute("data/demo_0", "num_samples", 2**62), "says to have 4611686018427387904"),
    "count of text": (attribute("data/demo_0", "num_samples", "three"), "says to have three"),
    "wide attribute": (attribute("data", "env_args", np.zeros(4000)), "expected a single value"),
    "no JSON": (attribute("data", "env_args", "{"), "no JSON"),
    "deep JSON": (attribute("data", "env_args", "[" * 20_000 + "]" * 20_000), "no JSON"),
    "JSON of a list": (attribute("data", "env_args", "[1]"), "no JSON"),
    "no demos": (lambda f, o: f.move("data/demo_0", "data/episode"), "no demos"),
    "no data": (lambda f, o: f.move("data", "date"), "data is missing"),
    "not finite": (lambda f, o: f["data/demo_0/actions"].__setitem__(0, np.nan), ""),
    "strange names": (lambda f, o: f["data/demo_0/obs"].create_dataset("..", data=np.zeros(3)), ""),
    "odd key": (
        lambda f, o: f["data/demo_0/obs"].create_dataset("a b\u00e9?%00_image", data=np.zeros((3, 2, 2, 3), "u1")),
        "",
    ),
    "hard cycle": (lambda f, o: f["data/demo_0/obs"].__setitem__("again", f["data"]), ""),
}
OURS: dict[str, tuple[Break, str]] = {
    "stream outside": (own_stream("../../outside/evil"), "cannot name a camera or stream"),
    "absolute stream": (own_stream("/etc/passwd"), "cannot name a camera or stream"),
    "camera outside": (own_camera("../../outside/evil"), "cannot name a camera or stream"),
    "rows that are not there": (put("embodied_vision/demo_0/frames/wrist/rows", data=np.array([0, 99])), "names rows"),
    "fewer stamps": (put("embodied_vision/demo_0/streams/1/stamps", data=np.zeros(1, "i8")), "stamps and"),
    "stamps of floats": (put("embodied_vision/demo_0/streams/1/stamps", data=np.zeros(60)), "expected int64"),
    "no description": (put("embodied_vision/demo_0/episode", data=np.zeros(3, "u1")), "no JSON"),
    "decision of another size": (
        put("embodied_vision/demo_0/decisions/0/color", data=np.zeros((4, 4, 3), "u1")),
        "not of the size",
    ),
    "image of another size": (put("data/demo_0/obs/wrist_image", data=np.zeros((7, 4, 4, 3), "u1")), "its camera has"),
    "another length": (
        put("data/demo_0/actions", data=np.zeros((3, 4))),
        "says to have 7 samples, its actions are 3",
    ),
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Files that no import may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    with h5py.File(folder / "other.hdf5", "w") as file:
        file["image"] = np.zeros((3, 8, 8, 3), np.uint8)
        file.create_group("obs")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_lies_are_refused_by_name_in_little_memory(tmp_path: Path, outside: Path) -> None:
    store, before = EpisodeStore(tmp_path / "store"), contents(outside)
    moving.write(store, frames=6)
    find_format("hdf5").export([store.open(store.ids()[0])], tmp_path / "ours.hdf5", done=lambda _: None)
    cases: dict[str, Path] = {}
    for broken, base in ((OTHERS, plain(tmp_path / "plain.hdf5")), (OURS, tmp_path / "ours.hdf5")):
        for name, (breaks, _) in broken.items():
            cases[name] = Path(shutil.copy(base, tmp_path / f"{name}.hdf5"))
            with h5py.File(cases[name], "a") as file:
                breaks(file, outside)
    os.mkfifo(tmp_path / "pipe.hdf5")
    cases["pipe"] = tmp_path / "pipe.hdf5"
    found = import_limited("hdf5", cases, tmp_path / "stores")
    wanted = {**OTHERS, **OURS, "pipe": (None, "is no file")}
    assert found.keys() == wanted.keys()
    for name, (_, message) in wanted.items():
        outcome = found[name]
        if message:
            assert outcome.error == "BadInput", f"{name}: {outcome}"
            assert message in outcome.message, f"{name}: {outcome}"
            assert (outcome.episodes, outcome.whole) == (0, 0)
        else:
            assert (outcome.error, outcome.episodes, outcome.whole) == ("", 1, 1), f"{name}: {outcome}"
        assert outcome.staging == 0, f"{name}: {outcome}"
    assert contents(outside) == before


def test_cut_and_flipped_files_give_an_error_or_whole_episodes(tmp_path: Path) -> None:
    data = plain(tmp_path / "plain.hdf5").read_bytes()
    rng = np.random.default_rng(0)
    cases: dict[str, Path] = {}
    for number, length in enumerate(np.linspace(0, len(data) - 1, CUTS).astype(int)):
        cases[f"cut {number}"] = tmp_path / f"cut{number}"
        cases[f"cut {number}"].write_bytes(data[:length])
    for number in range(FLIPS):
        flipped = bytearray(data)
        for place in rng.integers(0, len(data), 1 + number % 3):
            flipped[place] ^= 1 << int(rng.integers(8))
        cases[f"flip {number}"] = tmp_path / f"flip{number}"
        cases[f"flip {number}"].write_bytes(flipped)
    found = import_limited("hdf5", cases, tmp_path / "stores")
    assert found.keys() == cases.keys()
    for name, outcome in found.items():
        assert outcome.error in ("", "BadInput"), f"{name}: {outcome}"
        assert outcome.whole == outcome.episodes == (0 if outcome.error else 1), f"{name}: {outcome}"
        assert outcome.staging == 0
    assert all(found[f"cut {number}"].error for number in range(CUTS))

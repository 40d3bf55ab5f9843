"""Episodes whose every checksum is right and whose contents are made to mislead: an error, or what it says, no more."""

from __future__ import annotations

import io
import json
import math
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import Zstd
from PIL import Image

from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.arrays import ArraySpec, write_chunks
from embodied_vision.episodes.codecs import BloscChunks, JpegChunks, ZstdChunks, seal
from embodied_vision.episodes.manifest import MANIFEST
from embodied_vision.episodes.schema import STAMPS, color_spec, depth_spec, values_spec
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EpisodeError

from .contents import contents
from .forged import SPARE_MEMORY, bounded, reseal, rewrite, write_small_episode
from .samples import make_camera

ROOT = "data.zarr/zarr.json"
CAMERA = "data.zarr/cameras/camera"
STREAM = "data.zarr/streams/joint_states"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_episode(EpisodeStore(tmp_path_factory.mktemp("original")))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """An episode to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "store" / "episodes" / original.name))


def refused(folder: Path, match: str = "", memory: int = SPARE_MEMORY) -> None:
    """Reading it all is an EpisodeError that names the place, in little time and memory; verify does not fall over."""

    def work() -> None:
        store = EpisodeStore(folder.parents[1])
        with pytest.raises(EpisodeError, match=match) as caught:
            contents(store.open(folder.name))
        assert str(folder) in str(caught.value) or folder.name in str(caught.value)
        assert len(str(caught.value)) < 1000
        verify(store)

    bounded(work, memory)


def put(*path: Any, value: Any) -> Callable[[Any], Any]:
    """A change of what stands at `path` in a JSON file."""

    def change(data: Any) -> Any:
        part = data
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value
        return data

    return change


SHARDING = ("codecs", 0, "configuration")
ARRAYS: dict[str, Callable[[Any], Any]] = {
    "giant": put("shape", 0, value=2**40),
    "beyond int64": put("shape", 0, value=2**70),
    "beyond float64": put("shape", 0, value=10**400),
    "negative": put("shape", 0, value=-1),
    "shorter": put("shape", 0, value=1),
    "longer": put("shape", 0, value=3),
    "a float": put("shape", 0, value=2.0),
    "a bool": put("shape", 0, value=True),
    "a text": put("shape", 0, value="2"),
    "none": put("shape", value=[]),
    "of many axes": put("shape", value=[2] * 10_000),
    "a mapping": put("shape", value={"0": 2}),
    "giant chunks": put(*SHARDING, "chunk_shape", 0, value=2**40),
    "no chunks": put(*SHARDING, "chunk_shape", 0, value=0),
    "objects": put("data_type", value="O"),
    "of a giant type": put("data_type", value="V2147483647"),
    "of another type": put("data_type", value="float32"),
    "of unknown type": put("data_type", value=["int64"]),
    "elsewhere": put("chunk_key_encoding", "configuration", "separator", value="/../../"),
    "of many codecs": put("codecs", value=[{"name": "bytes", "configuration": {}}] * 1000),
    "of no codecs": put("codecs", value=[]),
    "of codecs of texts": put(*SHARDING, "codecs", value="zstd"),
    "of unknown codecs": put(*SHARDING, "codecs", 0, "name", value="pickle"),
    "index at the start": put(*SHARDING, "index_location", value="start"),
    "no array": lambda data: [],
    "nothing": lambda data: {},
}


@pytest.mark.parametrize("array", [f"{CAMERA}/color", f"{CAMERA}/stamps", f"{STREAM}/values"])
def test_arrays_that_lie_about_themselves(folder: Path, array: str) -> None:
    path = folder / array / "zarr.json"
    text = path.read_text()
    for change in ARRAYS.values():
        rewrite(path, change)
        reseal(folder)
        store = EpisodeStore(folder.parents[1])
        with pytest.raises(EpisodeError, match=array.rpartition("/")[0]):
            contents(store.open(folder.name))
        path.write_text(text)
    rewrite(path, ARRAYS["giant"])
    reseal(folder)
    refused(folder)


ATTRIBUTES: dict[str, Callable[[Any], Any]] = {
    f"{name} {value!r:.20}": put("attributes", name, value=value)
    for name, values in {
        "schema": [0, 3, 10**30, "1", None, True, 1.0, [1]],
        "task": [3, None, [], {"a": 1}, True],
        "robot": [3],
        "encoder_id": [None],
        "policy_id": [["a"]],
        "cameras": [{}, [3], ["camera"], [{}], None, [[]], {"camera": {}}],
        "outcome": [[], None, "solved", 1],
        "attributes": [[], None],
        "tags": [{}, [3], "good", None],
        "history": [{}, [3], None],
        "streams": [[], None, {"../x": {}}, {"/etc": {}}, {"joint_states": {}, "missing": {}}, "joint_states"],
        "created_ns": [1.5, "now", 2**63, None, -(2**64)],
        "closed_ns": [True],
    }.items()
    for value in values
}
ATTRIBUTES |= {
    f"camera {name} {value!r:.20}": put("attributes", "cameras", 0, name, value=value)
    for name, values in {
        "name": ["../../..", 3, None, "a\0", "x" * 5000, "other"],
        "width": [2**40, -1, 0, 1.5, "16", True, 17],
        "height": [2**40, None, 13],
        "K": [[], 3, "K", [[1, 2], [3, 4]], [[1] * 3] * 2 + [["a"] * 3], [[10**400] * 3] * 3, {"a": 1}],
        "T_base_camera": [None, [[0] * 4] * 5, [[None] * 4] * 4],
    }.items()
    for value in values
}


def test_attributes_of_wrong_types(folder: Path) -> None:
    text = (folder / ROOT).read_text()
    for what, change in ATTRIBUTES.items():
        rewrite(folder / ROOT, change)
        reseal(folder)
        store = EpisodeStore(folder.parents[1])
        with pytest.raises(EpisodeError) as caught:
            contents(store.open(folder.name))
        assert folder.name in str(caught.value), what
        (folder / ROOT).write_text(text)


def test_decisions_of_wrong_types(folder: Path) -> None:
    path = folder / "data.zarr/decisions/zarr.json"
    text = path.read_text()
    for values in (
        {"primitive": 3},
        {"decision_id": None},
        {"scores": []},
        {"scores": {"pick": "high"}},
        {"scores": {"pick": 10**400}},
        {"scores": {"pick": {}}},
        {"info": 3},
        {"frames": {}},
        {"frames": [3]},
        {"frames": [["camera"]]},
        {"frames": [["camera", 1]]},
        {"frames": [["camera", -1]]},
        {"frames": [["camera", 0.0]]},
        {"frames": [["other", 0]]},
        {"frames": [[[], 0]]},
    ):
        rewrite(
            path, lambda data, values=values: put("attributes", "records", 0, value={**record_of(data), **values})(data)
        )
        reseal(folder)
        store = EpisodeStore(folder.parents[1])
        with pytest.raises(EpisodeError, match="decisions"):
            contents(store.open(folder.name))
        path.write_text(text)


def record_of(data: Any) -> dict[str, Any]:
    return dict(data["attributes"]["records"][0])


DEEP = 100_000
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "nested lists": b"[" * DEEP + b"]" * DEEP,
    "nested mappings": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "nested within attributes": b'{"attributes": {"x": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "a long number": b'{"attributes": {"x": ' + b"9" * 1_000_000 + b"}}",
    "NaN": b'{"attributes": {"length": NaN}}',
    "Infinity": b'{"attributes": {"length": -Infinity}}',
    "an overflow": b'{"attributes": {"length": 1e999}}',
    "a key twice": b'{"attributes": {"length": 2}, "attributes": {"length": 3}}',
    "half a surrogate": b'{"attributes": {"x": "\\ud800"}}',
    "no UTF-8": b'{"attributes": {"x": "\xff"}}',
    "UTF-16": '{"attributes": {}}'.encode("utf-16"),
    "a list": b"[]",
    "a number": b"3",
    "many lists": b"[" + b"[]," * 3_000_000 + b"[]]",
}


@pytest.mark.parametrize("what", TEXTS)
def test_json_that_is_made_to_choke_on(folder: Path, what: str) -> None:
    before = (folder / ROOT).read_bytes()
    (folder / ROOT).write_bytes(TEXTS[what])
    reseal(folder)
    refused(folder, "zarr.json")
    (folder / ROOT).write_bytes(before)
    reseal(folder)
    (folder / MANIFEST).write_bytes(TEXTS[what])
    refused(folder, "manifest")


def rle_frame(size: int) -> bytes:
    """A Zstandard frame of `size` zeros, a multiple of 128 KiB, that does not say how many."""
    blocks = size >> 17
    block = [
        struct.pack("<I", (1 << 17) << 3 | 1 << 1 | (number == blocks - 1))[:3] + b"\0" for number in range(blocks)
    ]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(block)


def jpeg(width: int, height: int, *, progressive: bool = False, scans: int = 0) -> bytes:
    """A JPEG image that says it has this size."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12)).save(buffer, "JPEG", progressive=progressive)
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    start = data.index(b"\xff\xda")
    return bytes(data[:start] + data[start:-2] * max(1, scans) + data[-2:])


def blosc(nbytes: int, blocksize: int, cbytes: int) -> bytes:
    data = bytearray(BloscChunks(2).encode(np.zeros((12, 16), np.uint16)))
    struct.pack_into("<III", data, 4, nbytes, blocksize, cbytes)
    return bytes(data)


COLOR, DEPTH, VALUES, TIMES = f"{CAMERA}/color", f"{CAMERA}/depth", f"{STREAM}/values", f"{CAMERA}/stamps"
SPECS: dict[str, ArraySpec] = {
    COLOR: color_spec(make_camera(), JpegChunks(90)),
    DEPTH: depth_spec(make_camera()),
    VALUES: values_spec(2),
    TIMES: STAMPS,
}
CHUNKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zstd of 256 MiB": (VALUES, lambda: bytes(Zstd(1).encode(bytes(1 << 28)))),
    "zstd of unknown size": (VALUES, lambda: rle_frame(1 << 28)),
    "zstd that declares more": (VALUES, lambda: b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**62)),
    "zstd that declares less": (VALUES, lambda: ZstdChunks().encode(np.zeros(8))),
    "zstd twice": (VALUES, lambda: 2 * ZstdChunks().encode(np.zeros((1024, 2)))),
    "zstd, empty": (TIMES, lambda: b""),
    "zstd, cut": (TIMES, lambda: ZstdChunks().encode(np.arange(1024))[:-5]),
    "blosc of 4 GiB": (DEPTH, lambda: blosc(2**32 - 16, 384, 100)),
    "blosc of giant blocks": (DEPTH, lambda: blosc(384, 2**31, 100)),
    "blosc of another length": (DEPTH, lambda: blosc(384, 384, 2**31)),
    "blosc of too little": (DEPTH, lambda: blosc(0, 0, 16)[:16]),
    "blosc, cut": (DEPTH, lambda: blosc(384, 384, 100)[:8]),
    "JPEG of 4 gigapixels": (COLOR, lambda: jpeg(65_500, 65_500)),
    "progressive JPEG of 4 gigapixels": (COLOR, lambda: jpeg(65_500, 65_500, progressive=True)),
    "JPEG of other pixels": (COLOR, lambda: jpeg(12, 16)),
    "JPEG of many scans": (COLOR, lambda: jpeg(16, 12, scans=20)),
    "JPEG of scans without end": (COLOR, lambda: jpeg(16, 12, progressive=True, scans=2_000)),
    "PNG": (COLOR, lambda: b"\x89PNG\r\n\x1a\n"),
}


@pytest.mark.parametrize("what", CHUNKS)
def test_chunks_that_blow_up(folder: Path, what: str) -> None:
    array, chunk = CHUNKS[what]
    shutil.rmtree(folder / array)
    write_chunks(folder / array, SPECS[array], 2, [seal(chunk())] * 2)
    reseal(folder)
    refused(folder, array.rpartition("/")[2], memory=150 << 20)


@pytest.mark.parametrize(
    "entry",
    [(0, 2**63), (2**63, 10), (2**64 - 1, 10), (0, 2**64 - 1), (0, 0), (0, 3), (2**62, 2**62), (1, 100), (0, 1036)],
)
def test_index_that_points_elsewhere(folder: Path, entry: tuple[int, int]) -> None:
    path = folder / CAMERA / "depth" / "c.0.0.0"
    data = path.read_bytes()
    index = np.frombuffer(data[-1028:-4], "<u8").reshape(64, 2).copy()
    index[0] = entry
    path.write_bytes(data[:-1028] + seal(index.tobytes()))
    reseal(folder)
    refused(folder, "depth")


PIECES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 2, -1, 64, 2**31, 2**32, 2**63, 2**64, 1e308, -0.0, 2.0, 0.5]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", ".", "..", "../..", "/etc/passwd", "camera", "int64", "zstd", "bytes", "\0", "A" * 300, "NaN"]
    ),
    st.text(max_size=8),
    st.lists(st.integers(-3, 2**40), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def places_in(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    steps = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for step, part in steps for place in places_in(part, (*path, step)))]


def spoilt(data: Any, draw: Any) -> Any:
    """One place of a JSON value changed, removed or doubled."""
    place = draw(st.sampled_from(places_in(data)[1:]))
    part = data
    for step in place[:-1]:
        part = part[step]
    what = draw(st.sampled_from(["change", "change", "remove", "move"]))
    if what == "change":
        part[place[-1]] = draw(PIECES)
    elif what == "remove":
        del part[place[-1]]
    else:
        part[place[-1]] = draw(st.sampled_from(list(part.values()) if isinstance(part, dict) else part))
    return data


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_of_metadata_is_an_error_or_changes_no_recorded_value(original: Path, data: st.DataObject) -> None:
    copy = original.parent.with_name("spoilt") / "episodes" / original.name
    if not copy.exists():
        shutil.copytree(original, copy)
    written = contents(EpisodeStore(original.parents[1]).open(original.name))
    name = data.draw(
        st.sampled_from(sorted(str(p.relative_to(copy)) for p in copy.rglob("zarr.json")) + [MANIFEST] * 4)
    )
    text = (copy / name).read_text()
    changed = spoilt(json.loads(text), data.draw)
    (copy / name).write_text(json.dumps(changed))
    if name == MANIFEST:
        rewrite(copy / name, with_own_sha256)
    else:
        reseal(copy)
    store = EpisodeStore(copy.parents[1])
    try:
        with suppress(EpisodeError):
            for key, value in contents(store.open(copy.name)).items():
                if key.startswith(("color ", "depth ", "stamps ", "stream ")):
                    assert value == written[key]
        verify(store)
    finally:
        (copy / name).write_text(text)
        reseal(copy)


def with_own_sha256(manifest: Any) -> Any:
    from embodied_vision.episodes.manifest import _own_sha256

    if isinstance(manifest, dict) and "sha256" in manifest:
        del manifest["sha256"]
        manifest["sha256"] = _own_sha256(manifest)
    return manifest


def test_sizes_that_this_file_relies_on() -> None:
    assert math.prod((12, 16)) * 2 == 384
    assert Zstd(1).decode(rle_frame(1 << 18)) == bytes(1 << 18)
    assert JpegChunks(90).decode(jpeg(16, 12), (1, 12, 16, 3), np.dtype(np.uint8)).shape == (1, 12, 16, 3)

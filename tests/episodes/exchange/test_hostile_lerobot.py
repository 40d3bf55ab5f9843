"""LeRobotDatasets that lie, are cut short or lead elsewhere: refused with a clear error, in little memory."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from av.video.frame import VideoFrame

from embodied_vision.episodes import EpisodeStore
from embodied_vision.episodes.exchange import find_format
from embodied_vision.episodes.exchange.lerobot.layout import fill
from embodied_vision.episodes.exchange.lerobot.pages import Chunk, check_pages, read_groups
from embodied_vision.errors import BadInput
from embodied_vision.priority import at_same_priority
from episodes.exchange import moving
from episodes.exchange.limited import import_limited

MADE_BY_LEROBOT = Path(__file__).parent / "foreign" / "lerobot"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"
SIDECAR = "meta/embodied_vision/episode-000000"
SECRET = b"nothing outside of a dataset may be read or written"
FLIPS = int(os.environ.get("EMBODIED_VISION_FLIPS", "30"))
"""How many datasets with flipped bits are tried."""
Break = Callable[[Path], object]


def info(change: Callable[[dict[str, Any]], object]) -> Break:
    """Change info.json."""

    def breaks(root: Path) -> None:
        content = json.loads((root / "meta/info.json").read_text())
        change(content)
        (root / "meta/info.json").write_text(json.dumps(content))

    return breaks


def say(key: str, value: object) -> Break:
    return info(lambda content: content.__setitem__(key, value))


def feature(key: str, **how: object) -> Break:
    return info(lambda content: content["features"][key].update(how))


def cut(name: str, part: float = 0.6) -> Break:
    return lambda root: os.truncate(root / name, int((root / name).stat().st_size * part))


def content(name: str, data: bytes) -> Break:
    return lambda root: (root / name).write_bytes(data)


def table(name: str, change: Callable[[pa.Table], pa.Table]) -> Break:
    """Change a Parquet file."""

    def breaks(root: Path) -> None:
        changed = change(pq.read_table(root / name))
        pq.write_table(changed, root / name)

    return breaks


def column(name: str, key: str, values: Callable[[list[Any]], Any]) -> Break:
    """Change a column of a Parquet file."""

    def change(found: pa.Table) -> pa.Table:
        place = found.schema.get_field_index(key)
        return found.set_column(place, key, values(found[key].to_pylist()))

    return table(name, change)


def integers(make: Callable[[int], int]) -> Callable[[list[int]], Any]:
    return lambda found: pa.array([make(value) for value in found], pa.int64())


def link(name: str, target: Callable[[Path], Path]) -> Break:
    """A link in the place of a file or folder."""

    def breaks(root: Path) -> None:
        path = root / name
        where = target(root)
        if path.is_dir():
            shutil.move(path, where)
        else:
            shutil.copy(path, where)
            path.unlink()
        path.symlink_to(where)

    return breaks


def pipe(name: str) -> Break:
    return lambda root: ((root / name).unlink(), os.mkfifo(root / name))


def outside(root: Path) -> Path:
    return root.parent / "outside" / root.name


def bomb(root: Path) -> None:
    """A column whose pages become a thousand times as large."""
    grown = pa.table({"episode_index": np.zeros(2**24, np.int64)})
    pq.write_table(
        grown,
        root / DATA,
        use_dictionary=False,
        compression="zstd",
        data_page_size=2**30,
        row_group_size=2**24,
        max_rows_per_page=2**30,
    )


def long_lists(root: Path) -> None:
    """A few rows with millions of numbers each, all the same one."""
    values = pa.array([np.zeros(2**23, np.float32) for _ in range(2)] + [np.zeros(3, np.float32)] * 19)
    table(
        DATA,
        lambda found: found.set_column(found.schema.get_field_index("observation.state"), "observation.state", values),
    )(root)


def png(width: int, height: int) -> bytes:
    """A PNG image that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def images(blob: bytes | None) -> Break:
    return column(
        DATA,
        "observation.images.wrist",
        lambda found: pa.array(
            [{"bytes": blob, "path": "../../outside/secret"} for _ in found],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
    )


def video(
    height: int, width: int, said: tuple[int, int] | None = None, codec: str = "libsvtav1", frames: int = 21
) -> Break:
    """A video of another size; the container may say that it has the right one."""

    def breaks(root: Path) -> None:
        target = io.BytesIO()
        with av.open(target, "w", format="mp4") as container:
            stream = container.add_stream(codec, 10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            at_same_priority(stream.codec_context.open)
            picture = VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
            for _ in range(frames):
                for packet in stream.encode(picture):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
        data = target.getvalue()
        if said is not None:
            data = data.replace(struct.pack(">HH", width, height), struct.pack(">HH", said[1], said[0]))
            data = data.replace(
                struct.pack(">II", width << 16, height << 16), struct.pack(">II", said[1] << 16, said[0] << 16)
            )
        (root / VIDEO).write_bytes(data)

    return breaks


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
OTHERS: dict[str, tuple[Break, str]] = {
    "data cut": (cut(DATA), "is damaged"),
    "video cut": (cut(VIDEO), "video"),
    "video cut late": (cut(VIDEO, 0.95), "video"),
    "episodes cut": (cut(EPISODES), "is damaged"),
    "tasks cut": (cut("meta/tasks.parquet"), "is damaged"),
    "info cut": (cut("meta/info.json"), "no JSON"),
    "data empty": (content(DATA, b""), "is damaged"),
    "no data": (lambda root: (root / DATA).unlink(), "cannot be read"),
    "no episodes": (lambda root: (root / EPISODES).unlink(), "copy the dataset whole"),
    "deep JSON": (content("meta/info.json", b'{"features":' * 50_000), "no JSON"),
    "JSON of a list": (content("meta/info.json", b"[]"), "cannot be used"),
    "older version": (say("codebase_version", "v2.1"), "expected v3.0"),
    "no version": (say("codebase_version", 3), "codebase_version"),
    "data outside": (say("data_path", "../outside/secret"), "leads out of"),
    "absolute data": (say("data_path", "/etc/passwd"), "leads out of"),
    "attribute": (say("data_path", "{chunk_index.__class__}"), "only chunk_index"),
    "position": (say("data_path", "{0.__class__.__mro__}"), "only chunk_index"),
    "endless number": (say("data_path", "{chunk_index:999999999d}"), "only chunk_index"),
    "conversion": (say("data_path", "{chunk_index!r}"), "only chunk_index"),
    "open brace": (say("data_path", "data/{chunk_index"), "no template"),
    "no data path": (say("data_path", None), "expected a text"),
    "video outside": (say("video_path", "videos/{video_key}/../../../outside/secret"), "leads out of"),
    "no video path": (say("video_path", None), "expected a text"),
    "fps of 0": (say("fps", 0), "fps is 0"),
    "fps of nothing": (say("fps", float("nan")), "fps is nan"),
    "fps of text": (say("fps", "10"), "fps"),
    "another fps": (say("fps", 30), "timestamps"),
    "giant shape": (feature("observation.state", shape=[2**62]), "shape"),
    "negative shape": (feature("observation.state", shape=[-3]), "shape"),
    "shape of text": (feature("observation.state", shape=["3"]), "shape"),
    "another shape": (feature("observation.state", shape=[2]), "is refused"),
    "narrow lists": (feature("observation.state", shape=[4]), "lists of other lengths"),
    "giant image": (feature(WRIST, shape=[30_000, 30_000, 3]), "at most"),
    "another image": (feature(WRIST, shape=[32, 64, 3]), "expected 64x32"),
    "another video": (feature(FRONT, shape=[32, 64, 3]), "its dataset says 64x32"),
    "no features": (say("features", {}), "lacks the features"),
    "text for numbers": (feature("note", dtype="float32"), "expected numbers"),
    "missing column": (
        info(lambda c: c["features"].__setitem__("more", {"dtype": "float32", "shape": [1]})),
        "twice or not at all",
    ),
    "giant episode": (column(EPISODES, "length", integers(lambda _: 2**40)), "lengths from 1"),
    "negative row": (column(EPISODES, "dataset_from_index", integers(lambda v: v - 7)), "lengths from 1"),
    "negative place": (column(EPISODES, "data/file_index", integers(lambda _: -1)), "data/file_index is -1"),
    "giant place": (column(EPISODES, "data/chunk_index", integers(lambda _: 2**60)), "data/chunk_index is"),
    "episode twice": (column(EPISODES, "episode_index", integers(lambda _: 0)), "twice"),
    "other episodes": (column(EPISODES, "episode_index", integers(lambda v: v + 1)), "other rows than"),
    "late video": (
        column(EPISODES, f"videos/{FRONT}/from_timestamp", lambda v: pa.array([x + 100.0 for x in v])),
        "has no frame at 100.000 s",
    ),
    "endless video": (
        column(EPISODES, f"videos/{FRONT}/from_timestamp", lambda v: pa.array([float("inf")] * len(v))),
        "from_timestamp is inf",
    ),
    "times of text": (
        column(EPISODES, f"videos/{FRONT}/from_timestamp", lambda v: pa.array(["0"] * len(v))),
        "expected double",
    ),
    "no length": (table(EPISODES, lambda t: t.drop_columns(["length"])), "is nothing, expected int64"),
    "empty places": (column(DATA, "action", lambda v: pa.array([None, *v[1:]])), "empty places"),
    "few rows": (table(DATA, lambda t: t.slice(0, 10)), "needs 12"),
    "shuffled rows": (table(DATA, lambda t: t.take(pa.array(range(20, -1, -1)))), "other rows than"),
    "bomb": (bomb, "claims to become"),
    "long lists": (long_lists, "is refused"),
    "image bomb": (images(png(30_000, 30_000)), "pixels"),
    "large image": (images(png(5_000, 5_000)), "image of 5000x5000, expected 64x64"),
    "empty image": (images(png(64, 64)), "is damaged"),
    "no image": (images(b"no image"), "no JPEG or PNG"),
    "image elsewhere": (images(None), "names files"),
    "large video": (video(1024, 2048), "is 2048x1024, its dataset says 64x64"),
    "large video in secret": (video(1024, 2048, said=(64, 64)), "video"),
    "large H.264 in secret": (video(1024, 2048, said=(64, 64), codec="libx264"), "video"),
    "short video": (video(64, 64, frames=3), "has no frame at 0.300 s"),
    "unknown codec": (
        lambda root: (root / VIDEO).write_bytes((root / VIDEO).read_bytes().replace(b"av01", b"av91")),
        "unknown codec",
    ),
    "playlist": (content(VIDEO, PLAYLIST), "cannot be read as a video"),
    "no video": (content(VIDEO, b""), "cannot be read as a video"),
    "linked file": (link(DATA, outside), "is a link"),
    "linked folder": (link("videos", outside), "is a link"),
    "linked info": (link("meta/info.json", outside), "is a link"),
    "pipe": (pipe(DATA), "no regular file"),
    "pipe for a video": (pipe(VIDEO), "no regular file"),
    "strange names": (
        info(lambda c: c["features"].__setitem__("../../outside/evil", {"dtype": "string", "shape": [1]})),
        "",
    ),
    "videos in H.264": (video(64, 64, codec="libx264"), ""),
}


def description(change: Callable[[dict[str, Any]], object]) -> Break:
    def breaks(root: Path) -> None:
        found = json.loads((root / SIDECAR / "episode.json").read_text())
        change(found)
        (root / SIDECAR / "episode.json").write_text(json.dumps(found))

    return breaks


OURS: dict[str, tuple[Break, str]] = {
    "stream outside": (
        column(f"{SIDECAR}/streams.parquet", "stream", lambda v: pa.array(["../../outside/evil"] * len(v))),
        "cannot name a camera or stream",
    ),
    "camera outside": (
        description(lambda d: d["cameras"][0].__setitem__("name", "../../outside/evil")),
        "has other cameras",
    ),
    "camera without matrix": (description(lambda d: d["cameras"][0].pop("K")), "lacks the field"),
    "newer": (description(lambda d: d.__setitem__("version", 2)), "of version 2"),
    "no decisions": (description(lambda d: d.pop("decisions")), "decisions are damaged"),
    "decisions of numbers": (description(lambda d: d.__setitem__("decisions", [1])), "decisions are damaged"),
    "other decisions": (
        description(lambda d: d["decisions"][0]["frames"].append(["wrist", 5])),
        "frame 5 of 'wrist', which a decision was made on, is not there",
    ),
    "sidecar cut": (cut(f"{SIDECAR}/depth.parquet"), "is damaged"),
    "sidecar linked": (link(SIDECAR, outside), "is a link"),
    "depth of another size": (
        column(f"{SIDECAR}/depth.parquet", "depth", lambda v: pa.array([png(3, 3)] * len(v))),
        "expected 96x64",
    ),
    "depth in another order": (column(f"{SIDECAR}/depth.parquet", "row", integers(lambda v: 9 - v)), "order of rows"),
    "depth of a row that is not there": (
        column(f"{SIDECAR}/depth.parquet", "row", integers(lambda v: v * 1000)),
        "order of rows",
    ),
    "values of other lengths": (
        column(f"{SIDECAR}/streams.parquet", "values", lambda v: pa.array([*v[:5], [1.0] * 9, *v[6:]])),
        "value of shape",
    ),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("broken", ["others", "ours"])
def test_lies_are_refused_by_name_in_little_memory(tmp_path: Path, broken: str) -> None:
    base, wanted = MADE_BY_LEROBOT, OTHERS
    if broken == "ours":
        store, base, wanted = EpisodeStore(tmp_path / "store"), tmp_path / "ours", OURS
        moving.write(store, frames=6)
        find_format("lerobot").export([store.open(store.ids()[0])], base, done=lambda _: None)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    cases: dict[str, Path] = {}
    for name, (breaks, _) in wanted.items():
        cases[name] = Path(shutil.copytree(base, tmp_path / name))
        breaks(cases[name])
    before = contents(tmp_path / "outside")
    found = import_limited("lerobot", cases, tmp_path / "stores")
    assert found.keys() == wanted.keys()
    for name, (_, message) in wanted.items():
        outcome = found[name]
        assert outcome.error == ("BadInput" if message else ""), f"{name}: {outcome}"
        assert message in outcome.message, f"{name}: {outcome}"
        assert outcome.whole == outcome.episodes, f"{name}: {outcome}"
        assert outcome.staging == 0, f"{name}: {outcome}"
        assert message or outcome.episodes == 3, f"{name}: {outcome}"
    assert contents(tmp_path / "outside") == before


def test_flipped_files_give_an_error_or_whole_episodes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cases: dict[str, Path] = {}
    for number in range(FLIPS):
        cases[f"flip {number}"] = Path(shutil.copytree(MADE_BY_LEROBOT, tmp_path / str(number)))
        path = cases[f"flip {number}"] / (DATA, VIDEO, EPISODES, "meta/tasks.parquet", "meta/info.json")[number % 5]
        data = bytearray(path.read_bytes())
        for place in rng.integers(0, len(data), 1 + number % 3):
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
    found = import_limited("lerobot", cases, tmp_path / "stores")
    assert found.keys() == cases.keys()
    for name, outcome in found.items():
        assert outcome.error in ("", "BadInput"), f"{name}: {outcome}"
        assert outcome.whole == outcome.episodes, f"{name}: {outcome}"
        assert outcome.error or outcome.episodes == 3, f"{name}: {outcome}"
        assert outcome.staging == 0


def test_a_page_that_claims_more_than_the_footer_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": np.arange(10_000)}), tmp_path / "a.parquet", use_dictionary=False)
    with open(tmp_path / "a.parquet", "rb") as file:
        (group,) = read_groups(file, "a")
        chunk = group.chunks["a"]
        assert (group.rows, chunk.values) == (10_000, 10_000)
        check_pages(file, chunk, "a")
        with pytest.raises(BadInput, match="footer says 9999"):
            check_pages(file, replace(chunk, values=9_999), "a")
        file.seek(chunk.begin)
        data = file.read(chunk.length)
    giant = _varint(2**31 - 1)
    (unpacked,) = (_varint(size) for size in range(80_000, 80_100) if _varint(size) in data[:12])
    at = data.index(unpacked)
    lying = data[:at] + giant + data[at + len(unpacked) :]
    with pytest.raises(BadInput, match="claims to become 2147483647"):
        check_pages(io.BytesIO(lying), Chunk(0, len(lying), 10_000), "a")
    for length in range(10):
        with pytest.raises(BadInput, match="damaged page"):
            check_pages(io.BytesIO(data[:length]), Chunk(0, len(data), 10_000), "a")


def test_the_footer_is_read_as_pyarrow_reads_it() -> None:
    for path in (MADE_BY_LEROBOT / DATA, MADE_BY_LEROBOT / EPISODES):
        wanted = pq.read_metadata(path)
        with open(path, "rb") as file:
            groups = read_groups(file, "it")
        assert [group.rows for group in groups] == [wanted.row_group(k).num_rows for k in range(wanted.num_row_groups)]
        for number, group in enumerate(groups):
            columns = [wanted.row_group(number).column(k) for k in range(wanted.num_columns)]
            assert list(group.chunks) == [column.path_in_schema for column in columns]
            for chunk, column in zip(group.chunks.values(), columns, strict=True):
                assert (chunk.length, chunk.values) == (column.total_compressed_size, column.num_values)


def _varint(value: int) -> bytes:
    """As Thrift writes a whole number."""
    value, data = value << 1, bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def test_templates_take_three_names_and_nothing_else() -> None:
    path = fill(
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index}.mp4",
        "x",
        chunk_index=1,
        file_index=2,
        video_key="k",
    )
    assert path == "videos/k/chunk-001/file-2.mp4"

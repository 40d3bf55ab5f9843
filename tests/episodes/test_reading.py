"""Many frames at once are the same frames, whatever the order, threads and process; damage is never returned."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_vision.episodes import EpisodeStore, EpisodeWriter, Frames
from embodied_vision.episodes import arrays as arrays_module
from embodied_vision.episodes.arrays import ArrayReader, ArraySpec, write_values
from embodied_vision.episodes.codecs import BloscChunks, JpegChunks, ZstdChunks, seal
from embodied_vision.errors import BadInput, EpisodeError
from episodes.samples import Child, make_camera, make_frame

COUNT = 70
"""More than a shard holds."""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    store = EpisodeStore(tmp_path_factory.mktemp("reading"))
    camera = make_camera()
    with EpisodeWriter(store, task="task", robot="robot", cameras=[camera]) as writer:
        for number in range(COUNT):
            writer.append_frame(make_frame(camera, number))
        return store.open(writer.close({})).frames("camera")


@given(st.lists(st.integers(-COUNT, COUNT - 1), max_size=30), st.sampled_from([None, 1, 2, 5]))
@settings(max_examples=40, deadline=None)
def test_many_frames_are_the_single_ones(frames: Frames, indices: list[int], threads: int | None) -> None:
    colors, depths = frames.colors(indices, threads), frames.depths_mm(indices, threads)
    assert colors.shape == (len(indices), 12, 16, 3)
    assert depths.dtype == np.uint16
    for place, index in enumerate(indices):
        np.testing.assert_array_equal(colors[place], frames.color(index))
        np.testing.assert_array_equal(depths[place], frames.depth_mm(index))


def test_neighbours_are_read_by_one_call(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    frames.colors([0, 64])  # so that the indices of both shards are known
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: reads.append(size) or pread(fd, size, offset))
    frames.colors(range(10, 40), 1)
    assert len(reads) == 1
    reads.clear()
    frames.colors([60, 61, 62, 63, 64, 65, 3], 1)
    assert len(reads) == 3
    reads.clear()
    monkeypatch.setattr(arrays_module, "_LONGEST_READ", 1)
    frames.colors(range(5), 1)
    assert len(reads) == 5


@pytest.mark.parametrize(
    ("indices", "error"), [([0, COUNT], IndexError), ([-COUNT - 1], IndexError), ([0.5], BadInput), ([[1]], BadInput)]
)
def test_frames_that_are_not_there_are_refused(frames: Frames, indices: list, error: type[Exception]) -> None:
    with pytest.raises(error):
        frames.colors(indices)


def test_at_least_one_thread_reads(frames: Frames) -> None:
    with pytest.raises(BadInput, match="0 threads"):
        frames.colors([0], 0)


def test_threads_work_in_forked_children(frames: Frames) -> None:
    wanted = frames.colors(range(COUNT), 3)  # threads of this process exist now

    def read() -> None:
        assert np.array_equal(frames.colors(range(COUNT), 3), wanted)

    with Child(read) as one, Child(read) as other:
        assert one.wait() == other.wait() == 0


def test_frames_go_to_other_processes_and_hold_no_file(frames: Frames) -> None:
    copy: Frames = pickle.loads(pickle.dumps(frames))  # noqa: S301 what multiprocessing does
    open_files = len(os.listdir("/proc/self/fd"))
    np.testing.assert_array_equal(copy.colors([3, 69], 2), frames.colors([3, 69], 1))
    assert len(os.listdir("/proc/self/fd")) == open_files


@pytest.mark.parametrize("threads", [1, 3])
def test_one_damaged_frame_spoils_the_batch(frames: Frames, tmp_path: Path, threads: int) -> None:
    folder = Path(str(frames._color.folder))
    copy = shutil.copytree(folder, tmp_path / "color")
    shard = copy / "c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    array = ArrayReader(copy)
    damaged = []
    for number in range(64):
        try:
            array.chunk(number)
        except EpisodeError:
            damaged.append(number)
    assert len(damaged) == 1
    reader = Frames.__new__(Frames)
    reader.camera, reader.stamps_ns, reader._color = frames.camera, frames.stamps_ns, array
    with pytest.raises(EpisodeError, match=f"chunk {damaged[0]} fails its crc32c"):
        reader.colors(range(COUNT), threads)
    whole = [number for number in range(COUNT) if number != damaged[0]]
    np.testing.assert_array_equal(reader.colors(whole, threads), frames.colors(whole))


@pytest.mark.parametrize("codec", [BloscChunks(2), ZstdChunks()])
@pytest.mark.parametrize("size", [1, 3])
def test_a_chunk_of_another_size_is_no_data(codec, size: int) -> None:
    data = codec.encode(np.ones(size, np.uint16))
    out = np.zeros(2, np.uint16)
    with pytest.raises(ValueError, match=r"expected|reshape|broadcast"):
        codec.decode(data, (2,), np.dtype(np.uint16), out)
    assert not out.any()


def test_an_image_of_another_size_is_no_data() -> None:
    data = JpegChunks().encode(np.full((1, 8, 8, 3), 200, np.uint8))
    out = np.zeros((1, 8, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="expected"):
        JpegChunks().decode(data, out.shape, out.dtype, out)
    assert not out.any()


def test_an_index_that_points_outside_of_its_file_is_refused(tmp_path: Path) -> None:
    spec = ArraySpec((), np.dtype("<i8"), 4, ZstdChunks())
    write_values(tmp_path / "array", spec, np.arange(8))
    shard = tmp_path / "array" / "c.0"
    data = shard.read_bytes()
    index = np.frombuffer(data[-arrays_module._INDEX_BYTES : -4], "<u8").reshape(-1, 2).copy()
    index[1, 1] = 2**62
    shard.write_bytes(data[: -arrays_module._INDEX_BYTES] + seal(index.tobytes()))
    with pytest.raises(EpisodeError, match="outside"):
        ArrayReader(tmp_path / "array").values()

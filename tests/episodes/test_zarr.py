"""The store speaks Zarr version 3: zarr-python reads what it writes and the other way round."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.arrays import ArrayReader
from embodied_vision.episodes.schema import ColorCodec
from embodied_vision.episodes.zarr_codecs import Htj2kCodec, JpegCodec
from embodied_vision.errors import EpisodeError

from .samples import fill, make_camera, make_frame


def test_zarr_python_reads_an_episode(tmp_path) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera]) as writer:
        fill(writer, camera, frames=66)
        writer.close({"reward": 1.0})
    episode = store.open(writer.id)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = episode.group()
        arrays = {name: node for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert group.attrs["outcome"] == {"reward": 1.0}
    frames = episode.frames("camera")
    np.testing.assert_array_equal(arrays["cameras/camera/color"][:], [frames.color(i) for i in range(66)])
    np.testing.assert_array_equal(arrays["cameras/camera/depth"][:], [frames.depth_mm(i) for i in range(66)])
    np.testing.assert_array_equal(arrays["cameras/camera/stamps"][:], frames.stamps_ns)
    np.testing.assert_array_equal(arrays["streams/joint_states/values"][:], episode.stream("joint_states")[1])
    np.testing.assert_array_equal(arrays["decisions/pick"][0], episode.decisions[0].action.pick)
    np.testing.assert_array_equal(arrays["decisions/cameras/camera/color"][0], make_frame(camera, 0).color)


@pytest.mark.parametrize("codec", [JpegCodec, Htj2kCodec])
def test_arrays_that_zarr_python_writes_are_read(tmp_path, codec: type[JpegCodec] | type[Htj2kCodec]) -> None:
    rng = np.random.default_rng(0)
    kinds = {
        "color": (rng.integers(0, 255, (66, 8, 9, 3), np.uint8), 1, codec(quality=100), []),
        "depth": (
            rng.integers(0, 9000, (66, 8, 9)).astype(np.uint16),
            1,
            BytesCodec(),
            [BloscCodec(typesize=2, cname="zstd", clevel=1, shuffle="bitshuffle")],
        ),
        "values": (rng.normal(size=(2000, 7)), 1024, BytesCodec(), [ZstdCodec(level=3)]),
    }
    for name, (values, chunk, serializer, compressors) in kinds.items():
        item = values.shape[1:]
        array = zarr.create_array(
            tmp_path / name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(chunk, *item),
            shards=(chunk * 64, *item),
            serializer=serializer,
            compressors=[*compressors, Crc32cCodec()],
        )
        array[:] = values
        np.testing.assert_array_equal(ArrayReader(tmp_path / name).values(), array[:], err_msg=name)
        if name != "color":
            np.testing.assert_array_equal(array[:], values)
    assert np.abs(zarr.open_array(tmp_path / "color")[:].astype(int) - kinds["color"][0]).mean() < 2


def test_chunk_that_was_never_written_is_an_error_not_zeros(tmp_path) -> None:
    array = zarr.create_array(
        tmp_path / "hole",
        shape=(3, 2),
        dtype="float64",
        chunks=(1, 2),
        shards=(64, 2),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
    )
    array[0], array[2] = 1.0, 1.0
    np.testing.assert_array_equal(array[1], [0, 0])
    reader = ArrayReader(tmp_path / "hole")
    np.testing.assert_array_equal(reader.chunk(2), [[1, 1]])
    with pytest.raises(EpisodeError, match="chunk 1 was never written"):
        reader.chunk(1)


@pytest.mark.parametrize("codec", ["jpeg", "htj2k"])
def test_zarr_python_finds_the_codec_by_its_entry_point(tmp_path, codec: ColorCodec) -> None:
    store, camera = EpisodeStore(tmp_path), make_camera()
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera], color_codec=codec) as writer:
        writer.append_frame(make_frame(camera, 0))
        writer.close({})
    episode = store.open(writer.id)
    path = str(episode.path / "data.zarr" / "cameras" / "camera" / "color")
    code = f"import zarr; print(zarr.open_array({path!r}, mode='r')[0].sum())"
    total = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=tmp_path)
    assert int(total) == episode.frames("camera").color(0).sum()

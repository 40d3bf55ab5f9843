"""An episode as a recording for rerun, read back by rerun's own reader."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rerun", reason="the extra `viz` is not installed")

from rerun.chunk import Chunk, RrdReader
from typer.testing import CliRunner

from embodied_vision.cli.tips import tip_path
from embodied_vision.control.robot import RobotModel
from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.rerun_log import save_recording
from embodied_vision.errors import BadInput, EpisodeError
from tests.episodes.samples import PERIOD_NS, START_NS, make_action, make_camera, make_frame

FRAMES = 6


def write(store: EpisodeStore, color: Any = "jpeg") -> Episode:
    """Frames, joint states of a robot that ships, a gripper and two decisions."""
    robot = RobotModel.load("panda_suction")
    names = list(robot.joint_names)
    camera = make_camera("front/left", 48, 64)
    attributes = {"joint_names": names[::-1]}
    with EpisodeWriter(
        store, task="t", robot="panda_suction", cameras=[camera], color_codec=color, attributes=attributes
    ) as writer:
        for number in range(FRAMES):
            writer.append_frame(make_frame(camera, number))
            q = robot.home + 0.1 * number
            writer.append("joint_state", START_NS + number * PERIOD_NS, np.concatenate([q[::-1], np.zeros(7)]))
        writer.append("gripper", START_NS + 5, [1.0])
        writer.append("wrench", START_NS + 5, np.arange(3.0))
        for number in range(2):
            writer.append_decision(make_action(number), [make_frame(camera, number)])
        return store.open(writer.close({"solved": True}))


def chunks(path: Path) -> list[Chunk]:
    return [chunk for chunk in RrdReader(path).stream() if not chunk.entity_path.startswith("/__properties")]


def rows(path: Path) -> Counter[str]:
    """How many moments each entity has."""
    counted: Counter[str] = Counter()
    for chunk in chunks(path):
        if not chunk.is_static:
            counted[chunk.entity_path] += chunk.num_rows
    return counted


def column(path: Path, entity: str, name: str) -> list[Any]:
    found = []
    for chunk in chunks(path):
        if chunk.entity_path == entity and not chunk.is_static:
            batch = chunk.to_record_batch()
            (wanted,) = [field.name for field in batch.schema if field.name.rpartition(":")[2] == name]
            values = batch.column(wanted)
            found += (values.cast("int64") if name == "stamp" else values).to_pylist()
    return found


def test_everything_is_there(tmp_path: Path) -> None:
    episode = write(EpisodeStore(tmp_path / "store"))
    path = tmp_path / "new" / "episode.rrd"
    save_recording(episode, path, tip=tip_path(episode))
    joints = RobotModel.load("panda_suction").joint_names
    expected = {"/world/cameras/front/left/color": FRAMES, "/world/cameras/front/left/depth": FRAMES}
    expected |= {f"/streams/joint_state/position_rad/{joint}": FRAMES for joint in joints}
    expected |= {f"/streams/joint_state/velocity_rad_s/{joint}": FRAMES for joint in joints}
    expected |= {"/streams/gripper": 1, **{f"/streams/wrench/{number}": 1 for number in range(3)}}
    expected |= {"/world/decisions": 2, "/world/decisions/way": 2, "/decisions/log": 2, "/world/tip": FRAMES}
    expected |= {"/decisions/scores/pick": 2, "/decisions/scores/place": 2}
    assert rows(path) == expected
    done = subprocess.run([sys.executable, "-m", "rerun", "rrd", "verify", str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in path.parent.iterdir()] == ["episode.rrd"]


def test_images_pass_as_they_are_and_stamps_are_kept(tmp_path: Path) -> None:
    episode = write(EpisodeStore(tmp_path / "store"))
    path = tmp_path / "episode.rrd"
    save_recording(episode, path)
    frames = episode.frames("front/left")
    blobs = column(path, "/world/cameras/front/left/color", "blob")
    assert [bytes(blob[0]) for blob in blobs] == [frames.encoded_color(index) for index in range(FRAMES)]
    depth = column(path, "/world/cameras/front/left/depth", "buffer")
    assert [bytes(buffer[0]) for buffer in depth] == [frames.depth_mm(index).tobytes() for index in range(FRAMES)]
    stamps = column(path, "/world/cameras/front/left/depth", "stamp")
    assert stamps == frames.stamps_ns.tolist()


def test_lossless_color_is_shown_as_well(tmp_path: Path) -> None:
    episode = write(EpisodeStore(tmp_path / "store"), "lossless")
    save_recording(episode, tmp_path / "episode.rrd")
    buffers = column(tmp_path / "episode.rrd", "/world/cameras/front/left/color", "buffer")
    frames = episode.frames("front/left")
    assert [bytes(buffer[0]) for buffer in buffers] == [frames.color(index).tobytes() for index in range(FRAMES)]


def test_the_tip_goes_where_the_joints_say(tmp_path: Path) -> None:
    episode = write(EpisodeStore(tmp_path / "store"))
    tip = tip_path(episode)
    assert tip is not None
    robot = RobotModel.load("panda_suction")
    expected = [robot.forward(robot.home + 0.1 * number)[:3, 3] for number in range(FRAMES)]
    np.testing.assert_allclose(tip[1], expected, atol=1e-12)


def test_a_part(tmp_path: Path) -> None:
    episode = write(EpisodeStore(tmp_path / "store"))
    path = tmp_path / "episode.rrd"
    save_recording(episode, path, start_s=1.5 * PERIOD_NS * 1e-9, end_s=4 * PERIOD_NS * 1e-9)
    counted = rows(path)
    assert counted["/world/cameras/front/left/color"] == 3
    assert "/world/decisions" not in counted


def test_damage_leaves_no_recording(tmp_path: Path) -> None:
    episode = write(EpisodeStore(tmp_path / "store"))
    shard = episode.path / "data.zarr/cameras/front.left/depth/c.0.0.0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    path = tmp_path / "new" / "episode.rrd"
    with pytest.raises(EpisodeError, match="crc32c"):
        save_recording(episode, path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["episode.mp4", "file/episode.rrd"])
def test_a_path_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=name):
        save_recording(write(EpisodeStore(tmp_path / "store")), tmp_path / name)


def test_without_rerun_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = write(EpisodeStore(tmp_path / "store"))
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "rerun":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r"embodied-vision\[viz\]"):
        save_recording(episode, tmp_path / "episode.rrd")


def test_on_the_command_line(tmp_path: Path) -> None:
    import typer

    from embodied_vision.cli.replay import command

    write(EpisodeStore(tmp_path / "store"))
    app = typer.Typer()
    app.command()(command)
    arguments = ["latest", "--store", str(tmp_path / "store"), "--save", str(tmp_path / "a.rrd")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert rows(tmp_path / "a.rrd")["/world/tip"] == FRAMES
    result = CliRunner().invoke(app, ["latest", "--store", str(tmp_path / "store"), "--viewer", "cinema"])
    assert isinstance(result.exception, BadInput)

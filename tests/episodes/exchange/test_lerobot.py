"""Episodes as LeRobotDatasets: what lerobot's reader sees, what comes back, and what lerobot's own datasets become."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied_vision.calibration import write_cameras
from embodied_vision.episodes import Episode, EpisodeStore, EpisodeWriter
from embodied_vision.episodes.exchange import find_format
from embodied_vision.episodes.exchange.lerobot import layout
from embodied_vision.episodes.exchange.rows import find_clock, rows_of
from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector
from embodied_vision.types import Camera
from episodes.exchange import moving
from episodes.exchange.moving import FRONT, RATE_HZ, START_NS, WRIST

MADE_BY_LEROBOT = Path(__file__).parent / "foreign" / "lerobot"
LENGTHS = (7, 5, 9)


def export(store: EpisodeStore, target: Path) -> list[str]:
    told: list[str] = []
    find_format("lerobot").export([store.open(number) for number in store.ids()], target, done=told.append)
    return told


def bring_in(source: Path, store: EpisodeStore, **more: Any) -> list[Episode]:
    wanted = {"task": None, "topics": None, **more}
    return [store.open(number) for number in find_format("lerobot").import_(source, store, **wanted)]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((one.astype(float) - other) ** 2))))


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "store")


@pytest.fixture
def exported(store: EpisodeStore, tmp_path: Path) -> Path:
    """Two episodes of different lengths."""
    ids = [moving.write(store), moving.write(store, frames=8, task="palletise")]
    assert export(store, tmp_path / "dataset") == ids
    return tmp_path / "dataset"


# ---- the clock


def test_frames_lie_on_even_times_and_a_lost_one_shows_its_neighbour(store: EpisodeStore) -> None:
    episode = store.open(moving.write(store))
    clock = find_clock([episode])
    rows = rows_of(episode, clock)
    assert (clock.camera, clock.rate_hz, clock.stepwise) == ("cell/front", RATE_HZ, False)
    assert len(rows) == 13  # twelve frames, one place of which is empty
    assert rows.frames["cell/front"].tolist() in ([0, 1, 2, 3, 4, k, *range(5, 12)] for k in (4, 5))
    np.testing.assert_array_equal(rows.stamps_ns, episode.frames("cell/front").stamps_ns[rows.frames["cell/front"]])
    wrist = episode.frames("wrist").stamps_ns[rows.frames["wrist"]]
    assert (wrist <= rows.stamps_ns).all(), "a row must not show what came later"


def test_state_is_what_was_measured_and_action_where_the_joints_were_told_to_be_next(store: EpisodeStore) -> None:
    episode = store.open(moving.write(store))
    rows = rows_of(episode, find_clock([episode]))
    stamps, values = episode.stream("joint_state")
    for row, stamp_ns in enumerate(rows.stamps_ns):
        newest = np.flatnonzero(stamps <= stamp_ns)[-1]
        np.testing.assert_array_equal(rows.state[row], values[newest, :3].astype(np.float32))
    assert rows.state_names == tuple(moving.NAMES)
    assert rows.action_names == (*moving.NAMES, "gripper")
    sent, until = moving.front_stamp(4), np.append(rows.stamps_ns[1:], rows.stamps_ns[-1] + 10**9 // RATE_HZ)
    for row, time_ns in enumerate(until):
        elapsed_s = min((int(time_ns) - sent) / 1e9, 0.4)
        wanted = np.array([1.0, 0, 2.0]) * elapsed_s if elapsed_s >= 0 else rows.state[row + 1]
        np.testing.assert_allclose(rows.action[row, :3], wanted, atol=1e-6)
        assert rows.action[row, 3] == np.float32(0.8 if time_ns >= moving.front_stamp(6) else 0)


def test_without_trajectories_the_action_is_the_next_state(store: EpisodeStore) -> None:
    with EpisodeWriter(store, task="t", robot="r", cameras=[FRONT]) as writer:
        for number in range(4):
            writer.append_frame(moving.frame(number, FRONT, number * 10**8))
            writer.append("joint_state", number * 10**8, [number, 0.0])
        episode = store.open(writer.close({"solved": False, "reward": 0.5}))
    rows = rows_of(episode, find_clock([episode]))
    assert rows.state.tolist() == [[0], [1], [2], [3]]
    assert rows.action.tolist() == [[1], [2], [3], [3]]
    assert rows.reward.tolist() == [0, 0, 0, 0.5]
    assert rows.done.tolist() == [False, False, False, True]
    assert not rows.success.any()


@pytest.mark.parametrize(
    ("robot", "logged", "named", "wanted"),
    [
        ("panda_suction", 21, [], 7),  # positions, velocities and efforts, as `collect` logs them
        ("panda_suction", 14, [], 7),
        ("another", 6, ["a", "b"], 2),
        ("another", 6, ["a", "b", "c"], 3),
        ("another", 6, ["a"], 3),
        ("../../etc/passwd.yaml", 5, [], 5),
    ],
)
def test_the_state_is_the_positions_alone(
    store: EpisodeStore, robot: str, logged: int, named: list[str], wanted: int
) -> None:
    attributes = {"joint_names": named} if named else {}
    with EpisodeWriter(store, task="t", robot=robot, cameras=[FRONT], attributes=attributes) as writer:
        writer.append_frame(moving.frame(0, FRONT, 0))
        writer.append("joint_state", 0, np.arange(logged))
        episode = store.open(writer.close({}))
    rows = rows_of(episode, find_clock([episode]))
    assert rows.state.tolist() == [list(range(wanted))]
    assert len(rows.state_names) == len(set(rows.state_names)) == wanted


def test_one_frame_a_decision_gives_one_row_a_frame(store: EpisodeStore) -> None:
    stamps = [0, 4 * 10**9, 5 * 10**9, 19 * 10**9]
    with EpisodeWriter(store, task="t", robot="r", cameras=[FRONT]) as writer:
        for number, stamp_ns in enumerate(stamps):
            writer.append_frame(moving.frame(number, FRONT, stamp_ns))
            writer.append("joint_state", stamp_ns, [number, 0.0])
        episode = store.open(writer.close({"solved": True}))
    clock = find_clock([episode])
    assert clock.stepwise
    assert rows_of(episode, clock).stamps_ns.tolist() == stamps


def test_what_cannot_be_trained_on_is_refused_by_name(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no episodes"):
        find_format("lerobot").export([], tmp_path / "a", done=print)
    with EpisodeWriter(store, task="t", robot="r", cameras=[FRONT]) as writer:
        writer.append_frame(moving.frame(0, FRONT, 0))
        without = store.open(writer.close({}))
    with pytest.raises(BadInput, match="none of them joint states"):
        find_format("lerobot").export([without], tmp_path / "a", done=print)
    with EpisodeWriter(store, task="t", robot="r", cameras=[FRONT]) as writer:
        writer.append_frame(moving.frame(0, FRONT, 0))
        writer.append("state", 0, [np.nan])
        unfit = store.open(writer.close({}))
    with pytest.raises(BadInput, match="not finite in row 0"):
        find_format("lerobot").export([unfit], tmp_path / "a", done=print)
    other = store.open(moving.write(store))
    with EpisodeWriter(store, task="t", robot="r", cameras=[FRONT, WRIST]) as writer:
        for camera in (FRONT, WRIST):
            writer.append_frame(moving.frame(0, camera, 0))
        writer.append("state", 0, [1.0])
        unlike = store.open(writer.close({}))
    with pytest.raises(BadInput, match="other columns"):
        find_format("lerobot").export([other, unlike], tmp_path / "a", done=print)
    assert [path.name for path in tmp_path.iterdir()] == ["store"], "nothing may be left of a failed export"


# ---- there and back


def test_our_own_export_comes_back_but_for_what_video_loses(
    store: EpisodeStore, exported: Path, tmp_path: Path
) -> None:
    back = bring_in(exported, EpisodeStore(tmp_path / "back"))
    for episode, origin in zip(back, (store.open(number) for number in store.ids()), strict=True):
        assert (episode.task, episode.robot, episode.policy_id) == (origin.task, origin.robot, origin.policy_id)
        assert episode.outcome == origin.outcome
        assert (episode.created_ns, episode.tags) == (origin.created_ns, origin.tags)
        imported = {"format": "lerobot", "source": "dataset", "id": origin.id}
        assert episode.attributes["imported"].items() >= imported.items()
        assert {k: v for k, v in episode.attributes.items() if k != "imported"} == origin.attributes
        assert episode.streams == origin.streams
        for name in origin.streams:
            for mine, theirs in zip(episode.stream(name), origin.stream(name), strict=True):
                np.testing.assert_array_equal(mine, theirs)
        assert list(episode.cameras) == list(origin.cameras)
        for name, camera in origin.cameras.items():
            assert episode.cameras[name].to_dict() == camera.to_dict()
            mine, theirs = episode.frames(name), origin.frames(name)
            np.testing.assert_array_equal(mine.stamps_ns, theirs.stamps_ns)
            for number in range(len(theirs)):
                np.testing.assert_array_equal(mine.depth_mm(number), theirs.depth_mm(number))
                assert psnr(mine.color(number), theirs.color(number)) > 33
        assert len(episode.decisions) == 3
        for one, other in zip(episode.decisions, origin.decisions, strict=True):
            assert len(one.frames) == len(other.frames)
            for mine, theirs in zip(one.frames, other.frames, strict=True):
                assert (mine.camera.name, mine.stamp_ns) == (theirs.camera.name, theirs.stamp_ns)
                np.testing.assert_array_equal(mine.color, theirs.color)
                np.testing.assert_array_equal(mine.depth, theirs.depth)


def test_without_the_sidecar_the_dataset_itself_comes_in(exported: Path, tmp_path: Path) -> None:
    shutil.rmtree(exported / "meta" / "embodied_vision")
    first, second = bring_in(exported, EpisodeStore(tmp_path / "back"))
    assert (first.task, second.task) == ("block-insertion", "palletise")
    assert (len(first.frames("cell_front")), len(second.frames("cell_front"))) == (13, 9)
    assert first.frames("cell_front").stamps_ns[0] == START_NS
    assert set(first.streams) >= {"observation/state", "action", "next/reward", "decision/pick"}
    assert first.outcome == {"reward": 0.75, "solved": True}


def test_a_sidecar_of_other_data_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = exported / "meta" / "embodied_vision"
    shutil.rmtree(folder / "episode-000000")
    (folder / "episode-000001").rename(folder / "episode-000000")
    store = EpisodeStore(tmp_path / "back")
    with pytest.raises(BadInput, match="belongs to 9 rows, the data have 13"):
        bring_in(exported, store)
    assert store.ids() == []


def test_full_files_are_followed_by_the_next(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATA_FILE_MB", "VIDEO_FILE_MB"):
        monkeypatch.setattr(layout, name, 0)
    monkeypatch.setattr(layout, "CHUNK_SIZE", 2)
    for frames in (6, 7, 8):
        moving.write(store, frames=frames)
    export(store, tmp_path / "many")
    for folder, ending in (("data", "parquet"), ("videos/observation.images.cell.front", "mp4")):
        files = sorted(
            path.relative_to(tmp_path / "many" / folder) for path in (tmp_path / "many").glob(f"{folder}/*/*")
        )
        assert [str(path) for path in files] == [
            f"chunk-{chunk:03d}/file-{file:03d}.{ending}" for chunk, file in ((0, 0), (0, 1), (1, 0))
        ]
    back = bring_in(tmp_path / "many", EpisodeStore(tmp_path / "back"))
    for episode, origin in zip(back, (store.open(number) for number in store.ids()), strict=True):
        mine, theirs = episode.frames("cell/front"), origin.frames("cell/front")
        np.testing.assert_array_equal(mine.stamps_ns, theirs.stamps_ns)
        assert psnr(mine.color(-1), theirs.color(-1)) > 33


def test_files_and_columns_are_those_that_lerobot_writes(exported: Path) -> None:
    def described(root: Path) -> dict[str, Any]:
        return dict(json.loads((root / "meta/info.json").read_text()))

    ours, theirs = described(exported), described(MADE_BY_LEROBOT)
    assert ours.keys() == theirs.keys()
    for key in ("codebase_version", "chunks_size", "data_path", "video_path", "data_files_size_in_mb"):
        assert ours[key] == theirs[key]
    video = "observation.images.front"
    mine = ours["features"]["observation.images.cell.front"]
    assert mine.keys() == theirs["features"][video].keys()
    assert mine["info"].keys() == theirs["features"][video]["info"].keys()
    assert mine["info"]["video.codec"] == theirs["features"][video]["info"]["video.codec"]
    for name in ("meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"):
        schema, wanted = pq.read_schema(exported / name), pq.read_schema(MADE_BY_LEROBOT / name)
        types = {field.name.replace("cell.front", "front"): field.type for field in schema}
        for field in wanted:
            if "note" in field.name:
                continue
            if field.name in ("observation.state", "action"):
                assert pa.types.is_fixed_size_list(types[field.name])
                assert types[field.name].value_type == field.type.value_type
            elif pa.types.is_large_string(field.type):
                assert pa.types.is_string(types[field.name])
            else:
                assert types[field.name] == field.type, field.name
    pandas = json.loads(pq.read_schema(exported / "meta/tasks.parquet").metadata[b"pandas"])
    assert pandas["index_columns"] == ["__index_level_0__"]
    table = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["tasks"] for row in table] == [["block-insertion"], ["palletise"]]
    assert [row["videos/observation.images.cell.front/from_timestamp"] for row in table] == [0.0, 13 / RATE_HZ]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in table] == [(0, 13), (13, 22)]


def test_statistics_are_those_of_the_data(exported: Path) -> None:
    stats = json.loads((exported / "meta/stats.json").read_text())
    table = pq.read_table(exported / "data/chunk-000/file-000.parquet")
    state = np.stack(table["observation.state"].to_pylist())
    found = stats["observation.state"]
    np.testing.assert_allclose(found["mean"], state.mean(0), atol=1e-6)
    np.testing.assert_allclose(found["std"], state.std(0), atol=1e-6)
    np.testing.assert_allclose(found["min"], state.min(0), atol=1e-6)
    assert found["count"] == [22]
    images = stats["observation.images.cell.front"]
    assert np.shape(images["mean"]) == (3, 1, 1)
    shown = np.stack([moving.color(k, FRONT) for k in [0, 1, 2, 3, 4, 4, *range(5, 12), 0, 1, 2, 3, 4, 4, 5, 6, 7]])
    np.testing.assert_allclose(np.ravel(images["mean"]), shown.mean((0, 1, 2)) / 255, atol=0.01)
    np.testing.assert_allclose(np.ravel(images["std"]), (shown / 255).std((0, 1, 2)), atol=0.01)


# ---- datasets that lerobot made


def foreign_image(number: int) -> np.ndarray:
    """As make_lerobot.py draws it."""
    y, x = np.mgrid[0:64, 0:64]
    return np.stack([x * 2 + number * 5, y * 2, np.full_like(x, 40 + 9 * number)], -1).clip(0, 255).astype(np.uint8)


def test_a_dataset_of_lerobot_comes_in_cut_by_its_episodes(tmp_path: Path) -> None:
    episodes = bring_in(MADE_BY_LEROBOT, EpisodeStore(tmp_path / "store"), task="ignored")
    assert [episode.task for episode in episodes] == ["put the block away", "open the drawer", "put the block away"]
    begin = 0
    for number, (episode, length) in enumerate(zip(episodes, LENGTHS, strict=True)):
        assert episode.robot == "so100"
        assert episode.outcome == {"reward": 1.0}
        stamps, state = episode.stream("observation/state")
        assert stamps.tolist() == [row * 10**8 for row in range(length)]
        assert state.tolist() == [[number, row, begin + row] for row in range(length)]
        assert episode.stream("action")[1].tolist() == [[row, -row] for row in range(length)]
        assert episode.stream("next/done")[1][:, 0].tolist() == [0.0] * (length - 1) + [1.0]
        for name in ("front", "wrist"):
            frames = episode.frames(name)
            np.testing.assert_array_equal(frames.stamps_ns, stamps)
            assert len(frames) == length
            for row in range(length):
                wanted = foreign_image(begin + row)
                assert psnr(frames.color(row), wanted if name == "front" else wanted[::-1]) > 30
                assert not frames.depth_mm(row).any()
        told = episode.attributes["imported"]
        assert (told["depth"], told["calibration"], told["left_out"]) == ("none", "nominal", ["note"])
        begin += length


def test_a_calibration_file_takes_the_place_of_nominal_cameras(tmp_path: Path) -> None:
    K = np.array([[70.0, 0, 31], [0, 71.0, 33], [0, 0, 1]])
    write_cameras((Camera("front", 64, 64, K, np.eye(4)),), tmp_path / "cameras.yaml")
    first = bring_in(MADE_BY_LEROBOT, EpisodeStore(tmp_path / "store"), topics=tmp_path / "cameras.yaml")[0]
    np.testing.assert_array_equal(first.cameras["front"].K, K)
    assert first.cameras["wrist"].K[0, 0] == 64
    write_cameras((Camera("front", 128, 64, K, np.eye(4)),), tmp_path / "other.yaml")
    with pytest.raises(BadInput, match="128x64, its images are 64x64"):
        bring_in(MADE_BY_LEROBOT, EpisodeStore(tmp_path / "store"), topics=tmp_path / "other.yaml")


def test_what_came_from_lerobot_goes_back_as_it_was(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    bring_in(MADE_BY_LEROBOT, store)
    export(store, tmp_path / "again")
    ours, theirs = (
        pq.read_table(root / "data/chunk-000/file-000.parquet") for root in (tmp_path / "again", MADE_BY_LEROBOT)
    )
    for name in ("observation.state", "action", "next.reward", "timestamp", "frame_index", "episode_index", "index"):
        assert ours[name].to_pylist() == theirs[name].to_pylist(), name
    assert (
        pq.read_table(tmp_path / "again/meta/tasks.parquet").to_pylist()
        == pq.read_table(MADE_BY_LEROBOT / "meta/tasks.parquet").to_pylist()
    )


# ---- lerobot's own reader


@pytest.mark.skipif(
    "EMBODIED_VISION_LEROBOT_PYTHON" not in os.environ,
    reason="EMBODIED_VISION_LEROBOT_PYTHON names no interpreter with lerobot 0.4.4 (make lerobot-env)",
)
def test_lerobots_own_reader_opens_the_export(store: EpisodeStore, exported: Path, tmp_path: Path) -> None:
    command = [os.environ["EMBODIED_VISION_LEROBOT_PYTHON"], str(Path(__file__).with_name("lerobot_reader.py"))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    run = subprocess.run(
        [*command, str(exported), str(tmp_path / "seen.npz")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    seen = np.load(tmp_path / "seen.npz")
    assert json.loads(str(seen["told"])) == {
        "fps": RATE_HZ,
        "episodes": 2,
        "frames": 22,
        "robot": "panda_suction",
        "cameras": ["observation.images.cell.front", "observation.images.wrist"],
        "videos": ["observation.images.cell.front"],
        "names": moving.NAMES,
        "ends": [13, 22],
    }
    begin = 0
    for number, episode in enumerate(store.open(episode_id) for episode_id in store.ids()):
        rows = rows_of(episode, find_clock([episode]))
        part = slice(begin, begin + len(rows))
        np.testing.assert_array_equal(seen["item/observation.state"][part], rows.state)
        np.testing.assert_array_equal(seen["item/action"][part], rows.action)
        np.testing.assert_array_equal(seen["item/stamp_ns"][part], rows.stamps_ns)
        np.testing.assert_allclose(seen["item/timestamp"][part], np.arange(len(rows)) / RATE_HZ, atol=1e-6)
        assert seen["item/next.done"][part].tolist() == rows.done.tolist()
        assert seen["item/next.success"][part].tolist() == rows.success.tolist()
        assert seen["item/next.reward"][part].tolist() == rows.reward.tolist()
        assert set(seen["item/episode_index"][part].tolist()) == {number}
        assert set(seen["tasks"][part].tolist()) == {episode.task}
        np.testing.assert_allclose(
            seen["item/decision.pick"][part][-1], pose_to_vector(moving.decision().pick), atol=1e-6
        )
        for name, lossless in (("cell/front", False), ("wrist", True)):
            images = seen["item/observation.images." + name.replace("/", ".")][part]
            for row, frame in enumerate(rows.frames[name]):
                wanted = episode.frames(name).color(int(frame))
                shown = np.moveaxis(images[row], 0, -1) * 255
                assert psnr(shown, wanted) > (100 if lossless else 33)
        begin += len(rows)
    state, front = seen["item/observation.state"], seen["item/observation.images.cell.front"]
    window = seen["window/1/observation.state"]
    np.testing.assert_array_equal(window, state[0:3])
    np.testing.assert_array_equal(seen["window/1/observation.images.cell.front"], front[0:3])
    assert seen["window/0/action_is_pad"].tolist() == [True, False, False]
    assert seen["window/21/action_is_pad"].tolist() == [False, False, True]
    np.testing.assert_array_equal(seen["window/21/observation.state"], state[[20, 21, 21]])
    np.testing.assert_allclose(seen["stats/observation.state/mean"], state.mean(0), atol=1e-6)
    np.testing.assert_allclose(
        seen["stats/observation.images.cell.front/mean"].ravel(), front.mean((0, 2, 3)), atol=0.01
    )

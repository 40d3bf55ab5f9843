"""`embodied-vision episodes`."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from embodied_vision.cli.episodes import app
from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.edit import tag
from embodied_vision.episodes.plots import plots
from embodied_vision.errors import BadInput
from embodied_vision.geometry import look_at, project, tool_down
from embodied_vision.types import RGBD, Camera, PickPlace
from tests.command_line import call

PICK, PLACE = tool_down(0.45, -0.1, 0.02), tool_down(0.55, 0.15, 0.02)
run = partial(call, app)


@pytest.fixture
def camera() -> Camera:
    K = np.array([[340.0, 0, 211.5], [0, 340.0, 119.5], [0, 0, 1]])
    return Camera("camera", 424, 240, K, look_at((1.0, 0.0, 0.85), (0.5, 0.0, 0.0)))


@pytest.fixture
def store(tmp_path, camera: Camera, monkeypatch: pytest.MonkeyPatch) -> EpisodeStore:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # do not wait for the disk
    store = EpisodeStore(tmp_path / "store")
    black = np.zeros((240, 424, 3), np.uint8), np.ones((240, 424), np.float32)
    for solved in (False, True):
        with EpisodeWriter(store, task="block-insertion", robot="panda_suction", cameras=[camera]) as writer:
            for number in range(10):
                writer.append_frame(RGBD(*black, camera, number * 100_000_000))
                writer.append("joint_states", number * 100_000_000, np.zeros(7))
            action = PickPlace(PICK, PLACE, scores={"pick": float("nan")})
            writer.append_decision(action, [RGBD(*black, camera, 0)])
            writer.close({"reward": float(solved), "solved": solved})
    return store


def test_list_shows_every_episode(store: EpisodeStore) -> None:
    result = run("list", store.path)
    assert result.exit_code == 0
    assert all(episode_id in result.stdout for episode_id in store.ids())
    listed = json.loads(run("list", store.path, "--json").stdout)
    assert [entry["id"] for entry in listed["episodes"]] == store.ids()
    assert sorted(entry["outcome"]["solved"] for entry in listed["episodes"]) == [False, True]
    assert listed["episodes"][0]["frames"] == {"camera": 10}
    assert json.loads(run("list", store.path, "--json", "--task", "other").stdout)["episodes"] == []


def test_list_shows_damaged_and_unfinished_episodes(store: EpisodeStore, camera: Camera) -> None:
    damaged = store.ids()[0]
    (store.episodes_path / damaged / "data.zarr" / "zarr.json").write_text("{}")
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera]) as writer:
        listed = json.loads(run("list", store.path, "--json").stdout)
        assert listed["staging"] == [writer.id]
    assert [entry["id"] for entry in listed["episodes"] if "error" in entry] == [damaged]
    assert "damaged" in run("list", store.path).stdout


def test_show_tells_streams_with_their_rates(store: EpisodeStore) -> None:
    result = run("show", store.path, "latest", "--json")
    shown = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert shown["id"] == store.ids()[-1]
    assert shown["streams"]["joint_states"] == {"length": 10, "shape": [7], "duration_s": 0.9, "rate_hz": 10.0}
    assert shown["streams"]["camera (camera)"]["rate_hz"] == 10.0
    assert shown["decisions"][0]["pick"] == PICK[:3, 3].tolist()
    plain = run("show", store.path, store.ids()[0])
    assert plain.exit_code == 0
    assert "joint_states" in plain.stdout


def test_picture_marks_pick_and_place_where_the_camera_sees_them(store: EpisodeStore, camera: Camera, tmp_path) -> None:
    picture = tmp_path / "sheet.png"
    assert run("show", store.path, "latest", "--picture", picture).exit_code == 0
    sheet = np.asarray(Image.open(picture)).astype(int)
    tile = sheet[28 : 28 + 181, :320]  # the first tile, below title and caption
    pixels, _ = project(np.stack([PICK[:3, 3], PLACE[:3, 3]]), camera.K, camera.T_base_camera)
    pick, place = pixels * 320 / 424
    green = (tile[..., 1] > tile[..., 0] + 60) & (tile[..., 1] > tile[..., 2] + 60)
    pink = (tile[..., 0] > tile[..., 1] + 60) & (tile[..., 2] > tile[..., 1] + 40)
    for mask, (u, v) in ((green, pick), (pink, place)):
        rows, columns = np.nonzero(mask)
        assert len(rows) > 10
        assert np.hypot(columns.mean() - u, rows.mean() - v) < 8
        assert np.hypot(columns - u, rows - v).max() < 25


def test_verify_prints_the_agreed_json_and_fails_on_damage(store: EpisodeStore) -> None:
    clean = run("verify", store.path, "--json")
    assert clean.exit_code == 0
    assert json.loads(clean.stdout) == {"episodes": 2, "ok": 2, "damaged": []}
    first, second = store.ids()
    (shard,) = (store.episodes_path / first).glob("data.zarr/cameras/camera/color/c.0.0.0.0")
    shard.unlink()
    result = run("verify", store.path, "--json")
    assert result.exit_code == 1
    file = str(shard.relative_to(store.episodes_path / first))
    assert json.loads(result.stdout) == {
        "episodes": 2,
        "ok": 1,
        "damaged": [{"id": first, "file": file, "problem": "missing"}],
    }
    assert run("verify", store.path, second).exit_code == 0
    assert "missing" in run("verify", store.path).stdout


def test_repair_brings_an_unfinished_episode_back(store: EpisodeStore, camera: Camera) -> None:
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera]) as writer:
        writer.append("joint_states", 0, [1.0])
    result = run("repair", store.path, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["repaired"][0]["state"] == "recovered"
    assert writer.id in store.ids()
    assert "nothing to repair" in run("repair", store.path).stdout


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "latest"), ("verify",), ("repair",), ("stats",), ("catalogue",)]
)
def test_store_that_is_not_there_is_bad_input(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    verb, *rest = arguments
    error = run(verb, tmp_path / "nowhere", *rest).exception
    assert isinstance(error, BadInput)
    assert error.exit_code == 2
    assert "nowhere" in str(error)


def test_unknown_or_ambiguous_id_is_bad_input(store: EpisodeStore) -> None:
    assert isinstance(run("show", store.path, "zzz").exception, BadInput)
    assert isinstance(run("verify", store.path, "zzz").exception, BadInput)
    assert "begins 2" in str(run("show", store.path, store.ids()[0][:4]).exception)


@pytest.fixture
def telling(tmp_path, camera: Camera, monkeypatch: pytest.MonkeyPatch) -> EpisodeStore:
    """One episode of two cameras, whose frames tell their number by their brightness, and moving joints."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    store = EpisodeStore(tmp_path / "telling")
    K = np.array([[100.0, 0, 47.5], [0, 100.0, 63.5], [0, 0, 1]])
    high = Camera("wrist/left", 96, 128, K, camera.T_base_camera)
    with EpisodeWriter(store, task="t", robot="r", cameras=[camera, high], color_codec="lossless") as writer:
        for number in range(6):
            for seen in (camera, high):
                color = np.full((seen.height, seen.width, 3), 40 * number, np.uint8)
                depth = np.ones(color.shape[:2], np.float32)
                writer.append_frame(RGBD(color, depth, seen, number * 100_000_000 + (seen is high) * 50_000_000))
            writer.append("joint_state", number * 100_000_000, np.full(14, number, float))
            writer.append("gripper", number * 100_000_000, [float("nan") if number == 3 else number % 2])
        writer.append("joint_trajectory/3", 0, np.zeros(66))
        writer.append_decision(PickPlace(PICK, PLACE, stamp_ns=200_000_000), [])
        writer.close({"reward": 1.0, "solved": True})
    return store


def test_video_shows_every_frame_of_all_cameras_at_its_stamp(telling: EpisodeStore, tmp_path: Path) -> None:
    path = tmp_path / "episode.mp4"
    result = run("show", telling.path, "--video", path)
    assert result.exit_code == 0, result.output
    with av.open(str(path)) as container:
        shown = [(frame.time, frame.to_ndarray(format="rgb24").astype(int)) for frame in container.decode(video=0)]
    assert [round(time, 3) for time, _ in shown] == [round(0.05 * number, 3) for number in range(12)]
    for number, (_, picture) in enumerate(shown):
        height, width = picture.shape[:2]
        left = round(height * 424 / 240 / 2) * 2  # the first camera's share of the width
        first, second = picture[height // 2, left // 2], picture[height // 2, (left + width) // 2]
        assert abs(first - 40 * (number // 2)).max() < 12
        assert abs(second - (40 * ((number - 1) // 2) if number else 0)).max() < 12
    assert (shown[9][1][:20, :60] > 200).any()  # the stamp
    assert not (shown[1][1][-20:, :60] > 200).any()
    assert (shown[5][1][-20:, :60] > 200).any()  # the decision at 0.2 s


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_plots_are_written_in_the_format_of_their_name(telling: EpisodeStore, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plots.{suffix}"
    assert run("show", telling.path, "--plots", path).exit_code == 0
    head = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(head)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, "telling"]


def test_plots_draw_what_was_logged_and_decided(telling: EpisodeStore) -> None:
    figure = plots(telling.open(telling.ids()[0]))
    axes = {axis.get_title().split(":")[0]: axis for axis in figure.axes}
    assert [*axes] == ["joint_state, positions", "joint_state, velocities", "gripper", "decisions"]
    lines = {line.get_label(): line for line in axes["joint_state, positions"].lines}
    np.testing.assert_allclose(lines["joint 7"].get_xdata(), np.arange(6) / 10)
    np.testing.assert_allclose(lines["joint 7"].get_ydata(), np.arange(6))
    for axis in figure.axes:
        commands, decided = axis.collections
        assert [segment[0][0] for segment in commands.get_segments()] == [0.0]
        assert [segment[0][0] for segment in decided.get_segments()] == [0.2]
    decisions = {line.get_label(): line for line in axes["decisions"].lines}
    assert decisions["place y"].get_ydata() == [PLACE[1, 3]]


def test_an_empty_episode_has_plots_but_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    store = EpisodeStore(tmp_path / "store")
    with EpisodeWriter(store, task="t", robot="r", cameras=[]) as writer:
        writer.close({})
    assert run("show", store.path, "--plots", tmp_path / "plots.png").exit_code == 0
    result = run("show", store.path, "--video", tmp_path / "video.mp4")
    assert isinstance(result.exception, BadInput)
    assert "no frames" in str(result.exception)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["plots.png", "store"]


@pytest.mark.parametrize("option", ["--plots", "--video", "--picture"])
@pytest.mark.parametrize("name", ["nowhere/file.png", "no_suffix", "file.nonsense"])
def test_pictures_that_cannot_be_written_are_bad_input(store: EpisodeStore, tmp_path, option: str, name: str) -> None:
    if option == "--video" and name == "file.nonsense":
        name = "nowhere/file.mp4"
    result = run("show", store.path, option, tmp_path / name)
    assert isinstance(result.exception, BadInput), result.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_stats_tell_success_with_its_interval_and_leave_damaged_episodes_out(store: EpisodeStore) -> None:
    report = json.loads(run("stats", store.path, "--json").stdout)
    assert report["episodes"] == 2
    assert report["success"][0]["rate"] == 0.5
    assert 0 < report["success"][0]["ci_low"] < 0.5 < report["success"][0]["ci_high"] < 1
    assert report["cameras"]["camera"] == {
        "frames": 20,
        "rate_hz": pytest.approx(10.0),
        "bytes": report["cameras"]["camera"]["bytes"],
        "bytes_per_frame": report["cameras"]["camera"]["bytes"] / 20,
    }
    assert report["streams"][0]["max"] == [0.0] * 7
    assert json.loads(run("stats", store.path, "--json", "--failed").stdout)["episodes"] == 1
    assert "joint_states[6]" in run("stats", store.path).stdout
    (shard,) = (store.episodes_path / store.ids()[0]).glob("data.zarr/streams/joint_states/values/c.0.0")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    report = json.loads(run("stats", store.path, "--json").stdout)
    assert report["episodes"] == 1
    assert [entry["id"] for entry in report["damaged"]] == [store.ids()[0]]


def test_list_filters_sorts_and_limits(store: EpisodeStore) -> None:
    failed, solved = store.ids()

    def ids(*options: str) -> list[str]:
        return [entry["id"] for entry in json.loads(run("list", store.path, "--json", *options).stdout)["episodes"]]

    assert ids("--solved") == [solved]
    assert ids("--failed") == [failed]
    assert ids("--robot", "panda_suction", "--policy", "", "--encoder", "") == [failed, solved]
    assert ids("--robot", "other") == ids("--policy", "other") == ids("--encoder", "other") == []
    assert ids("--since", "2000-01-01", "--until", "2000-01-02") == []
    assert ids("--since", "2000-01-01") == [failed, solved]
    assert ids("--sort", "reward", "--reverse") == [solved, failed]
    assert ids("--reverse", "--limit", "1") == [solved]
    assert ids("--tag", "good") == []
    tag(store, solved, add=["good"])
    assert ids("--tag", "good") == [solved]
    assert "good" in CliRunner(env={"COLUMNS": "200"}).invoke(app, ["list", str(store.path)]).stdout
    assert isinstance(run("list", store.path, "--sort", "beauty").exception, BadInput)


def test_catalogue_tells_what_it_read(store: EpisodeStore) -> None:
    first = json.loads(run("catalogue", store.path, "--json").stdout)
    assert (first["episodes"], first["read"], first["damaged"]) == (2, 2, [])
    assert Path(first["catalogue"]).stat().st_size == first["bytes"]
    assert json.loads(run("catalogue", store.path, "--json").stdout)["read"] == 0
    assert json.loads(run("catalogue", store.path, "--rebuild", "--json").stdout)["read"] == 2
    (store.episodes_path / store.ids()[0] / "manifest.json").write_text("")
    assert "damaged" in run("catalogue", store.path, "--rebuild").stdout


def test_list_in_object_storage_is_that_of_the_folder(store: EpisodeStore) -> None:
    def listed(where: object, *options: str) -> list[dict[str, object]]:
        return json.loads(run("list", where, "--json", *options).stdout)["episodes"]

    url = f"file://{store.path}"
    (store.episodes_path / store.ids()[0] / "manifest.json").write_text("")
    for options in (("--solved",), ("--sort", "reward"), ("--reverse",), ("--limit", "1"), ("--task", "other")):
        there = [{**entry, "error": ""} if "error" in entry else entry for entry in listed(url, *options)]
        here = [{**entry, "error": ""} if "error" in entry else entry for entry in listed(store.path, *options)]
        assert there == here
        assert here

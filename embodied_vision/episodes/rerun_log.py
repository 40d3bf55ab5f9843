"""An episode as a recording for the rerun viewer: shown at once, or written to an .rrd file.

    world/cameras/NAME          pose and pinhole; below it `color` and `depth`
    world/decisions             the newest decision: points of pick and place, an arrow between them
    world/tip                   path of the tool's tip, where the arm's kinematics are known
    streams/NAME/...            one plot a joint, the gripper, the reward, and whatever else was logged
    decisions/scores/NAME       scores of the decisions
    decisions/log               what was decided, as text

The timeline `stamp` holds the stamps of the episode.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.codecs import JpegChunks
from embodied_vision.episodes.picture import first_stamp_ns
from embodied_vision.episodes.reader import Episode, Frames
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.types import Camera, FloatArray, PickPlace

if TYPE_CHECKING:
    import rerun as rr

TIMELINE = "stamp"
Tip = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Stamps (T,) in ns and positions (T, 3) of the tool's tip in the base frame, m."""

_PICK, _PLACE, _TIP = (40, 220, 80), (255, 60, 160), (255, 190, 40)
_MM = 1000.0
_PARTS = {"position": "rad", "velocity": "rad_s", "effort": "Nm"}


def save_recording(
    episode: Episode, path: Path, *, tip: Tip | None = None, start_s: float = 0.0, end_s: float | None = None
) -> None:
    """Write an .rrd file; it appears whole or not at all.

    Args:
        episode: which.
        path: of the file, which ends in .rrd; replaced where it is there.
        tip: path of the tool's tip.
        start_s, end_s: the part to show, since the first message.

    Raises:
        BadInput: rerun is not installed, or the file cannot be written.
        EpisodeError: the episode's data are damaged.
    """
    if path.suffix != ".rrd":
        raise BadInput(f"{path} does not end in .rrd, by which rerun knows its recordings; add that")
    recording = _recording(episode)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recording.save(unfinished, _blueprint(episode))
        _log_episode(recording, episode, tip, start_s, end_s)
        recording.disconnect()
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{path} cannot be written ({error}); give a path with room and permission") from error
    finally:
        recording.disconnect()
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def show_recording(
    episode: Episode, *, tip: Tip | None = None, start_s: float = 0.0, end_s: float | None = None
) -> None:
    """Open the viewer, which stays when this returns, and send it the episode. Arguments as of `save_recording`.

    Raises:
        BadInput: rerun is not installed.
        RunFailed: the viewer cannot be started.
        EpisodeError: the episode's data are damaged.
    """
    recording = _recording(episode)
    path = os.environ.get("PATH", "")
    try:
        try:  # the viewer lies beside the interpreter, also where its environment is not activated
            os.environ["PATH"] = f"{path}{os.pathsep}{Path(sys.executable).parent}"
            recording.spawn(default_blueprint=_blueprint(episode))
        finally:
            os.environ["PATH"] = path
        _log_episode(recording, episode, tip, start_s, end_s)
        recording.flush()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise RunFailed(
            f"the rerun viewer cannot be started or does not answer ({reason}); it needs a display: save a recording "
            "and open it elsewhere"
        ) from error


def _recording(episode: Episode) -> rr.RecordingStream:
    try:
        import rerun as rr
    except ImportError as error:
        raise BadInput("the viewer needs the package rerun-sdk: pip install 'embodied-vision[viz]'") from error
    return rr.RecordingStream("embodied_vision", recording_id=episode.id)


def _log_episode(
    recording: rr.RecordingStream, episode: Episode, tip: Tip | None, start_s: float, end_s: float | None
) -> None:
    import rerun as rr

    first_ns = first_stamp_ns(episode)
    part = _Part(first_ns + round(start_s * 1e9), None if end_s is None else first_ns + round(end_s * 1e9))
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    recording.send_property(
        "episode", rr.AnyValues(task=episode.task, robot=episode.robot, outcome=str(dict(episode.outcome)))
    )
    for name, camera in episode.cameras.items():
        _log_camera(recording, name, camera, episode.frames(name), part)
    for name in episode.streams:
        stamps, values = episode.stream(name)
        kept = part.of(stamps)
        for suffix, column in _columns(name, values, list(episode.attributes.get("joint_names", []))).items():
            times = rr.TimeColumn(TIMELINE, timestamp=stamps[kept].astype("datetime64[ns]"))
            recording.send_columns(f"streams/{name}{suffix}", [times], rr.Scalars.columns(scalars=column[kept]))
    if tip is not None:
        _log_tip(recording, tip, part)
    for index in range(len(episode.decisions)):
        action = episode.decisions.action(index)
        if part.holds(action.stamp_ns):
            _log_decision(recording, index, action)


class _Part:
    """The part of an episode to show."""

    def __init__(self, first_ns: int, last_ns: int | None) -> None:
        self._first_ns, self._last_ns = first_ns, np.iinfo(np.int64).max if last_ns is None else last_ns

    def holds(self, stamp_ns: int) -> bool:
        return self._first_ns <= stamp_ns <= self._last_ns

    def of(self, stamps_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (self._first_ns <= stamps_ns) & (stamps_ns <= self._last_ns)


def _log_camera(recording: rr.RecordingStream, name: str, camera: Camera, frames: Frames, part: _Part) -> None:
    import rerun as rr

    where, T = f"world/cameras/{name}", camera.T_base_camera
    recording.log(where, rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]), static=True)
    size = [camera.width, camera.height]
    recording.log(where, rr.Pinhole(image_from_camera=camera.K, resolution=size, image_plane_distance=0.1), static=True)
    for index in np.flatnonzero(part.of(frames.stamps_ns)).tolist():
        recording.set_time(TIMELINE, timestamp=np.datetime64(int(frames.stamps_ns[index]), "ns"))
        if isinstance(frames.color_codec, JpegChunks):
            image: Any = rr.EncodedImage(contents=frames.encoded_color(index), media_type="image/jpeg")
        else:
            image = rr.Image(frames.color(index))
        recording.log(f"{where}/color", image)
        recording.log(f"{where}/depth", rr.DepthImage(frames.depth_mm(index), meter=_MM))
    recording.reset_time()


def _columns(stream: str, values: NDArray[np.float64], joints: list[str]) -> dict[str, NDArray[np.float64]]:
    """Plots of a stream by the end of their path; joints by their names where the episode names them."""
    width = values.shape[1]
    if stream == "joint_state" and joints and width % len(joints) == 0 and width // len(joints) <= len(_PARTS):
        parts = zip(_PARTS.items(), np.split(values, width // len(joints), axis=1), strict=False)
        return {
            f"/{what}_{unit}/{joint}": part[:, number]
            for (what, unit), part in parts
            for number, joint in enumerate(joints)
        }
    return {"": values[:, 0]} if width == 1 else {f"/{number}": values[:, number] for number in range(width)}


def _log_tip(recording: rr.RecordingStream, tip: Tip, part: _Part) -> None:
    import rerun as rr

    kept = part.of(tip[0])
    stamps, points = tip[0][kept], tip[1][kept]
    if len(stamps):
        recording.log("world/tip/path", rr.LineStrips3D([points], colors=[_TIP], radii=0.001), static=True)
        times = rr.TimeColumn(TIMELINE, timestamp=stamps.astype("datetime64[ns]"))
        recording.send_columns("world/tip", [times], rr.Points3D.columns(positions=points))
        recording.log("world/tip", rr.Points3D.from_fields(colors=[_TIP], radii=[0.008]), static=True)


def _log_decision(recording: rr.RecordingStream, index: int, action: PickPlace) -> None:
    import rerun as rr

    pick, place = action.pick[:3, 3], action.place[:3, 3]
    recording.set_time(TIMELINE, timestamp=np.datetime64(action.stamp_ns, "ns"))
    scores = ", ".join(f"{name} {score:.3f}" for name, score in action.scores.items())
    labels = [f"pick {index + 1}", f"place {index + 1}: {scores}"]
    points = rr.Points3D([pick, place], colors=[_PICK, _PLACE], labels=labels, radii=0.01)
    recording.log("world/decisions", points)
    recording.log("world/decisions/way", rr.Arrows3D(origins=[pick], vectors=[place - pick], colors=[_PLACE]))
    recording.log(
        "decisions/log",
        rr.TextLog(f"decision {index + 1} {action.primitive}: pick {_m(pick)}, place {_m(place)}, {scores}"),
    )
    for name, score in action.scores.items():
        recording.log(f"decisions/scores/{name}", rr.Scalars(score))
    recording.reset_time()


def _m(point: FloatArray) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in point) + ") m"


def _blueprint(episode: Episode) -> Any:
    import rerun.blueprint as rrb

    images = [
        rrb.Spatial2DView(origin=f"world/cameras/{name}/{what}", name=f"{name} {what}")
        for name in episode.cameras
        for what in ("color", "depth")
    ]
    plots = [rrb.TimeSeriesView(origin="streams", name="streams"), rrb.TextLogView(origin="decisions/log")]
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(origin="world", name="scene"),
            rrb.Vertical(rrb.Grid(*images), *plots, row_shares=[3, 2, 1]),
        ),
        collapse_panels=True,
    )

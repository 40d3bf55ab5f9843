"""`embodied-vision calibrate`: where a camera stands, from pictures of a board and the arm's poses."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from embodied_vision.calibrating.board import Board
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.launching.environment import NAMESPACE_VARIABLE
from embodied_vision.locks import exclusive

if TYPE_CHECKING:
    from embodied_vision.calibrating.collect import Collector
    from embodied_vision.calibrating.estimate import Calibration
    from embodied_vision.calibrating.views import Shot
    from embodied_vision.control.robot import RobotModel
    from embodied_vision.nodes.views import Views
    from embodied_vision.types import FloatArray

app = typer.Typer(help="Find out where a camera stands: print a board, move it, calibrate.", no_args_is_help=True)

DEFAULT = Board()
Columns = Annotated[int, typer.Option(help="Squares across.")]
Rows = Annotated[int, typer.Option(help="Squares down.")]
Square = Annotated[float, typer.Option("--square-mm", help="Edge of a square in mm, as measured on the print.")]
Marker = Annotated[float, typer.Option("--marker-mm", help="Edge of a marker in mm.")]
Dictionary = Annotated[str, typer.Option(help="Set of markers, as OpenCV names it without DICT_.")]
Legacy = Annotated[bool, typer.Option("--legacy", help="A board made by OpenCV before 4.6.")]


class MountName(StrEnum):
    """Where the camera is."""

    CELL = "cell"
    WRIST = "wrist"


def _board(columns: int, rows: int, square_mm: float, marker_mm: float, dictionary: str, legacy: bool) -> Board:
    name = dictionary.removeprefix("DICT_")
    return Board(columns, rows, square_mm / 1000, marker_mm / 1000, name, legacy)


@app.command("board")
def board(
    output: Annotated[Path, typer.Argument(help="PDF or PNG file to write.", show_default=False)],
    columns: Columns = DEFAULT.columns,
    rows: Rows = DEFAULT.rows,
    square: Square = 1000 * DEFAULT.square_m,
    marker: Marker = 1000 * DEFAULT.marker_m,
    dictionary: Dictionary = DEFAULT.dictionary,
    legacy: Legacy = False,
) -> None:
    """Write the board as a page to print at 100 %; the default fits A4."""
    from embodied_vision.calibrating.board_page import write_board

    made = _board(columns, rows, square, marker, dictionary, legacy)
    paper = write_board(made, output)
    width, height = (1000 * length for length in made.size_m)
    typer.echo(f"{output}: {made.describe()}; pattern {width:g} × {height:g} mm on {paper}")
    typer.echo("print at 100 %, glue it to something stiff and flat, and measure several squares together")


@app.command("hand-eye")
def hand_eye(
    pictures: Annotated[
        Path | None, typer.Argument(help="Folder of pictures; or give --store.", show_default=False)
    ] = None,
    *,
    output: Annotated[Path, typer.Option(help="Calibration YAML to put the camera into.", show_default=False)],
    mount: Annotated[
        MountName,
        typer.Option(help="cell: the camera stands, the arm holds the board; wrist: the arm holds the camera."),
    ],
    poses: Annotated[
        Path | None,
        typer.Option(help="CSV, JSON or YAML with joint positions or tip poses.", show_default="poses.csv beside them"),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Episode store to take pictures and joints from.", show_default=False)
    ] = None,
    episode: Annotated[
        list[str] | None, typer.Option(help="Which episodes; may be given several times.", show_default="all")
    ] = None,
    name: Annotated[str, typer.Option("--camera", help="Name of the camera.")] = "camera",
    robot: Annotated[str, typer.Option(help="Robot by name or YAML file: kinematics and home.")] = "panda_suction",
    intrinsics: Annotated[
        Path | None,
        typer.Option(
            help="Calibration YAML or a ROS driver's camera_info YAML whose intrinsics are kept.",
            show_default="estimated from the pictures",
        ),
    ] = None,
    distorted: Annotated[
        bool | None, typer.Option("--distorted/--straight", help="Whether the lens distorts.", show_default="found out")
    ] = None,
    observe_from: Annotated[
        str, typer.Option(help="For a camera on the wrist: home, or the picture at whose pose frames are decided on.")
    ] = "home",
    report: Annotated[Path | None, typer.Option(help="HTML report to write.", show_default="beside the output")] = None,
    columns: Columns = DEFAULT.columns,
    rows: Rows = DEFAULT.rows,
    square: Square = 1000 * DEFAULT.square_m,
    marker: Marker = 1000 * DEFAULT.marker_m,
    dictionary: Dictionary = DEFAULT.dictionary,
    legacy: Legacy = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Calibrate a camera from pictures of the board, each with where the arm stood.

    Writes the camera into OUTPUT, the lens into OUTPUT's folder as CAMERA_info.yaml where it was estimated, and a
    report. Exit code 2 where the pictures do not determine the camera, 1 where they contradict each other.
    """
    from embodied_vision.calibrating.estimate import calibrate
    from embodied_vision.calibrating.files import read_lens, write_lens
    from embodied_vision.calibrating.report import render_report
    from embodied_vision.calibrating.views import find_board
    from embodied_vision.calibration import put_camera, read_cameras, write_text
    from embodied_vision.types import Camera

    made = _board(columns, rows, square, marker, dictionary, legacy)
    lens = read_lens(intrinsics, name) if intrinsics is not None else None
    if output.exists():
        read_cameras(output)
    source = _Source(robot, pictures, poses, store, episode or [], name)
    with Console(stderr=True).status("looking for the board"):
        views = find_board(made, source.shots())
    result = calibrate(made, views, mount.value, lens, distorted)
    place = source.tip_at(observe_from) if mount is MountName.WRIST else None
    T_base_camera = result.X if place is None else result.T_base_camera(place)
    camera = Camera(name, *result.lens.size, result.lens.K, T_base_camera)
    page = report or output.with_name(f"{name}_calibration.html")
    about: dict[str, Any] = {"when": time.strftime("%Y-%m-%d %H:%M"), **_essence(result)}
    if place is not None:
        about |= {"T_tip_camera": result.X.tolist(), "seen_from": observe_from}
    put_camera(camera, about, output)
    info = output.with_name(f"{name}_info.yaml")
    if lens is None:
        write_lens(result.lens, name, info)
    write_text(page, render_report(result, name))
    if as_json:
        typer.echo(json.dumps({"camera": camera.to_dict(), **result.to_dict()}))
        return
    _tell(result, name, output, page, info)


@app.command("collect")
def collect(
    folder: Annotated[Path, typer.Argument(help="Folder for pictures and poses.csv.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, help="Pictures to end with.")] = 20,
    name: Annotated[str, typer.Option("--camera", help="Name of the camera.")] = "camera",
    topic: Annotated[str, typer.Option(help="Its color images.", show_default="CAMERA/color/image_raw")] = "",
    joints: Annotated[str, typer.Option(help="Topic of the joint states.")] = "joint_states",
    robot: Annotated[str, typer.Option(help="Robot by name or YAML file.")] = "panda_suction",
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Longest wait for the first messages, s.")] = 10,
    columns: Columns = DEFAULT.columns,
    rows: Rows = DEFAULT.rows,
    square: Square = 1000 * DEFAULT.square_m,
    marker: Marker = 1000 * DEFAULT.marker_m,
    dictionary: Dictionary = DEFAULT.dictionary,
    legacy: Legacy = False,
) -> None:
    """Take a picture whenever the arm comes to rest: move it by hand or teach pendant from one view to the next.

    Needs ROS and a running driver; moves nothing. Ended by Ctrl-C or after COUNT pictures; run again, it goes on.
    """
    from embodied_vision.calibrating.collect import Collector
    from embodied_vision.control.robot import RobotModel
    from embodied_vision.topics import color

    try:
        from embodied_vision.nodes.client import GraphClient
        from embodied_vision.nodes.views import Views
    except ImportError as error:
        raise BadInput(f"ROS cannot be imported ({error}); pip install 'embodied-vision[ros]'") from error
    model = RobotModel.load(robot)
    made = _board(columns, rows, square, marker, dictionary, legacy)
    busy = f"somebody else collects into {folder}; end that, or give another folder"
    with exclusive(folder / ".collecting", busy):
        collector = Collector(folder, made, model)
        typer.echo(f"{folder}: {collector.count} pictures; let the arm rest for a second at each view. Ctrl-C ends")
        with GraphClient(os.environ.get(NAMESPACE_VARIABLE, "")) as client:
            pictures = topic or color(name)
            views = Views(client, pictures, joints, model.joint_names)
            _listen(views, collector, count, timeout_s, f"{pictures} and {joints}")
    typer.echo(f"embodied-vision calibrate hand-eye {folder} --mount … --robot {robot} --output …")


def _listen(views: Views, collector: Collector, count: int, timeout_s: float, topics: str) -> None:
    """Pass on what is heard until there are enough pictures."""
    until_s = time.monotonic() + timeout_s
    while collector.count < count:
        time.sleep(0.1)
        if views.silent() and time.monotonic() > until_s:
            raise RunFailed(
                f"no {' and no '.join(views.silent())} within {timeout_s:g} s on {topics}; "
                f"{views.problem or 'does the driver run, on this ROS domain?'}"
            )
        for stamp_ns, heard in views.take():
            if heard.ndim == 1:
                collector.add_joints(stamp_ns, heard.astype(np.float64, copy=False))
            else:
                collector.add_picture(stamp_ns, heard.astype(np.uint8, copy=False))
        said = collector.look()
        if said is not None:
            typer.echo(
                f"{said} ({collector.count} pictures, turned {collector.diversity_deg:.0f}° about a second axis, "
                f"{100 * collector.coverage:.0f} % of the picture seen)"
            )


class _Source:
    """Where pictures and poses come from."""

    def __init__(
        self,
        robot: str,
        pictures: Path | None,
        poses: Path | None,
        store: Path | None,
        episodes: list[str],
        camera: str,
    ) -> None:
        if (pictures is None) == (store is None):
            raise BadInput("give either a folder of pictures or --store with logged episodes")
        if store is not None and poses is not None:
            raise BadInput("--poses belongs to a folder of pictures; episodes hold the joint positions themselves")
        self._robot = robot
        self._pictures, self._poses_path = pictures, poses
        self._store, self._episodes, self._camera = store, episodes, camera
        self._tips: dict[str, FloatArray] = {}

    @cached_property
    def model(self) -> RobotModel:
        """Kinematics, loaded when they are needed: tip poses do without."""
        from embodied_vision.control.robot import RobotModel

        return RobotModel.load(self._robot)

    def shots(self) -> Iterator[Shot]:
        """Pictures with their poses."""
        for shot in self._from_folder() if self._pictures is not None else self._from_store():
            self._tips[shot.name] = shot.T_base_tip
            yield shot

    def tip_at(self, place: str) -> FloatArray:
        """Tip pose (4, 4) at home, or where a picture was taken.

        Raises:
            BadInput: there is no such picture.
        """
        if place == "home":
            return self.model.forward(self.model.home)
        if place not in self._tips:
            raise BadInput(f"--observe-from {place}: no such picture; give home or one of {sorted(self._tips)[:3]} …")
        return self._tips[place]

    def _from_folder(self) -> Iterator[Shot]:
        from embodied_vision.calibrating.poses import read_poses
        from embodied_vision.calibrating.views import read_shots

        assert self._pictures is not None
        path = self._poses_path or self._pictures / "poses.csv"
        return iter(read_shots(self._pictures, read_poses(path, lambda: self.model)))

    def _from_store(self) -> Iterator[Shot]:
        from embodied_vision.calibrating.logged import logged_shots
        from embodied_vision.episodes import EpisodeStore

        assert self._store is not None
        store = EpisodeStore(self._store)
        if not store.exists():
            raise BadInput(f"no episode store at {self._store}; give one, or a folder of pictures")
        model = self.model
        opened = (store.open(id) for id in self._episodes or store.ids())
        return chain.from_iterable(logged_shots(episode, self._camera, model) for episode in opened)


def _essence(result: Calibration) -> dict[str, Any]:
    figures = result.to_dict()
    kept = ("mount", "uncertainty", "residual_px", "board", "warnings")
    return {
        **{key: figures[key] for key in kept},
        "pictures": sum(view.used for view in result.views),
        "distortion": figures["intrinsics"]["distortion"],
    }


def _tell(result: Calibration, name: str, output: Path, page: Path, info: Path) -> None:
    used = sum(view.used for view in result.views)
    frame = "base" if result.mount == "cell" else "tip"
    position = ", ".join(f"{1000 * value:.1f}" for value in result.X[:3, 3])
    typer.echo(
        f"{name}: ({position}) mm in the {frame} frame, ± {result.spread_mm:.2f} mm and {result.spread_deg:.3f}°, from "
        f"{used} of {len(result.views) + len(result.left_out)} pictures; corners fit within {result.rms_px:.2f} px"
    )
    lens = result.lens
    typer.echo(
        f"lens: fx {lens.K[0, 0]:.2f}, fy {lens.K[1, 1]:.2f}, cx {lens.K[0, 2]:.2f}, cy {lens.K[1, 2]:.2f} px"
        + ("" if result.lens_estimated else ", as given")
    )
    for picture, reason in result.left_out.items():
        typer.echo(f"left out: {picture}: {reason}")
    for warning in result.warnings:
        typer.echo(f"warning: {warning}")
    if lens.distortion.any():
        typer.echo(
            f"the lens moves points by up to {lens.bends_px:.1f} px, and the nodes take rectified pictures only: let "
            f"the driver rectify ({info} is in the form that ROS' drivers and image_proc read), or run "
            f"`embodied-vision calibrate rectify PICTURES OUTPUT --intrinsics {info}`"
        )
    typer.echo(f"written: {output}, {page}" + (f", {info}" if result.lens_estimated else ""))


@app.command("rectify")
def rectify(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="Folder for the rectified ones, as PNG.", show_default=False)],
    intrinsics: Annotated[
        Path, typer.Option(help="CAMERA_info.yaml that `hand-eye` wrote, or a driver's.", show_default=False)
    ],
    name: Annotated[str, typer.Option("--camera", help="Name of the camera.")] = "camera",
) -> None:
    """Take the lens's distortion out of pictures, for the camera node and for what was recorded before."""
    from PIL import Image

    from embodied_vision.calibrating.files import read_lens
    from embodied_vision.calibrating.views import PICTURES, read_picture
    from embodied_vision.calibration import write_bytes

    lens = read_lens(intrinsics, name)
    if not pictures.is_dir():
        raise BadInput(f"{pictures} is no folder; give one with pictures")
    if output.resolve() == pictures.resolve():
        raise BadInput(f"{output} is the folder of the pictures themselves; give another one")
    paths = sorted(path for path in pictures.iterdir() if path.suffix.lower() in PICTURES)
    if not paths:
        raise BadInput(f"{pictures} holds no pictures ({', '.join(sorted(PICTURES))})")
    for path in paths:
        color = read_picture(path)
        if (color.shape[1], color.shape[0]) != lens.size:
            raise BadInput(
                f"{path} has {color.shape[1]}×{color.shape[0]} px, {intrinsics} is for {lens.size[0]}×{lens.size[1]}; "
                "give the intrinsics of these pictures"
            )
        png = io.BytesIO()
        Image.fromarray(lens.rectify(color)).save(png, "PNG")
        write_bytes(output / f"{path.stem}.png", png.getvalue())
    typer.echo(f"{len(paths)} pictures rectified: {output}")

"""A calibration in simulation: the arm holds a ChArUco board before a camera, or a camera above a board.

`python -m embodied_vision_sim.calibration_board FOLDER` writes pictures, poses.csv and the true calibration, to try
`embodied-vision calibrate` without a camera.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pybullet
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from embodied_vision.calibrating.board import Board
from embodied_vision.calibrating.hand_eye import Mount, Poses, inverse
from embodied_vision.calibration import write_cameras
from embodied_vision.control.robot import RobotModel
from embodied_vision.errors import BadInput, Refused, RunFailed
from embodied_vision.geometry import look_at
from embodied_vision.types import Camera
from embodied_vision_sim.camera import render
from embodied_vision_sim.meshes import Meshes
from embodied_vision_sim.robot import Arm

THICKNESS_M = 0.004
MARGIN_M = 0.008
TEXTURE_PX = 1400
"""Along the longer edge of the board."""
FINER = 2
"""Pictures are drawn so many times finer and averaged, as a lens and a sensor do."""
LEAST_SEEN = 0.6
"""Share of the board's corners that must lie in the picture."""
ATTEMPTS = 2000
"""For each picture, until a pose is drawn that shows the board and that the arm reaches."""
CELL_CAMERA: Poses = np.asarray(look_at((1.05, 0.1, 0.75), (0.45, 0.0, 0.35)), np.float64)
LEAST_HEIGHT_M = 0.15
"""Of the tip above the table."""
TURNED_OVER = np.diag([1.0, -1.0, -1.0])
TIP_CAMERA = (0.07, 0.02, -0.06)
TABLE_BOARD = (0.5, 0.0, 0.002)


class Taken(NamedTuple):
    """One picture: color uint8 (H, W, 3) and joint positions (J,) in rad."""

    color: NDArray[np.uint8]
    q: NDArray[np.float64]


def camera(width: int = 640, height: int = 480, focal_px: float = 600.0) -> Camera:
    """The camera to be calibrated, principal point off the middle, where it stands in the cell."""
    K = np.array([[focal_px, 0.0, width / 2 + 4.5], [0.0, focal_px, height / 2 - 6.5], [0.0, 0.0, 1.0]])
    return Camera("camera", width, height, K, CELL_CAMERA)


def true_pose(mount: Mount) -> Poses:
    """What calibration shall find: T_base_camera in the cell, T_tip_camera on the wrist."""
    if mount == "cell":
        return CELL_CAMERA
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", [4.0, -6.0, 91.0], degrees=True).as_matrix()
    pose[:3, 3] = TIP_CAMERA
    return pose


def take_pictures(
    model: RobotModel,
    board: Board,
    mount: Mount,
    count: int,
    *,
    seed: int = 0,
    noise: float = 3.0,
    what: Camera | None = None,
) -> Iterator[Taken]:
    """Pictures of the board from different poses of the arm.

    Args:
        model: of the arm.
        board: that it holds, or that lies on the table.
        mount: where the camera is.
        count: of pictures.
        seed: of poses and noise.
        noise: standard deviation of the pictures' noise, levels of 255.
        what: the camera to see with.

    Raises:
        RunFailed: the arm does not reach poses that show the board.
    """
    rng = np.random.default_rng(seed)
    lens = what or camera()
    X, fixed = true_pose(mount), board_pose(board, mount)
    client = pybullet.connect(pybullet.DIRECT)
    meshes = Meshes()
    try:
        arm = Arm(client, model)
        body = _load(client, meshes, board)
        for _ in range(count):
            q, T_tip = _pose(model, board, mount, lens, X, fixed, rng)
            arm.place(q)
            if mount == "cell":
                T_camera, T_board = X, T_tip @ fixed
            else:
                T_camera, T_board = T_tip @ X, fixed
            _put(client, body, board, T_board)
            color = _see(client, lens, T_camera) + rng.normal(0.0, noise, (lens.height, lens.width, 3))
            yield Taken(np.clip(np.rint(color), 0, 255).astype(np.uint8), q)
    finally:
        pybullet.disconnect(physicsClientId=client)
        meshes.close()


def board_pose(board: Board, mount: Mount) -> Poses:
    """Where the board is fixed: T_tip_board in the cell, face out of the tool, T_base_board on the wrist, face up."""
    pose = np.eye(4)
    pose[:3, :3] = TURNED_OVER
    width, height = board.size_m
    middle = TABLE_BOARD if mount == "wrist" else (0.01, -0.005, 0.012)
    pose[:3, 3] = np.asarray(middle) - pose[:3, :3] @ (width / 2, height / 2, 0.0)
    return pose


def _pose(
    model: RobotModel,
    board: Board,
    mount: Mount,
    lens: Camera,
    X: Poses,
    fixed: Poses,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], Poses]:
    """Joint positions (J,) and tip pose at which the camera sees most of the board."""
    middle = np.array([*board.size_m, 0.0]) / 2
    for _ in range(ATTEMPTS):
        distance = rng.uniform(0.4, 0.75)
        T_camera_board = np.eye(4)
        turn = np.radians([*rng.uniform(-35, 35, 2), rng.uniform(-60, 60)])
        T_camera_board[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix()
        aside = rng.uniform(-0.3, 0.3, 2) * distance
        T_camera_board[:3, 3] = (*aside, distance) - T_camera_board[:3, :3] @ middle
        corners = board.points @ T_camera_board[:3, :3].T + T_camera_board[:3, 3]
        pixels = (corners @ lens.K.T)[:, :2] / corners[:, 2:]
        inside = ((pixels > 3) & (pixels < (lens.width - 4, lens.height - 4))).all(axis=1)
        if inside.mean() < LEAST_SEEN:
            continue
        T_tip = (X @ T_camera_board @ inverse(fixed)) if mount == "cell" else fixed @ inverse(X @ T_camera_board)
        if T_tip[2, 3] < LEAST_HEIGHT_M:
            continue
        try:
            q = model.inverse(T_tip, model.home)
        except Refused:
            continue
        return q, model.forward(q)
    raise RunFailed(
        f"the arm {model.name} reaches no pose that shows the board ({board.describe()}); take a smaller one"
    )


def _load(client: int, meshes: Meshes, board: Board) -> int:
    width, height = (length + 2 * MARGIN_M for length in board.size_m)
    picture = board.draw(TEXTURE_PX / max(width, height), MARGIN_M)
    mesh = meshes.tiled((width, height, THICKNESS_M), (1, 1), np.repeat(picture[..., None], 3, axis=2))
    shape = pybullet.createVisualShape(pybullet.GEOM_MESH, fileName=str(mesh), physicsClientId=client)
    return int(pybullet.createMultiBody(baseVisualShapeIndex=shape, physicsClientId=client))


def _put(client: int, body: int, board: Board, T_base_board: Poses) -> None:
    T_board_body = np.eye(4)
    T_board_body[:3, :3] = TURNED_OVER
    T_board_body[:3, 3] = (*(np.asarray(board.size_m) / 2), THICKNESS_M / 2)
    pose = T_base_board @ T_board_body
    turn = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
    pybullet.resetBasePositionAndOrientation(body, pose[:3, 3].tolist(), turn, physicsClientId=client)


def _see(client: int, lens: Camera, T_base_camera: Poses) -> NDArray[np.float64]:
    """(H, W, 3) in levels of 255."""
    K = np.diag([FINER, FINER, 1.0]) @ lens.K
    K[:2, 2] += (FINER - 1) / 2
    finer = Camera(lens.name, FINER * lens.width, FINER * lens.height, K, T_base_camera)
    frame, _ = render(client, finer, stamp_ns=0)
    return frame.color.reshape(lens.height, FINER, lens.width, FINER, 3).mean(axis=(1, 3))


def command(
    folder: Path = typer.Argument(..., help="Folder for pictures, poses.csv and truth.yaml.", show_default=False),
    mount: str = typer.Option("cell", help="cell or wrist: where the camera is."),
    count: int = typer.Option(15, min=3, help="Number of pictures."),
    seed: int = typer.Option(0, min=0, help="Seed of poses and noise."),
    robot: str = typer.Option("panda_suction", help="Robot by name or YAML file."),
) -> None:
    """Take pictures of a simulated board and note where the arm stood."""
    if mount not in ("cell", "wrist"):
        raise BadInput(f"mount {mount!r} is unknown; give cell or wrist")
    place: Mount = "cell" if mount == "cell" else "wrist"
    model = RobotModel.load(robot)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "poses.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *model.joint_names])
        for number, taken in enumerate(take_pictures(model, Board(), place, count, seed=seed)):
            name = f"{number:03d}.png"
            Image.fromarray(taken.color).save(folder / name)
            rows.writerow([name, *(f"{value:.9f}" for value in taken.q)])
    seen = camera()
    pose = true_pose(place) if place == "cell" else model.forward(model.home) @ true_pose(place)
    write_cameras((Camera(seen.name, seen.width, seen.height, seen.K, pose),), folder / "truth.yaml")
    typer.echo(f"{count} pictures, poses.csv and truth.yaml: {folder}")
    typer.echo(f"embodied-vision calibrate hand-eye {folder} --mount {mount} --output {folder}/camera.yaml")


def main() -> None:
    """Run the command line."""
    try:
        typer.run(command)
    except (BadInput, RunFailed) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

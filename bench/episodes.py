"""What logging costs and gives: this store beside HDF5, Zarr, MCAP and LeRobotDataset, on the same frames.

`make bench-episodes` writes the same episodes of two 640 x 480 RGB-D cameras and 16 joints at 30 Hz with each, reads
them back at random, and compares sizes at equal quality; SMALL=1 takes the smallest form. Writing and single images
take one core; windows of 16 images are read on one core and on all. LeRobotDataset wants an environment of its own:
`make lerobot-env`, then LEROBOT=.venv-lerobot/bin/python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import typer
from peers.codecs import SMALL, Size, image_sizes, video_sizes
from peers.formats import Format, Hdf5, Mcap, Ours, ReplayBuffer
from peers.frames import RATE_HZ, WINDOW, Data, psnr
from rich.console import Console

from embodied_vision.geometry import quantise_depth

LIVE_CAMERAS = 4
"""Writing is judged by so many RGB-D cameras at `RATE_HZ`."""
UNITS = {
    "frames_written": "1/s",
    "frames_read": "1/s",
    "rgbd_read": "1/s",
    "windows_read": "1/s",
    "windows_read_all_cores": "1/s",
    "kB_a_frame": "kB",
    "psnr_db": "dB",
}


def use_cores(cores: set[int]) -> None:
    """Run every thread of this process on these cores alone."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


def _rate(read: Callable[[int, int], object], data: Data, last: int, seconds: float) -> float:
    """Reads a second at random places, steps up to `last` before the end."""
    rng = np.random.default_rng(3)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        read(int(rng.integers(data.episodes)), int(rng.integers(data.steps - last)))
        done += 1
    return done / (time.perf_counter() - begun)


def measure(form: Format, folder: Path, data: Data, seconds: float, all_cores: set[int]) -> dict[str, float]:
    """Writing, size and reading of one format, rates in 1/s, sizes in kB a frame."""
    begun = time.perf_counter()
    for episode in range(data.episodes):
        form.write(data, episode)
    written_s = time.perf_counter() - begun
    size = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    form.open(data.episodes)
    quality = min(psnr(data.frames[step][0].color, form.color(0, step)) for step in range(0, data.steps, 7))
    for step in range(0, data.steps, 7):
        assert np.array_equal(form.depth(0, step), quantise_depth(data.frames[step][0].depth)), f"{form.name}: depth"
    found = {
        "frames_written": data.count / written_s,
        "kB_a_frame": size / data.count / 1e3,
        "psnr_db": quality,
        "frames_read": _rate(form.color, data, 1, seconds),
        "rgbd_read": _rate(lambda e, s: (form.color(e, s), form.depth(e, s)), data, 1, seconds),
        "windows_read": _rate(lambda e, s: form.window(e, s, 1), data, WINDOW, seconds),
    }
    for cores in (1, len(all_cores)):
        window = form.window(0, 1, cores)
        assert window.shape[0] == WINDOW
        assert psnr(window[-1], data.frames[WINDOW][0].color) > 30, f"{form.name}: another image"
    if not form.one_core:
        one = os.sched_getaffinity(0)
        use_cores(all_cores)
        found["windows_read_all_cores"] = _rate(lambda e, s: form.window(e, s, len(all_cores)), data, WINDOW, seconds)
        use_cores(one)
    return found


def lerobot(python: str, data: Data, scratch: Path, seconds: float, all_cores: set[int]) -> dict[str, float]:
    """LeRobotDataset with video, color alone (it knows no depth), in its own interpreter, on the same frames."""
    frames, joints = scratch / "frames.npy", scratch / "joints.npy"
    np.save(frames, np.stack([[view.color for view in views] for views in data.frames]))
    np.save(joints, data.joints)
    side = Path(__file__).parent / "peers" / "lerobot_side.py"
    numbers = [str(number) for number in (data.steps, RATE_HZ, WINDOW, seconds)]
    command = [python, str(side), str(frames), str(joints), str(scratch / "lerobot"), *numbers]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "hf")}
    run = subprocess.run(
        [*command, ",".join(map(str, all_cores))], capture_output=True, text=True, check=False, env=environment
    )
    frames.unlink()
    if run.returncode:
        raise typer.BadParameter(f"{python} cannot run LeRobotDataset: {run.stderr[-500:]}")
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main(
    episodes: int = typer.Option(3, min=1, help="Episodes."),
    steps: int = typer.Option(90, min=WINDOW + 2, help="Steps of each, at 30 Hz."),
    seconds: float = typer.Option(4.0, min=0.1, help="How long each kind of read is timed."),
    lerobot_python: str = typer.Option("", help="Interpreter of an environment with lerobot, to measure it as well."),
    images: int = typer.Option(4, min=1, help="Single images on which codecs are compared."),
    video_frames: int = typer.Option(60, min=2, help="Frames of the videos on which codecs are compared."),
    scratch: Path | None = typer.Option(None, help="Folder on the disk to be measured; the system's temporary one."),
) -> None:
    """Write and read the same episodes with each format, and compare codecs at equal quality."""
    all_cores = os.sched_getaffinity(0)
    use_cores({max(all_cores)})
    console = Console(stderr=True)
    console.print("making frames …")
    data = Data(episodes, steps)
    results: dict[str, dict[str, float]] = {}
    why: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-episodes-", dir=scratch) as folder:
        root = Path(folder)
        makers: dict[str, Callable[[Path], Format]] = {
            "ours": Ours,
            "small": lambda path: Ours(path, "htj2k"),
            "raw": lambda path: Hdf5(path, gzip=False),
            "gzip": lambda path: Hdf5(path, gzip=True),
            "zarr": ReplayBuffer,
            "mcap": lambda path: Mcap(path, raw=False),
            "bag": lambda path: Mcap(path, raw=True),
        }
        for name, make in makers.items():
            form = make(root / name)
            console.print(form.name, "…")
            results[form.name] = measure(form, root / name, data, seconds, all_cores)
            why[form.name] = form.one_core
            shutil.rmtree(root / name)
        if lerobot_python:
            console.print("LeRobotDataset …")
            results["LeRobotDataset, AV1 video"] = lerobot(lerobot_python, data, root, seconds, all_cores)
    for line in _reads(results, why, len(all_cores)):
        print(json.dumps(line))
    console.print("codecs …")
    compared = {
        "size of an image": image_sizes(data, images),
        "size of a video's frame": video_sizes(data, video_frames),
    }
    for figure, sizes in compared.items():
        for line in _sizes(figure, list(sizes)):
            print(json.dumps(line))


def _line(figure: str, value: float, unit: str, reference: str, other: float, **more: object) -> dict[str, object]:
    figures = {"value": round(value, 2), "unit": unit, "reference": reference, "reference_value": round(other, 2)}
    return {"bench": "episodes", "figure": figure, **figures, "ratio": round(value / other, 3), **more}


def _reads(results: dict[str, dict[str, float]], why: dict[str, str], all_cores: int) -> Iterator[dict[str, object]]:
    ours = results[Ours.name]
    live = float(LIVE_CAMERAS * RATE_HZ)
    reference = f"{LIVE_CAMERAS} cameras at {RATE_HZ} Hz"
    yield _line("RGB-D frames written on one core", ours["frames_written"], "1/s", reference, live, cores=1)
    small = results[Ours.small_name]["frames_written"]
    yield _line("RGB-D frames written on one core, HTJ2K", small, "1/s", reference, live, cores=1)
    for peer, found in results.items():
        if peer == Ours.name:
            continue
        for key, unit in UNITS.items():
            more: dict[str, object] = {} if unit != "1/s" else {"cores": 1}
            other = found.get(key)
            if key == "windows_read_all_cores":
                more = {"cores": all_cores}
                if other is None:
                    other, more = found["windows_read"], {"cores": all_cores, "reference_cores": 1, "why": why[peer]}
            if other is not None:
                yield _line(key, ours[key], unit, peer, other, **more)


def _sizes(figure: str, sizes: Sequence[Size]) -> Iterator[dict[str, object]]:
    own = sizes[0]
    for size in sizes:
        quality = [round(own.psnr_db, 2), round(size.psnr_db, 2)]
        yield _line(figure, own.kB, "kB", size.name, size.kB, psnr_db=quality, equal=size.reached)
    for small in sizes:
        if small.name == SMALL:
            best = min((size for size in sizes if size.reached), key=lambda size: size.kB)
            yield _line(f"{figure}, HTJ2K", small.kB, "kB", f"smallest: {best.name}", best.kB)


if __name__ == "__main__":
    typer.run(main)

"""The recorder for minutes on end: frames lost, memory, the time of its callbacks and its share of the processor.

`make bench-recorder` has a process publish two cameras of 640 x 480 RGB-D at 30 Hz, textured and with sensor noise, and
joint states at 60 Hz over DDS with the shipped profile for MINUTES=10; a real recorder logs them as episodes of a
minute without a pause in between. SMALL=1 takes some seconds. Every frame that was published is then looked for in the
store by its stamp, all episodes are verified, and some frames are compared with what was sent. Prints one JSON line a
figure.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import typer
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import linregress
from scipy.stats import t as student
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from embodied_vision import topics
from embodied_vision.calibration import write_cameras
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import RunFailed
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from embodied_vision.launching.process import ManagedProcess
from embodied_vision.nodes import qos
from embodied_vision.nodes.client import GraphClient
from embodied_vision.nodes.conversions import depth_to_image, joint_state_message, ns_to_stamp, to_json
from embodied_vision.types import Camera

WIDTH, HEIGHT, JOINTS = 640, 480, 7
RING = 12
"""Frames a camera that are computed before; they are sent in turn under fresh stamps."""
WARM_UP_SHARE = 0.2
BLOCKS = 12
"""Memory is averaged over so many stretches, each about an episode, before a line is laid through them."""
FAR_PSNR_DB = 35.0

Color = NDArray[np.uint8]
Depth = NDArray[np.uint16]

console = Console(stderr=True)


def cameras(count: int) -> tuple[Camera, ...]:
    """Calibrations of cameras that nobody has."""
    K = np.array([[600.0, 0, WIDTH / 2], [0, 600.0, HEIGHT / 2], [0, 0, 1]])
    return tuple(Camera(f"camera_{number}", WIDTH, HEIGHT, K, np.eye(4)) for number in range(count))


def ring(camera: int) -> list[tuple[Color, Depth]]:
    """Color and depth in mm of a patterned table on which a part moves, with fresh noise in every frame."""
    rng = np.random.default_rng(camera)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    table = 120 + 35 * np.stack([np.sin(x / p + y / q) for p, q in ((9, 23), (17, 11), (31, 47))], -1)
    made = []
    for number in range(RING):
        color = table + rng.normal(0, 2.5, (HEIGHT, WIDTH, 1))
        depth = 900 - 0.25 * y + rng.normal(0, 1.5, (HEIGHT, WIDTH))
        left, top = 40 + 40 * number, 100 + 20 * number
        color[top : top + 90, left : left + 90] = (200, 60, 40)
        depth[top : top + 90, left : left + 90] -= 60
        made.append((np.clip(color, 0, 255).astype(np.uint8), depth.astype(np.uint16)))
    return made


# ---- the process that publishes


def publish(plan: dict[str, Any], result: Path) -> None:
    """Publish frames and joint states by the plan; the events that begin and end episodes as well."""
    rclpy.init()
    node = rclpy.create_node("publisher")
    parts = []
    for index, camera in enumerate(cameras(plan["cameras"])):
        images = []
        for color, depth in ring(index):
            picture = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
            picture.data = color.tobytes()
            images.append((picture, depth_to_image(depth.astype(np.float32) / 1000, 0, camera.name)))
        made = [node.create_publisher(Image, name(camera.name), qos.SENSOR) for name in (topics.color, topics.depth)]
        parts.append((camera.name, made, images))
    joints = node.create_publisher(JointState, "joint_states", qos.SENSOR)
    events = node.create_publisher(String, "episode/event", qos.EVENT)
    publishers = [joints, events, *(one for _, made, _ in parts for one in made)]
    while any(one.get_subscription_count() < 1 for one in publishers):
        time.sleep(0.05)

    def begin(number: int) -> None:
        events.publish(to_json({"event": "start", "task": f"soak-{number}", "stamp_ns": time.time_ns()}))

    stamps: dict[str, list[int]] = {name: [] for name, _, _ in parts}
    late: list[float] = []
    begin(0)
    time.sleep(1.0)  # frames are counted from where the recorder has surely heard of the episode
    names = [f"joint_{number}" for number in range(JOINTS)]
    due, episode, sent, joint_states = time.monotonic(), 0, 0, 0
    while sent < plan["frames"]:
        time.sleep(max(0.0, due - time.monotonic()))
        late.append(time.monotonic() - due)
        # Where the machine had no time for this process, it goes on from now, as a camera does: no burst follows.
        due = max(due, time.monotonic() - 1 / plan["joint_rate"]) + 1 / plan["joint_rate"]
        position = np.sin(np.arange(JOINTS) + joint_states / 30)
        joints.publish(joint_state_message(names, position, position, time.time_ns()))
        joint_states += 1
        if joint_states / plan["joint_rate"] < sent / plan["rate"]:
            continue
        if sent >= (episode + 1) * plan["frames_per_episode"]:
            episode += 1
            begin(episode)  # the recorder closes the one before and goes on: no frame falls in between
        for name, (color, depth), images in parts:
            stamp_ns = time.time_ns()
            for publisher, image in zip((color, depth), images[sent % RING], strict=True):
                image.header.stamp = ns_to_stamp(stamp_ns)
                publisher.publish(image)
            stamps[name].append(stamp_ns)
        sent += 1
    time.sleep(1.0)
    outcome = {"reward": 0.0, "solved": False}
    events.publish(to_json({"event": "end", "outcome": outcome, "stamp_ns": time.time_ns()}))
    content = {"stamps": stamps, "joint_states": joint_states, "late": late, "episodes": episode + 1}
    temporary = result.with_suffix(".part")
    temporary.write_text(json.dumps(content))
    temporary.rename(result)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})  # reliable delivery ends with the process
    node.destroy_node()
    rclpy.try_shutdown()


# ---- what is measured while it runs


@dataclass(frozen=True)
class Sample:
    """A process at one moment: seconds, MB of anonymous memory, of all resident memory and PSS, seconds of CPU."""

    time_s: float
    anonymous_mb: float
    resident_mb: float
    pss_mb: float
    cpu_s: float


def sample(pid: int) -> Sample:
    """Look at a process."""
    rollup = dict(
        (line.split(":")[0], line.split()[1]) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    parts = (int(rollup[name]) / 1024 for name in ("Anonymous", "Rss", "Pss"))
    return Sample(time.monotonic(), *parts, cpu_s)


def slope(samples: list[Sample], what: str) -> tuple[float, float]:
    """MB a minute after the warm-up, and half the width of its 95% interval."""
    kept = samples[int(len(samples) * WARM_UP_SHARE) :]
    blocks = [block for block in np.array_split(np.arange(len(kept)), min(BLOCKS, len(kept) // 2)) if len(block)]
    times = [np.mean([kept[i].time_s for i in block]) / 60 for block in blocks]
    values = [np.mean([getattr(kept[i], what) for i in block]) for block in blocks]
    line = linregress(times, values)
    return float(line.slope), float(line.stderr * student.ppf(0.975, len(blocks) - 2))


def figure(name: str, value: float, unit: str, reference: str, reference_value: float) -> None:
    """Print one figure."""
    ratio = round(value / reference_value, 4) if reference_value else None
    line = {"bench": "recorder", "figure": name, "value": round(value, 4), "unit": unit}
    print(json.dumps({**line, "reference": reference, "reference_value": reference_value, "ratio": ratio}), flush=True)


def check_contents(store: EpisodeStore, published: dict[str, list[int]]) -> tuple[dict[str, set[int]], float]:
    """Stamps in the store by camera, and the worst PSNR in dB of some frames whose depth came back bit for bit.

    Raises:
        RunFailed: an episode is damaged, a stamp is there twice, or a frame is not the one that was sent.
    """
    for report in verify(store):
        if not report.ok:
            raise RunFailed(f"episode {report.id} is damaged: {report}")
    numbers = {name: {stamp: number for number, stamp in enumerate(stamps)} for name, stamps in published.items()}
    sent = {name: ring(index) for index, name in enumerate(published)}
    found: dict[str, set[int]] = {name: set() for name in published}
    worst = np.inf
    for episode_id in store.ids():
        episode = store.open(episode_id)
        for name in published:
            frames = episode.frames(name)
            stamps = frames.stamps_ns.tolist()
            if found[name] & set(stamps) or len(set(stamps)) < len(stamps):
                raise RunFailed(f"episode {episode_id}: stamps of {name} are in the store twice")
            found[name] |= set(stamps)
            for index in range(0, len(stamps), max(1, len(stamps) // 8)):
                color, depth = sent[name][numbers[name][stamps[index]] % RING]
                frame = frames[index]
                if not np.array_equal(np.round(frame.depth * 1000), depth):
                    raise RunFailed(f"episode {episode_id}: depth {index} of {name} is not what was published")
                error = np.mean((frame.color.astype(float) - color) ** 2)
                worst = min(worst, 10 * np.log10(255**2 / max(error, 1e-9)))
    if worst < FAR_PSNR_DB:
        raise RunFailed(f"a color image came back with a PSNR of {worst:.1f} dB: it is not the one that was published")
    return found, float(worst)


def run(plan: dict[str, Any], folder: Path) -> None:
    """Run the processes, then compare store and publisher and print the figures."""
    calibration, result, store = folder / "cameras.yaml", folder / "published.json", EpisodeStore(folder / "store")
    write_cameras(cameras(plan["cameras"]), calibration)
    samples: list[Sample] = []
    with hold_free_domain() as lock:
        environment = process_environment(folder, lock.domain)
        os.environ.update(environment.variables)
        with GraphClient(domain_id=lock.domain) as client:
            client.watch("recorder/status")
            command = [sys.executable, "-m", "embodied_vision.nodes.recorder", "--ros-args"]
            for key, value in {"store": str(store.path), "calibration": str(calibration)}.items():
                command += ["-p", f"{key}:={value}"]
            recorder = ManagedProcess("recorder", command, environment.variables, folder / "recorder.log")
            plan_text = json.dumps(plan)
            command = [sys.executable, str(Path(__file__).resolve()), "--publish", plan_text, "--output", str(result)]
            publisher = ManagedProcess("publisher", command, environment.variables, folder / "publisher.log")

            def alive() -> None:
                for process in (recorder, publisher):
                    if process.exit_code() is not None:
                        raise RunFailed(f"the {process.name} ended: {process.last_lines(20)}")

            try:
                client.wait("recorder/status", lambda s: bool(s["episode"]), 60.0, alive)
                while not result.exists():
                    alive()
                    samples.append(sample(recorder.pid))
                    if len(samples) % 60 == 0:
                        console.print(f"{len(samples) * plan['period_s'] / 60:.1f} min", highlight=False)
                    time.sleep(plan["period_s"])
                published = json.loads(result.read_text())
                done = f"{plan['minutes']:g} minutes"
                status = client.wait(
                    "recorder/status", lambda s: not s["unfinished"] and not s["episode"], 300.0, alive
                )
                console.print(f"{done} done; verifying {len(store.ids())} episodes", highlight=False)
            finally:
                for process in (publisher, recorder):
                    process.send(signal.SIGTERM)
                    process.wait(30.0)
    (folder / "samples.json").write_text(json.dumps([asdict(one) for one in samples]))
    found, worst_psnr = check_contents(store, published["stamps"])
    joints = sum(len(store.open(episode_id).stream("joint_state")[0]) for episode_id in store.ids())
    report(plan, published, status, samples, found)
    figure("joint states lost", published["joint_states"] - joints, "messages", "published", published["joint_states"])
    figure("worst PSNR of a color image", worst_psnr, "dB", "refused below", FAR_PSNR_DB)


def report(
    plan: dict[str, Any],
    published: dict[str, Any],
    status: dict[str, Any],
    samples: list[Sample],
    found: dict[str, set[int]],
) -> None:
    """Print what the run showed."""
    frames = sum(len(stamps) for stamps in published["stamps"].values())
    lost = sum(len(set(stamps) - found[name]) for name, stamps in published["stamps"].items())
    seconds, callback = samples[-1].time_s - samples[0].time_s, status["callback_ms"]
    figure("frames lost", lost, "frames", "published", frames)
    figure("frames that did not reach the recorder", frames - status["frames_received"], "frames", "published", frames)
    figure(
        "messages lost on the way, as the recorder tells",
        status["messages_lost"],
        "messages",
        "frames published",
        frames,
    )
    figure("frames refused by the queue", status["frames_refused"], "frames", "published", frames)
    figure("frames at lower quality", status["frames_at_lower_quality"], "frames", "published", frames)
    figure("callback, p50", callback["p50"], "ms", "goal", 5.0)
    figure("callback, p99", callback["p99"], "ms", "goal", 5.0)
    figure("callback, longest", callback["max"], "ms", "period of a camera", 1e3 / plan["rate"])
    for what, name in (("anonymous_mb", "anonymous memory"), ("resident_mb", "resident memory"), ("pss_mb", "PSS")):
        rise, half = slope(samples, what)
        figure(f"slope of {name}", rise, "MB/min", "half width of its 95% interval", round(half, 4))
        last = float(np.mean([getattr(one, what) for one in samples[-max(1, len(samples) // BLOCKS) :]]))
        figure(f"{name} at the end", last, "MB", "largest", round(max(getattr(one, what) for one in samples), 1))
    share = (samples[-1].cpu_s - samples[0].cpu_s) / seconds
    figure("processor of the recorder", 100 * share, "%", "one core", 100.0)
    figure("publisher late, p99", float(np.percentile(published["late"], 99)) * 1e3, "ms", "period", 1e3 / plan["rate"])
    figure("episodes", published["episodes"], "episodes", "minutes", plan["minutes"])


def main(
    minutes: float = typer.Option(10.0, min=0.05, help="How long, in minutes."),
    episode_seconds: float = typer.Option(60.0, min=1.0, help="Length of an episode, s."),
    camera_count: int = typer.Option(2, "--cameras", min=1, help="RGB-D cameras."),
    rate: float = typer.Option(30.0, min=1.0, help="Frames a second of each."),
    joint_rate: float = typer.Option(60.0, min=1.0, help="Joint states a second; not below --rate."),
    output: Path | None = typer.Option(None, help="Where the store and logs go.", show_default="a temporary folder"),
    publisher: str = typer.Option("", "--publish", hidden=True),
) -> None:
    """Log for minutes, look for every frame, and print the figures."""
    if publisher:
        assert output is not None
        publish(json.loads(publisher), output)
        return
    plan = {
        "minutes": minutes,
        "cameras": camera_count,
        "rate": rate,
        "joint_rate": max(joint_rate, rate),
        "frames": round(minutes * 60 * rate),
        "frames_per_episode": max(1, round(episode_seconds * rate)),
        "period_s": min(1.0, minutes * 60 / 40),
    }
    with tempfile.TemporaryDirectory(prefix="bench-recorder-") as scratch:
        folder = output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        run(plan, folder)


if __name__ == "__main__":
    typer.run(main)

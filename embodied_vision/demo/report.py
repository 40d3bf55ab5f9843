"""`report.html`: what the cameras saw, what the encoder and the policy made of it, and what came out."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, select_autoescape

from embodied_vision import pictures
from embodied_vision.demo.run import DemoRun
from embodied_vision.encoders.region import encode_frame
from embodied_vision.episodes.reader import Episode
from embodied_vision.policies.attempts import Attempts


def table_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures of a summary as the demo prints them."""
    latency = summary["latency_ms"]
    rows = [
        ("scenes placed right", f"{summary['placed']} of {summary['scenes']}"),
        ("frames published", str(summary["frames_published"])),
        ("frames received by the recorder", str(summary["frames_received"])),
        ("frames logged in episodes", str(summary["frames_logged"])),
        ("frames encoded", f"{summary['frames_encoded']}, skipped on purpose {summary['frames_skipped_by_encoder']}"),
        (
            "frame → trajectory",
            f"median {latency['median']} ms, p95 {latency['p95']} ms, {latency['decisions']} decisions",
        ),
        *((f"  {part}", f"{value} ms") for part, value in latency["parts"].items()),
        ("real-time factor of the cell", f"{summary['real_time_factor']:.3f}"),
        (
            "replayed on topics",
            f"{summary['replay_topics']['frames']} of {summary['replay_topics']['frames_logged']} frames, stamps "
            f"{'equal' if summary['replay_topics']['stamps_equal'] else 'NOT equal'}, timing within "
            f"{summary['replay_topics']['timing_error_p95_ms']} ms (p95)",
        ),
        (
            "decided again offline",
            f"{summary['replay_offline']['identical']} of {summary['replay_offline']['decisions']} bit for bit",
        ),
        ("episodes", summary["store"]),
        ("logs", summary["logs"]),
        ("time", f"{summary['seconds']:.0f} s"),
    ]
    return rows


def _scene_pictures(episode: Episode, run: DemoRun) -> list[dict[str, str]]:
    shown: list[tuple[str, pictures.Picture]] = []
    for number, decision in enumerate(episode.decisions, 1):
        prefix = f"decision {number}: " if len(episode.decisions) > 1 else ""
        features = [encode_frame(run.encoder, frame) for frame in decision.frames]
        explained = run.policy.explain(decision.frames, features, Attempts(decision.info.get("failed", ())))
        frame = decision.frames[0]
        size = (frame.camera.height, frame.camera.width)
        shown += [
            (prefix + "camera and action", pictures.action_on_image(frame.color, frame.camera, decision.action)),
            (prefix + "encoder features (PCA)", pictures.feature_colors(features[0], size)),
            (prefix + "fused scene and action", pictures.action_on_scene(explained.scene, decision.action)),
            (prefix + "where to pick", pictures.enlarge(pictures.heat(explained.scene, explained.pick_probability), 2)),
            (
                prefix + "where to place",
                pictures.enlarge(pictures.heat(explained.scene, explained.place_probability), 2),
            ),
        ]
    for name in episode.cameras:
        frames = episode.frames(name)
        if len(frames):
            shown += [("before", frames[0].color), ("after", frames[len(frames) - 1].color)]
    return [{"caption": caption, "uri": pictures.png_uri(picture)} for caption, picture in shown]


def write_report(run: DemoRun) -> str:
    """The report as HTML that stands alone."""
    scenes = [
        {
            "seed": episode.attributes.get("seed", ""),
            "episode": episode.id,
            "solved": bool(episode.outcome.get("solved", False)),
            "reward": float(episode.outcome.get("reward", 0.0)),
            "reason": str(episode.outcome.get("reason", "")),
            "pictures": _scene_pictures(episode, run),
        }
        for episode in run.episodes
    ]
    source = files("embodied_vision.demo").joinpath("report.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=select_autoescape(default_for_string=True)).from_string(source)
    return template.render(summary=run.summary, rows=table_rows(run.summary), scenes=scenes)

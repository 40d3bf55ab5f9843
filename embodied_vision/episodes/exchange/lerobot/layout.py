"""Names and paths of a LeRobotDataset v3.0."""

from __future__ import annotations

import re
from string import Formatter

from embodied_vision.errors import BadInput

VERSION = "v3.0"
CHUNK_SIZE = 1000
"""Files a folder."""
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200
"""A file that has grown so large is followed by the next."""

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES = f"meta/episodes/{_FILE}.parquet"
DATA = f"data/{_FILE}.parquet"
VIDEO = f"videos/{{video_key}}/{_FILE}.mp4"

IMAGES = "observation.images."
STATE, ACTION = "observation.state", "action"
REWARD, DONE, SUCCESS = "next.reward", "next.done", "next.success"
STAMP, DECISION = "stamp_ns", "decision_index"
PICK, PLACE = "decision.pick", "decision.place"
"""Not under `observation.` or `action`, so that policies do not take them for inputs."""

COUNTERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Columns that every dataset has."""

_NUMBER = re.compile(r"0?\d?d?")


def image_key(camera: str) -> str:
    """Feature of a camera; features may not hold a slash."""
    return IMAGES + camera.replace("/", ".")


def following(chunk: int, file: int) -> tuple[int, int]:
    """Chunk and file after these."""
    return (chunk + 1, 0) if file == CHUNK_SIZE - 1 else (chunk, file + 1)


def fill(template: object, what: str, *, chunk_index: int, file_index: int, video_key: str = "") -> str:
    """A path from a template of info.json, which may use these three names and nothing else.

    Raises:
        BadInput: it is no such template.
    """
    values: dict[str, int | str] = {"chunk_index": chunk_index, "file_index": file_index, "video_key": video_key}
    if not isinstance(template, str) or len(template) > 1000:
        raise BadInput(f"{what} in {INFO} is {str(template)[:100]!r}, expected a text such as {DATA!r}")
    path = ""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise BadInput(f"{what} {template!r} in {INFO} is no template ({error}); expected such as {DATA!r}") from error
    for text, name, spec, conversion in parts:
        path += text
        if name is None:
            continue
        if name not in values or conversion or not _NUMBER.fullmatch(spec or "") or (name == "video_key" and spec):
            raise BadInput(
                f"{what} {template!r} in {INFO} uses {{{name}}}; only chunk_index, file_index and video_key are known"
            )
        path += format(values[name], spec or "")
    return path

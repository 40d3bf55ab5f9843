"""What an episode's joints did and were told, at given times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.description import read_description, split_name
from embodied_vision.episodes.alignment import Timeline, align
from embodied_vision.episodes.reader import Episode
from embodied_vision.errors import BadInput

STATE_STREAMS = (
    "joint_state",
    "joint_states",
    "observation/state",
    "observation/joint_positions",
    "observation/robot0_joint_pos",
    "state",
    "joints",
)
ACTION_STREAM = "action"
TRAJECTORIES = "joint_trajectory/"
GRIPPER = "gripper"
_NS = 1_000_000_000


def newest(stamps: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the newest sample at each time, of the first where there is none yet."""
    line = Timeline.of(stamps)
    return line.numbers[align(line, times, "hold", None, int(times[-1])).first]


def held(episode: Episode, stream: str, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """The newest values (T, D) of a stream at each time, the first where there is none yet."""
    stamps, values = episode.stream(stream)
    return values[newest(stamps, times)]


def state_stream(episode: Episode) -> str:
    """The stream that holds the joints' state.

    Raises:
        BadInput: there is none.
    """
    for name in STATE_STREAMS:
        if name in episode.streams:
            return name
    raise BadInput(
        f"episode {episode.id} has the streams {list(episode.streams)}, none of them joint states; "
        f"log them as {STATE_STREAMS[0]!r} or export it as mcap"
    )


def state_of(episode: Episode, times: NDArray[np.int64]) -> tuple[NDArray[np.float64], list[str]]:
    """Joint positions (T, J) at given times, and the joints' names."""
    stream = state_stream(episode)
    values = held(episode, stream, times)
    names = _joint_names(episode, values.shape[1]) if stream == "joint_state" else _told_names(episode)
    if stream == "joint_state":
        values = values[:, : len(names)]  # positions; velocities and efforts stand behind them
    if len(names) != values.shape[1]:
        names = [f"joint_{number}" for number in range(values.shape[1])]
    return values, names


def _told_names(episode: Episode) -> list[str]:
    names = episode.attributes.get("joint_names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _joint_names(episode: Episode, width: int) -> list[str]:
    """The joints of rows of that width, which hold positions and perhaps velocities and efforts of each."""
    for names in (_told_names(episode), _commanded_names(episode), _shipped_names(episode.robot)):
        if names and width % len(names) == 0 and width // len(names) <= 3:
            return names
    return [f"joint_{number}" for number in range(width // 2 if width % 2 == 0 else width)]


def _commanded_names(episode: Episode) -> list[str]:
    for name in episode.streams:
        points = name.removeprefix(TRAJECTORIES)
        if name != points and points.isdecimal() and int(points):
            joints = (episode.stream(name)[1].shape[1] // int(points) - 1) // 3
            return [f"joint_{number}" for number in range(joints)]
    return []


def _shipped_names(robot: str) -> list[str]:
    """Joints of a robot that ships with this package, none of others."""
    try:
        split_name(robot)
        return list(read_description(robot).fields["home"])
    except (BadInput, KeyError):
        return []


def action_of(
    episode: Episode, times: NDArray[np.int64], state: NDArray[np.float64], names: Sequence[str], rate_hz: int
) -> tuple[NDArray[np.float64], list[str]]:
    """Where the joints were told to be by the next time (T, A), and names: joints, then the gripper if commanded."""
    if ACTION_STREAM in episode.streams:
        values = held(episode, ACTION_STREAM, times)
        same = values.shape[1] == len(names)
        return values, list(names) if same else [f"action_{number}" for number in range(values.shape[1])]
    action = np.concatenate([state[1:], state[-1:]])
    until = np.append(times[1:], times[-1] + _NS // rate_hz)
    for row, target in enumerate(_commanded(episode, until, len(names))):
        if target is not None:
            action[row] = target
    if GRIPPER not in episode.streams:
        return action, list(names)
    stamps, values = episode.stream(GRIPPER)
    grip = np.where((until >= stamps.min())[:, None], values[newest(stamps, until)][:, :1], 0.0)
    return np.hstack([action, grip]), [*names, GRIPPER]


def _commanded(episode: Episode, times: NDArray[np.int64], joints: int) -> list[NDArray[np.float64] | None]:
    """Where the newest trajectory says that the joints should be at each time; None before the first."""
    sent: list[tuple[int, NDArray[np.float64]]] = []
    for name in episode.streams:
        if name.startswith(TRAJECTORIES):
            stamps, values = episode.stream(name)
            width = 1 + 3 * joints  # time, positions, velocities, accelerations
            if values.shape[1] % width == 0:
                points = values.reshape(len(values), -1, width)
                sent += [(int(stamp), rows[:, : 1 + joints]) for stamp, rows in zip(stamps, points, strict=True)]
    sent.sort(key=lambda entry: entry[0])
    begins = np.array([stamp for stamp, _ in sent], np.int64)
    found: list[NDArray[np.float64] | None] = []
    for time, number in zip(times, np.searchsorted(begins, times, side="right") - 1, strict=True):
        if number < 0:
            found.append(None)
            continue
        stamp, rows = sent[number]
        elapsed_s = (int(time) - stamp) / _NS
        found.append(np.array([np.interp(elapsed_s, rows[:, 0], rows[:, 1 + joint]) for joint in range(joints)]))
    return found

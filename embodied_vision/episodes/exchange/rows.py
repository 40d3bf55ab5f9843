"""An episode on one clock: a row a time step, as formats for learning want it.

The time base is the first camera. At 1 Hz and more its frames are laid on times k / rate, the nearest frame at each, so
a frame that was lost leaves its predecessor or successor there twice. Slower cameras, such as one frame a decision,
give one row a frame. Everything else is held: a row shows the newest that there was at its frame's stamp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_vision.episodes.alignment import Timeline, align
from embodied_vision.episodes.exchange.joints import action_of, held, newest, state_of, state_stream
from embodied_vision.episodes.reader import Episode
from embodied_vision.errors import BadInput
from embodied_vision.geometry import pose_to_vector
from embodied_vision.types import PickPlace

REWARD_STREAM = "next/reward"
OBSERVED = "observation/"
"""Streams so named, as `import` makes them of other observations, are given to every row as well."""

POSE = 7
_NS = 1_000_000_000
_STRETCH = 8
"""So many times as many rows as frames are the most; beyond it the frames are too uneven for a fixed rate."""


@dataclass(frozen=True)
class Clock:
    """The time base of a set of episodes.

    Attributes:
        camera: whose frames the rows follow.
        rate_hz: rows a second, whole, 1 or more.
        stepwise: rows are steps, one a frame, whatever time lies between them.
    """

    camera: str
    rate_hz: int
    stepwise: bool


@dataclass(frozen=True, eq=False)
class Rows:
    """An episode on a clock, T rows.

    Attributes:
        stamps_ns: int64 (T,), stamp of the frame that the clock's camera shows in each row.
        frames: int64 (T,) a camera, number of the frame that it shows in each row.
        state: float32 (T, D), joint positions in rad and m.
        action: float32 (T, A), where the joints were told to be by the next row, then the gripper's command if any.
        reward: float32 (T,).
        done: bool (T,), True in the last row.
        success: bool (T,), True in the last row of a solved episode.
        decision: int64 (T,), number of the newest decision, -1 before the first.
        pick, place: float32 (T, 7), its poses as x, y, z in m and quaternion x, y, z, w; zeros without one.
        observed: float32 (T, D) by name, the streams below `OBSERVED` but for the state.
        state_names, action_names: of their columns.
    """

    stamps_ns: NDArray[np.int64]
    frames: Mapping[str, NDArray[np.int64]]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    done: NDArray[np.bool_]
    success: NDArray[np.bool_]
    decision: NDArray[np.int64]
    pick: NDArray[np.float32]
    place: NDArray[np.float32]
    observed: Mapping[str, NDArray[np.float32]]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def shown(self, camera: str) -> NDArray[np.int64]:
        """First row of every frame of a camera that is shown at all, ascending, also where stamps went backwards."""
        return np.sort(np.unique(self.frames[camera], return_index=True)[1]).astype(np.int64)


def find_clock(episodes: Sequence[Episode]) -> Clock:
    """The time base that fits these episodes.

    Raises:
        BadInput: there are no episodes or no frames.
    """
    if not episodes:
        raise BadInput("no episodes to export; give ids or a filter that some match")
    cameras = list(episodes[0].cameras)
    if not cameras:
        raise BadInput(f"episode {episodes[0].id} has no camera; formats for learning need one, export it as mcap")
    steps = np.concatenate([np.diff(np.sort(_stamps(episode, cameras[0]))) for episode in episodes])
    step_ns = float(np.median(steps)) if len(steps) else np.inf
    stepwise = step_ns <= 0 or step_ns > _NS
    return Clock(cameras[0], 1 if stepwise else round(_NS / step_ns), stepwise)


def rows_of(episode: Episode, clock: Clock) -> Rows:
    """Lay an episode on a clock.

    Raises:
        BadInput: it has no joint states, a camera without frames, frames too uneven for the rate, or non-finite joints.
    """
    line = Timeline.of(_stamps(episode, clock.camera))
    shown = np.arange(len(line)) if clock.stepwise else _at_rate(line.stamps_ns, clock.rate_hz, episode.id)
    times = line.stamps_ns[shown]
    frames = {
        camera: line.numbers[shown] if camera == clock.camera else newest(_stamps(episode, camera), times)
        for camera in episode.cameras
    }
    state, names = state_of(episode, times)
    action, action_names = action_of(episode, times, state, names, clock.rate_hz)
    decision, pick, place = _decisions(episode, times)
    last = np.zeros(len(times), np.bool_)
    last[-1] = True
    return Rows(
        stamps_ns=times,
        frames=frames,
        state=_finite(state, episode, "its joint state"),
        action=_finite(action, episode, "its action"),
        reward=_reward(episode, times),
        done=last,
        success=last & bool(episode.outcome.get("solved", False)),
        decision=decision,
        pick=pick,
        place=place,
        observed={name: _finite(held(episode, name, times), episode, name) for name in _observed(episode)},
        state_names=tuple(names),
        action_names=tuple(action_names),
    )


def _stamps(episode: Episode, camera: str) -> NDArray[np.int64]:
    if camera not in episode.cameras:
        raise BadInput(f"episode {episode.id} has no camera {camera!r} as the others; export it by itself")
    stamps = episode.frames(camera).stamps_ns
    if not len(stamps):
        raise BadInput(f"episode {episode.id} has no frame of camera {camera!r}; leave it out")
    return stamps


def _at_rate(stamps: NDArray[np.int64], rate_hz: int, episode_id: str) -> NDArray[np.int64]:
    """Places of the frames nearest to even times."""
    span_ns = int(stamps[-1]) - int(stamps[0])
    count = round(span_ns * rate_hz / _NS) + 1
    if count > _STRETCH * len(stamps) + rate_hz:
        raise BadInput(
            f"episode {episode_id} spans {span_ns / _NS:.0f} s with {len(stamps)} frames, too uneven for "
            f"{rate_hz} rows a second; trim it or export it by itself"
        )
    even = stamps[0] + np.arange(count) * _NS // rate_hz
    line = Timeline(stamps, np.arange(len(stamps)))
    return align(line, even, "nearest", None, int(stamps[-1])).first


def _observed(episode: Episode) -> list[str]:
    state = state_stream(episode)
    return [name for name in episode.streams if name.startswith(OBSERVED) and name != state]


def _reward(episode: Episode, times: NDArray[np.int64]) -> NDArray[np.float32]:
    if REWARD_STREAM in episode.streams:
        return _finite(held(episode, REWARD_STREAM, times)[:, 0], episode, REWARD_STREAM)
    reward = np.zeros(len(times), np.float32)
    total = episode.outcome.get("reward", 0.0)
    if isinstance(total, int | float) and np.isfinite(total):
        reward[-1] = total
    return reward


def _decisions(
    episode: Episode, times: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    actions = [episode.decisions.action(number) for number in range(len(episode.decisions))]
    stamps = np.array([action.stamp_ns for action in actions], np.int64)
    number = np.full(len(times), -1)
    if len(stamps):
        number = np.where(times >= stamps.min(), newest(stamps, times), -1)
    poses = np.zeros((len(actions) + 1, 2, POSE), np.float32)  # the last one, at -1, stands for none
    for index, action in enumerate(actions):
        poses[index] = _poses(action)
    return number, poses[number, 0], poses[number, 1]


def _poses(action: PickPlace) -> NDArray[np.float32]:
    try:
        return np.stack([pose_to_vector(action.pick), pose_to_vector(action.place)]).astype(np.float32)
    except ValueError:  # not rotations: such a decision is in the log because the guard refused it
        return np.zeros((2, POSE), np.float32)


def _finite(values: NDArray[np.float64], episode: Episode, what: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        row = int(np.argwhere(~np.isfinite(narrow))[0][0])
        raise BadInput(
            f"episode {episode.id}: {what} is not finite in row {row} and would spoil the statistics that training "
            "normalises by; trim the episode or leave it out"
        )
    return narrow

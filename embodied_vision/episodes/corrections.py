"""What an operator would have done: corrected picks and places of logged decisions, kept in the episode's attributes.

Each says who gave it and when, and is kept for good; of several of the same decision the last one counts. The decision
itself stays as it was made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embodied_vision import geometry
from embodied_vision.episodes import strict
from embodied_vision.episodes.edit import change_attribute
from embodied_vision.episodes.reader import Episode
from embodied_vision.episodes.records import check_pose
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.types import RGBD, FloatArray, PickPlace, Scene, Workspace

CORRECTIONS = "corrections"
"""Name of the attribute."""
LONGEST_NOTE = 1000


@dataclass(frozen=True)
class Target:
    """Where the tool's tip should have gone, looking straight down.

    Attributes:
        x, y: in the base frame, m.
        yaw_rad: about the base's z.
        z: height of the tip, m; None to follow from what is seen there.
    """

    x: float
    y: float
    yaw_rad: float
    z: float | None = None

    @classmethod
    def parse(cls, text: str, what: str) -> Target:
        """Read "X,Y,YAW" or "X,Y,YAW,Z": m, m, degrees, m.

        Raises:
            BadInput: it is none.
        """
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (3, 4) or not all(map(math.isfinite, numbers)):
            raise BadInput(
                f"{what} {text!r} is not understood; give X,Y,YAW or X,Y,YAW,Z in m and degrees: 0.5,-0.1,90"
            )
        return cls(numbers[0], numbers[1], math.radians(numbers[2]), numbers[3] if len(numbers) == 4 else None)


@dataclass(frozen=True, eq=False)
class Correction:
    """What should have been done instead of a decision.

    Attributes:
        decision_id: the decision.
        pick, place: (4, 4) tip poses in the base frame.
        who: who says so.
        when_ns: when, system time.
        how: through what: `service` or `tool`.
        note: in words, may be empty.
    """

    decision_id: str
    pick: FloatArray
    place: FloatArray
    who: str
    when_ns: int
    how: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; floats survive exactly."""
        return {
            **{name: getattr(self, name) for name in ("decision_id", "who", "when_ns", "how", "note")},
            "pick": np.asarray(self.pick, float).tolist(),
            "place": np.asarray(self.place, float).tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Correction:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: it is not what `to_dict` writes.
        """
        for name in ("decision_id", "who", "how", "note"):
            strict.text(data.get(name), name)
        strict.integer(data.get("when_ns"), "when_ns")
        for name in ("pick", "place"):
            check_pose(data.get(name), name)
        words = {name: data[name] for name in ("decision_id", "who", "when_ns", "how", "note")}
        return cls(pick=np.array(data["pick"], float), place=np.array(data["place"], float), **words)

    def apply(self, action: PickPlace) -> PickPlace:
        """The action as it should have been; nobody scored it."""
        return replace(action, pick=self.pick, place=self.place, scores={})


def corrections(episode: Episode) -> dict[int, Correction]:
    """The corrections that count, by the number of the decision from 0; those of decisions cut away are left out.

    Raises:
        EpisodeError: they are damaged.
    """
    try:
        entries = strict.items(episode.attributes.get(CORRECTIONS, []), CORRECTIONS)
        given = [Correction.from_dict(strict.mapping(entry, "a correction")) for entry in entries]
    except ValueError as error:
        raise EpisodeError(f"{episode.location} has damaged corrections ({error}); restore it from a copy") from error
    numbers = {episode.decisions.action(number).decision_id: number for number in range(len(episode.decisions))}
    return {numbers[each.decision_id]: each for each in given if each.decision_id in numbers}


def make_correction(
    action: PickPlace,
    frames: Sequence[RGBD],
    pick: Target | None,
    place: Target | None,
    *,
    who: str,
    how: str,
    note: str = "",
) -> Correction:
    """A correction of an action.

    A pose that is not given stays as it was. A height that is not given follows from what was seen: the pick's tip as
    far above the surface there as it was before, the place's as far above the surface there, with an object under it
    that is as much thicker as the new pick is higher.

    Args:
        action: what was decided.
        frames: what it was decided on.
        pick, place: where the tip should have gone.
        who: who says so.
        how: through what.
        note: in words.

    Raises:
        BadInput: neither pick nor place, nobody, a point outside of the workspace, or one where nothing was seen.
    """
    if pick is None and place is None:
        raise BadInput("neither pick nor place is corrected; give one of them, or both")
    if not who.strip():
        raise BadInput("nobody corrects this; say who")
    if len(note) > LONGEST_NOTE:
        raise BadInput(f"a note of {len(note)} characters; {LONGEST_NOTE} at most")
    if not action.is_finite():
        raise BadInput(
            f"decision {action.decision_id} holds numbers that are not finite; give pick and place with heights"
        )
    scene: list[Scene] = []

    def surface(x: float, y: float) -> float:
        if not scene:
            scene.append(geometry.fuse_scene(frames, [], Workspace()))
        return _surface_m(scene[0], x, y)

    thicker, poses = 0.0, {"pick": action.pick, "place": action.place}
    for name, target in (("pick", pick), ("place", place)):
        if target is None and not (name == "place" and thicker):
            continue
        was = poses[name][:3, 3]
        goal = target or Target(float(was[0]), float(was[1]), geometry.yaw_of(poses[name]))
        _require_inside(goal, name)
        height = goal.z
        if height is None:
            rise = surface(goal.x, goal.y) - surface(float(was[0]), float(was[1]))
            height = float(was[2]) + rise + (thicker if name == "place" else 0.0)
        if name == "pick":
            thicker = height - float(was[2])
        poses[name] = geometry.tool_down(goal.x, goal.y, height, goal.yaw_rad)
    return Correction(action.decision_id, poses["pick"], poses["place"], who.strip(), time.time_ns(), how, note)


def correct(
    store: EpisodeStore,
    episode_id: str,
    decision: int,
    pick: Target | None,
    place: Target | None,
    *,
    who: str,
    how: str = "tool",
    note: str = "",
) -> Correction:
    """Keep a correction with a closed episode; a crash leaves the episode whole, with it or without.

    Args:
        store: where the episode lies.
        episode_id: which.
        decision: its number, from 0.
        pick, place, who, how, note: as of `make_correction`.

    Raises:
        BadInput: no such decision, or as of `make_correction`.
        EpisodeError: the episode is damaged, or being changed, or the disk is full.
    """
    decisions = store.open(episode_id).decisions
    if not 0 <= decision < len(decisions):
        raise BadInput(
            f"episode {episode_id} has {len(decisions)} decisions, there is no number {decision + 1}; see "
            f"`embodied-vision episodes show {store.path} {episode_id} --picture sheet.png`"
        )
    made = make_correction(
        decisions.action(decision), decisions[decision].frames, pick, place, who=who, how=how, note=note
    )
    keep(store, episode_id, made)
    return made


def keep(store: EpisodeStore, episode_id: str, correction: Correction) -> None:
    """Add a correction to a closed episode; errors as of `correct`."""
    change_attribute(store, episode_id, CORRECTIONS, lambda former: [*(former or []), correction.to_dict()])


def _surface_m(scene: Scene, x: float, y: float) -> float:
    """Height of what is seen within a cell of a point."""
    i, j = np.floor(geometry.xy_to_cell(np.array([x, y]), scene.workspace) + 0.5).astype(int)
    area = (slice(max(i - 1, 0), max(i + 2, 0)), slice(max(j - 1, 0), max(j + 2, 0)))
    seen = scene.height[area][scene.valid[area]]
    if not seen.size:
        raise BadInput(f"nothing is seen at x {x:g}, y {y:g} m; give the tip's height as a fourth number")
    return float(np.median(seen))


def _require_inside(target: Target, what: str) -> None:
    bounds = Workspace()
    values = {"x": target.x, "y": target.y} | ({"z": target.z} if target.z is not None else {})
    for axis, value in values.items():
        low, high = getattr(bounds, axis)
        if not (math.isfinite(value) and low <= value <= high):
            raise BadInput(f"{what}: {axis} is {value:g} m, the workspace reaches from {low:g} to {high:g} m")
    if not math.isfinite(target.yaw_rad):
        raise BadInput(f"{what}: yaw is {target.yaw_rad}; give a finite angle")

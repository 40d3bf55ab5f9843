"""What a trajectory does in space: the tip in its box, every part of the arm above the table and clear of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embodied_vision.control.contact import ContactCheck
from embodied_vision.control.guard_settings import GuardSettings
from embodied_vision.control.joint_rules import PARTS, STEP_ACCELERATION, Spline
from embodied_vision.control.robot import Matrix, RobotModel
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.errors import Refused
from embodied_vision.types import Workspace

EVERY = 4
"""Heights are taken at every fourth part of the spline, twice a step."""


class SpaceRules:
    """The rules `workspace`, `table`, `self_collision` and `keep_out`."""

    def __init__(
        self, model: RobotModel, workspace: Workspace, settings: GuardSettings, keep_out: Sequence[KeepOut]
    ) -> None:
        self._model = model
        self._workspace = workspace
        self._settings = settings
        self.contacts = ContactCheck(model, settings.clearance_m, keep_out)

    def check(self, times_s: NDArray[np.float64], spline: Spline) -> None:
        """Whether arm and tool may go where a trajectory leads that keeps to the joint limits.

        Args:
            times_s: of its samples, (N,).
            spline: along it.

        Raises:
            Refused: naming the rule, what it concerns, time, value and limit.
        """
        steps = np.repeat(np.diff(times_s) / PARTS, PARTS)
        times = np.concatenate([[0.0], np.cumsum(steps)])
        path = _joined(spline[0])
        some = times[::EVERY]
        rotations, origins = self._model.joint_frames(path[::EVERY])
        self._check_frames(rotations, origins, some)
        self._check_table(rotations, origins, some, self._sag(*spline[1:], np.diff(some)))
        stray = STEP_ACCELERATION * self._model.limits.acceleration * steps[:, None] ** 2 / 8
        contact = self.contacts.first(path, stray)
        if contact is not None:
            where = f"distance of {contact.first} to {contact.second} at {times[contact.sample]:.3f} s"
            value, limit = f"{contact.distance_m:.4f} m", f"at least {contact.needed_m:.4f} m"
            if contact.with_keep_out:
                raise Refused("keep_out", where, value, limit, "choose a pose whose way does not lead there")
            raise Refused("self_collision", where, value, limit, "choose another pose or turn the tool")

    def _check_frames(self, rotations: Matrix, origins: Matrix, t: NDArray[np.float64]) -> None:
        """The tip in its box; elbow and wrist well above the table."""
        tip = self._model.tip_positions(rotations, origins)
        margin, settings = self._settings.path_margin_m, self._settings
        boxes = (
            (self._workspace.x[0] - margin, self._workspace.x[1] + margin),
            (self._workspace.y[0] - margin, self._workspace.y[1] + margin),
            (settings.tip_height_m, settings.ceiling_m),
        )
        for axis, (low, high) in enumerate(boxes):
            beyond = np.maximum(low - tip[:, axis], tip[:, axis] - high)
            if not beyond.max() <= 0:
                i = int(beyond.argmax())
                raise refuse_place(f"{'xyz'[axis]} of the tip at {t[i]:.3f} s", float(tip[i, axis]), low, high)
        heights = origins[:, 1:, 2]
        if heights.size and not heights.min() >= self._model.link_clearance_m:
            sample, joint = np.unravel_index(int(heights.argmin()), heights.shape)
            where = f"z of {self._model.joint_names[int(joint) + 1]} at {t[sample]:.3f} s"
            raise refuse_place(where, float(heights[sample, joint]), self._model.link_clearance_m, np.inf)

    def _check_table(
        self, rotations: Matrix, origins: Matrix, t: NDArray[np.float64], sag: NDArray[np.float64]
    ) -> None:
        """Every part that moves above the table, also where it sags by so much between two positions."""
        height = self._settings.body_height_m
        for body in self.contacts.bodies:
            if body.joint == 0:
                continue
            lowest = body.lowest(rotations[:, body.joint - 1], origins[:, body.joint - 1]) - sag
            if not lowest.min() >= height:
                i = int(lowest.argmin())
                where, value = f"lowest point of {body.link} at {t[i]:.3f} s", f"{lowest[i]:.4f} m"
                limit = f"at least {height:g} m above the table"
                raise Refused("table", where, value, limit, "choose a higher pose or turn the tool")

    def _sag(self, qd: Matrix, qdd: Matrix, h: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M,) m: how much lower a point may be between the M positions that are looked at than at them.

        Between two of them it leaves the straight line by its acceleration times h² over 8, and that acceleration is
        bounded by turns and their changes times reach.
        """
        reach, parts = self.contacts.reach_m, range(0, PARTS, EVERY)
        speed, change = (
            np.stack([np.abs(rates[:, i : i + EVERY + 1]).max(axis=1) for i in parts], axis=1).reshape(-1, qd.shape[2])
            for rates in (qd, qdd)
        )
        sag = (speed.sum(axis=1) * (speed @ reach) + change @ reach) * h * h / 8
        return np.maximum(np.append(sag, 0.0), np.append(0.0, sag))


def refuse_place(where: str, value: float, low: float, high: float) -> Refused:
    """The refusal of a height or place outside its bounds, m."""
    return Refused("workspace", where, f"{value:.4f} m", f"{low:g} to {high:g} m", "choose a pose inside the workspace")


def _joined(spline: Matrix) -> Matrix:
    """Positions (N - 1, PARTS + 1, J) by step as one path ((N - 1)·PARTS + 1, J)."""
    return np.concatenate([spline[:, :-1].reshape(-1, spline.shape[2]), spline[-1:, -1]])

"""What the guard must do with a command, worked out in another way than the guard does it.

Limits are read from URDF and YAML anew, splines come from a linear system a step, everything is looked at every
millisecond, and bodies are those of Pinocchio's geometry of the whole robot, fingers at any width, by its own collision
test. Between the command that must be refused and the one that must be accepted lie the margins below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from xml.etree import ElementTree

import coal
import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from embodied_vision.control.description import read_description
from embodied_vision.control.guard_settings import GuardSettings
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.types import PickPlace, Workspace

Array = NDArray[np.float64]
EXACT = 1e-9
"""Relative margin of what samples state."""
DIFFERENCES = 1e-6
"""Relative margin of what follows from their differences."""
BETWEEN = 0.02
"""Relative margin of what the spline does between samples."""
PLACE_M = 0.0025
"""How far tip and joint frames may go beyond their bounds between the positions that the guard looks at."""
TABLE_M = 0.005
"""What is higher than this above its bound everywhere must be accepted."""
CLEAR_M = 0.03
"""What is farther than this beyond its bound from everything else must be accepted."""
TOUCH_M = 1e-4
"""What comes nearer than its bound by this must be refused."""


@dataclass
class Verdict:
    """What must happen: refused when `violated` names anything, accepted when `near` is empty as well.

    Attributes:
        violated: rules broken by more than the margin.
        near: rules broken, or kept by less than the margin.
    """

    violated: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)

    def compare(self, rule: str, value: float, bound: float, beyond: float, within: float) -> None:
        """Note a value that must not be above its bound, with margins on either side; what is no number is above."""
        if not value <= bound + beyond:
            self.violated.append(rule)
        if not value <= bound - within:
            self.near.append(rule)


class Judge:
    """Judges commands for one robot in one cell."""

    def __init__(self, name: str, workspace: Workspace, settings: GuardSettings, keep_out: Sequence[KeepOut]) -> None:
        description = read_description(name)
        self.settings, self.workspace = settings, workspace
        self.model = pin.buildModelFromXML(description.urdf)
        self.data = self.model.createData()
        fields = description.fields
        self.arm = [name for name in list(self.model.names)[1:] if name in fields["home"]]
        self.index = [self.model.idx_qs[self.model.getJointId(name)] for name in self.arm]
        self.numbers = [self.model.getJointId(name) for name in self.arm]
        self.tip = self.model.getFrameId(fields["tip_link"])
        self.floor = float(fields["link_clearance_m"])
        self.lower, self.upper, self.velocity, self.acceleration, self.jerk = self._limits(description.urdf, fields)
        self.geometry = pin.buildGeomFromUrdfString(self.model, description.urdf, pin.GeometryType.COLLISION)
        self._add_pairs(fields, keep_out)
        self.contacts = pin.GeometryData(self.geometry)
        for request in self.contacts.collisionRequests:
            request.security_margin = settings.clearance_m - TOUCH_M

    def _limits(self, urdf: str, fields: dict) -> list[Array]:  # type: ignore[type-arg]
        columns = []
        for joint in ElementTree.fromstring(urdf).iter("joint"):
            if joint.get("name") in self.arm:
                limit, entry = joint.find("limit"), fields["joint_limits"][joint.get("name")]
                assert limit is not None
                low, high, fast = (float(str(limit.get(key))) for key in ("lower", "upper", "velocity"))
                if entry.get("has_position_limits"):
                    low, high = max(low, entry["min_position"]), min(high, entry["max_position"])
                columns.append([low, high, fast, entry["max_acceleration"], entry["max_jerk"]])
        return list(np.array(columns).T)

    def _add_pairs(self, fields: dict, keep_out: Sequence[KeepOut]) -> None:  # type: ignore[type-arg]
        apart = [set(pair) for pair in fields.get("disable_collisions", [])]
        parts = list(self.geometry.geometryObjects)
        links = [self.model.frames[part.parentFrame].name for part in parts]
        numbers = [sum(part.parentJoint >= number for number in self.numbers) for part in parts]
        for i in range(len(parts)):
            for k in range(i):
                if abs(numbers[i] - numbers[k]) > 1 and {links[i], links[k]} not in apart:
                    self.geometry.addCollisionPair(pin.CollisionPair(i, k))
        boxes = [
            pin.GeometryObject(f"box {k}", 0, pin.SE3(box.pose), coal.Box(*box.size)) for k, box in enumerate(keep_out)
        ]
        # The margin of all pairs is taken off the plane, so that it stands where the bound is.
        height = self.settings.body_height_m - self.settings.clearance_m + TOUCH_M - 1e-5
        plane = pin.GeometryObject("table", 0, pin.SE3.Identity(), coal.Halfspace(np.array([0.0, 0.0, 1.0]), height))
        self.plane_below_m = self.settings.body_height_m - height
        self.table_pairs = set()
        for thing in (*boxes, plane):
            number = self.geometry.addGeometryObject(thing)
            for i in range(len(parts)):
                if numbers[i] > 0:
                    if thing is plane:
                        self.table_pairs.add(len(self.geometry.collisionPairs))
                    self.geometry.addCollisionPair(pin.CollisionPair(i, number))

    # ---- decisions

    def decision(self, action: PickPlace, now_ns: int, newest_ns: int | None) -> Verdict:
        """What must happen to a decision; `newest_ns` is the stamp of the last accepted one."""
        verdict = Verdict()
        numbers = [float(x) for pose in (action.pick, action.place) for x in np.ravel(pose)] + list(
            action.scores.values()
        )
        if not all(abs(x) < float("inf") for x in numbers):
            verdict.compare("non_finite", 1, 0, 0, 0)
            return verdict
        for pose in (action.pick, action.place):
            rows = [[float(x) for x in row] for row in pose]
            dots = [[sum(rows[i][n] * rows[k][n] for n in range(3)) - (i == k) for k in range(3)] for i in range(3)]
            wrong = max(abs(x) for row in dots for x in row)
            wrong = max(wrong, *(abs(x - y) for x, y in zip(rows[3], (0, 0, 0, 1), strict=True)))
            verdict.compare("not_a_pose", wrong, 1e-4, 1e-9, 1e-9)
            (a, b, c), (d, e, f), (g, h, i) = (row[:3] for row in rows[:3])
            volume = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
            verdict.compare("not_a_pose", -volume, 0, 1e-9, 1e-9)
            bounds = (self.workspace.x, self.workspace.y, (self.settings.tip_height_m, self.workspace.z[1]))
            for axis, (low, high) in enumerate(bounds):
                verdict.compare("workspace", max(low - rows[axis][3], rows[axis][3] - high), 0, 1e-12, 1e-12)
        self._stamp(verdict, action.stamp_ns, now_ns, newest_ns, self.settings.observation_age_s)
        return verdict

    def _stamp(self, verdict: Verdict, stamp_ns: int, now_ns: int, newest_ns: int | None, age_s: float) -> None:
        age_ns = now_ns - stamp_ns
        verdict.compare("stale", age_ns, round(age_s * 1e9), 2, 2)
        verdict.compare("stale", -age_ns, round(self.settings.clock_slack_s * 1e9), 2, 2)
        if newest_ns is not None and stamp_ns < newest_ns:
            verdict.compare("time_went_back", 1, 0, 0, 0)

    # ---- trajectories

    def trajectory(
        self,
        parts: tuple[Array, Array, Array, Array],
        q_now: Array,
        stamp_ns: int,
        now_ns: int,
        newest_ns: int | None,
        brake_s: float,
        refused_in_space: bool,
    ) -> Verdict:
        """What must happen to a trajectory of times (N,), positions, velocities and accelerations (N, J)."""
        verdict = Verdict()
        t, q, qd, qdd = parts
        if q.shape[1] != len(self.arm) or q_now.shape != (len(self.arm),):
            verdict.compare("shape", 1, 0, 0, 0)
            return verdict
        if not all(np.isfinite(part).all() for part in (*parts, q_now)):
            verdict.compare("non_finite", 1, 0, 0, 0)
            return verdict
        self._stamp(verdict, stamp_ns, now_ns, newest_ns, self.settings.joint_state_age_s)
        h = t[1:] - t[:-1]
        verdict.compare("times", abs(t[0]), 0, 0, 0)
        verdict.compare("times", -h.min(), -1e-4, 1e-13, 1e-13)
        verdict.compare("times", h.max(), self.settings.gap_s * 1.001, 1e-12, 1e-12)
        with np.errstate(all="ignore"):
            self._samples(verdict, t, h, q, qd, qdd, q_now, brake_s)
        if verdict.violated:
            return verdict
        path = self._between(verdict, t, h, q, qd, qdd, brake_s)
        if not verdict.violated:
            self._space(verdict, path[:: 4 if refused_in_space else 2], refused_in_space)
        return verdict

    def _samples(
        self, verdict: Verdict, t: Array, h: Array, q: Array, qd: Array, qdd: Array, q_now: Array, brake_s: float
    ) -> None:
        def share(rule: str, values: Array, bound: Array | float, margin: float) -> None:
            worst = float(np.max(np.abs(values) / bound)) if values.size else 0.0
            verdict.compare(rule, worst, 1, margin, margin)

        share("jump", q[0] - q_now, self.settings.jump_rad, EXACT)
        verdict.compare("position_limit", float(np.max(np.maximum(self.lower - q, q - self.upper))), 0, 1e-12, 1e-12)
        share("velocity_limit", qd, self.velocity, EXACT)
        share("acceleration_limit", qdd, self.acceleration, EXACT)
        share("not_at_rest", qd[-1], 1e-3, EXACT)
        step = h[:, None]
        moved = q[1:] - q[:-1]
        share("velocity_limit", moved / step, self.velocity * 1.001, DIFFERENCES)
        share("acceleration_limit", (qd[1:] - qd[:-1]) / step, self.acceleration * 1.001, DIFFERENCES)
        mean = (qd[1:] + qd[:-1]) / 2
        share("inconsistent", (moved / step - mean) * 4 / step, self.acceleration * 1.001, DIFFERENCES)
        jerk = (qdd[1:] - qdd[:-1]) / step
        surely, perhaps = (t[:-1] < t[-1] - brake_s - margin for margin in (1.01e-4, 0.99e-4))
        verdict.compare("jerk_limit", _worst(jerk[surely] / self.jerk), 1.001, DIFFERENCES, -np.inf)
        verdict.compare("jerk_limit", _worst(jerk[perhaps] / self.jerk), 1.001, np.inf, DIFFERENCES)

    def _between(self, verdict: Verdict, t: Array, h: Array, q: Array, qd: Array, qdd: Array, brake_s: float) -> Array:
        """Note what the spline does; the path (M, J) along it."""
        ends = np.stack([q[:-1], h[:, None] * qd[:-1], h[:, None] ** 2 * qdd[:-1]], axis=1)
        others = np.stack([q[1:], h[:, None] * qd[1:], h[:, None] ** 2 * qdd[1:]], axis=1)
        coefficients = np.linalg.solve(_SYSTEM[None], np.concatenate([ends, others], axis=1))
        pieces, a = [], self.acceleration
        for i, each in enumerate(coefficients):
            powers = _grid(max(9, int(np.ceil(h[i] / 1e-3)) + 1))
            place, speed, change, jerk = (powers[order] @ each / h[i] ** order for order in range(4))
            beyond = np.maximum(self.lower - place, place - self.upper) / (0.0346 * a * h[i] ** 2)
            verdict.compare("position_limit", _worst(beyond, sign=True), 1, BETWEEN, BETWEEN)
            fast = speed / (self.velocity + 0.1356 * a * h[i])
            verdict.compare("velocity_limit", _worst(fast), 1, BETWEEN, BETWEEN)
            verdict.compare("acceleration_limit", _worst(change / (1.748 * a)), 1, BETWEEN, BETWEEN)
            if t[i] < t[-1] - brake_s - 0.99e-4:
                beyond_jerk = BETWEEN if t[i] < t[-1] - brake_s - 1.01e-4 else np.inf
                verdict.compare("jerk_limit", _worst(jerk / (2.176 * self.jerk)), 1.001, beyond_jerk, BETWEEN)
            pieces.append(place[:-1])
        return np.concatenate([*pieces, q[-1:]])

    def _space(self, verdict: Verdict, path: Array, refused_in_space: bool) -> None:
        """Note where tip, frames and bodies go along a path (M, J)."""
        others = [k for k in range(self.model.nq) if k not in self.index]
        low, high = self.model.lowerPositionLimit[others], self.model.upperPositionLimit[others]
        # Fingers count at every width: a refusal is right if it is right at one of them.
        widths = [np.random.default_rng(len(path)).uniform(0, 1, len(others))]
        if refused_in_space and others:
            widths += [np.zeros(len(others)), np.ones(len(others))]
        whole = np.zeros((len(widths), len(path), self.model.nq))
        whole[:, :, self.index] = path
        for row, width in zip(whole, widths, strict=True):
            row[:, others] = low + width * (high - low)
        whole = whole.reshape(-1, self.model.nq)
        tips, frames, nearest, lowest, touched = [], [], np.inf, np.inf, False
        for each in whole:
            pin.updateGeometryPlacements(self.model, self.data, self.geometry, self.contacts, each)
            frames.append([self.data.oMi[number].translation[2] for number in self.numbers[1:]])
            tips.append(pin.updateFramePlacement(self.model, self.data, self.tip).translation.copy())
            if not refused_in_space:
                touched = touched or pin.computeCollisions(self.geometry, self.contacts, True)
                continue
            pin.computeDistances(self.geometry, self.contacts)
            for k, result in enumerate(self.contacts.distanceResults):
                if k in self.table_pairs:
                    lowest = min(lowest, result.min_distance - self.plane_below_m)
                else:
                    nearest = min(nearest, result.min_distance - self.settings.clearance_m)
        if touched:
            verdict.compare("contact", 1, 0, 0, 0)
        if refused_in_space:
            verdict.compare("contact", -nearest, 0, 0, CLEAR_M)
            verdict.compare("table", -lowest, 0, 0, TABLE_M)
        tip, margin = np.array(tips), self.settings.path_margin_m
        workspace, settings = self.workspace, self.settings
        boxes = [(low - margin, high + margin) for low, high in (workspace.x, workspace.y)]
        for axis, (low, high) in enumerate([*boxes, (settings.tip_height_m, settings.ceiling_m)]):
            out = max(low - tip[:, axis].min(), tip[:, axis].max() - high)
            verdict.compare("workspace", out, 0, PLACE_M, PLACE_M if refused_in_space else 0)
        out = self.floor - np.min(frames)
        verdict.compare("workspace", out, 0, PLACE_M, PLACE_M if refused_in_space else 0)


@lru_cache
def _grid(count: int) -> Array:
    """(4, M, 6): the powers and their first three derivatives at so many even shares of a step."""
    return np.stack([_derivative(np.linspace(0.0, 1.0, count), order) for order in range(4)])


def _derivative(u: Array, order: int) -> Array:
    """(M, 6): derivatives of the powers of u (M,)."""
    columns = []
    for power in range(6):
        factor = float(np.prod(np.arange(power - order + 1, power + 1))) if power >= order else 0.0
        columns.append(factor * u ** max(power - order, 0))
    return np.stack(columns, axis=1)


_SYSTEM = np.concatenate(
    [np.concatenate([_derivative(np.array([end]), order) for order in range(3)]) for end in (0.0, 1.0)]
)


def _worst(values: Array, *, sign: bool = False) -> float:
    return float(np.max(values if sign else np.abs(values))) if values.size else 0.0

"""Commands to try a guard with: good ones, and ones that break each rule by a lot, by a little, or nearly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from embodied_vision.control.contact import ContactCheck
from embodied_vision.control.motion import plan_pick_place
from embodied_vision.control.planning import BRAKE_S, Pace, plan_joint
from embodied_vision.control.robot import RobotModel
from embodied_vision.control.streaming import horizon
from embodied_vision.control.surroundings import KeepOut
from embodied_vision.control.trajectory import Trajectory
from embodied_vision.errors import Refused
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace

Array = NDArray[np.float64]
ODD = (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e150, 5e-324, -5e-324, 1e-310, -0.0)


@dataclass(frozen=True)
class Command:
    """A trajectory, and the joint state that it starts from, aged so many ns at the time of the command."""

    kind: str
    times: Array
    positions: Array
    velocities: Array
    accelerations: Array
    q_now: Array
    age_ns: int
    brake_s: float

    @property
    def parts(self) -> tuple[Array, Array, Array, Array]:
        """What a trajectory holds."""
        return self.times, self.positions, self.velocities, self.accelerations


class Commands:
    """Makes commands for one robot; the same generator makes the same ones."""

    def __init__(self, model: RobotModel, keep_out: Sequence[KeepOut], clearance_m: float, rng: np.random.Generator):
        self._model, self._rng = model, rng
        self._contacts = ContactCheck(model, clearance_m, keep_out)
        self._motions = [motion for _ in range(12) if (motion := self._motion()) is not None]
        self._kinds: dict[str, Callable[[Command], Command]] = {
            "as planned": lambda command: command,
            "hurried": self._hurried,
            "stated value at a bound": self._stated,
            "odd number": self._odd,
            "shuffled": self._shuffled,
            "cut": self._cut,
            "spike": self._spike,
            "shifted": self._shifted,
            "start elsewhere": self._elsewhere,
            "steps": self._steps,
            "old joint state": self._old,
            "jerk": self._jerky,
            "anywhere": self._anywhere,
            "near contact": self._near_contact,
            "lies": self._lies,
        }

    def draw(self) -> Command:
        """One command."""
        kind = str(self._rng.choice(list(self._kinds)))
        return replace(self._kinds[kind](self._good()), kind=kind)

    def decision(self, stamp_ns: int, now_ns: int) -> PickPlace:
        """One decision; about half of them are good."""
        rng = self._rng
        poses = [self._pose() for _ in range(2)]
        scores = {"pick": float(rng.normal())}
        match rng.integers(8):
            case 0:
                for _ in range(int(rng.integers(1, 5))):
                    poses[0][rng.integers(4), rng.integers(4)] = rng.choice(ODD)
            case 1:
                poses[rng.integers(2)][:3, 3] += rng.normal(0, 0.3, 3)
            case 2:
                which, axis = rng.integers(2), rng.integers(3)
                bound = rng.choice([*(0.244, 0.756), *(-0.512, 0.512), *(0.002, 0.28)][2 * axis : 2 * axis + 2])
                poses[which][axis, 3] = bound + rng.choice([-1, 1]) * 10.0 ** rng.uniform(-16, -2) * rng.integers(2)
            case 3:
                poses[rng.integers(2)][rng.integers(4), rng.integers(4)] += 10.0 ** rng.uniform(-7, 0)
            case 4:
                stamp_ns = now_ns + int(rng.choice([-2_000_000_000, 50_000_000])) + int(rng.integers(-5, 6))
            case 5:
                stamp_ns = int(now_ns + rng.choice([-1, 1]) * 10.0 ** rng.uniform(0, 18))
            case 6:
                scores["place"] = float(rng.choice(ODD))
        return PickPlace(pick=poses[0], place=poses[1], stamp_ns=stamp_ns, scores=scores)

    # ---- good commands

    def _pose(self) -> Array:
        rng, (near, far) = self._rng, self._model.reach_m
        while True:
            x, y = rng.uniform(0.25, 0.75), rng.uniform(-0.5, 0.5)
            if near <= np.hypot(x, y) <= far:
                return np.array(tool_down(x, y, rng.uniform(0.005, 0.2), rng.uniform(-np.pi, np.pi)))

    def _motion(self):  # type: ignore[no-untyped-def]
        try:
            return plan_pick_place(self._model, self._model.home, PickPlace(pick=self._pose(), place=self._pose()))
        except Refused:
            return None

    def _good(self) -> Command:
        """A horizon of a planned motion, or a planned segment that is short enough."""
        rng = self._rng
        motion = self._motions[rng.integers(len(self._motions))]
        path = motion.segments[rng.integers(len(motion.segments))].trajectory
        if rng.random() < 0.15 and path.duration < 0.8:
            return self._command(path, 0.0)
        t = rng.uniform(0, path.duration)
        return self._command(horizon(path, t, self._model.limits, rng.uniform(0.0, 0.2), 0.02), BRAKE_S)

    def _command(self, path: Trajectory, brake_s: float) -> Command:
        parts = (path.times_s, path.positions, path.velocities, path.accelerations)
        copies = [part.copy() for part in parts]
        return Command("", *copies, path.positions[0].copy(), int(self._rng.integers(0, 200_000_000)), brake_s)

    # ---- what is done to them

    def _near(self) -> float:
        """A number near 1, on either side, at any distance."""
        return 1 + float(self._rng.choice([-1, 1]) * 10.0 ** self._rng.uniform(-9, -0.5))

    def _entry(self, command: Command) -> tuple[int, int]:
        return int(self._rng.integers(len(command.times))), int(self._rng.integers(command.positions.shape[1]))

    def _hurried(self, command: Command) -> Command:
        """The whole motion at another pace, most often about as fast as some limit allows."""
        limits = self._model.limits
        shares = (
            (np.abs(command.velocities) / limits.velocity).max(),
            np.sqrt((np.abs(command.accelerations) / limits.acceleration).max()),
        )
        pace = (
            1 / max(self._rng.choice(shares), 1e-3) * self._near()
            if self._rng.random() < 0.7
            else np.exp(self._rng.normal())
        )
        return replace(
            command,
            times=command.times / pace,
            velocities=command.velocities * pace,
            accelerations=command.accelerations * pace**2,
        )

    def _stated(self, command: Command) -> Command:
        i, j = self._entry(command)
        limits, sign = self._model.limits, self._rng.choice([-1, 1])
        match self._rng.integers(3):
            case 0:
                command.velocities[i, j] = sign * limits.velocity[j] * self._near()
            case 1:
                command.accelerations[i, j] = sign * limits.acceleration[j] * self._near()
            case 2:
                command.velocities[-1, j] = sign * 1e-3 * self._near()
        return command

    def _odd(self, command: Command) -> Command:
        i, j = self._entry(command)
        value = self._rng.choice(ODD)
        match self._rng.integers(5):
            case 0:
                command.times[i] = value
            case 1:
                command.q_now[j] = value
            case which:
                command.parts[which - 1][i, j] = value
        return command

    def _shuffled(self, command: Command) -> Command:
        rng = self._rng
        match rng.integers(4):
            case 0:
                order = rng.permutation(command.positions.shape[1])
                parts = [part[:, order] for part in command.parts[1:]]
                return replace(
                    command, positions=parts[0], velocities=parts[1], accelerations=parts[2], q_now=command.q_now[order]
                )
            case 1:
                i, k = rng.integers(len(command.times), size=2)
                for part in command.parts[rng.integers(2) :]:
                    part[[i, k]] = part[[k, i]]
                return command
            case 2:
                return replace(command, velocities=-command.velocities)
            case _:
                back = [part[::-1].copy() for part in command.parts]
                return replace(command, positions=back[1], velocities=-back[2], accelerations=back[3], q_now=back[1][0])

    def _cut(self, command: Command) -> Command:
        rng, count = self._rng, len(command.times)
        match rng.integers(4):
            case 0:
                keep = slice(0, int(rng.integers(2, count + 1)))
            case 1:
                keep = slice(int(rng.integers(0, count - 1)), count)
            case 2:
                keep = slice(0, count, int(rng.integers(2, 4)))
            case _:
                return replace(
                    command,
                    positions=command.positions[:, :-1],
                    velocities=command.velocities[:, :-1],
                    accelerations=command.accelerations[:, :-1],
                )
        parts = [part[keep].copy() for part in command.parts]
        if len(parts[0]) < 2:
            return command
        if rng.random() < 0.7:
            parts[0] -= parts[0][0]
        q_now = parts[1][0] if rng.random() < 0.7 else command.q_now
        return replace(
            command, times=parts[0], positions=parts[1], velocities=parts[2], accelerations=parts[3], q_now=q_now
        )

    def _spike(self, command: Command) -> Command:
        """A position aside, by about as much as the acceleration limits would let pass."""
        i, j = self._entry(command)
        h = float(np.diff(command.times).min())
        size = self._model.limits.acceleration[j] * h * h / 4
        command.positions[i, j] += self._rng.choice([-1, 1]) * size * self._rng.choice([self._near(), 0.5, 3, 30])
        return command

    def _shifted(self, command: Command) -> Command:
        """The same motion of one joint elsewhere: at a limit, or into whatever is there."""
        j = self._entry(command)[1]
        limits, q = self._model.limits, command.positions[:, j]
        room = (limits.upper[j] - q.max(), limits.lower[j] - q.min())
        by = self._rng.choice(room) if self._rng.random() < 0.4 else self._rng.uniform(room[1], room[0])
        by *= self._rng.choice([1.0, self._near()])
        command.positions[:, j] += by
        command.q_now[j] += by
        return command

    def _elsewhere(self, command: Command) -> Command:
        command.q_now[self._entry(command)[1]] += (
            self._rng.choice([-1, 1]) * 0.1 * self._rng.choice([self._near(), 0.3, 5])
        )
        return command

    def _steps(self, command: Command) -> Command:
        i = int(self._rng.integers(0, len(command.times) - 1))
        former = command.times[i + 1] - command.times[i]
        step = self._rng.choice(
            [1e-4 * self._near(), 0.05 * 1.001 * self._near(), 0.0, -former, 5e-324, former * self._near()]
        )
        match self._rng.integers(3):
            case 0:
                command.times[i + 1 :] += step - former
            case 1:
                command.times[:] += self._rng.choice([-1, 1]) * 10.0 ** self._rng.uniform(-320, 1)
            case 2:
                command.times[i + 1] = command.times[i] + step
        return command

    def _old(self, command: Command) -> Command:
        edge = int(self._rng.choice([250_000_000, -50_000_000])) + int(self._rng.integers(-5, 6))
        far = int(self._rng.choice([-1, 1]) * 10.0 ** self._rng.uniform(0, 18))
        return replace(command, age_ns=edge if self._rng.random() < 0.6 else far)

    def _jerky(self, command: Command) -> Command:
        """One joint by a jerk that changes sign at random samples, about as strong as its limit, then rest."""
        rng, j = self._rng, self._entry(command)[1]
        h = rng.uniform(0.0005, 0.004)
        jerk = self._model.limits.jerk[j] * self._near()
        pieces = np.repeat([1.0, -1.0, -1.0, 1.0], max(1, int(0.6 * self._model.limits.acceleration[j] / jerk / h)))
        rows = [(0.0, 0.0, 0.0)]
        for j_now in jerk * pieces:
            q, v, a = rows[-1]
            rows.append((q + v * h + a * h * h / 2 + j_now * h**3 / 6, v + a * h + j_now * h * h / 2, a + j_now * h))
        rows += [(rows[-1][0], 0.0, 0.0)] * int(rng.integers(0, 20))
        count = len(rows)
        parts = np.zeros((3, count, command.positions.shape[1]))
        parts[:, :, j] = np.array(rows).T
        start = command.positions[0]
        times = h * np.arange(count) if count * h < 1 else np.linspace(0, 1, count)
        return replace(
            command,
            times=times,
            positions=start + parts[0],
            velocities=parts[1],
            accelerations=parts[2],
            q_now=start,
            brake_s=float(rng.choice([0.0, BRAKE_S])),
        )

    def _anywhere(self, command: Command) -> Command:
        """A short way between random positions: nothing says that the arm may be there."""
        limits, rng = self._model.limits, self._rng
        start = rng.uniform(limits.lower, limits.upper)
        return self._way(start, start + rng.normal(0, 0.15, len(start)))

    def _way(self, start: Array, end: Array) -> Command:
        limits = self._model.limits
        path = plan_joint(self._model, start, np.clip(end, limits.lower, limits.upper), Pace())
        count = max(2, int(np.ceil(path.duration / 0.02)) + 1)
        times = np.linspace(0.0, path.duration, count)
        return self._command(Trajectory(times, *path.sample_many(times)), 0.0)

    def _near_contact(self, command: Command) -> Command:
        """A way that ends where something is as near as it may be, or a little nearer or farther."""
        limits, rng = self._model.limits, self._rng
        clear, other = command.positions[0], rng.uniform(limits.lower, limits.upper)
        if self._contacts.nearest(clear)[0] <= 0.01 or self._contacts.nearest(other)[0] > 0.005:
            return self._anywhere(command)
        low, high = 0.0, 1.0
        for _ in range(25):
            middle = (low + high) / 2
            if self._contacts.nearest(clear + middle * (other - clear))[0] > 0.005:
                low = middle
            else:
                high = middle
        towards = (other - clear) / np.abs(other - clear).max()
        touch = clear + low * (other - clear)
        by = rng.choice([-1, 1]) * 10.0 ** rng.uniform(-5, -0.7)
        return self._way(np.clip(touch - 0.3 * towards, limits.lower, limits.upper), touch + by * towards)

    def _lies(self, command: Command) -> Command:
        """Velocities and accelerations that do not belong to the positions, each within its limits."""
        limits, rng = self._model.limits, self._rng
        size = 10.0 ** rng.uniform(-4, 0)
        shape = command.positions.shape
        match rng.integers(4):
            case 0:
                command.velocities[:] = size * limits.velocity * rng.uniform(-1, 1, shape)
                command.velocities[-1] = 0.0
            case 1:
                command.accelerations[:] = size * limits.acceleration * rng.uniform(-1, 1, shape)
            case 2:
                command.velocities[:] = command.accelerations[:] = 0.0
            case _:
                command.accelerations[:] = 0.0
        return command


def random_boxes(rng: np.random.Generator, count: int) -> list[KeepOut]:
    """Keep-outs of any size and attitude around the arm, clear of its home."""
    boxes = []
    for index in range(count):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
        angle, radius = rng.uniform(-np.pi, np.pi), rng.uniform(0.55, 1.0)
        pose[:3, 3] = radius * np.cos(angle), radius * np.sin(angle), rng.uniform(0.0, 0.9)
        boxes.append(KeepOut(f"box {index}", pose, rng.uniform(0.01, 0.25, 3)))
    return boxes

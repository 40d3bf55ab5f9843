"""Domain randomisation: what may differ from scene to scene without changing the task, as a frozen description.

What is drawn depends on the scene's seed and the description alone, with a generator of its own: the task's scene is
the same under every description. A range of 0, or of 1 for a factor, leaves things as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from embodied_vision.errors import BadInput
from embodied_vision.lights import Light, random_light
from embodied_vision.types import Camera, FloatArray
from embodied_vision_sim.sensor import SensorNoise

Range = tuple[float, float]
LAMPS = {"usual": Light(), "evening": Light((0.9, 0.5, 0.6), (1.0, 0.72, 0.45), ambient=0.4, diffuse=0.6)}
"""Lights of a cell by name: the usual one, and a low warm lamp."""
TEXTURE_PX = 64
DIGITS = 9
"""Sines and roots are rounded to so many, since their last bits differ from processor to processor."""
_STREAM = 0x52414E44
"""Keeps these draws apart from the scene's and from those of the sensors."""


@dataclass(frozen=True)
class Randomisation:
    """Ranges to draw from, uniformly, for every scene.

    Attributes:
        name: of the preset, for the record; `custom` for one's own.
        seed: another one draws other values for the same scenes.
        camera_position_m: largest shift of a camera along each axis; reported.
        camera_angle_rad: largest turn of a camera about a random axis; reported.
        calibration_position_m, calibration_angle_rad: the same, but not reported: an error of the calibration.
        focal: largest relative change of the focal length; reported.
        lamp: the cell's own light, one of `LAMPS`.
        light: how far the light moves from the cell's own to a random lamp's, 0 … 1: direction, color, ambient and
            diffuse part. EGL follows the direction alone.
        table, robot: largest change of each channel of their colors.
        texture: largest contrast of the table's texture; 0 leaves it plain.
        brightness: factors on the colors of the task's objects: their hue stays.
        hue: turns of the hue of the task's objects, degrees: parts of another batch, all turned alike.
        distractors: numbers of objects that have nothing to do with the task, glued to free places of the table.
        color_noise: largest standard deviation of the color noise, levels of 255.
        depth_noise_m: largest standard deviation of the depth noise at 1 m.
        edge_holes: largest share of depth edges without a return.
        patch_holes: numbers of patches without a return in a picture.
        friction, mass: factors on what an object has.
        latency_s: ages of what is observed, simulated time.
    """

    name: str = "custom"
    seed: int = 0
    camera_position_m: float = 0.0
    camera_angle_rad: float = 0.0
    calibration_position_m: float = 0.0
    calibration_angle_rad: float = 0.0
    focal: float = 0.0
    lamp: str = "usual"
    light: float = 0.0
    table: float = 0.0
    robot: float = 0.0
    texture: float = 0.0
    brightness: Range = (1.0, 1.0)
    hue: Range = (0.0, 0.0)
    distractors: tuple[int, int] = (0, 0)
    color_noise: float = 0.0
    depth_noise_m: float = 0.0
    edge_holes: float = 0.0
    patch_holes: tuple[int, int] = (0, 0)
    friction: Range = (1.0, 1.0)
    mass: Range = (1.0, 1.0)
    latency_s: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name, value in self._numbers():
            low, high = value if isinstance(value, tuple) else (0.0, value)
            if not (np.isfinite([low, high]).all() and 0 <= low <= high):
                raise BadInput(f"randomisation {name} is {value}; give finite numbers, 0 ≤ lowest ≤ highest")
        for name, most in (("light", 1.0), ("edge_holes", 1.0), ("focal", 0.5), ("table", 1.0), ("robot", 1.0)):
            if getattr(self, name) > most:
                raise BadInput(f"randomisation {name} is {getattr(self, name)}; give at most {most}")
        if self.lamp not in LAMPS:
            raise BadInput(f"randomisation lamp is {self.lamp!r}; give one of {', '.join(LAMPS)}")
        for name in ("brightness", "friction", "mass"):
            if getattr(self, name)[0] <= 0:
                raise BadInput(f"randomisation {name} is {getattr(self, name)}; give factors above 0")

    def _numbers(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self) if field.name not in ("name", "lamp")]

    @property
    def moves_cameras(self) -> bool:
        """Whether cameras are reported elsewhere than they were."""
        return any((self.camera_position_m, self.camera_angle_rad, self.focal))

    @classmethod
    def parse(cls, text: str) -> Randomisation:
        """A preset by its name, or fields as JSON, as on a command line.

        Raises:
            BadInput: it is neither.
        """
        if not text.lstrip().startswith("{"):
            return cls.of(text)
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise BadInput(f"randomisation {text!r} is no JSON ({error}); give a preset's name or JSON") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Randomisation:
        """Read what `to_dict` wrote, or part of it.

        Raises:
            BadInput: an unknown field or an impossible range.
        """
        known = {field.name: field for field in fields(cls)}
        strange = sorted(set(data) - set(known))
        if strange:
            raise BadInput(f"randomisation has no field {', '.join(strange)}; there are {', '.join(known)}")
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        try:
            return cls(**plain)
        except (TypeError, ValueError) as error:
            raise BadInput(f"randomisation {plain} cannot be read: {error}") from error

    @classmethod
    def of(cls, wanted: str | Mapping[str, Any] | Randomisation) -> Randomisation:
        """A preset by its name, a dict of fields, or a description itself.

        Raises:
            BadInput: no such preset, or a dict that cannot be read.
        """
        if isinstance(wanted, Randomisation):
            return wanted
        if isinstance(wanted, Mapping):
            return cls.from_dict(wanted)
        if wanted not in PRESETS:
            raise BadInput(f"randomisation {wanted!r} is unknown; use {', '.join(PRESETS)} or a description")
        return PRESETS[wanted]

    def draw(self, scene_seed: int, cameras: Sequence[Camera]) -> Draw:
        """What the scene of this seed looks like to these cameras."""
        rng = np.random.default_rng([_STREAM, self.seed, scene_seed])
        reported = tuple(_moved(c, rng, self.camera_position_m, self.camera_angle_rad, self.focal) for c in cameras)
        true = tuple(_moved(c, rng, self.calibration_position_m, self.calibration_angle_rad) for c in reported)
        return Draw(
            preset=self.name,
            cameras=reported,
            true_cameras=true,
            light=_mixed(LAMPS[self.lamp], self.light, rng),
            table=_shift(self.table, rng),
            robot=_shift(self.robot, rng),
            contrast=float(rng.uniform(0, self.texture)),
            brightness=float(rng.uniform(*self.brightness)),
            distractors=int(rng.integers(self.distractors[0], self.distractors[1] + 1)),
            sensor=SensorNoise(
                color=float(rng.uniform(0, self.color_noise)),
                depth_m=float(rng.uniform(0, self.depth_noise_m)),
                edges=float(rng.uniform(0, self.edge_holes)),
                patches=int(rng.integers(self.patch_holes[0], self.patch_holes[1] + 1)),
            ),
            friction=float(rng.uniform(*self.friction)),
            mass=float(rng.uniform(*self.mass)),
            latency_s=float(rng.uniform(*self.latency_s)),
            seed=int(rng.integers(2**31)),
            hue=float(rng.uniform(*self.hue)),  # the last, so that the others are drawn as they were before it came
        )


@dataclass(frozen=True)
class Draw:
    """What was drawn for one scene; fields as in `Randomisation`.

    Attributes:
        cameras: as they are reported.
        true_cameras: as they see.
        table, robot: shifts of red, green and blue.
        contrast: of the table's texture.
        seed: of everything with many values: texture, distractors, noise.
    """

    preset: str
    cameras: tuple[Camera, ...]
    true_cameras: tuple[Camera, ...]
    light: Light
    table: tuple[float, float, float]
    robot: tuple[float, float, float]
    contrast: float
    brightness: float
    distractors: int
    sensor: SensorNoise
    friction: float
    mass: float
    latency_s: float
    seed: int
    hue: float

    def rng(self, *number: int) -> np.random.Generator:
        """A generator for one use, told apart by its numbers."""
        return np.random.default_rng([_STREAM, self.seed, *number])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        plain = asdict(replace(self, cameras=(), true_cameras=()))
        plain |= {name: [c.to_dict() for c in getattr(self, name)] for name in ("cameras", "true_cameras")}
        plain["light"] = {k: list(v) if isinstance(v, tuple) else v for k, v in plain["light"].items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def texture(self) -> NDArray[np.uint8] | None:
        """The table's texture uint8 (64, 64, 3) around white, or None for a plain one."""
        return _texture(self.rng(0), self.contrast) if self.contrast > 0 else None


def _moved(camera: Camera, rng: np.random.Generator, position_m: float, angle_rad: float, focal: float = 0.0) -> Camera:
    """The camera with another pose, and with its focal lengths scaled; drawn in any case, so that draws stay apart."""
    shift, axis = rng.uniform(-1, 1, 3) * position_m, rng.normal(size=3)
    angle, scale = rng.uniform(0, angle_rad), 1 + rng.uniform(-1, 1) * focal
    if not (position_m or angle_rad or focal):
        return camera
    pose: FloatArray = np.array(camera.T_base_camera, float)
    pose[:3, :3] = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix() @ pose[:3, :3]
    pose[:3, 3] += shift
    pose = pose.round(DIGITS)
    K = np.array(camera.K, float)
    K[0, 0], K[1, 1] = K[0, 0] * scale, K[1, 1] * scale
    return replace(camera, K=K, T_base_camera=pose)


def _mixed(usual: Light, share: float, rng: np.random.Generator) -> Light:
    """The cell's light, moved towards a random lamp by a random part of `share`."""
    lamp, part = random_light(rng), rng.uniform(0, share)
    if part == 0:
        return usual

    def between(a: float, b: float) -> float:
        return float(a + part * (b - a))

    start = np.asarray(usual.direction) / np.linalg.norm(usual.direction)
    x, y, z = (round(between(a, b), DIGITS) for a, b in zip(start, lamp.direction, strict=True))
    r, g, b = (between(a, b) for a, b in zip(usual.color, lamp.color, strict=True))
    return Light((x, y, z), (r, g, b), between(usual.ambient, lamp.ambient), between(usual.diffuse, lamp.diffuse))


def _shift(most: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """A change of brightness and a smaller one of tint, together at most `most` a channel."""
    red, green, blue = (rng.uniform(-0.6, 0.6) + rng.uniform(-0.4, 0.4, 3)) * most
    return float(red), float(green), float(blue)


def _texture(rng: np.random.Generator, contrast: float) -> NDArray[np.uint8]:
    """Planks, tiles or cloud, seamless, darkened from white by at most `contrast`."""
    span = np.arange(TEXTURE_PX) / TEXTURE_PX
    kind = int(rng.integers(3))
    if kind == 0:
        pattern = np.repeat(rng.random(8), TEXTURE_PX // 8)[:, None] * np.ones(TEXTURE_PX)
    elif kind == 1:
        count = int(rng.choice([1, 2, 4]))
        pattern = ((span[:, None] * 2 * count).astype(int) + (span[None] * 2 * count).astype(int)) % 2
    else:
        pattern = np.zeros((TEXTURE_PX, TEXTURE_PX))
        for _ in range(12):
            waves, phase = rng.integers(-4, 5, 2), rng.uniform(0, 2 * np.pi)
            pattern += np.sin(2 * np.pi * (waves[0] * span[:, None] + waves[1] * span[None]) + phase)
        pattern = ((pattern - pattern.min()) / max(float(np.ptp(pattern)), 1e-9)).round(DIGITS)
    tint = 1 - contrast * np.asarray(pattern, float)[..., None] * rng.uniform(0.6, 1.0, 3)
    return np.asarray(255 * tint, np.uint8)


NONE = Randomisation(name="none")
MILD = Randomisation(
    name="mild",
    camera_position_m=0.01,
    camera_angle_rad=float(np.deg2rad(1.0)),
    calibration_position_m=0.001,
    calibration_angle_rad=float(np.deg2rad(0.1)),
    focal=0.01,
    light=0.4,
    table=0.06,
    robot=0.06,
    texture=0.06,
    brightness=(0.9, 1.05),
    distractors=(0, 2),
    color_noise=3.0,
    depth_noise_m=0.001,
    edge_holes=0.2,
    patch_holes=(0, 3),
    friction=(0.85, 1.15),
    mass=(0.9, 1.1),
    latency_s=(0.0, 0.03),
)
STRONG = Randomisation(
    name="strong",
    camera_position_m=0.03,
    camera_angle_rad=float(np.deg2rad(2.0)),
    calibration_position_m=0.002,
    calibration_angle_rad=float(np.deg2rad(0.2)),
    focal=0.03,
    light=1.0,
    table=0.2,
    robot=0.25,
    texture=0.25,
    brightness=(0.75, 1.1),
    distractors=(1, 5),
    color_noise=8.0,
    depth_noise_m=0.003,
    edge_holes=0.6,
    patch_holes=(2, 10),
    friction=(0.6, 1.4),
    mass=(0.7, 1.4),
    latency_s=(0.0, 0.1),
)
PRESETS = {preset.name: preset for preset in (NONE, MILD, STRONG)}
"""By name: as the tasks are defined, what a careful laboratory varies, and what a careless one does."""

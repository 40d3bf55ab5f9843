"""A policy as it was trained: its networks, what it is bound to, and its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import NetworkConfig, PolicyNetwork
from embodied_vision.policies.trained_head import TrainedHead
from embodied_vision.types import Primitive

FORMAT = "embodied-vision-policy-5"


@dataclass(frozen=True, eq=False)
class Checkpoint(TrainedHead[PolicyNetwork]):
    """Everything that a policy is.

    Attributes:
        config: shapes of the networks.
        normalisation: of the encoder features.
        primitive: what is done with the two poses of an action.
        release_m: how far above its support an object is let go, as the demonstrations do.
        hang_m: how far the tip is above what carries an object when it is let go, where all are as thick.
        tip_m: heights of the tool's tip at start and end of a push, in the base frame.
    """

    form: ClassVar[str] = FORMAT
    what: ClassVar[str] = "policy checkpoint"

    config: NetworkConfig
    normalisation: Normalisation
    primitive: Primitive = "pick_place"
    release_m: float = 0.002
    hang_m: float | None = None
    tip_m: tuple[float, float] = (0.0, 0.0)

    def _own_settings(self) -> dict[str, Any]:
        return {
            "network": self.config.to_dict(),
            "normalisation": self.normalisation.to_dict(),
            "primitive": self.primitive,
            "release_m": self.release_m,
            "hang_m": self.hang_m,
            "tip_m": list(self.tip_m),
        }

    @classmethod
    def _own_fields(cls, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "config": NetworkConfig.from_dict(manifest["network"]),
            "normalisation": Normalisation.from_dict(manifest["normalisation"]),
            "primitive": manifest["primitive"],
            "release_m": float(manifest["release_m"]),
            "hang_m": None if manifest["hang_m"] is None else float(manifest["hang_m"]),
            "tip_m": (float(manifest["tip_m"][0]), float(manifest["tip_m"][1])),
        }

    def _untrained(self) -> PolicyNetwork:
        return PolicyNetwork.seeded(self.config, 0)

    def _interface(self) -> dict[str, Any]:
        rows, columns = self.workspace.shape
        dimension = self.config.features
        inputs = [
            {"name": "color", "shape": [rows, columns, 3], "dtype": "uint8", "unit": "RGB 0…255"},
            {"name": "height", "shape": [rows, columns], "dtype": "float32", "unit": "m above base z = 0"},
            {"name": "valid", "shape": [rows, columns], "dtype": "bool", "unit": "seen by a camera"},
            {"name": "features", "shape": [rows, columns, dimension], "dtype": "float32", "unit": "of the encoder"},
        ]
        return {"inputs": inputs, "outputs": _OUTPUTS}

    def _card(self) -> str:
        training, lines = self.training, [f"# Pick-and-place policy for {self.task}", ""]
        lines += [
            _READS,
            "",
            f"- Checkpoint: `{self.checkpoint_id}`, encoder `{self.encoder_id or 'none'}`",
            f"- Demonstrations: {training.get('demos', 'none')}, steps: {training.get('steps', 'none')}, "
            f"seed: {training.get('seed', 'none')}, minutes: {training.get('minutes', 'none')}",
            f"- Made by: `{training.get('command', 'unknown')}` at commit {training.get('git_commit', 'unknown')}",
            "",
            "## Measured",
            "",
        ]
        for split, result in self.measured.items():
            lines.append(
                f"- {split}: score {result['score']:.1f} ({result['ci_low']:.1f} to {result['ci_high']:.1f}, 95 % "
                f"bootstrap), fully solved {result['solved']} of {result['scenes']} scenes "
                f"({result['solved_low']:.1f} to {result['solved_high']:.1f} %, Wilson), seeds {result['seeds']}"
            )
        if not self.measured:
            lines.append("Not measured yet: `embodied-vision evaluate`.")
        lines += ["", "## Limits", "", _LIMITS, ""]
        return "\n".join(lines)


_OUTPUTS = [
    {"name": "pick", "shape": [4, 4], "dtype": "float64", "unit": "tool tip in the base frame, m"},
    {"name": "place", "shape": [4, 4], "dtype": "float64", "unit": "tool tip in the base frame, m"},
    {"name": "scores.pick", "shape": [], "dtype": "float64", "unit": "probability of the coarse cell"},
    {"name": "scores.place", "shape": [], "dtype": "float64", "unit": "probability near the chosen place"},
]

_READS = """\
Reads the top-down map fused from calibrated RGB-D cameras (color, height, encoder features) and returns one
pick pose and one place pose for a suction tool that looks straight down."""
_LIMITS = """\
Trained in simulation with one camera pose and one renderer; single-coloured rigid objects. It takes the
object under the pick to be the cells of like height and color, and does not look again while the arm moves."""

load, read_manifest, save = Checkpoint.load, Checkpoint.read_manifest, Checkpoint.save

"""A grasp policy as it was trained: its network, what it is bound to, and its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from embodied_vision.policies.grasp_network import GraspConfig, GraspNet
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.trained_head import TrainedHead

FORMAT = "embodied-vision-grasp-2"


@dataclass(frozen=True, eq=False)
class GraspCheckpoint(TrainedHead[GraspNet]):
    """Everything that a grasp policy is.

    Attributes:
        config: shape of the network.
        normalisation: of the encoder features.
        lift_m: height that the tip is raised to after closing, as in the labelled grasps.
        floor_m: least height of the tip.
    """

    form: ClassVar[str] = FORMAT
    what: ClassVar[str] = "grasp checkpoint"

    config: GraspConfig
    normalisation: Normalisation
    lift_m: float
    floor_m: float = 0.008

    def _own_settings(self) -> dict[str, Any]:
        return {
            "network": self.config.to_dict(),
            "normalisation": self.normalisation.to_dict(),
            "lift_m": self.lift_m,
            "floor_m": self.floor_m,
        }

    @classmethod
    def _own_fields(cls, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "config": GraspConfig.from_dict(manifest["network"]),
            "normalisation": Normalisation.from_dict(manifest["normalisation"]),
            "lift_m": float(manifest["lift_m"]),
            "floor_m": float(manifest["floor_m"]),
        }

    def _untrained(self) -> GraspNet:
        return GraspNet.seeded(self.config, 0)

    def _card(self) -> str:
        training = self.training
        lines = [
            f"# Grasp policy for {self.task}",
            "",
            _READS,
            "",
            f"- Checkpoint: `{self.checkpoint_id}`, encoder `{self.encoder_id or 'none'}`",
            f"- Labelled grasps: {training.get('attempts', 'none')} in {training.get('scenes', 'no')} scenes, "
            f"steps: {training.get('steps', 'none')}, seed: {training.get('seed', 'none')}, "
            f"minutes: {training.get('minutes', 'none')}",
            f"- Made by: `{training.get('command', 'unknown')}` at commit {training.get('git_commit', 'unknown')}",
            "",
            "## Measured",
            "",
        ]
        for name, figures in self.measured.items():
            lines.append(
                f"- {name}: first grasps that lift {figures['solved']} of {figures['scenes']} "
                f"({figures['solved_low']:.1f} to {figures['solved_high']:.1f} %, Wilson 95 %), "
                f"seeds {figures['seeds']}"
            )
        if not self.measured:
            lines.append("Not measured yet: `embodied-vision grasp evaluate`.")
        lines += [
            "",
            "## Limits",
            "",
            "Trained in simulation, with one camera pose, one jaw and one bin; grasps from straight above only.",
            "",
        ]
        return "\n".join(lines)


_READS = """\
Reads the top-down map of a bin fused from calibrated RGB-D cameras and returns a tip pose, looking straight
down, at which a parallel jaw is closed."""

load, read_manifest, save = GraspCheckpoint.load, GraspCheckpoint.read_manifest, GraspCheckpoint.save

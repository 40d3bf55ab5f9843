"""One head for many tasks: a trunk that all share, and a few weights that each task has of its own.

A task's own weights are the scale and shift of every normalisation (conditional normalisation: de Vries et al., 2017;
Perez et al., "FiLM", AAAI 2018), the linear map that reads the encoder's features, and the last layer of each network:
some 3 % of all. With a task's own weights in their places the trunk is a `PolicyNetwork` like any other. So a task is
asked for by name, its policy is an ordinary checkpoint, and nothing that runs a policy needs to know of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from embodied_vision.errors import BadInput, CheckpointError
from embodied_vision.learning.dataset import Dataset
from embodied_vision.learning.stage import STAGES
from embodied_vision.policies import folder as folders
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.maps import Normalisation
from embodied_vision.policies.networks import CoarseNet, FineNet, NetworkConfig, PolicyNetwork
from embodied_vision.types import Primitive, Workspace

FORMAT = "embodied-vision-shared-head-1"
OWN_LAYERS = ("head", "readout")
"""Names of the layers that a task has of its own, besides the normalisations."""


@dataclass(frozen=True, eq=False)
class TaskSettings:
    """What a task's policy needs besides weights; see `Checkpoint` for what is not told here.

    Attributes:
        episodes: ids of all episodes it has learnt from, sorted.
        renderer: who drew the simulated ones, empty when all are real.
    """

    normalisation: Normalisation
    primitive: Primitive
    release_m: float
    hang_m: float | None
    tip_m: tuple[float, float]
    episodes: tuple[str, ...] = ()
    renderer: str = ""

    @classmethod
    def of(cls, dataset: Dataset) -> TaskSettings:
        """As demonstrations of the task have it."""
        return cls(
            normalisation=dataset.normalisation(),
            primitive=dataset.primitive,
            release_m=dataset.release_m(),
            hang_m=dataset.hang_m(),
            tip_m=dataset.tip_m(),
            episodes=tuple(sorted(dataset.episode_ids)),
            renderer=dataset.renderer,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "normalisation": self.normalisation.to_dict(),
            "primitive": self.primitive,
            "release_m": self.release_m,
            "hang_m": self.hang_m,
            "tip_m": list(self.tip_m),
            "episodes": list(self.episodes),
            "renderer": self.renderer,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskSettings:
        """Read what `to_dict` wrote."""
        return cls(
            normalisation=Normalisation.from_dict(data["normalisation"]),
            primitive=data["primitive"],
            release_m=float(data["release_m"]),
            hang_m=None if data["hang_m"] is None else float(data["hang_m"]),
            tip_m=(float(data["tip_m"][0]), float(data["tip_m"][1])),
            episodes=tuple(data["episodes"]),
            renderer=str(data["renderer"]),
        )


class SharedStage(nn.Module):
    """One stage of the policy for many tasks; each task's view of it is a network whose trunk is the same tensors.

    Args:
        make: a new network of the stage, always with the same weights.
    """

    def __init__(self, make: Callable[[], CoarseNet | FineNet]) -> None:
        super().__init__()
        self._make = make
        net = make()
        self.own_names = _own_names(net)
        self.first_own = {name: p.detach() for name, p in net.named_parameters() if name in self.own_names}
        self.shared = nn.ParameterDict(
            {_key(name): p for name, p in net.named_parameters() if name not in self.own_names}
        )
        self.own = nn.ModuleDict()
        self._views: dict[str, CoarseNet | FineNet] = {}

    def add(self, task: str, own: Mapping[str, Tensor]) -> None:
        """A new task that starts from these weights of its own."""
        values = nn.ParameterDict({_key(n): nn.Parameter(own[n].detach().clone()) for n in sorted(self.own_names)})
        self.own[_key(task)] = values
        net = self._make()
        for name, _ in list(net.named_parameters()):
            _bind(net, name, values[_key(name)] if name in self.own_names else self.shared[_key(name)])
        self._views[task] = net.train()

    def view(self, task: str) -> CoarseNet | FineNet:
        """The network of a task; it sees every change of the weights."""
        return self._views[task]

    def own_weights(self, task: str) -> dict[str, Tensor]:
        """A copy of what a task has of its own, by name."""
        values = self.own[_key(task)]
        assert isinstance(values, nn.ParameterDict)
        return {name: values[_key(name)].detach().clone() for name in sorted(self.own_names)}

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """The trunk, by name."""
        return {_name(key): value for key, value in self.shared.items()}

    def train_only(self, tasks: Iterable[str]) -> None:
        """Let the trunk and these tasks' own weights change, and no others."""
        trained = {_key(task) for task in tasks}
        for key, values in self.own.items():
            values.requires_grad_(key in trained)


class SharedHead:
    """Both stages for every task learnt so far.

    Attributes:
        config: shapes of the networks.
        encoder_id: of the encoder whose features are read, empty for none.
        workspace: the map.
        tasks: what each task's policy needs besides weights, by name, in the order in which they were learnt.
        memory: tensors that a method keeps between updates, by name.
    """

    def __init__(self, config: NetworkConfig, encoder_id: str, workspace: Workspace, seed: int = 0) -> None:
        """New weights, no task yet."""
        self.config, self.encoder_id, self.workspace, self._seed = config, encoder_id, workspace, seed
        self.tasks: dict[str, TaskSettings] = {}
        self.memory: dict[str, Tensor] = {}
        self._stages = {
            "coarse": SharedStage(lambda: PolicyNetwork.seeded(config, seed).coarse),
            "fine": SharedStage(lambda: PolicyNetwork.seeded(config, seed).fine),
        }

    def stage(self, stage: str) -> SharedStage:
        """Coarse or fine."""
        return self._stages[stage]

    def add(self, task: str, settings: TaskSettings, like: str | None = None) -> None:
        """A new task, which starts from the own weights of another one, or from new ones."""
        for stage in self._stages.values():
            stage.add(task, stage.first_own if like is None else stage.own_weights(like))
        self.tasks[task] = settings

    def know_more(self, task: str, settings: TaskSettings) -> None:
        """Note that a known task has learnt from further episodes; normalisation and heights stay as they were."""
        known = self.tasks[task]
        self.tasks[task] = replace(known, episodes=tuple(sorted({*known.episodes, *settings.episodes})))

    def weights(self) -> dict[str, Tensor]:
        """Copies of all weights, by stage and name."""
        return {
            f"{name}.{key}": value.detach().clone()
            for name, stage in self._stages.items()
            for key, value in stage.state_dict().items()
        }

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights that `weights` gave, or an average of such.

        Raises:
            RuntimeError: they do not fit.
        """
        for name, stage in self._stages.items():
            prefix = f"{name}."
            stage.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})

    def copy(self) -> SharedHead:
        """The same head in tensors of its own."""
        other = SharedHead(self.config, self.encoder_id, self.workspace, self._seed)
        for task, settings in self.tasks.items():
            other.add(task, settings)
        other.load(self.weights())
        other.memory = {name: value.clone() for name, value in self.memory.items()}
        return other

    def checkpoint(
        self, task: str, training: Mapping[str, Any], trunk: Mapping[str, Tensor] | None = None
    ) -> Checkpoint:
        """The policy of a task, an ordinary checkpoint.

        Args:
            task: name of a known task.
            training: provenance.
            trunk: shared weights by stage and name that stand in for the head's own.

        Raises:
            BadInput: the task is not known.
        """
        if task not in self.tasks:
            raise BadInput(f"this head has not learnt {task!r}; it knows {', '.join(self.tasks) or 'no task'}")
        settings = self.tasks[task]
        views = {stage: self._stages[stage].view(task).state_dict() for stage in STAGES}
        weights = {f"{stage}.{n}": v.detach().clone() for stage, view in views.items() for n, v in view.items()}
        return Checkpoint(
            task=task,
            encoder_id=self.encoder_id,
            workspace=self.workspace,
            config=self.config,
            normalisation=settings.normalisation,
            weights={**weights, **(trunk or {})},
            primitive=settings.primitive,
            release_m=settings.release_m,
            hang_m=settings.hang_m,
            tip_m=settings.tip_m,
            training={**training, "episodes": list(settings.episodes), "renderer": settings.renderer},
        )

    def save(self, folder: Path) -> None:
        """Write everything that `read` needs, in one rename."""
        manifest = {
            "format": FORMAT,
            "network": self.config.to_dict(),
            "encoder_id": self.encoder_id,
            "workspace": self.workspace.to_dict(),
            "seed": self._seed,
            "tasks": {task: settings.to_dict() for task, settings in self.tasks.items()},
        }
        tensors = {f"weights.{name}": value for name, value in self.weights().items()}
        tensors |= {f"memory.{name}": value for name, value in self.memory.items()}
        card = f"# A head for {len(self.tasks)} tasks\n\n" + "".join(f"- {task}\n" for task in self.tasks)
        folders.write(folder, tensors, manifest, card)

    @classmethod
    def read(cls, folder: Path) -> SharedHead:
        """Read what `save` wrote.

        Raises:
            CheckpointError: it is missing, damaged or of another format.
        """
        manifest = folders.read_manifest(folder, FORMAT, "head for several tasks")
        tensors = folders.read_weights(folder, manifest)
        try:
            head = cls(
                NetworkConfig.from_dict(manifest["network"]),
                str(manifest["encoder_id"]),
                Workspace.from_dict(manifest["workspace"]),
                int(manifest["seed"]),
            )
            for task, settings in manifest["tasks"].items():
                head.add(task, TaskSettings.from_dict(settings))
            head.load(_under("weights.", tensors))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder} is incomplete ({error!r}); learn its last task again") from error
        head.memory = _under("memory.", tensors)
        return head


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _own_names(net: nn.Module) -> frozenset[str]:
    return frozenset(
        f"{name}.{leaf}"
        for name, module in net.named_modules()
        if isinstance(module, nn.GroupNorm) or name.rpartition(".")[2] in OWN_LAYERS
        for leaf, _ in module.named_parameters(recurse=False)
    )


def _bind(net: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Put a parameter in the place of another."""
    owner, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(owner), leaf, parameter)


def _key(name: str) -> str:
    """Modules allow no dots in the names of what they hold."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")

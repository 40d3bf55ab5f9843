"""The stream of tasks behind docs/continual.md: every method, order and task a cell, each done once.

    WORK/demos/TASK              episode stores, shared by all
    WORK/METHOD/ORDER/NUMBER-TASK
        state/                   what an interrupted update goes on from, and its checkpoints
        head/, replay.bin        what the next task starts from
        during/STEP, after/TASK  the policies that are tried
        cell.json                results of all scenes; the cell is done
    WORK/scenes.jsonl            results of single scenes

A run may be killed at any moment and goes on when it is started again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from embodied_vision import locks
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning import json_lines, provenance
from embodied_vision.learning.cells import NO_ENCODER
from embodied_vision.learning.collect import collect
from embodied_vision.learning.continual.buffer import Buffer
from embodied_vision.learning.continual.methods import Method
from embodied_vision.learning.continual.metrics import metrics
from embodied_vision.learning.continual.shared import SharedHead
from embodied_vision.learning.continual.update import Experience, UpdateConfig, policy_of, update
from embodied_vision.learning.dataset import Dataset, load_dataset, teaching_ids
from embodied_vision.learning.environments import Conditions
from embodied_vision.learning.evaluate import evaluate, split_seeds
from embodied_vision.learning.runs import Clock, parameters, training_record
from embodied_vision.learning.scene_results import LOG, SceneLog, SceneResult
from embodied_vision.learning.seeds import Split
from embodied_vision.learning.stage import STAGES
from embodied_vision.learning.train import Report
from embodied_vision.policies import checkpoint as checkpoints
from embodied_vision.policies.networks import NetworkConfig
from embodied_vision.types import Workspace

TASKS = (
    "block-insertion",
    "place-red-in-green",
    "align-box-corner",
    "towers-of-hanoi",
    "packing-boxes",
    "stack-block-pyramid",
)
HEAD, REPLAY, STATE, SETTINGS, DONE = "head", "replay.bin", "state", "settings.json", "cell.json"


@dataclass(frozen=True)
class StreamConfig:
    """Settings of a run.

    Attributes:
        work: folder of everything but the results.
        results: file that gets a line a cell.
        tasks: names, in the first order; others are drawn from them.
        demos: demonstrations of each.
        update: settings of an update; all tasks at once take as many steps in all.
        network: shapes of the networks; how many features there are is the encoder's to say.
        encoder: name or folder, `none` for none.
        split: which scenes the policies are tried on.
        scenes: how many of each task.
        renderer: who draws demonstrations and scenes.
        threads: that train; results are the same for any number.
        workers: processes that collect and try.
    """

    work: Path
    results: Path
    tasks: tuple[str, ...] = TASKS
    demos: int = 10
    update: UpdateConfig = field(default_factory=UpdateConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    encoder: str = "default"
    split: Split = "validation"
    scenes: int = 50
    renderer: str = "software"
    threads: int = 2
    workers: int = 1

    def order(self, number: int) -> tuple[str, ...]:
        """The tasks in the order of a number: 0 as they are given, others drawn by it."""
        if number == 0:
            return self.tasks
        drawn = np.random.default_rng([number]).permutation(len(self.tasks))
        return tuple(self.tasks[i] for i in drawn)


@dataclass(frozen=True)
class Watch:
    """How a run tells what it does.

    Attributes:
        tell: called with a sentence about what begins.
        step: called after each step of training.
        scene: called with every scene's result.
    """

    tell: Callable[[str], None] = lambda _: None
    step: Report | None = None
    scene: Callable[[SceneResult], None] | None = None


@dataclass(frozen=True)
class Cell:
    """One task of a stream.

    Attributes:
        method: how it is learnt.
        order: number of the order.
        number: of the task in it, 0 first.
        tasks: all tasks in their order.
    """

    method: Method
    order: int
    number: int
    tasks: tuple[str, ...]

    @property
    def task(self) -> str:
        """The task that is learnt."""
        return self.tasks[self.number]

    @property
    def name(self) -> str:
        """As results name it."""
        return f"{self.method.name}/{self.order}/{self.number}-{self.task}"

    @property
    def learnt(self) -> tuple[str, ...]:
        """The tasks that are known after it."""
        return self.tasks[: self.number + 1]


class Stream:
    """Runs streams of tasks.

    Args:
        config: settings.
        watch: is told what happens.
    """

    def __init__(self, config: StreamConfig, watch: Watch | None = None) -> None:
        if len(set(config.tasks)) != len(config.tasks) or not config.tasks:
            raise BadInput(f"tasks are {', '.join(config.tasks) or 'none'}; name each once, and at least one")
        if config.demos < 1 or config.scenes < 1 or config.update.checkpoints < 1:
            raise BadInput(
                f"{config.demos} demonstrations, {config.scenes} scenes, {config.update.checkpoints} checkpoints: "
                "give at least 1 of each"
            )
        self._config, self._watch = config, watch or Watch()
        self._encoder: Encoder | None = None
        self._datasets: dict[str, Dataset] = {}

    def cells(self, method: Method, order: int) -> list[Cell]:
        """The cells of a stream, in their order; with all tasks at once there is the last one alone."""
        tasks = self._config.order(order)
        numbers = [len(tasks) - 1] if method.at_once else range(len(tasks))
        return [Cell(method, order, number, tasks) for number in numbers]

    def done(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell has come to under the present settings, None as long as it has not."""
        try:
            known = json.loads((self._folder(cell) / DONE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BadInput(f"{self._folder(cell) / DONE} cannot be read ({error}); remove it") from error
        tried = {**self._settings(), "split": self._config.split, "scenes": self._config.scenes}
        return known if isinstance(known, dict) and known.get("settings") == tried else None

    def run(self, method: Method, order: int) -> Iterator[tuple[Cell, dict[str, Any], bool]]:
        """Bring a stream to its end: each cell with its line of the results, and whether it was done now.

        Raises:
            BadInput: settings that cannot be used, or the folder holds cells of other settings.
            RunFailed: another run uses the working folder, or training or a task's simulation fails.
        """
        work = self._config.work
        busy = f"another stream is run in {work}: wait until it ends or name another --work"
        with locks.exclusive(work / "lock", busy):
            cells = self.cells(method, order)
            for cell in cells:
                known = self.done(cell)
                if known is None:
                    try:
                        self._learn(cell)
                        known = self._try(cell)
                    except (OSError, SafetensorError) as error:
                        raise RunFailed(
                            f"{cell.name} stopped at a file in {work} ({error}); see to the disk's space and "
                            "permissions, then run the same command again"
                        ) from error
                fresh = known["line"] not in json_lines.read(self._config.results)
                if fresh:
                    json_lines.append(self._config.results, known["line"])
                yield cell, known["line"], fresh

    def _settings(self) -> dict[str, Any]:
        """All that shapes what is learnt."""
        config = self._config
        settings = {
            "tasks": list(config.tasks),
            "demos": config.demos,
            "update": asdict(config.update) | {"minutes": None},
            "network": config.network.to_dict(),
            "encoder": eyes.encoder_id if (eyes := self._eyes()) is not None else "",
            "renderer": config.renderer,
        }
        return dict(json.loads(json.dumps(settings)))

    def _known_settings(self, folder: Path) -> Any:
        """Those that a cell was learnt with, None where nothing has begun."""
        try:
            return json.loads((folder / STATE / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder / STATE / SETTINGS} cannot be read ({error}); remove {folder}") from error

    def _folder(self, cell: Cell) -> Path:
        return self._config.work / cell.name

    def _store(self, task: str) -> EpisodeStore:
        return EpisodeStore(self._config.work / "demos" / task)

    def _eyes(self) -> Encoder | None:
        if self._encoder is None and self._config.encoder != NO_ENCODER:
            self._encoder = load_encoder(self._config.encoder)
        return self._encoder

    def _dataset(self, task: str) -> Dataset:
        if task not in self._datasets:
            config, store = self._config, self._store(task)
            if not store.exists() or len(teaching_ids(store, task)) < config.demos:
                self._watch.tell(f"{task}: {config.demos} demonstrations")
                conditions = Conditions("none", config.renderer)
                for _ in collect(task, store.path, config.demos, conditions=conditions, workers=config.workers):
                    pass
            # By scene and not by age: workers finish in any order.
            ids = sorted(teaching_ids(store, task), key=lambda i: int(store.open(i).attributes["seed"]))
            chosen = ids[: config.demos]
            self._datasets[task] = load_dataset(store, task, self._eyes(), Workspace(), episode_ids=chosen)
        return self._datasets[task]

    def _seen_bytes(self, tasks: Sequence[str]) -> int:
        """Bytes of all episodes of these tasks, as they lie in their stores."""
        folders = [self._store(t).open(i).path for t in tasks for i in self._dataset(t).episode_ids]
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())

    def _before(self, cell: Cell) -> tuple[SharedHead, Buffer]:
        """What the cell starts from."""
        workspace = Workspace()
        if cell.number == 0 or cell.method.apart or cell.method.at_once:
            eyes = self._eyes()
            shapes = replace(self._config.network, features=eyes.dimension if eyes is not None else 0)
            seed = self._config.update.train.seed
            return SharedHead(shapes, eyes.encoder_id if eyes is not None else "", workspace, seed), Buffer()
        former = self._folder(replace(cell, number=cell.number - 1))
        return SharedHead.read(former / HEAD), Buffer.read(former / REPLAY, workspace)

    def _learn(self, cell: Cell) -> None:
        """Train the cell's head, unless that is done, and write the policies that are tried."""
        folder, config = self._folder(cell), self._config
        known_settings, settings_now = self._known_settings(folder), self._settings()
        if known_settings is not None and known_settings != settings_now:
            differ = sorted(k for k, v in settings_now.items() if known_settings.get(k) != v)
            raise BadInput(
                f"{folder} was learnt with other {', '.join(differ)}; pass what it was, remove it with the cells after "
                "it, or name another --work"
            )
        if (folder / HEAD).is_dir():
            return
        known = cell.learnt if cell.method.at_once else (cell.task,)
        experience = [Experience(self._dataset(task)) for task in known]
        head, buffer = self._before(cell)
        settings = config.update
        if cell.method.at_once:
            settings = replace(settings, train=replace(settings.train, steps=settings.train.steps * len(known)))
        everything = [self._dataset(task) for task in cell.tasks[: cell.number]]
        resume = all((folder / STATE / f"{stage}.safetensors").is_file() for stage in STAGES)
        before = Clock.read(folder / STATE) if resume else Clock()
        start, start_cpu = time.monotonic(), time.process_time()

        def now() -> Clock:
            minutes, cpu = (time.monotonic() - start) / 60, (time.process_time() - start_cpu) / 60
            return Clock(before.minutes + minutes, before.cpu_minutes + cpu)

        _write_json(folder / STATE / SETTINGS, settings_now)
        self._watch.tell(f"{cell.name}: training, {settings.train.steps} steps")
        updated = update(
            head,
            buffer,
            experience,
            cell.method,
            settings,
            state=folder / STATE,
            budget=int(settings.replay_share * self._seen_bytes(cell.learnt)),
            everything=everything if cell.method.keeps == "everything" else (),
            tasks_in_all=len(cell.tasks),
            resume=resume,
            threads=config.threads,
            report=self._watch.step,
            on_save=lambda: now().write(folder / STATE),
        )
        clock = now()
        clock.write(folder / STATE)
        head = updated.head
        learner = head.copy()
        for number, weights in enumerate(updated.snapshots):
            learner.load(weights)
            policy = learner.checkpoint(cell.task, self._record(head, cell.task, clock, cell))
            checkpoints.save(policy, folder / "during" / str(number))
        for task in head.tasks:
            policy = policy_of(head, task, cell.method, self._record(head, task, clock, cell))
            checkpoints.save(policy, folder / "after" / task)
        updated.buffer.save(folder / REPLAY)
        head.save(folder / HEAD)  # last: it says that the rest is there
        for file in (folder / STATE).glob("*.safetensors"):
            file.unlink()

    def _record(self, head: SharedHead, task: str, clock: Clock, cell: Cell) -> dict[str, Any]:
        episodes = head.tasks[task].episodes
        more = {"method": cell.method.name, "stream": list(cell.tasks), "learnt": list(cell.learnt)}
        examples = len(self._datasets[task]) if task in self._datasets else 0
        return training_record(episodes, self._config.update.train, clock, examples, **more)

    def _try(self, cell: Cell) -> dict[str, Any]:
        """Results of the cell's policies on the scenes, and its line."""
        config, folder = self._config, self._folder(cell)
        seeds = split_seeds(config.split, config.scenes)
        encoder = "default" if config.encoder == NO_ENCODER else config.encoder
        log = SceneLog(config.work / LOG)

        def results(task: str, policy: Path) -> list[dict[str, Any]]:
            self._watch.tell(f"{cell.name}: {config.scenes} scenes of {task}")
            found = evaluate(
                task,
                policy,
                seeds,
                encoder=encoder,
                renderer=config.renderer,
                workers=config.workers,
                log=log,
                report=self._watch.scene,
            )
            return [{"reward": r.reward, "solved": r.solved} for r in found]

        checkpoints_ = sorted((folder / "during").iterdir(), key=lambda path: int(path.name))
        during = [] if cell.method.at_once else [results(cell.task, path) for path in checkpoints_]
        if cell.method.apart:
            homes = {task: self._folder(replace(cell, number=i)) for i, task in enumerate(cell.learnt)}
        else:
            homes = dict.fromkeys(cell.learnt, folder)
        after = {task: results(task, home / "after" / task) for task, home in homes.items()}
        tried = {**self._settings(), "split": config.split, "scenes": config.scenes}
        found = {"settings": tried, "during": during, "after": after}
        found["line"] = self._line(cell, found)
        _write_json(folder / DONE, found)
        return found

    def _line(self, cell: Cell, found: Mapping[str, Any]) -> dict[str, Any]:
        config, folder = self._config, self._folder(cell)
        cells = [replace(cell, number=i) for i in range(cell.number)] if not cell.method.at_once else []
        earlier = [json.loads((self._folder(c) / DONE).read_text(encoding="utf-8")) for c in cells]
        rows = [*earlier, found]
        learnt = list(cell.learnt)
        head = SharedHead.read(folder / HEAD)
        clocks = [Clock.read(self._folder(each) / STATE) for each in (*cells, cell)]
        seen = self._seen_bytes(learnt)
        replay_bytes = (folder / REPLAY).stat().st_size
        line: dict[str, Any] = {
            "cell": cell.name,
            "method": cell.method.name,
            "order": cell.order,
            "tasks": learnt,
            "tasks_in_all": len(cell.tasks),
            "demos": config.demos,
            "steps": config.update.train.steps,
            "train_minutes": [round(clock.minutes, 2) for clock in clocks],
            "train_cpu_minutes": [round(clock.cpu_minutes, 2) for clock in clocks],
            "replay_bytes": replay_bytes,
            "seen_bytes": seen,
            "replay_share": round(replay_bytes / seen, 4),
            "parameters": parameters(head.weights()),
            "split": config.split,
            "scenes": config.scenes,
            "seeds": [split_seeds(config.split, 1)[0], split_seeds(config.split, config.scenes)[-1]],
            "encoder": head.encoder_id,
        }
        for kind in ("solved", "reward"):
            matrix = [[_values(row["after"][t], kind) for t in learnt[: len(row["after"])]] for row in rows]
            forward = [[_values(each, kind) for each in row["during"]] for row in rows]
            named = {
                "success": [[round(float(np.mean(v)), 4) for v in row] for row in matrix],
                "learning": [[round(float(np.mean(v)), 4) for v in row] for row in forward],
            }
            if not cell.method.at_once:
                named |= metrics(matrix, forward).to_dict()
            line |= named if kind == "solved" else {"score": named}
        line |= {"git_commit": provenance.git_commit(), "command": provenance.command()}
        line["checkpoint_id"] = checkpoints.read_manifest(folder / "after" / cell.task)["checkpoint_id"]
        return line


def _values(results: Sequence[Mapping[str, Any]], kind: str) -> list[float]:
    return [float(each[kind]) for each in results]


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}")
    staging.write_text(json.dumps(content), encoding="utf-8")
    os.replace(staging, path)

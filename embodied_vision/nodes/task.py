"""The loop of work on ROS topics: runs a task on a row of scenes, and finds a way on when a node dies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_vision.control.task_loop import Progress, TaskLoop
from embodied_vision.errors import BadInput
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import to_json
from embodied_vision.nodes.graph_cell import GraphCell
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.running import run
from embodied_vision.nodes.verdicts import Verdicts


class TaskNode(ManagedNode):
    """Runs `TaskLoop` in a thread; `~/run` returns at once, `task/status` tells how it goes."""

    HANDLES_IMAGES = False

    def __init__(self) -> None:
        super().__init__("task")
        self.param("task", "block-insertion", "task to run")
        self.param("seeds", [-1], "scenes to run; a single -1 takes `scenes` scenes from `first_seed` on")
        self.param("first_seed", scene_seed("test", 0), "first scene, where `seeds` names none", (0, 2**31 - 1))
        self.param("scenes", 1, "number of scenes, where `seeds` names none", (1, 1_000_000))
        self.param("max_steps", 0, "decisions a scene; 0: as many as the task allows", (0, 1000))
        self.param("retries", 3, "how often a scene is begun again after an interruption", (0, 100))
        self.param("grasps", 3, "grasps in a row that may fail before a scene ends unsolved", (1, 100))
        self.param(
            "needs",
            ["cell", "encoder", "policy", "arm", "recorder"],
            "nodes that take part; an episode is interrupted when one falls silent; without cell people set scenes up",
            read_only=True,
        )
        self.param("ready_timeout", 60.0, "longest wait for all nodes to be active and the arm idle, s", (1.0, 3600.0))
        self.param("decision_timeout", 15.0, "longest wait for a decision, s", (1.0, 600.0))
        self.param("motion_timeout", 60.0, "longest time of one motion, s", (1.0, 600.0))
        self.param(
            "operator_timeout", 300.0, "longest wait for an operator's ~/yes or ~/no, s; 0: nobody is asked", (0.0, 1e5)
        )
        self._verdicts = Verdicts(self)
        self._events = self.create_publisher(String, "episode/event", qos.EVENT)
        self._status = self.create_publisher(String, "task/status", qos.STATUS)
        self._cell: GraphCell | None = None
        self._thread: threading.Thread | None = None
        self._progress = Progress()
        self.create_service(Trigger, "~/run", self._on_run)
        self.create_service(Trigger, "~/cancel", self._on_cancel)
        self.create_service(Trigger, "~/yes", self._on_yes)
        self.create_service(Trigger, "~/no", self._on_no)

    # ---- life cycle

    def setup(self) -> None:
        self._cell = self._cell or GraphCell(self, self._verdicts, self._announce, self._show)
        if not (self._cell.is_simulated or self._verdicts.wanted):
            raise BadInput(
                "`needs` names no cell, so that nobody says how a scene ended; give outcome_classifier the folder that "
                "`embodied-vision learn outcomes train` wrote"
            )
        self._verdicts.load()

    def start(self) -> None:
        assert self._cell is not None
        self._verdicts.listen()
        for topic in ("arm/status", "recorder/status", "outcome"):
            self.subscribe(String, topic, qos.STATUS, self._cell.take(topic))
        for name in self._cell.needs:
            self.subscribe(String, f"heartbeat/{name}", qos.HEARTBEAT, self._cell.hear(name))
        self._say(Progress())

    def halt(self) -> None:
        self._cancel()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def teardown(self) -> None:
        self._verdicts.close()

    # ---- services

    def _on_run(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = False
        if not self.is_active or self._cell is None:
            response.message = f"the task node is {self.state}; activate it first"
        elif self._thread is not None and self._thread.is_alive():
            response.message = "a run is going on; wait for it or call ~/cancel"
        elif self._verdicts.wanted and self._verdicts.task != self.value("task"):
            response.message = (
                f"the outcome classifier judges {self._verdicts.task!r}, the task is {self.value('task')!r}; set the "
                "parameter task, or give a classifier of that task"
            )
        else:
            seeds: Sequence[int] = [int(seed) for seed in self.value("seeds")]
            if seeds == [-1]:
                first = self.value("first_seed")
                seeds = range(first, first + self.value("scenes"))
            if not self._cell.is_simulated:
                seeds = range(1, self.value("scenes") + 1)
            self._cell.renew()
            loop = TaskLoop(
                self._cell,
                self._say,
                retries=self.value("retries"),
                max_steps=self.value("max_steps"),
                grasps=self.value("grasps"),
            )
            self._thread = threading.Thread(target=self._run, args=(loop, self.value("task"), seeds), daemon=True)
            self._thread.start()
            response.success, response.message = True, f"running {len(seeds)} scenes; see task/status"
        return response

    def _on_cancel(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._cancel()
        response.success, response.message = True, "cancelled; the arm finishes the motion in hand"
        return response

    def _on_yes(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(True, response)

    def _on_no(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(False, response)

    def _answer(self, said: bool, response: Trigger.Response) -> Trigger.Response:
        question = self._cell.answer(said) if self._cell is not None else ""
        response.success, response.message = bool(question), question or "nothing is asked; see task/status"
        return response

    def _cancel(self) -> None:
        if self._cell is not None:
            self._cell.cancel()

    # ---- in the loop's thread

    def _run(self, loop: TaskLoop, task: str, seeds: Sequence[int]) -> None:
        try:
            loop.run(task, seeds)
        except Exception as error:
            self._say(replace(self._progress, state="failed", error=repr(error)))
            raise

    def _announce(self, event: Mapping[str, Any]) -> None:
        """Publish an episode's start or end."""
        self._events.publish(to_json({**event, "stamp_ns": self.now_ns()}))

    def _show(self) -> None:
        """Say again how it goes, as when an operator is asked something."""
        self._say(self._progress)

    def _say(self, progress: Progress) -> None:
        before, question = self._progress, self._cell.question if self._cell is not None else ""
        self._progress = progress
        if progress.interrupted and (progress.seed, progress.attempt) != (before.seed, before.attempt):
            self.get_logger().warning(f"scene {progress.seed} is begun again: {progress.interrupted}")
        self._status.publish(to_json({**progress.to_dict(), "question": question, "stamp_ns": self.now_ns()}))
        values = {"phase": progress.phase, "seed": progress.seed, "through": progress.through}
        if progress.state == "failed":
            self.get_logger().error(progress.error)
            self.health(ERROR, progress.error, **values)
        elif question:
            self.get_logger().warning(question)
            self.health(WARN, question, **values)
        elif progress.attempt > 1:
            self.health(WARN, f"scene {progress.seed}, attempt {progress.attempt}: {progress.interrupted}", **values)
        else:
            self.health(OK, progress.state, **values)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(TaskNode))


if __name__ == "__main__":
    main()

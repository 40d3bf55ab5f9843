"""The loop of work on ROS topics: runs a task on a row of scenes, and finds a way on when a node dies."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_vision.control.task_loop import Interrupted, MotionResult, Outcome, Progress, TaskLoop
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json, to_json
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.running import run

SILENCE_S = 2.0
"""A node whose heartbeat is silent for so long interrupts the episode."""


class GraphCell:
    """The graph as `TaskLoop` sees it. Its calls block: they belong to a thread of their own."""

    def __init__(self, node: TaskNode) -> None:
        self._node = node
        self._changed = threading.Condition()
        self._latest: dict[str, dict[str, Any]] = {}
        self._needs = [name for name in node.value("needs") if name]
        # Heartbeats arrive in another thread than the one that asks, so that its waits are no stalls.
        self._watchdog = Watchdog(dict.fromkeys(self._needs, SILENCE_S), stall_s=math.inf)
        self._cancelled = False
        self._episode = ""
        self._seed = -1
        self._parameters = AsyncParameterClient(node, "cell")
        self._clients: dict[str, Client[Any, Any]] = {
            name: node.create_client(Trigger, name) for name in ("cell/reset", "policy/predict", "arm/home")
        }

    # ---- called in the executor's thread

    def take(self, topic: str) -> Callable[[String], None]:
        """A callback that keeps the newest message of a status topic."""

        def keep(message: String) -> None:
            try:
                content = from_json(message, topic)
            except BadInput as error:
                self._node.get_logger().error(f"message left out: {error}")
                return
            with self._changed:
                self._latest[topic] = content
                self._changed.notify_all()

        return keep

    def hear(self, name: str) -> Callable[[String], None]:
        """A callback for the heartbeat of a needed node."""

        def hear(message: String) -> None:
            with self._changed:
                if from_json(message, f"heartbeat/{name}").get("state") == "active":
                    self._watchdog.feed(name, time.monotonic())
                    self._changed.notify_all()

        return hear

    def cancel(self) -> None:
        """Make the call that waits, and all later ones, fail."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def renew(self) -> None:
        """Forget a former cancellation."""
        with self._changed:
            self._cancelled = False

    @property
    def needs(self) -> list[str]:
        """Nodes that take part."""
        return list(self._needs)

    # ---- the calls of the loop

    def wait_ready(self) -> None:
        timeout_s = float(self._node.value("ready_timeout"))

        def ready() -> bool:
            arm = self._arm()
            return not self._watchdog.lost(time.monotonic()) and arm.get("state") == "idle" and not arm.get("lost")

        if self._until(ready, timeout_s):
            return
        problems = list(self._watchdog.lost(time.monotonic()).values())
        state = self._arm().get("state", "silent")
        if self._arm().get("lost"):
            problems.append(f"the arm does not hear {self._arm()['lost']}")
        if state != "idle":
            problems.append(f"the arm is {state}: {self._arm().get('reason', '')}")
        hint = "; call arm/resume when it is safe" if state == "stopped" else ""
        raise RunFailed(f"not ready after {timeout_s:.0f} s: {'; '.join(problems)}{hint}")

    def reset(self, task: str, seed: int) -> Outcome:
        future = self._parameters.set_parameters([Parameter("task", value=task), Parameter("seed", value=seed)])
        for result in self._answer(future, "cell/set_parameters", 10.0).results:
            if not result.successful:
                raise RunFailed(f"the cell refused task {task!r} or seed {seed}: {result.reason}")
        before_ns = int(self._latest.get("outcome", {}).get("stamp_ns", -1))
        self._call("cell/reset", 30.0)
        self._seed = seed
        self._wait(lambda: int(self._outcome().get("stamp_ns", -1)) > before_ns, 5.0, "the outcome of the reset")
        return self._judged()

    def home(self) -> None:
        self._call("arm/home", float(self._node.value("motion_timeout")))

    def start_episode(self, event: Mapping[str, Any]) -> str:
        self._episode = ""
        self._node.announce(event)
        if "recorder" not in self._needs:
            return ""
        self._wait(lambda: bool(self._recorder().get("episode")), 10.0, "the recorder to begin the episode")
        self._episode = str(self._recorder()["episode"])
        return self._episode

    def end_episode(self, event: Mapping[str, Any]) -> None:
        self._node.announce(event)
        episode, self._episode = self._episode, ""
        if not episode:
            return

        def over() -> bool:
            known = (self._recorder().get("episode"), self._recorder().get("last_episode"))
            return known[1] == episode or episode not in known or "recorder" in self._watchdog.lost(time.monotonic())

        with suppress(RunFailed):
            self._until(over, 10.0)
        if self._recorder().get("last_episode") != episode:
            self._node.get_logger().warning(f"episode {episode} was not logged to its end; the recorder repairs it")

    def decide(self) -> str:
        return self._call("policy/predict", float(self._node.value("decision_timeout")))

    def execute(self, decision_id: str) -> MotionResult:
        def taken() -> bool:
            return self._arm().get("decision_id") == decision_id or self._arm().get("state") == "stopped"

        def over() -> bool:
            arm = self._arm()
            ended = arm.get("done") or arm.get("aborted") or arm.get("refused") or arm.get("failed")
            return (
                arm.get("state") == "stopped"
                or arm.get("decision_id") != decision_id
                or (arm.get("state") == "idle" and bool(ended))
            )

        self._wait(taken, 5.0, f"the arm to take decision {decision_id}")
        self._wait(over, float(self._node.value("motion_timeout")), f"the arm to carry out decision {decision_id}")
        arm = self._arm()
        if arm["state"] == "stopped" or arm["decision_id"] != decision_id:
            raise Interrupted(f"the arm gave decision {decision_id} up: it is {arm['state']}, {arm['reason']}")
        failed = "" if arm["aborted"] else str(arm["failed"])
        refused = "" if arm["done"] or arm["aborted"] or failed else str(arm["refused"])
        return MotionResult(bool(arm["done"]), refused, str(arm["reason"]), int(arm["last_sent_ns"]), failed)

    def outcome_after(self, stamp_ns: int) -> Outcome:
        def judged() -> bool:
            return int(self._outcome().get("stamp_ns", -1)) > stamp_ns

        self._wait(judged, 15.0, "the cell to judge the scene")
        return self._judged()

    # ---- waiting

    def _arm(self) -> dict[str, Any]:
        return self._latest.get("arm/status", {})

    def _recorder(self) -> dict[str, Any]:
        return self._latest.get("recorder/status", {})

    def _outcome(self) -> dict[str, Any]:
        outcome = self._latest.get("outcome", {})
        return outcome if outcome.get("seed") == self._seed else {}

    def _judged(self) -> Outcome:
        raw = self._outcome()
        return Outcome(
            seed=int(raw["seed"]),
            reward=float(raw["reward"]),
            solved=bool(raw["solved"]),
            stamp_ns=int(raw["stamp_ns"]),
            max_steps=int(raw.get("max_steps", 1)),
            raw=raw,
        )

    def _until(self, condition: Callable[[], bool], timeout_s: float, *, patient: bool = True) -> bool:
        """Wait for a condition on what was received; False when the time is over.

        Not patient: give up as soon as a needed node is lost.

        Raises:
            RunFailed: the run was cancelled.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                if self._cancelled:
                    raise RunFailed("the run was cancelled")
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or (not patient and self._broken()):
                    return False
                self._changed.wait(min(left_s, 0.1))
        return True

    def _broken(self) -> str:
        """What of the graph an episode cannot go on without, in words; empty when all is there."""
        lost = self._watchdog.lost(time.monotonic())
        if lost:
            return "; ".join(lost.values())
        if self._episode and self._recorder().get("episode") != self._episode:
            return f"the recorder lost episode {self._episode}"
        return ""

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        if self._until(condition, timeout_s, patient=False):
            return
        broken = self._broken()
        raise Interrupted(broken or f"waited {timeout_s:.0f} s for {what}")

    def _answer(self, future: Future[Any], what: str, timeout_s: float) -> Any:
        def wake(_future: Future[Any]) -> None:
            with self._changed:
                self._changed.notify_all()

        future.add_done_callback(wake)
        self._wait(future.done, timeout_s, f"an answer of {what}")
        return future.result()

    def _call(self, service: str, timeout_s: float) -> str:
        client = self._clients[service]
        self._wait(client.service_is_ready, 5.0, f"the service {service}")
        answer = self._answer(client.call_async(Trigger.Request()), service, timeout_s)
        if not answer.success:
            raise Interrupted(f"{service}: {answer.message}")
        return str(answer.message)


class TaskNode(ManagedNode):
    """Runs `TaskLoop` in a thread; `~/run` returns at once, `task/status` tells how it goes."""

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
            "nodes that take part; an episode is interrupted when one falls silent",
            read_only=True,
        )
        self.param("ready_timeout", 60.0, "longest wait for all nodes to be active and the arm idle, s", (1.0, 3600.0))
        self.param("decision_timeout", 15.0, "longest wait for a decision, s", (1.0, 600.0))
        self.param("motion_timeout", 60.0, "longest time of one motion, s", (1.0, 600.0))
        self._events = self.create_publisher(String, "episode/event", qos.EVENT)
        self._status = self.create_publisher(String, "task/status", qos.STATUS)
        self._cell: GraphCell | None = None
        self._thread: threading.Thread | None = None
        self.create_service(Trigger, "~/run", self._on_run)
        self.create_service(Trigger, "~/cancel", self._on_cancel)

    # ---- life cycle

    def setup(self) -> None:
        self._cell = self._cell or GraphCell(self)

    def start(self) -> None:
        assert self._cell is not None
        for topic in ("arm/status", "recorder/status", "outcome"):
            self.subscribe(String, topic, qos.STATUS, self._cell.take(topic))
        for name in self._cell.needs:
            self.subscribe(String, f"heartbeat/{name}", qos.HEARTBEAT, self._cell.hear(name))
        self._say(Progress())

    def halt(self) -> None:
        self._cancel()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    # ---- services

    def _on_run(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = False
        if not self.is_active or self._cell is None:
            response.message = f"the task node is {self.state}; activate it first"
        elif self._thread is not None and self._thread.is_alive():
            response.message = "a run is going on; wait for it or call ~/cancel"
        else:
            seeds = [int(seed) for seed in self.value("seeds")]
            if seeds == [-1]:
                first = self.value("first_seed")
                seeds = list(range(first, first + self.value("scenes")))
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

    def _cancel(self) -> None:
        if self._cell is not None:
            self._cell.cancel()

    # ---- in the loop's thread

    def _run(self, loop: TaskLoop, task: str, seeds: list[int]) -> None:
        try:
            loop.run(task, seeds)
        except Exception as error:
            self._say(Progress(state="failed", task=task, seeds=tuple(seeds), error=repr(error)))
            raise

    def announce(self, event: Mapping[str, Any]) -> None:
        """Publish an episode's start or end."""
        self._events.publish(to_json({**event, "stamp_ns": self.now_ns()}))

    def _say(self, progress: Progress) -> None:
        self._status.publish(to_json({**progress.to_dict(), "stamp_ns": self.now_ns()}))
        values = {"phase": progress.phase, "seed": progress.seed, "through": len(progress.results)}
        if progress.state == "failed":
            self.get_logger().error(progress.error)
            self.health(ERROR, progress.error, **values)
        elif progress.attempt > 1:
            self.health(WARN, f"scene {progress.seed}, attempt {progress.attempt}", **values)
        else:
            self.health(OK, progress.state, **values)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(TaskNode))


if __name__ == "__main__":
    main()

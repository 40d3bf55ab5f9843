"""The graph as the loop of work sees it: a simulated cell that sets scenes up and judges them, or a real one."""

from __future__ import annotations

import math
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

from embodied_vision.control.task_loop import Interrupted, MotionResult, Outcome
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning.outcomes_verdict import Tally, Verdict
from embodied_vision.nodes.conversions import from_json
from embodied_vision.nodes.lifecycle import ManagedNode
from embodied_vision.nodes.verdicts import Verdicts

SILENCE_S = 2.0
"""A node whose heartbeat is silent for so long interrupts the episode."""

TRIES = 3
"""Decisions that a scene which no simulator knows may take, for each action that must succeed."""


class GraphCell:
    """The graph as `TaskLoop` sees it. Its calls block: they belong to a thread of their own.

    Args:
        node: whose parameters say how; it spins meanwhile.
        verdicts: of the cameras, where they are wanted; else the topic `outcome` tells.
        announce: publishes an episode's start or end.
        show: called when `question` changed.
    """

    def __init__(
        self,
        node: ManagedNode,
        verdicts: Verdicts,
        announce: Callable[[Mapping[str, Any]], None],
        show: Callable[[], None],
    ) -> None:
        self._node = node
        self._verdicts = verdicts
        self._publish, self._show = announce, show
        self._changed = threading.Condition()
        self._latest: dict[str, dict[str, Any]] = {}
        self._needs = [name for name in node.value("needs") if name]
        # Heartbeats arrive in another thread than the one that asks, so that its waits are no stalls.
        self._watchdog = Watchdog(dict.fromkeys(self._needs, SILENCE_S), stall_s=math.inf)
        self._cancelled = False
        self._episode = ""
        self._seed = -1
        self._tally: Tally | None = None
        self._decision_id = ""
        self._is_first = True
        self._question = ""
        self._said: bool | None = None
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
        """Forget a former cancellation; a run begins."""
        with self._changed:
            self._cancelled, self._is_first = False, True

    def answer(self, said: bool) -> str:
        """What an operator says to the question that is open; returns that question, empty when there is none."""
        with self._changed:
            if not self._question or self._said is not None:
                return ""
            self._said = said
            self._changed.notify_all()
            return self._question

    @property
    def question(self) -> str:
        """What an operator is asked now, empty for nothing."""
        return self._question

    @property
    def needs(self) -> list[str]:
        """Nodes that take part."""
        return list(self._needs)

    @property
    def is_simulated(self) -> bool:
        """Whether a node of the graph sets scenes up."""
        return "cell" in self._needs

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
        self._tally = self._verdicts.begin() if self._verdicts.wanted else None
        if not self.is_simulated:
            return self._set_up(seed)
        future = self._parameters.set_parameters([Parameter("task", value=task), Parameter("seed", value=seed)])
        for result in self._answer(future, "cell/set_parameters", 10.0).results:
            if not result.successful:
                raise RunFailed(f"the cell refused task {task!r} or seed {seed}: {result.reason}")
        before = self._latest.get("outcome")
        self._call("cell/reset", 30.0)
        self._seed = seed

        def told() -> bool:
            # Not by its stamp: a cell that looks ahead for the outcome of a motion stamps it later than this one.
            outcome = self._outcome()
            return outcome is not before and outcome.get("motions") == 0

        self._wait(told, 5.0, "the outcome of the reset")
        return self._judged()

    def _set_up(self, number: int) -> Outcome:
        """A scene that people set up: the first one of a run before they call ~/run, each further one on request."""
        is_first, self._is_first = self._is_first, False
        timeout_s = float(self._node.value("operator_timeout"))
        if not is_first and timeout_s:
            said = self._ask(f"is scene {number} set up? ~/yes begins it, ~/no ends the run")
            if said is None:
                raise RunFailed(f"scene {number} was not set up within {timeout_s:g} s; set it up and call ~/run")
            if not said:
                raise RunFailed(f"an operator ended the run before scene {number}")
        self._seed = number
        return Outcome(number, 0.0, False, self._node.now_ns(), TRIES * int(self._node.value("actions")))

    def home(self) -> None:
        self._call("arm/home", float(self._node.value("motion_timeout")))

    def start_episode(self, event: Mapping[str, Any]) -> str:
        self._episode = ""
        self._announce(event)
        if "recorder" not in self._needs:
            return ""
        self._wait(lambda: bool(self._recorder().get("episode")), 10.0, "the recorder to begin the episode")
        self._episode = str(self._recorder()["episode"])
        return self._episode

    def end_episode(self, event: Mapping[str, Any]) -> None:
        if self._tally is not None:
            event = {**event, "outcome": self._tally.logged(event["outcome"])}
        self._announce(event)
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

    def _announce(self, event: Mapping[str, Any]) -> None:
        """Only a simulated scene has a seed; with one, an episode is taken for one of that scene."""
        hidden = () if self.is_simulated else ("seed", "scene")
        self._publish({name: value for name, value in event.items() if name not in hidden})

    def decide(self) -> str:
        if self._tally is not None and (problem := self._verdicts.look(self._until, self._wake)):
            raise Interrupted(problem)
        self._decision_id = self._call("policy/predict", float(self._node.value("decision_timeout")))
        if self._tally is not None:
            self._tally.decided(self._decision_id)
        return self._decision_id

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
        if failed and self._tally is not None:
            self._tally.judge(Verdict("failure", 0.0, f"the gripper: {failed}"), self._ask)
            self._verdicts.forget()
        refused = "" if arm["done"] or arm["aborted"] or failed else str(arm["refused"])
        return MotionResult(bool(arm["done"]), refused, str(arm["reason"]), int(arm["last_sent_ns"]), failed)

    def outcome_after(self, stamp_ns: int) -> Outcome:
        if self._tally is not None:
            return self._seen(self._tally)

        def judged() -> bool:
            return int(self._outcome().get("stamp_ns", -1)) > stamp_ns

        self._wait(judged, 15.0, "the cell to judge the scene")
        return self._judged()

    def _seen(self, tally: Tally) -> Outcome:
        """The outcome that the cameras tell, or where they do not, an operator."""
        if not tally.is_up_to_date:
            verdict = self._verdicts.verdict(self._decision_id, self._until, self._wake)
            self._node.get_logger().info(f"decision {self._decision_id}, by the cameras: {verdict}")
            if tally.judge(verdict, self._ask):
                self._verdicts.forget()  # somebody was there
        return Outcome(self._seed, tally.reward, tally.solved, self._node.now_ns(), 0, over=tally.unknown)

    def _ask(self, question: str) -> bool | None:
        """An operator's answer, None when nobody gives one within `operator_timeout`."""
        timeout_s = float(self._node.value("operator_timeout"))
        if not timeout_s:
            return None
        with self._changed:
            self._question, self._said = question, None
        self._show()
        try:
            self._until(lambda: self._said is not None, timeout_s)
            return self._said
        finally:
            with self._changed:
                self._question = ""
            self._show()

    # ---- waiting

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

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
        future.add_done_callback(lambda _: self._wake())
        self._wait(future.done, timeout_s, f"an answer of {what}")
        return future.result()

    def _call(self, service: str, timeout_s: float) -> str:
        client = self._clients[service]
        self._wait(client.service_is_ready, 5.0, f"the service {service}")
        answer = self._answer(client.call_async(Trigger.Request()), service, timeout_s)
        if not answer.success:
            raise Interrupted(f"{service}: {answer.message}")
        return str(answer.message)

"""Learns from closed episodes beside the work, and has the policy node take up what is in use from then on."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rclpy.client import Client
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from embodied_vision.errors import BadInput
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner import Learner, LearnerConfig, Status
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.watch import STREAK
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import from_json, to_json
from embodied_vision.nodes.deferred import Answer, DeferredTrigger
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.running import run

LEARN = LearnConfig()
RELOAD_S = 5.0
"""Time between two requests to reload; a decision in hand is waited for."""


class LearnerNode(ManagedNode):
    """Watches the store in a thread; what it starts there ends with it. `~/learn` begins a round without waiting.

    Whatever promotes or takes back, this learner or somebody at a terminal: when the policy node's checkpoint lies
    among the policies and is no longer the one in use, it is asked to reload, which it does between two actions.
    """

    def __init__(self) -> None:
        super().__init__("learner")
        self.param("store", "episodes", "folder of the episode store", read_only=True)
        self.param("policies", "policies", "folder of checkpoints and `current` pointers", read_only=True)
        self.param("tasks", [""], 'tasks to learn; [""]: all whose episodes come', read_only=True)
        self.param("encoder", "default", "encoder of the policies, as in the encoder node", read_only=True)
        self.param("every", 5, "a round begins when so many episodes wait", (1, 100_000), read_only=True)
        self.param(
            "streak",
            STREAK,
            "so many solved episodes in a row show that a policy has nothing to learn from its own work",
            (1, 10_000),
            read_only=True,
        )
        self.param("poll", 1.0, "time between two looks at the store, s", (0.05, 3600.0), read_only=True)
        self.param("retry", 30.0, "after a failed round the next one waits so long, then ever longer, s", (0.1, 3600.0))
        self.param("min_free_mb", 200, "no round begins with less room on the disk, MB", (0, 10_000_000))
        self.param("minutes", 5.0, "longest training of a round, minutes", (0.01, 1440.0), read_only=True)
        self.param("steps", 250, "training steps of a round, each stage", (1, 1_000_000), read_only=True)
        self.param(
            "scenes",
            LEARN.scenes,
            "validation scenes on which a candidate must prove itself; 0: where no simulator knows the cell",
            (0, 100_000),
            read_only=True,
        )
        self.param(
            "failed",
            LEARN.failed,
            "weight of an action that failed, and is to be avoided, against one that is to be done",
            (0.0, 1.0),
            read_only=True,
        )
        self.param("threads", 1, "2 trains both stages side by side", (1, 2), read_only=True)
        self._status = self.create_publisher(String, "~/status", qos.STATUS)
        self._reloads: Client[Any, Any] = self.create_client(Trigger, "policy/reload")
        DeferredTrigger(self, "~/learn", self._learn)
        self._held = ExitStack()
        self._learner: Learner | None = None
        self._thread: threading.Thread | None = None
        self._policy: Mapping[str, Any] = {}
        self._asked_ns = -(10**18)
        self._reload_problem = ""

    # ---- life cycle

    def setup(self) -> None:
        self._policies = Path(self.value("policies")).expanduser().resolve()
        self._config = LearnerConfig(
            tasks=tuple(task for task in self.value("tasks") if task),
            every=self.value("every"),
            streak=self.value("streak"),
            poll_s=self.value("poll"),
            retry_s=self.value("retry"),
            min_free_mb=self.value("min_free_mb"),
            learn=LearnConfig(
                steps=self.value("steps"),
                failed=self.value("failed"),
                minutes=self.value("minutes"),
                scenes=self.value("scenes"),
                threads=self.value("threads"),
            ),
        )

    def start(self) -> None:
        learner = Learner(
            Path(self.value("store")).expanduser().resolve(),
            self._policies,
            self._config,
            encoder=self.value("encoder"),
            on_status=lambda status: self.post(lambda: self._say(status)),
        )
        self._held.enter_context(learner)
        self._learner = learner
        self._policy, self._reload_problem = {}, ""
        self._say(Status())
        self._thread = threading.Thread(target=self._work, args=(learner,), name="learner", daemon=True)
        self._thread.start()
        self.subscribe(String, "policy/info", qos.STATUS, self._take_policy)
        self.every(1.0, self._follow)

    def _work(self, learner: Learner) -> None:
        try:
            learner.run()
        except Exception as error:
            message = f"the learner failed: {error!r}\n{traceback.format_exc()}"
            self.post(lambda: self.give_up(message))

    def halt(self) -> None:
        if self._learner is not None:
            self._learner.stop()
        if self._thread is not None:
            self._thread.join(timeout=15.0)
        self._learner = self._thread = None
        self._held.close()

    # ---- out

    def _say(self, status: Status) -> None:
        self._status.publish(to_json({**status.to_dict(), "stamp_ns": self.now_ns()}))
        values = {name: getattr(status, name) for name in ("state", "task", "phase", "rounds", "promoted", "refused")}
        waiting = ", ".join(f"{count} of {task}" for task, count in status.waiting.items() if count)
        if status.error:
            self.health(ERROR if status.state == "short of room" else WARN, status.error, **values)
        elif self._reload_problem:
            self.health(WARN, self._reload_problem, **values)
        elif status.state == "learning":
            self.health(OK, f"learning {status.task}: {status.phase}", **values)
        else:
            self.health(OK, f"watching; {waiting or 'no'} episodes wait to be learnt from", **values)

    # ---- in

    def _learn(self, answer: Answer) -> None:
        if not self.is_active or self._learner is None:
            answer.give(False, f"the learner is {self.state}; activate it first")
            return
        self._learner.learn_now()
        answer.give(True, "a round begins with whatever waits; see learner/status")

    def _take_policy(self, message: String) -> None:
        self._policy = from_json(message, "policy/info")

    # ---- what is in use

    def _follow(self) -> None:
        """Have the policy node reload when its checkpoint is not the one in use."""
        wanted = self._wanted()
        if wanted is None or self.now_ns() - self._asked_ns < RELOAD_S * 1e9:
            return
        if not self._reloads.service_is_ready():
            return
        self._asked_ns = self.now_ns()
        self.get_logger().info(f"checkpoint {wanted} is in use now: the policy node is asked to reload")
        self._reloads.call_async(Trigger.Request()).add_done_callback(self._reloaded)

    def _wanted(self) -> str | None:
        """Id of the checkpoint that the policy node should take up, None when it has it or reads another folder."""
        if not self._policy:
            return None
        try:
            pointer = Pointer(self._policies, str(self._policy["task"]))
            current = pointer.current
            among = Path(str(self._policy["path"])).parent == pointer.path("x").parent
        except (KeyError, OSError) as error:
            raise BadInput(f"policy/info cannot be used: {error!r}") from error
        return current if among and current != self._policy.get("checkpoint_id") else None

    def _reloaded(self, future: Future[Any]) -> None:
        answer: Any = future.result()
        self._reload_problem = "" if answer.success else f"the policy node does not reload: {answer.message}"
        if answer.success:
            self.get_logger().info(f"the policy node decides by checkpoint {answer.message}")
        else:
            self.get_logger().error(self._reload_problem)
            self.health(WARN, self._reload_problem)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(LearnerNode))


if __name__ == "__main__":
    main()

"""A node whose steps fail as its parameter `fault` says."""

from __future__ import annotations

import sys
import time

from std_srvs.srv import Trigger

from embodied_vision.errors import BadInput
from embodied_vision.nodes import heartbeat
from embodied_vision.nodes.lifecycle import WARN, ManagedNode
from embodied_vision.nodes.running import run


class FaultyNode(ManagedNode):
    """Counts its ticks on a steady clock."""

    def __init__(self, name: str = "faulty") -> None:
        super().__init__(name)
        self.param("fault", "", "step that fails, and how")
        self.param("bounded", 1.0, "within bounds", (0.0, 2.0))
        self.param("free", 1.0, "without bounds")
        self.param("deaf_after", heartbeat.DEAF_S, "seconds without the monitor after which it ends")
        heartbeat.DEAF_S = self.value("deaf_after")
        self.ticks = 0
        self.create_service(Trigger, "~/ticks", self._answer)

    def setup(self) -> None:
        self._fail("setup")

    def start(self) -> None:
        self.every(0.02, self._tick)
        self._fail("start")

    def _tick(self) -> None:
        self.ticks += 1
        if self.ticks == 5:
            self.health(WARN, "five ticks", ticks=self.ticks)
            if self.value("fault") == "hang":
                time.sleep(3600.0)
            if self.value("fault") == "give up":
                self.give_up("five ticks are enough", 3)

    def _answer(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, str(self.ticks)
        return response

    def halt(self) -> None:
        self._fail("halt")

    def _fail(self, step: str) -> None:
        if self.value("fault") == f"bad input in {step}":
            raise BadInput(f"bad input in {step}; give better")
        if self.value("fault") == f"bug in {step}":
            raise ZeroDivisionError(step)


if __name__ == "__main__":
    sys.exit(run(FaultyNode))

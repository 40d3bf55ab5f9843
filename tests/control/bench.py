"""An executive and an ideal arm in virtual time, with one upstream node, a driver and a gripper's sensor."""

from __future__ import annotations

from collections.abc import Callable

from embodied_vision.control.arm_state import Joints
from embodied_vision.control.driver import DriverState
from embodied_vision.control.executive import ArmExecutive, ExecutiveSettings
from embodied_vision.control.guard import Guard
from embodied_vision.control.holding import Holding
from embodied_vision.control.motion import MotionSettings
from embodied_vision.control.planning import Pace
from embodied_vision.control.player import PlayerSettings
from embodied_vision.control.watchdog import Watchdog
from embodied_vision.geometry import tool_down
from embodied_vision.types import PickPlace
from tests.control.follower import Follower
from tests.control.samples import MODEL

TICK_S = 0.025


class Bench:
    """Runs the executive against the arm.

    Args:
        driver: what the driver says; the arm runs at its pace.
        holding: sensor of the gripper, fed by `held`.

    Attributes:
        silent: who of joint_states and encoder gives no sign of life.
        frozen: joint states that are measured in place of the arm's.
        held: tells what the gripper's sensor sees now.
        drops: how often what was under way was taken back.
        unheard: who does not hear what is sent, in words.
    """

    def __init__(self, driver: DriverState | None = None, holding: Holding | None = None) -> None:
        self.arm = Follower(MODEL.home)
        self.watchdog = Watchdog({"joint_states": 0.2, "encoder": 0.3})
        self.driver = driver or DriverState()
        self.holding = holding
        self.held: Callable[[], bool] = lambda: False
        self.drops = 0
        self.unheard = ""
        settings = ExecutiveSettings(MotionSettings(), MotionSettings(pace=Pace(speed=0.5)), PlayerSettings())
        self.executive = ArmExecutive(
            MODEL,
            Guard(MODEL),
            self.watchdog,
            settings,
            self.arm.send,
            self.arm.grip,
            self._drop,
            unheard=lambda: self.unheard,
            driver=self.driver,
            holding=holding,
        )
        self.silent: set[str] = set()
        self.frozen: Joints | None = None
        self.run(0.1)

    def _drop(self) -> None:
        self.drops += 1

    @property
    def joints(self) -> Joints:
        return self.frozen or self.arm.joints()

    def action(self) -> PickPlace:
        pick, place = tool_down(0.5, -0.25, 0.03, 0.4), tool_down(0.42, 0.3, 0.03, -1.0)
        return PickPlace(pick=pick, place=place, stamp_ns=self.arm.now_ns - 300_000_000)

    def begin(self, action: PickPlace | None = None) -> None:
        self.executive.begin(action or self.action(), self.joints, self.arm.now_s, self.arm.now_ns)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end_s = self.arm.now_s + seconds
        while self.arm.now_s < end_s and not until():
            for name in ("joint_states", "encoder"):
                if name not in self.silent:
                    self.watchdog.feed(name, self.arm.now_s)
            if self.holding is not None:
                self.holding.feed(self.held(), self.arm.now_s)
            self.executive.tick(self.joints, self.arm.now_s, self.arm.now_ns)
            self.arm.advance(TICK_S, self.driver.pace)

    def state(self) -> str:
        return self.executive.status.state

"""Who falls silent is noticed in time; a caller that was itself held up does not blame the others."""

from __future__ import annotations

import math

from embodied_vision.control.watchdog import Watchdog


def ask(watchdog: Watchdog, first_s: float, last_s: float, step_s: float = 0.05) -> dict[str, str]:
    lost: dict[str, str] = {}
    now_s = first_s
    while now_s <= last_s + 1e-9:
        lost = watchdog.lost(now_s)
        now_s += step_s
    return lost


def test_a_source_that_was_never_heard_is_lost() -> None:
    assert Watchdog({"camera": 1.0}).lost(5.0) == {"camera": "camera was never heard"}


def test_silence_is_noticed_right_after_its_limit() -> None:
    watchdog = Watchdog({"camera": 0.25, "encoder": 1.0})
    watchdog.feed("camera", 10.0)
    watchdog.feed("encoder", 10.0)
    assert ask(watchdog, 10.0, 10.2) == {}
    assert list(ask(watchdog, 10.3, 10.3)) == ["camera"]
    assert set(ask(watchdog, 10.35, 11.05)) == {"camera", "encoder"}


def test_the_transport_may_know_first() -> None:
    watchdog = Watchdog({"encoder": 1.0})
    watchdog.feed("encoder", 0.0)
    watchdog.set_alive("encoder", False)
    assert watchdog.lost(0.01) == {"encoder": "encoder is gone"}
    watchdog.set_alive("encoder", True)
    assert watchdog.lost(0.02) == {}


def test_health_counts_from_the_last_loss() -> None:
    watchdog = Watchdog({"encoder": 0.5})
    watchdog.lost(0.0)
    assert watchdog.healthy_s(0.0) == 0.0
    for now_s in (1.0, 1.4, 1.8):
        watchdog.feed("encoder", now_s)
        watchdog.lost(now_s)
    assert watchdog.healthy_s(1.8) == 0.8
    assert ask(watchdog, 1.85, 2.4) != {}
    assert watchdog.healthy_s(2.4) == 0.0


def test_a_stall_of_the_caller_is_not_held_against_the_others() -> None:
    watchdog = Watchdog({"joint_states": 0.2})
    watchdog.feed("joint_states", 1.0)
    watchdog.lost(1.05)
    assert watchdog.lost(1.6) == {}
    assert list(ask(watchdog, 1.65, 1.85)) == ["joint_states"]


def test_a_caller_who_asks_seldom_says_so() -> None:
    watchdog = Watchdog({"encoder": 1.0}, stall_s=math.inf)
    watchdog.feed("encoder", 0.0)
    assert ask(watchdog, 0.0, 0.9, step_s=0.3) == {}
    assert list(ask(watchdog, 1.2, 1.2)) == ["encoder"]


def test_what_is_no_silence_counts_as_lost_until_it_is_over() -> None:
    watchdog = Watchdog({"camera": 0.2})
    watchdog.feed("camera", 0.0)
    watchdog.set_problem("clock", "the system clock was set")
    assert watchdog.lost(0.1) == {"clock": "the system clock was set"}
    watchdog.set_problem("clock", "")
    assert watchdog.lost(0.15) == {}

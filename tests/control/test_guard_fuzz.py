"""The bench of the guard lets a sound guard pass and finds one that lacks a rule."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_vision.control import joint_rules, space_rules
from embodied_vision.control.contact import ContactCheck
from embodied_vision.control.guard import Guard
from embodied_vision.control.joint_rules import JointRules

BENCH = str(Path(__file__).resolve().parents[2] / "bench")
WIDE = 4
"""From this seed on the bench tries ways that end at bodies, not at the box of the tip."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    sys.path.insert(0, BENCH)
    try:
        yield importlib.import_module("guard")
    finally:
        sys.path.remove(BENCH)


@pytest.mark.parametrize("seed", range(8))
def test_a_sound_guard_is_never_wrong(bench: Any, seed: int) -> None:
    tally = bench.run_seed(1000 + seed, 250)
    assert tally.wrong == []
    assert sum(tally.by_kind.values()) == 250
    assert len(tally.by_rule) > 8


def _nothing(*_args: Any, **_options: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("place", "name", "instead", "broken"),
    [
        (Guard, "_check_age", _nothing, "stale"),
        (Guard, "_check_order", _nothing, "time_went_back"),
        (JointRules, "_check_times", _nothing, "times"),
        (JointRules, "_check_positions", _nothing, "position_limit"),
        (ContactCheck, "first", _nothing, "contact"),
        (joint_rules, "SLACK", 1.05, "acceleration_limit|inconsistent|jerk_limit|velocity_limit"),
        (joint_rules, "STEP_ACCELERATION", 50.0, "acceleration_limit"),
        (space_rules, "refuse_place", lambda *_args: ZeroDivisionError(), None),
    ],
)
def test_a_guard_that_lacks_a_rule_is_found(
    bench: Any, monkeypatch: pytest.MonkeyPatch, place: object, name: str, instead: object, broken: str | None
) -> None:
    monkeypatch.setattr(place, name, instead)
    if broken is None:
        with pytest.raises(ZeroDivisionError):
            bench.run_seed(0, 200)
        return
    wrong: list[str] = []
    for seed in range(WIDE, WIDE + 4):
        with np.errstate(all="ignore"):
            wrong += bench.run_seed(seed, 500).wrong
        if any(rule in words for words in wrong for rule in broken.split("|")):
            return
    pytest.fail(f"2,000 commands did not show that {name} is missing: {wrong}")

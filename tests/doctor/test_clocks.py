"""The system's clock: whether NTP keeps it matters where several machines take part."""

from __future__ import annotations

import pytest

from embodied_vision.doctor import clocks


def test_the_kernel_is_asked() -> None:
    found = clocks.synchronised()
    assert found is None or found[1] >= 0


@pytest.mark.parametrize("answer", [None, (False, 16.0)])
def test_a_clock_that_nobody_keeps_matters_for_several_machines(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[bool, float] | None
) -> None:
    monkeypatch.setattr(clocks, "synchronised", lambda: answer)
    alone, several = (clocks.check_system_clock(several_machines=several) for several in (False, True))
    assert (alone.ok, several.ok) == (True, False)
    assert "NTP" in several.remedy


def test_a_clock_that_ntp_keeps_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "synchronised", lambda: (True, 0.004))
    check = clocks.check_system_clock(several_machines=True)
    assert (check.ok, check.remedy) == (True, "")
    assert "4 ms" in check.value

"""Clocks: is the system's kept right, and do the stamps of the graph follow it?"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from statistics import median

from embodied_vision.control.guard_settings import GuardSettings
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.observation import Observation

AHEAD_S = GuardSettings().clock_slack_s
"""The guard lets no stamp lie further in the future."""

BEHIND_S = 1.0
"""Stamps that are always older than this on receipt point to another clock rather than to a slow way."""

_UNSYNCHRONISED = 0x0040
_SYNC = "start NTP on every machine of the cell (such as chrony or `timedatectl set-ntp true`)"


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is read here; the rest is room for the kernel."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    ]


def synchronised() -> tuple[bool, float] | None:
    """Whether the kernel's clock is kept by NTP, and its greatest error in s; None where the kernel does not say."""
    timex = _Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & _UNSYNCHRONISED, timex.maxerror * 1e-6


def check_system_clock(*, several_machines: bool) -> Check:
    """The clock of this machine; it has to be kept right only where others take part."""
    found = synchronised()
    if found is None:
        value, kept = "the kernel does not tell whether it is kept by NTP", False
    else:
        kept = found[0]
        value = f"kept by NTP within {found[1] * 1e3:.0f} ms" if kept else "not kept by NTP"
    remedy = "" if kept else _SYNC if several_machines else f"fine on one machine; for several, {_SYNC}"
    return Check("system clock", kept or not several_machines, value, remedy)


def check_clocks(observation: Observation) -> Iterator[Check]:
    """The stamps of every stream against the clock of this machine."""
    if observation.sim_time:
        yield Check("clock of the stamps", True, "simulated time; stamps are compared with /clock")
    elsewhere = sorted({p.node for s in observation.streams.values() for p in s.publishers if p.elsewhere})
    yield check_system_clock(several_machines=bool(elsewhere))
    for topic, stream in observation.streams.items():
        if not stream.ages_s:
            continue
        least, typical = min(stream.ages_s), median(stream.ages_s)
        name, value = f"stamps of {topic}", f"{1e3 * typical:.0f} ms old on receipt, at least {1e3 * least:.0f} ms"
        where = " of " + ", ".join(p.node for p in stream.publishers)
        if typical < -AHEAD_S:
            value = f"{-typical:.3f} s in the future: the clock{where} is ahead"
        elif least > BEHIND_S:
            value = f"{least:.3f} s old at best: the clock{where} is behind, or its driver stamps wrongly"
        else:
            yield Check(name, True, value)
            continue
        remote = any(p.elsewhere for p in stream.publishers)
        driver = "let the driver stamp with the system's clock, not with the device's"
        if observation.sim_time:
            driver = "see whether /clock goes on (`ros2 topic hz /clock`) and whether all nodes follow it"
        yield Check(name, False, value, f"{_SYNC}; {driver}" if remote else driver)

"""A look that fails or hangs is a line of the report, not its end."""

from __future__ import annotations

import threading

from embodied_vision.doctor.check import Check, bounded


def test_what_a_look_raises_is_a_failed_check() -> None:
    def look() -> Check:
        raise OSError("the disk is gone")

    assert bounded("disk", look, "plug it in") == [Check("disk", False, "the disk is gone", "plug it in")]


def test_a_look_that_hangs_is_left_alone() -> None:
    forever = threading.Event()

    def look() -> Check:
        forever.wait()
        return Check("disk", True, "")

    assert bounded("disk", look, "unmount it", 0.05) == [Check("disk", False, "no answer within 0.05 s", "unmount it")]
    forever.set()

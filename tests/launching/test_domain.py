"""Two runs never share a ROS domain, however the first one ended."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.launching.domain import (
    DOMAIN_GAIN,
    PORT_BASE,
    bound_udp_ports,
    hold_domain,
    hold_free_domain,
    in_use,
)

CANDIDATES = (97, 98, 99)


def test_two_runs_get_two_domains() -> None:
    with hold_free_domain(CANDIDATES) as first, hold_free_domain(CANDIDATES) as second:
        assert first.domain != second.domain


def test_a_released_domain_can_be_held_again() -> None:
    with hold_free_domain(CANDIDATES) as first:
        domain = first.domain
    with hold_domain(domain) as second:
        assert second.domain == domain


def test_a_domain_that_someone_talks_on_is_skipped() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talker, hold_free_domain(CANDIDATES) as lock:
        wanted = lock.domain
        lock.release()
        talker.bind(("127.0.0.1", PORT_BASE + DOMAIN_GAIN * wanted + 11))
        assert in_use(wanted, bound_udp_ports())
        with hold_free_domain(CANDIDATES) as other:
            assert other.domain != wanted


def test_killing_the_holder_frees_the_domain() -> None:
    code = (
        "import sys, time; from embodied_vision.launching.domain import hold_free_domain;"
        f"lock = hold_free_domain({CANDIDATES}); print(lock.domain, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        domain = int(holder.stdout.readline())
        with pytest.raises(BadInput, match=f"{domain} is held by another"):
            hold_domain(domain)
        holder.kill()
        holder.wait()
        hold_domain(domain).release()


def test_no_domain_left_is_said() -> None:
    with hold_free_domain(CANDIDATES) as lock, pytest.raises(RunFailed, match="every ROS domain id is taken"):
        hold_free_domain([lock.domain])


def test_a_domain_out_of_range_is_refused() -> None:
    with pytest.raises(BadInput, match="0 to 232"):
        hold_domain(233)

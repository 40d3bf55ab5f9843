"""A ROS domain of one's own, held by a lock for as long as its processes run."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from embodied_vision.errors import BadInput, RunFailed

PORT_BASE, DOMAIN_GAIN = 7400, 250
"""RTPS well-known ports (RTPS 2.5, 9.6.2.3): domain d uses the UDP ports from 7400 + 250·d on."""

DOMAINS = range(1, 102)
"""Domains whose ports stay below Linux' ephemeral ports; 0 is left to those who never chose one."""


class DomainLock:
    """Holds a ROS domain id against every other run in the same network namespace.

    The lock is an abstract unix socket: it leaves no file behind and is gone when the process
    that holds it ends, however it ends.

    Attributes:
        domain: the ROS_DOMAIN_ID that is held.
    """

    def __init__(self, domain: int, held: socket.socket) -> None:
        self.domain = domain
        self._held = held

    def release(self) -> None:
        """Let others have the domain. Does nothing the second time."""
        self._held.close()

    def __enter__(self) -> DomainLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold_name(name: str) -> socket.socket | None:
    """Take a name that one process at a time can hold; None when another holds it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0{name}")
    except OSError:
        held.close()
        return None
    return held


def bound_udp_ports() -> frozenset[int]:
    """Local UDP ports that some process of this network namespace has bound."""
    ports: set[int] = set()
    for table in (Path("/proc/net/udp"), Path("/proc/net/udp6")):
        if table.exists():
            rows = table.read_text().splitlines()[1:]
            ports.update(int(row.split()[1].rsplit(":", 1)[1], 16) for row in rows)
    return frozenset(ports)


def in_use(domain: int, ports: Iterable[int]) -> bool:
    """Whether one of the bound ports belongs to the domain, so that somebody talks there."""
    low = PORT_BASE + DOMAIN_GAIN * domain
    return any(low <= port < low + DOMAIN_GAIN for port in ports)


def hold_domain(domain: int, namespace: str = "") -> DomainLock:
    """Hold a namespace of the domain that the user asked for, whether or not somebody talks there.

    Runs in several namespaces share a domain: two arms in one graph.

    Raises:
        BadInput: the number is out of range, or another run holds the domain's namespace.
    """
    if domain not in range(233):
        raise BadInput(f"ROS domain id {domain} is out of range; give 0 to 232, or none for a free one")
    held = hold_name(f"embodied_vision_domain_{domain}{f'/{namespace}' if namespace else ''}")
    if held is None:
        raise BadInput(
            f"ROS domain id {domain}{f' with namespace /{namespace}' if namespace else ''} is held by another running "
            "cell; stop that one, give another number or namespace, or no number for a free one"
        )
    return DomainLock(domain, held)


def hold_free_domain(candidates: Iterable[int] = DOMAINS) -> DomainLock:
    """Hold the first domain that no other run holds and where nobody talks.

    Raises:
        RunFailed: there is none.
    """
    ports = bound_udp_ports()
    for domain in candidates:
        if in_use(domain, ports):
            continue
        held = hold_name(f"embodied_vision_domain_{domain}")
        if held is not None:
            return DomainLock(domain, held)
    raise RunFailed("every ROS domain id is taken; stop some of the running ROS processes on this machine")

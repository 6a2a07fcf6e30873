"""Does the cluster range collide with a network that the machine already reaches?

A route to the cluster range through the TUN is more specific than, or as specific as, a route that
overlaps it, and would take part of that network away. So the daemon refuses to start instead.

Two kinds of routes do not count: default routes, split in two halves or not (VPN clients write
0.0.0.0/1 and 128.0.0.0/1), because taking a part of "everything else" is what every route does;
and routes that lead nowhere, because they have nothing to lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from overlay.types import Prefix

_DEFAULT_LENGTH: Final = 1
"""Longest prefix that is still a way of writing "default"."""


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the machine that is not Muslin's."""

    prefix: Prefix
    link: str
    """Name of the outgoing link; empty for a route that leads nowhere, or over several links."""

    leads_nowhere: bool = False
    """Its type is unreachable, blackhole, prohibit or the like."""

    table: int = 254
    """Where it is; 254 is the main table."""

    def __str__(self) -> str:
        return f"{self.prefix} dev {self.link}" if self.link else str(self.prefix)


def find_overlap(
    routes: Iterable[HostRoute], ranges: Iterable[Prefix]
) -> tuple[HostRoute, Prefix] | None:
    """The first route that shares addresses with a range, and that range; None if all is free.

    >>> from ipaddress import ip_network
    >>> lan = HostRoute(ip_network("10.0.0.0/8"), "eth0")
    >>> print(*find_overlap([lan], [ip_network("10.244.0.0/16")]))
    10.0.0.0/8 dev eth0 10.244.0.0/16
    """
    return next(find_overlaps(routes, ranges), None)


def find_overlaps(
    routes: Iterable[HostRoute], ranges: Iterable[Prefix]
) -> Iterator[tuple[HostRoute, Prefix]]:
    """All routes that share addresses with a range, each with that range."""
    wanted = list(ranges)
    for route in routes:
        if route.leads_nowhere or route.prefix.prefixlen <= _DEFAULT_LENGTH:
            continue
        for prefix in wanted:
            if prefix.version == route.prefix.version and prefix.overlaps(route.prefix):
                yield route, prefix

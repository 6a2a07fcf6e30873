"""Watches the machine's own routes, which may cross the pod network in either direction.

`node.preflight` refuses to found a cluster, or to start a daemon, beside such a route. One that
comes later, when a container engine makes a network or a VPN comes up, takes a part of the pod
network away: it is named in this node's status, and in its record, for the status of all others
(`overlay.crossing`).

And if somebody routes underlay addresses into the TUN, the pod network would carry itself: what the
daemon sends to a member would come back to it as a packet. Such addresses are not used as long as
the route is there, and the status says so.

What is routed to the machine itself is what it has for addresses. A host port at another one leads
nowhere, which `overlay.hostports` decides.

Routes are read when the kernel announced any change of them, and not otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.kernel.errors import KernelError
from node.kernel.model import is_veth_name
from node.kernel.netlink import Netlink
from node.kernel.overlap import HostRoute, find_overlaps
from node.kernel.watch import KernelWatch
from node.preflight import cluster_ranges
from overlay.crossing import lost
from overlay.types import Prefix
from overlay.views import Problem
from overlay.wire.cluster import Cluster


class HostGuard:
    """Looks for routes of the machine that cross the cluster's ranges.

    Args:
        cluster: whose ranges.
        tun: the TUN interface; what the kernel itself routes there and to pods is no crossing.

    Attributes:
        crossed: what this machine reaches without the overlay, as of the last look.
        ways: what is routed into the TUN though it is no part of the pod network, and what inside
            of that is not; see `overlay.outside.Outside.follow`.
        problems: the same for the status.
        held: what the machine takes for its own.
    """

    def __init__(self, cluster: Cluster, tun: str) -> None:
        self._cluster = cluster
        self._ranges = cluster_ranges(cluster)
        self._tun = tun
        self._watch: KernelWatch | None = None
        self._stale = False
        self.crossed: tuple[Prefix, ...] = ()
        self.ways: tuple[tuple[Prefix, bool], ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self.held: frozenset[Prefix] = frozenset()

    def look(self, netlink: Netlink) -> None:
        """Look again, if anything may have changed. In the netlink thread.

        Raises:
            KernelError: the kernel did not answer; all is as it was. Nothing else.
        """
        self._stale |= self._changed()  # before reading: nothing is missed
        if self._stale:
            self.judge(netlink.host_routes())
            self.held = netlink.held_prefixes()
            self._stale = False

    def judge(self, routes: Iterable[HostRoute]) -> None:
        """Decide from the machine's routes."""
        known = list(routes)
        foreign = [route for route in known if not self._is_ours(route)]
        found = list(find_overlaps(foreign, self._ranges))
        self.crossed = tuple(dict.fromkeys(route.prefix for route, _ in found))
        loops = [route.prefix for route in known if self._loops(route)]
        beside = [
            route.prefix
            for route in foreign
            if any(_is_inside(route.prefix, loop) for loop in loops)
        ]
        # Of two routes for one prefix the metric decides; the TUN is the one to be careful about.
        self.ways = (*((prefix, False) for prefix in beside), *((prefix, True) for prefix in loops))
        overlaps = (self._problem(route, own) for route, own in found)
        self.problems = tuple(dict.fromkeys([*overlaps, *map(_loop, loops)]))

    def _changed(self) -> bool:
        try:
            if self._watch is not None:
                return self._watch.changed()
            self._watch = KernelWatch()
        except OSError as error:
            raise KernelError.of("listening for changes of routes", error) from error
        return True

    def close(self) -> None:
        """Stop listening."""
        if self._watch is not None:
            self._watch.close()

    def _loops(self, route: HostRoute) -> bool:
        """Whether it leads into the TUN and is about something else than the pod network."""
        return route.link == self._tun and not any(
            _is_inside(route.prefix, own) for own in self._ranges
        )

    def _problem(self, route: HostRoute, own: Prefix) -> Problem:
        return Problem(
            "range-overlap",
            f"this machine reaches {route.prefix} by itself: {lost(route.prefix, self._cluster)}",
            f"its route {route} overlaps the cluster's range {own}",
            "remove that route, or give whatever made it another range",
        )

    def _is_ours(self, route: HostRoute) -> bool:
        return route.link == self._tun or is_veth_name(route.link)


def _loop(prefix: Prefix) -> Problem:
    return Problem(
        "underlay-loop",
        f"underlay addresses in {prefix} are not used: the way there is the pod network itself",
        "somebody has routed them into the TUN",
        f"remove that route: ip route del {prefix}",
    )


def _is_inside(prefix: Prefix, other: Prefix) -> bool:
    return prefix.version == other.version and prefix.subnet_of(other)  # type: ignore[arg-type]

"""Ports of the node that lead nowhere: asked for at an address that the machine does not have.

    pod web --port 203.0.113.9:8080:80      machine: 127.0.0.0/8, 192.0.2.1      --> named

Such a port is not refused: addresses come later, from a DHCP server, or because they move between
machines (keepalived), and the port is open as soon as the address is there. Until then nobody gets
to the pod by it, and nothing else would say so. What can never work is named as well: ::1, from
where Linux leads nothing to a pod (`node.kernel.hostports`), and IPv6 where pods have none.

What the machine has is what its kernel takes for its own (`ip route show table local`): single
addresses, and whole ranges, as 127.0.0.0/8 is one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from overlay.state import StoredPod
from overlay.types import Address, Prefix
from overlay.views import Problem

MAX_NAMED: Final = 16
"""Lines in a status; more are counted. A pod may have 256 ports."""

_LOOPBACK6: Final = IPv6Address("::1")
_ANOTHER: Final = "publish it without an address, or at another one"


class HostPorts:
    """Knows which addresses the machine has.

    Args:
        dual: whether pods have IPv6 addresses.
    """

    def __init__(self, *, dual: bool) -> None:
        self._dual = dual
        self._held: Collection[Prefix] = frozenset()

    def follow(self, held: Collection[Prefix]) -> None:
        """This is what the machine takes for its own now; nothing: it is not known."""
        self._held = held

    def problems(self, pods: Iterable[StoredPod]) -> Iterator[Problem]:
        """One for each port of these pods that leads nowhere, by the pods' names."""
        asked = [(pod.name, port) for pod in pods for port in pod.attachment.ports if port.host]
        if not asked:
            return
        whys = self._whys({port.host for _, port in asked})
        lost = [one for one in asked if one[1].host in whys]
        lost.sort(key=lambda one: one[0])
        for name, port in lost[:MAX_NAMED]:
            why, fix = whys[port.host]
            yield Problem("port-nowhere", f"port {port} of pod {name} leads nowhere", why, fix)
        if (more := len(lost) - MAX_NAMED) > 0:
            yield Problem(
                "port-nowhere",
                f"{more} more ports of pods lead nowhere",
                "they are published at addresses that lead to no pod from here",
                "see muslin status once these are mended, or muslin get pods -o wide",
            )

    def _whys(self, hosts: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Why nothing is led from these addresses, and what to do, for those where that is so."""
        wide = [one for one in self._held if one.prefixlen < one.max_prefixlen]
        found = ((host, self._why(ip_address(host), wide)) for host in hosts)
        return {host: why for host, why in found if why is not None}

    def _why(self, host: Address, wide: Iterable[Prefix]) -> tuple[str, str] | None:
        if host.is_unspecified:
            return None
        if host == _LOOPBACK6:
            return "Linux leads nothing from ::1 to a pod", "publish it at 127.0.0.1"
        if host.version == 6 and not self._dual:
            return "the cluster has no IPv6", _ANOTHER
        if not self._held or ip_network(host) in self._held or any(host in one for one in wide):
            return None
        fix = f"give it that address, and the port is open; or {_ANOTHER}"
        return f"this machine does not have the address {host}", fix

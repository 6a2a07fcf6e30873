"""What is outside of a machine: a network that knows nothing of pods, behind one of its links.

    machine == LINK ==== eth0 host

The host has no route to the cluster: what it answers goes to the machine's own address or nowhere.
"""

from __future__ import annotations

from typing import NamedTuple

from node.kernel import netns
from tests.support.labs import Place
from tests.support.processes import run


class World(NamedTuple):
    """A host outside, and the address that the machine has there.

    Attributes:
        host: where it is.
        near: the machine's IPv4 address on the link.
        near6: the machine's IPv6 address on the link.
    """

    host: Place
    near: str
    near6: str

    def of(self, family: int) -> str:
        """The machine's address of IP version 4 or 6."""
        return self.near if family == 4 else self.near6


def wire_world(machine: str, namespace: str, link: str, net: str, net6: str) -> World:
    """Make the host and the link.

    Args:
        machine: the namespace that has the link.
        namespace: of the host, made for it; the caller removes it.
        link: name on the machine.
        net: the first three octets of the link's /24; the machine is 1, the host 9.
        net6: the front of the link's /64, up to `::`.
    """
    near, near6, far, far6 = f"{net}.1", f"{net6}::1", f"{net}.9", f"{net6}::9"
    netns.create(namespace)
    for words in (
        f"ip link add {link} type veth peer name eth0 netns {namespace}",
        f"ip addr add {near}/24 dev {link}",
        f"ip addr add {near6}/64 dev {link} nodad",
        f"ip link set {link} up",
    ):
        run(machine, *words.split())
    for words in (
        "ip link set lo up",
        f"ip addr add {far}/24 dev eth0",
        f"ip addr add {far6}/64 dev eth0 nodad",
        "ip link set eth0 up",
    ):
        run(namespace, *words.split())
    return World(Place("world", "world", namespace, far, far6), near, near6)

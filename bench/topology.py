"""The one topology of all contestants: two nodes, a bridge between them, pods behind them.

                 NAME-underlay
    NAME-node1 eth0 == node1 :br0: node2 == eth0 NAME-node2
       |    |                                  |    |
    pod1   pod2                              pod1   pod2

It is a lab, so Muslin is there as shipped, with its pods (pod1). The other contestants share two
more pods (pod2) on veths as the kernel makes them: Muslin sets `gso_max_size` on the veths of its
own pods, and what suits Muslin should neither help nor hinder the others (62,000 instead of 65,536
made no difference without overlay, and gained VXLAN a tenth: interleaved, medians of 3). In pod2
every contestant has an address, and only the route to the other address differs.

Two underlays:

    veth   as it is: a super-packet of 64 KB crosses in one piece, nothing is ever cut
    wire   every frame is at most MTU-sized, as on a network card without offloads to the far end

"wire" is made of two settings on each veth. The sending end (eth0 of a node) gets segmentation
offloads off, so that the kernel cuts every super-packet just before the veth sees it. The receiving
end (eth0 again) gets receive offload on. That alone would do nothing: a veth skips GRO for frames
of a peer that has TCP segmentation on, since those are large already (Linux drivers/net/veth.c,
veth_skb_is_eligible_for_gro). So the ports of the bridge get segmentation off as well, and receive
offload off, lest frames be joined half-way. Whether the wire carries single frames is not assumed:
their mean size is read from the port's counters in every run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bench.shell import run
from node.kernel import netns
from node.lab.build import lab_down, lab_up
from node.lab.readiness import ask
from node.lab.store import LabInfo

LAB: Final = "bench"
GATEWAY: Final = "169.254.1.1"
POD_LINK: Final = "eth0"
HOST_LINK: Final = "plain0"
"""The host end of the veth to pod2."""

PLAIN_MTU: Final = 1500
ETHERNET_HEADER: Final = 14
LARGEST_FRAME: Final = PLAIN_MTU + ETHERNET_HEADER

_SEGMENTATION: Final = ("tso", "gso", "tx-udp-segmentation")


class Underlay(StrEnum):
    """What the nodes' links do with super-packets."""

    VETH = "veth"
    WIRE = "wire"


@dataclass(frozen=True, slots=True)
class Side:
    """One node with its pods."""

    number: int
    """1 or 2; part of every address."""
    name: str
    """The node's, and that of its port of the bridge."""
    node: str
    """Namespace of the node."""
    pod: str
    """Namespace of Muslin's pod."""
    plain: str
    """Namespace of the other contestants' pod."""
    underlay: str
    """Underlay address of the node."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The topology while it stands. Traffic goes from side 1 to side 2."""

    lab: LabInfo
    sides: tuple[Side, Side]

    def both_ways(self) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
        """Each side with the other one."""
        first, second = self.sides
        return (first, second), (second, first)

    def muslin_pods(self) -> dict[str, str]:
        """Address of every pod of the lab, by its name."""
        return muslin_pods(self.lab)

    def wire_counters(self) -> tuple[int, int]:
        """Bytes and frames that have entered the bridge from side 1."""
        shown = run(
            self.lab.topology.bridge_netns, "ip", "-s", "-j", "link", "show", "dev", "node1"
        )
        received = json.loads(shown)[0]["stats64"]["rx"]
        return int(received["bytes"]), int(received["packets"])


def muslin_pods(lab: LabInfo) -> dict[str, str]:
    """IPv4 address of every pod of a lab, by its name."""
    rows = ask(lab, lab.topology.nodes[0].name, "get", kind="pods")
    return {str(row["name"]): str(row["address"]) for row in rows}


@contextmanager
def ground(progress: Callable[[str], None], name: str = LAB) -> Iterator[Ground]:
    """Build the topology; it is gone after the `with` block, whatever happened in it.

    Args:
        progress: told each step.
        name: of the lab.

    Raises:
        NodeError: it did not come up, or there is one already, which stays as it is.
    """
    # What does not come up takes itself down; what was there before is somebody else's.
    lab = lab_up(name, 2, 1, progress=progress)
    try:
        first, second = (_side(lab, number) for number in (1, 2))
        for side in (first, second):
            _add_plain_pod(side)
        yield Ground(lab, (first, second))
    finally:
        lab_down(name)


def _side(lab: LabInfo, number: int) -> Side:
    node = lab.topology.nodes[number - 1]
    return Side(
        number=number,
        name=node.name,
        node=node.netns,
        pod=node.pods[0].netns,
        # Named like a pod of the lab, so that `lab down` removes it even after a crash of ours.
        plain=f"{node.netns}-pod2",
        underlay=str(node.address.ip),
    )


def _add_plain_pod(side: Side) -> None:
    netns.create(side.plain)
    run(side.node, "ip", "link", "add", HOST_LINK, "type", "veth",
        "peer", "name", POD_LINK, "netns", side.plain)  # fmt: skip
    run(side.node, "ip", "link", "set", HOST_LINK, "up")
    run(side.node, "ip", "addr", "add", f"{GATEWAY}/32", "dev", HOST_LINK)
    run(side.plain, "ip", "link", "set", "lo", "up")
    run(side.plain, "ip", "link", "set", POD_LINK, "up")
    run(side.plain, "ip", "route", "add", f"{GATEWAY}/32", "dev", POD_LINK)


def pod_address(octet: int, side: Side) -> str:
    """A contestant's address in the plain pod.

    Args:
        octet: the contestant's own, so that no two share a route.
        side: of the pod.
    """
    return f"10.{octet}.{side.number}.2"


def join_pods(ground: Ground, octet: int, mtu: int) -> None:
    """Give the plain pods a contestant's addresses, and a way to their nodes and back.

    Args:
        ground: where.
        octet: the contestant's.
        mtu: of the contestant's tunnel; the pods' routes get it, their links stay at 1500.
    """
    for here, there in ground.both_ways():
        own = pod_address(octet, here)
        run(here.plain, "ip", "addr", "add", f"{own}/32", "dev", POD_LINK)
        run(here.plain, "ip", "route", "add", f"10.{octet}.{there.number}.0/24", "via", GATEWAY,
            "dev", POD_LINK, "src", own, "mtu", str(mtu))  # fmt: skip
        run(here.node, "ip", "route", "add", f"{own}/32", "dev", HOST_LINK)


def set_underlay(ground: Ground, underlay: Underlay) -> None:
    """Make the nodes' links one of the two kinds, in both directions."""
    segmentation = "on" if underlay is Underlay.VETH else "off"
    joining = "on" if underlay is Underlay.WIRE else "off"
    cut = [word for name in _SEGMENTATION for word in (name, segmentation)]
    for side in ground.sides:
        run(side.node, "ethtool", "-K", "eth0", *cut, "gro", joining)
        run(ground.lab.topology.bridge_netns, "ethtool", "-K", side.name, *cut, "gro", "off")

"""The namespaces of a lab and the links between them.

    NAME-underlay: br0 -- node1 ======= eth0 :NAME-node1      (a veth per node)
                       -- node2 ======= eth0 :NAME-node2

A port of the bridge has the name of its node. The veths are made inside the namespace of the
underlay, with the far end already in the node's: no link is ever in the machine's own namespace.
The nodes' namespaces get nothing but loopback and eth0; the rest is the daemons' work.
"""

from __future__ import annotations

from typing import Final

from node.kernel import netns
from node.kernel.model import Link, LinkAddress
from node.kernel.netlink import Netlink
from node.kernel.reconcile import AddAddress, SetLink, SetSysctl
from node.lab.topology import LabNode, Topology

BRIDGE: Final = "br0"
NODE_LINK: Final = "eth0"

_QUIET: Final = {
    f"net/ipv6/conf/{NODE_LINK}/accept_dad": "0",
    f"net/ipv6/conf/{NODE_LINK}/accept_ra": "0",
}
"""There is no router, and nobody to have the same address."""


def wire(topology: Topology) -> None:
    """Make all namespaces and the underlay between the nodes.

    Raises:
        KernelError: the kernel refused. What was made stays, to be removed with the lab.
    """
    for namespace in namespaces(topology):
        netns.create(namespace)
    netns.run_in(topology.bridge_netns, _make_underlay, topology)
    for node in topology.nodes:
        netns.run_in(node.netns, _configure, node)


def namespaces(topology: Topology) -> list[str]:
    """All namespaces of a lab; that of the underlay, which marks the lab, is the first."""
    return [
        topology.bridge_netns,
        *(node.netns for node in topology.nodes),
        *(pod.netns for pod in topology.pods),
    ]


def _make_underlay(topology: Topology) -> None:
    with Netlink() as netlink:
        for node in topology.nodes:
            port = Link(node.name, mtu=topology.mtu)
            with netns.opened(node.netns) as namespace:
                netlink.create_veth(port, Link(NODE_LINK, mtu=topology.mtu), namespace)
            netlink.apply(SetSysctl(f"net/ipv6/conf/{node.name}/disable_ipv6", "1"))
        netlink.create_bridge(BRIDGE, [node.name for node in topology.nodes])


def _configure(node: LabNode) -> None:
    with Netlink() as netlink:
        for path, value in _QUIET.items():
            netlink.apply(SetSysctl(path, value))
        netlink.apply(SetLink(Link("lo")))
        netlink.apply(SetLink(Link(NODE_LINK)))
        netlink.apply(AddAddress(LinkAddress(NODE_LINK, node.address)))

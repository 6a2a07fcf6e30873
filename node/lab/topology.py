"""Names and addresses of a lab: a pure function of its few parameters.

    namespaces   NAME-underlay, NAME-node1 .., NAME-node1-pod1 ..
    underlay     198.51.100.I/24 or 2001:db8:100::I/64 for node I

References:
    RFC 5737 (198.51.100.0/24, TEST-NET-2), RFC 3849 (2001:db8::/32): addresses that no real
    network uses, so that nothing in a lab can be mistaken for the outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import Final

from node.errors import NodeError
from overlay.errors import ConfigError

MOST_NODES: Final = 100
MOST_PODS: Final = 100
"""Per node. Both are far above what one machine carries, and far below what a /24 addresses."""

LEAST_MTU: Final = 1280
MOST_MTU: Final = 9000
"""Of the underlay: from what IPv6 demands of every link (RFC 8200, section 5) to jumbo frames."""

LONGEST_NAME: Final = 32

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Underlay(StrEnum):
    """The family of the addresses that the daemons use among themselves."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"


_NETWORKS: Final[dict[Underlay, IPv4Network | IPv6Network]] = {
    Underlay.IPV4: IPv4Network("198.51.100.0/24"),
    Underlay.IPV6: IPv6Network("2001:db8:100::/64"),
}


@dataclass(frozen=True, slots=True)
class LabPod:
    """A pod: `name` within Muslin, `netns` on the machine."""

    name: str
    netns: str


@dataclass(frozen=True, slots=True)
class LabNode:
    """A node, its place in the underlay, and its pods."""

    name: str
    netns: str
    address: IPv4Interface | IPv6Interface
    pods: tuple[LabPod, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything about a lab that is decided before anything is built."""

    name: str
    underlay: Underlay
    mtu: int
    """Of the underlay."""
    cidr: str
    """The cluster's IPv4 range."""
    nodes: tuple[LabNode, ...]

    @property
    def bridge_netns(self) -> str:
        """The namespace of the underlay's bridge.

        The first to be made and the last to go: while it exists there is something to remove.
        """
        return underlay_namespace(self.name)

    @property
    def pods(self) -> tuple[LabPod, ...]:
        """The pods of all nodes."""
        return tuple(pod for node in self.nodes for pod in node.pods)

    def node(self, name: str) -> LabNode:
        """The node of that name.

        Raises:
            NodeError: there is none. Nothing else.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise NodeError(f"lab {self.name} has no {name!r}", f"its nodes are {known}", "no-target")

    def namespace_of(self, target: str) -> str:
        """The namespace of a node or a pod.

        Raises:
            NodeError: there is none of that name. Nothing else.
        """
        for pod in self.pods:
            if pod.name == target:
                return pod.netns
        return self.node(target).netns


def plan(name: str, nodes: int, pods: int, *, underlay: str, mtu: int, cidr: str) -> Topology:
    """The topology of a lab.

    Args:
        name: a DNS label; prefix of all namespaces.
        nodes: how many.
        pods: how many per node.
        underlay: "ipv4" or "ipv6".
        mtu: of the underlay.
        cidr: the cluster's IPv4 range.

    Raises:
        ConfigError: a parameter is out of range; `key` says which. Nothing else.

    >>> lab = plan("lab", 2, 1, underlay="ipv4", mtu=1500, cidr="10.244.0.0/16")
    >>> [node.netns for node in lab.nodes], [pod.name for pod in lab.pods]
    (['lab-node1', 'lab-node2'], ['node1-pod1', 'node2-pod1'])
    """
    check_name(name)
    _check_range(nodes, 1, MOST_NODES, "--nodes")
    _check_range(pods, 0, MOST_PODS, "--pods")
    _check_range(mtu, LEAST_MTU, MOST_MTU, "--mtu")
    if underlay not in set(Underlay):
        raise ConfigError(f"must be ipv4 or ipv6, not {underlay!r}", "--underlay")
    family = Underlay(underlay)
    return Topology(
        name=name,
        underlay=family,
        mtu=mtu,
        cidr=_cidr(cidr),
        nodes=tuple(_node(name, number, pods, family) for number in range(1, nodes + 1)),
    )


def check_name(name: str) -> str:
    """The name of a lab, checked.

    Raises:
        ConfigError: it is no DNS label, or too long. Nothing else.
    """
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        why = f"must be lower-case letters, digits and dashes, not {name!r}"
        raise ConfigError(f"{why} (at most {LONGEST_NAME} characters)", "--name")
    return name


def _check_range(value: int, least: int, most: int, key: str) -> None:
    if not least <= value <= most:
        raise ConfigError(f"must be {least} to {most}, not {value}", key)


def _cidr(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ConfigError(str(error), "--cidr") from error


def _node(lab: str, number: int, pods: int, underlay: Underlay) -> LabNode:
    name = f"node{number}"
    network = _NETWORKS[underlay]
    return LabNode(
        name=name,
        netns=f"{lab}-{name}",
        address=ip_interface(f"{network[number]}/{network.prefixlen}"),
        pods=tuple(
            LabPod(f"{name}-pod{index}", f"{lab}-{name}-pod{index}") for index in range(1, pods + 1)
        ),
    )


def underlay_namespace(lab: str) -> str:
    """The namespace of a lab's bridge."""
    return f"{lab}-underlay"


def belongs_to(lab: str, namespace: str) -> bool:
    """Whether a namespace can be one of a lab, by its name alone.

    >>> belongs_to("lab", "lab-node1-pod2"), belongs_to("lab", "lab-node1-node1")
    (True, False)
    """
    pattern = rf"{re.escape(lab)}-(underlay|node[0-9]+(-pod[0-9]+)?)"
    return re.fullmatch(pattern, namespace) is not None

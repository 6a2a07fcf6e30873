"""Kernel state as values: what `desired` asks for, `netlink` reads and `reconcile` compares.

Links are named, not numbered: an index is only valid until the link is made again, and the desired
state outlives that. Everything is hashable, so that a difference is a set difference.

References:
    rtnetlink(7); Linux include/uapi/linux/rtnetlink.h (protocol numbers),
    Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2s
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, IPv6Network
from types import MappingProxyType
from typing import Final, NamedTuple

from overlay.types import Address, Prefix

ROUTE_PROTOCOL: Final = 109
"""Who made a route, `proto 109` in `ip route`: how we know ours from everybody else's.

Numbers above 4 are free for user space; include/uapi/linux/rtnetlink.h and iproute2's
/etc/iproute2/rt_protos list the taken ones (up to 18, 42, 80, 84, 99, 186-192). 109 is "m"."""

VETH_PREFIX: Final = "mus"
"""First letters of the host end of a pod's veth."""

PEER_PREFIX: Final = "mup"
"""First letters of the other end, while it is in the node's namespace for a runtime to move."""

QUEUE_PREFIX: Final = "muq"
"""First letters of the link that packets from a pod with a limit wait at (ifb)."""

GATEWAY: Final = IPv4Address("169.254.1.1")
GATEWAY6: Final = IPv6Address("fe80::1")
POD_LINK_LOCAL: Final = IPv6Address("fe80::2")
"""The pod's end of its link, for neighbour discovery: known, so that no other need be believed."""

LOOPBACK: Final = "127.0.0.0/8"
"""What no packet from a pod is for; nft's own words."""

POD_LINK: Final = "eth0"

RULE_TABLE: Final = "muslin"
RULE_FAMILIES: Final = ("inet", "arp")
"""Of our packet filter tables; all have the same name."""

NAT_TABLE: Final = "muslin_nat"
"""Our table of translations, of family inet. It is there only while something is translated: as
long as one is there, the kernel remembers every connection of the machine (conntrack)."""

METRIC_V4: Final = 0
METRIC_V6: Final = 1024
"""What the kernel gives a route without a metric (IP6_RT_PRIO_USER)."""

_VETH: Final = re.compile(rf"{VETH_PREFIX}[0-9a-f]{{10}}")
_QUEUE: Final = re.compile(rf"{QUEUE_PREFIX}[0-9a-f]{{10}}")


def veth_name(pod: str) -> str:
    """The name of the host end of a pod's veth: 13 characters, at most 15 are allowed.

    A hash, because pod names are longer; the link's alias holds the name itself.

    >>> veth_name("web")
    'musd51a6abb33'
    """
    return VETH_PREFIX + blake2s(pod.encode(), digest_size=5).hexdigest()


class VethMacs(NamedTuple):
    """Link-layer addresses of the two ends of a pod's veth."""

    host: str
    pod: str


def veth_macs(pod: str) -> VethMacs:
    """The link-layer addresses of a pod's veth: derived from its name, locally administered.

    Chosen, so that both ends can know each other without asking, and so that a machine's link
    manager does not put others in their place (systemd.link(5), MACAddressPolicy=persistent,
    replaces random ones only). Two pods of one name on two nodes have the same ones: a veth is a
    network of its own.

    >>> veth_macs("web").pod
    '52:13:f9:34:be:2e'
    """
    digest = blake2s(pod.encode(), digest_size=12, person=b"veth-mac").digest()
    host, inside = (bytes([part[0] & 0xFC | 0x02]) + part[1:] for part in (digest[:6], digest[6:]))
    return VethMacs(host.hex(":"), inside.hex(":"))


def peer_name(pod: str) -> str:
    """The name of a pod's end of its veth until a runtime moves it into the pod.

    >>> peer_name("web")
    'mupd51a6abb33'
    """
    return PEER_PREFIX + veth_name(pod).removeprefix(VETH_PREFIX)


def queue_name(pod: str) -> str:
    """The name of the link that what comes from a pod with a limit waits at.

    >>> queue_name("web")
    'muqd51a6abb33'
    """
    return QUEUE_PREFIX + veth_name(pod).removeprefix(VETH_PREFIX)


def is_veth_name(link: str) -> bool:
    """Whether `link` can be the host end of a pod's veth."""
    return _VETH.fullmatch(link) is not None


def is_pod_link(link: str) -> bool:
    """Whether `link` can be there for one pod: the host end of its veth, or its queue."""
    return is_veth_name(link) or _QUEUE.fullmatch(link) is not None


@dataclass(frozen=True, slots=True)
class Link:
    """The attributes of a link that matter to us. None: whatever it is, is right."""

    name: str
    up: bool = True
    mtu: int | None = None
    gso_max_size: int | None = None
    """Largest super-packet that the kernel hands to the link unsegmented."""
    txqueuelen: int | None = None
    alias: str | None = None
    """Free text (IFLA_IFALIAS): the pod's name on the host end of its veth."""
    mac: str | None = None
    """As `02:11:22:33:44:55`."""
    master: int | None = None
    """Index of the bridge or the like that it is a port of; 0 for none."""
    kind: str = field(default="", compare=False)
    """What made it: `tun`, `veth`; empty for hardware. Cannot be changed."""


class LinkAddress(NamedTuple):
    """An address on a link."""

    link: str
    address: IPv4Interface | IPv6Interface

    def __str__(self) -> str:
        return f"address {self.address} on {self.link}"


class Neighbour(NamedTuple):
    """A permanent entry of the neighbour table: the station behind a link that has an address."""

    link: str
    address: Address
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.address} on {self.link}"


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate of what passes a pod's veth in one direction (`node.kernel.limits`).

    Attributes:
        link: the host end of the veth.
        queue: the link with the bucket: the veth for packets to the pod, another for those from it.
        rate: bytes per second.
        burst: bytes at once. The kernel shows it rounded; it is a part of `room`.
        room: bytes that may wait, those of a burst included.
    """

    link: str
    queue: str
    rate: int
    burst: int = field(compare=False)
    room: int

    def __str__(self) -> str:
        return f"limit on {self.link} of what goes {self.direction} the pod"

    @property
    def direction(self) -> str:
        """`to` or `from`."""
        return "to" if self.queue == self.link else "from"


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table with our protocol number.

    `link` is empty for a route that answers `unreachable`.
    """

    prefix: Prefix
    link: str = ""
    gateway: Address | None = None
    source: Address | None = None
    """Address the kernel prefers as source, for its own ICMP errors as well (prefsrc)."""
    metric: int = METRIC_V4

    @property
    def key(self) -> tuple[Prefix, int]:
        """What the kernel holds unique: two of our routes never share it."""
        return self.prefix, self.metric

    def __str__(self) -> str:
        return f"route {self.prefix} dev {self.link}" if self.link else f"unreachable {self.prefix}"


def default_metric(prefix: Prefix) -> int:
    """The metric of an ordinary route of that family."""
    return METRIC_V6 if isinstance(prefix, IPv6Network) else METRIC_V4


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """What the desired state depends on besides the snapshot.

    Attributes:
        tun: name of the TUN interface.
        mtu: what pods see, in bytes, whatever the underlay carries.
        ports: the UDP ports of the underlay, one per lane.
        masquerade: whether pods reach the world under the node's address.
    """

    tun: str
    mtu: int
    ports: range = range(6875, 6876)
    masquerade: bool = False


@dataclass(frozen=True, slots=True)
class KernelState:
    """Links, addresses, routes, limits, ... and rules of a namespace, as far as they are ours.

    Desired and actual state have the same type. A link that is desired and not there is not
    `reconcile`'s to make: the TUN comes from `node.io.tun`, veths from `node.kernel.pods`.
    """

    links: Mapping[str, Link] = field(default_factory=lambda: MappingProxyType({}))
    addresses: frozenset[LinkAddress] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    """Permanent ones only: what the kernel learns by itself is its own affair."""
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Path below /proc/sys to value. Actual: only those that exist."""
    rules: str = ""
    """Desired only: the input of `nft -f`. The kernel lists rules in other words; `node.kernel.nft`
    knows whether they stand."""
    limits: frozenset[Limit] = frozenset()
    advertised_links: frozenset[str] = frozenset()
    """Actual only: foreign links that take router advertisements as long as the machine does not
    forward (accept_ra=1)."""
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Actual only: links of ours that somebody gave another name, and that name. The rest of the
    state has them under their own."""
    namespaces: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Actual only: of links whose other end is in another namespace, the number of that."""

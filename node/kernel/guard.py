"""What a pod may send, as a packet filter: a pure function of the node's snapshot.

    pod eth0 ==> veth --[prerouting]--> routes --> other pods, TUN, the world
                           |      |
                           |      +--[input]--> the node's own sockets
                           source is the pod's? else dropped and counted

A pod has root in its namespace and can write any frame. What may leave its veth is what has the
pod's own addresses as source. The check is made before the packet is routed, so that it protects
the other pods of the node, other nodes, the world and the node itself alike. It also ends what
needs a foreign source by nature: router advertisements, redirects, DHCP.

- Neighbour discovery goes between `fe80::2` on the pod's end, which every pod has, and `fe80::1`.
  Where a runtime configures the pod's end, it comes from the address that the kernel makes of the
  link's hardware address; that link's other questions (for routers, for who else has its address)
  are dropped without being counted.
- ARP may speak of the pod's own address and nothing else: a table of the neighbours of all links
  is easily filled up from one of them.
- The node's loopback is its own. Ports that are opened at 127.0.0.1 (`node.kernel.hostports`, the
  CNI's portmap) need the kernel to let such addresses pass at the pod's veth, in both directions
  (CVE-2020-8558). Answers to the node do not have them yet where the check is made.
- Multicast listener reports are dropped without being counted: every kernel sends them.
- Nobody but a pod, this node or another node has an address of the cluster: what else comes with
  one is dropped.
- Networks outside that this node advertises may send to the cluster, and not through it to other
  such networks. Their addresses count only where this node's routes lead to them: else whoever
  reaches one of its links could pass for a host there.
- The underlay's ports are closed to whatever comes out of the pod network, from pods of this node
  as from other nodes: a stranger is to come by the underlay, where he can be told apart.

Sets hold names and addresses, so a pod's place is made before its veth is.

Where there is no nft, `rp_filter` of the veth (`node.kernel.desired`) makes the check for IPv4,
unless the machine's own `all` setting loosens it; the daemon lets nothing leave the node that has
no source of this node, and refuses handshakes from inside the pod network.

References:
    nft(8); Linux Documentation/networking/ip-sysctl.rst, rp_filter.
    ip-sysctl.rst, route_localnet.
    RFC 2827 (BCP 38): network ingress filtering.  RFC 4861, section 11: threats on a link.
    RFC 4291, appendix A: interface identifiers of 48-bit hardware addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import Final

from node.kernel.model import (
    LOOPBACK,
    POD_LINK_LOCAL,
    RULE_TABLE,
    KernelSettings,
    veth_macs,
    veth_name,
)
from overlay.types import Address
from overlay.views import LocalView

SPOOFED: Final = "spoofed"
"""Counter of both tables: packets and ARP messages with a source that is not the pod's, and packets
to the node's loopback."""

UNDERLAY: Final = "underlay"
"""Counter: datagrams to the underlay's ports that came out of the pod network."""

OUTSIDE: Final = "outside"
"""Counter: packets that are no pod's, with an address of the cluster or of an advertised network
that does not belong there, or on the way from one such network to another."""


@dataclass(frozen=True, slots=True)
class GuardFacts:
    """What the status says of the check.

    Attributes:
        why: why the packet filter does not make it, in one clause; empty while it does.
        drops: packets that the filter has dropped, by counter.
    """

    why: str = ""
    drops: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def by(self) -> str:
        """Who makes it: `nft`, or `routes` with what `rp_filter` and the daemon do."""
        return "routes" if self.why else "nft"


_RULES: Final = """\
add counter inet {table} {spoofed}
add counter inet {table} {underlay}
add counter inet {table} {outside}
add set inet {table} links {{ type ifname; }}
add set inet {table} pods4 {{ type ifname . ipv4_addr; }}
add set inet {table} pods6 {{ type ifname . ipv6_addr; }}
add set inet {table} near6 {{ type ifname . ipv6_addr; }}
add set inet {table} lans4 {{ type ipv4_addr; flags interval; auto-merge; }}
add set inet {table} lans6 {{ type ipv6_addr; flags interval; auto-merge; }}
add chain inet {table} prerouting {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet {table} from_pod
add chain inet {table} input {{ type filter hook input priority filter; policy accept; }}
add chain inet {table} forward {{ type filter hook forward priority filter; policy accept; }}
flush set inet {table} lans4
flush set inet {table} lans6
flush set inet {table} links
flush set inet {table} pods4
flush set inet {table} pods6
flush set inet {table} near6
add rule inet {table} prerouting iifname @links jump from_pod
add rule inet {table} prerouting iifname {{ "lo", "{tun}" }} accept
{ours}add rule inet {table} from_pod ip daddr {loopback} counter name {spoofed} drop
add rule inet {table} from_pod iifname . ip saddr @pods4 accept
add rule inet {table} from_pod iifname . ip6 saddr @pods6 accept
add rule inet {table} from_pod ip6 saddr {near} \
icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
add rule inet {table} from_pod iifname . ip6 saddr @near6 \
icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
add rule inet {table} from_pod iifname . ip6 saddr @near6 icmpv6 type nd-router-solicit drop
add rule inet {table} from_pod ip6 saddr :: icmpv6 type nd-neighbor-solicit drop
add rule inet {table} from_pod icmpv6 type {{ mld-listener-report, mld2-listener-report }} drop
add rule inet {table} from_pod counter name {spoofed} drop
add rule inet {table} input iifname @links udp dport {ports} counter name {underlay} drop
add rule inet {table} input iifname "{tun}" udp dport {ports} counter name {underlay} drop
{transit}add counter arp {table} {spoofed}
add set arp {table} links {{ type ifname; }}
add set arp {table} pods4 {{ type ifname . ipv4_addr; }}
add chain arp {table} input {{ type filter hook input priority filter; policy accept; }}
add chain arp {table} from_pod
flush set arp {table} links
flush set arp {table} pods4
add rule arp {table} input iifname @links jump from_pod
add rule arp {table} from_pod iifname . arp saddr ip @pods4 accept
add rule arp {table} from_pod counter name {spoofed} drop
"""


def guard_rules(snapshot: LocalView, settings: KernelSettings) -> str:
    """The part of `node.kernel.rules` that makes the check.

    Args:
        snapshot: ranges, own networks, and pods, of which only local ones matter.
        settings: name of the TUN, and the underlay's ports.
    """
    tun, ports = settings.tun, settings.ports
    pods = sorted((pod for pod in snapshot.pods if pod.local), key=lambda pod: pod.name)
    links = [(veth_name(pod.name), pod) for pod in pods]
    lines = _RULES.format(
        table=RULE_TABLE,
        spoofed=SPOOFED,
        underlay=UNDERLAY,
        outside=OUTSIDE,
        ours=_ours(snapshot),
        transit=_transit(snapshot, tun),
        loopback=LOOPBACK,
        near=POD_LINK_LOCAL,
        tun=tun,
        ports=f"{ports[0]}-{ports[-1]}",
    )
    held4 = [_pair(link, pod.address) for link, pod in links]
    held6 = [_pair(link, pod.address6) for link, pod in links if pod.address6 is not None]
    near6 = [
        _pair(link, _link_local(veth_macs(pod.name).pod))
        for link, pod in links
        if pod.attachment.handed and pod.address6 is not None
    ]
    names = [f'"{link}"' for link, _ in links]
    return "".join(
        [
            lines,
            _elements("inet", "lans4", [str(p) for p in snapshot.own_outside if p.version == 4]),
            _elements("inet", "lans6", [str(p) for p in snapshot.own_outside if p.version == 6]),
            _elements("inet", "links", names),
            _elements("inet", "pods4", held4),
            _elements("inet", "pods6", held6),
            _elements("inet", "near6", near6),
            _elements("arp", "links", names),
            _elements("arp", "pods4", held4),
        ]
    )


def _ours(snapshot: LocalView) -> str:
    """What is no pod's, nor from the overlay or this node, has no address that belongs there."""
    rule = f"add rule inet {RULE_TABLE} prerouting"
    drop = f"counter name {OUTSIDE} drop\n"
    lines = [f"{rule} ip saddr {snapshot.cidr} {drop}"]
    if snapshot.cidr6 is not None:
        lines.append(f"{rule} ip6 saddr {snapshot.cidr6} {drop}")
    if snapshot.own_outside:
        lines.append(f"{rule} ip saddr @lans4 fib saddr . iif oif missing {drop}")
        lines.append(f"{rule} ip6 saddr @lans6 fib saddr . iif oif missing {drop}")
    return "".join(lines)


def _transit(snapshot: LocalView, tun: str) -> str:
    """Advertised networks reach pods and nodes, and not each other."""
    if not snapshot.own_outside:
        return ""
    rule, drop = (
        f'add rule inet {RULE_TABLE} forward oifname "{tun}"',
        f"counter name {OUTSIDE} drop\n",
    )
    beyond6 = f"ip6 daddr != {snapshot.cidr6} " if snapshot.cidr6 is not None else ""
    return (
        f"{rule} ip saddr @lans4 ip daddr != {snapshot.cidr} {drop}"
        f"{rule} ip6 saddr @lans6 {beyond6}{drop}"
    )


def _link_local(mac: str) -> IPv6Address:
    """What the kernel calls a link by itself (RFC 4291, appendix A).

    >>> _link_local("52:13:f9:34:be:2e")
    IPv6Address('fe80::5013:f9ff:fe34:be2e')
    """
    said = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([said[0] ^ 2]) + said[1:3] + b"\xff\xfe" + said[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def _pair(link: str, address: Address) -> str:
    return f'"{link}" . {address}'


def _elements(family: str, name: str, elements: Iterable[str]) -> str:
    inside = ", ".join(elements)
    return f"add element {family} {RULE_TABLE} {name} {{ {inside} }}\n" if inside else ""

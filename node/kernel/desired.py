"""What the kernel must look like: a pure function of the node's snapshot.

A packet's hops are the reason for each piece. From a pod to a pod of another node:

    pod eth0 -> veth -> [route CIDR dev TUN] -> daemon ~~> daemon -> TUN -> [route POD/32 dev veth]
                 TTL - 1 by the node's kernel                   TTL - 1 by the far node's kernel

- The two kernels forward, so TTL falls by exactly two, and traceroute shows both nodes.
- ICMP errors carry the node's pod-network address, because every route has it as preferred
  source and the kernel picks the source of an error by the route back to its addressee.
- Nothing is translated: pods and nodes see each other under their own addresses.
- An address of ours without a pod meets `unreachable BLOCK`: the kernel answers with ICMP. Where
  one node has the whole range, that is so for all of it, and nothing of it leads to the TUN.
- After a clean stop the TUN is gone, and with it the node's address and every route that prefers
  it as source. Routes of the worst metric then take over: the pods of this node still reach each
  other, and the rest of the cluster range meets `unreachable CIDR`, instead of leaving
  unencrypted by the machine's default route.
- After a daemon was killed the TUN stays without a reader. Its routes still match; the kernel
  drops what takes them without a word, so that connections wait for the next daemon instead of
  being told that there is no way.
- Outside networks that other nodes advertise are routed like the cluster range. What this node
  advertises itself it reaches already; the way back is that network's affair: it needs a route to
  the cluster range by way of this node, as nothing is translated.

The gateway that pods use is link-local and the same on every veth: 169.254.1.1 and fe80::1 on the
host end. Proxy ARP would answer only where the node has some other route to that address.

The two ends of a veth know each other without asking: their link-layer addresses are derived from
the pod's name, and each end has a permanent neighbour entry for the other. The first packet need
not wait, nothing is asked again every half a minute for every pod, and no answer can be lost,
forged, or crowded out of a table that all links share. Should an entry get lost, the kernel asks.

A pod is believed nothing about the network: no redirect, no advertisement, no source address that
is not its own. `node.kernel.guard` checks sources where there is nft; `rp_filter` does without it,
for IPv4.

References:
    RFC 3927 (169.254/16), RFC 4291, section 2.5.6 (fe80::/10).
    Linux Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from itertools import chain
from typing import Final, NamedTuple

from node.kernel.hostports import hostport_sysctls
from node.kernel.limits import desired_limits, queue_links
from node.kernel.model import (
    GATEWAY,
    GATEWAY6,
    POD_LINK,
    POD_LINK_LOCAL,
    KernelSettings,
    KernelState,
    Link,
    LinkAddress,
    Neighbour,
    Route,
    default_metric,
    veth_macs,
    veth_name,
)
from node.kernel.rules import compose
from overlay.types import Address, Prefix
from overlay.views import LocalView

GSO_MAX_SIZE: Final = 62_000
"""Largest super-packet on the TUN and on both ends of a veth, in bytes.

A burst is sent as at most 44 segments of 1472: with their headers the kernel's own limit of 64 KB
is then not reached and the segments leave without being cut in software. All links on a packet's
way need the same value, or the kernel segments on forward: 2.3 instead of 6.2 Gbit/s pod to pod."""

TX_QUEUE: Final = 1024
"""Packets that may wait in front of the TUN (its default is 500).

It counts packets, and a super-packet is 62 KB, so a full queue is up to 100 ms at 5 Gbit/s. What
flows keep waiting is bounded by their windows, though: beside 8 bulk flows a ping takes about as
long with 256 as with 1024. A short queue hurts when many flows meet: of 200 at once, 256 lost 14 %
of all packets, and single flows stalled for half a minute; with 1024 it was 5 %, and none did."""

FALLBACK_METRIC: Final = 0x7FFF_FFFF
"""Worse than the metric of any route that is meant to work while the daemon runs."""

_NODE_SYSCTLS: Final = {"net/ipv4/ip_forward": "1"}
_NODE_SYSCTLS6: Final = {"net/ipv6/conf/all/forwarding": "1"}
_LINK_SYSCTLS: Final = {
    "net/ipv4/conf/{}/forwarding": "1",  # a distribution's default may differ from `all`
    "net/ipv4/conf/{}/accept_redirects": "0",
    "net/ipv4/conf/{}/proxy_arp": "0",  # speaks for nobody else
}
_LINK_SYSCTLS6: Final = {
    "net/ipv6/conf/{}/disable_ipv6": "0",  # container engines switch it off by default
    "net/ipv6/conf/{}/addr_gen_mode": "1",  # none: no address of its own, so no solicitations
    "net/ipv6/conf/{}/accept_dad": "0",  # addresses are ours alone; waiting a second proves nothing
    "net/ipv6/conf/{}/accept_ra": "0",  # a pod is no router
    "net/ipv6/conf/{}/accept_redirects": "0",
    "net/ipv6/conf/{}/proxy_ndp": "0",
}
_VETH_SYSCTLS: Final = {
    "net/ipv4/conf/{}/rp_filter": "1",  # strict: what is not routed to the pod is not from it
}
_TUN_SYSCTLS: Final = {
    "net/ipv4/conf/{}/rp_filter": "0",  # sources are checked where packets enter the overlay
    "net/ipv4/conf/{}/accept_local": "1",  # ICMP errors of the daemon are from the node's address
}
_LINK_SYSCTLS_WITHOUT6: Final = {"net/ipv6/conf/{}/disable_ipv6": "1"}
_POD_SYSCTLS6: Final = {
    "net/ipv6/conf/{}/disable_ipv6": "0",
    "net/ipv6/conf/{}/addr_gen_mode": "1",  # none: POD_LINK_LOCAL instead
    "net/ipv6/conf/{}/accept_dad": "0",
    "net/ipv6/conf/{}/accept_ra": "0",
    "net/ipv6/conf/lo/disable_ipv6": "0",
}


class Legs:
    """Pods' parts of the state as they were the last time: most pods are as they were then."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[_Key, KernelState] = {}

    def of(self, keys: Iterable[_Key]) -> list[KernelState]:
        """The parts of these pods; those of all others are forgotten."""
        known = self._known
        self._known = {key: known.get(key) or _leg(key) for key in keys}
        return list(self._known.values())


def desired_state(
    snapshot: LocalView, settings: KernelSettings, legs: Legs | None = None
) -> KernelState:
    """The state of the node's own namespace.

    Args:
        snapshot: addresses, blocks and pods; only local pods matter.
        settings: names and sizes.
        legs: what to take pods' parts from; it changes nothing but the work.

    Returns:
        Before the node has a block: links, sysctls and rules only, and the cluster range
        unreachable.
    """
    dual = snapshot.cidr6 is not None
    trunk = _trunk(snapshot, settings)
    keys = [
        _Key(
            (pod.name, pod.address, pod.address6, pod.attachment.handed),
            (snapshot.address, snapshot.address6),
            settings.mtu,
            dual,
        )
        for pod in snapshot.pods
        if pod.local
    ]
    parts = (trunk, *(legs or Legs()).of(keys))
    return KernelState(
        links={name: link for part in parts for name, link in part.links.items()}
        | queue_links(snapshot),
        addresses=frozenset(chain.from_iterable(part.addresses for part in parts)),
        routes=frozenset(chain.from_iterable(part.routes for part in parts)),
        neighbours=frozenset(chain.from_iterable(part.neighbours for part in parts)),
        sysctls={path: value for part in parts for path, value in part.sysctls.items()}
        | hostport_sysctls(snapshot),
        limits=frozenset(desired_limits(snapshot, settings.mtu)),
        rules=compose(snapshot, settings),
    )


def _trunk(snapshot: LocalView, settings: KernelSettings) -> KernelState:
    """The TUN and what leads to it, and what no pod has."""
    tun = settings.tun
    link = Link(tun, mtu=settings.mtu, gso_max_size=GSO_MAX_SIZE, txqueuelen=TX_QUEUE, master=0)
    held = (snapshot.address, snapshot.address6)
    dual = snapshot.cidr6 is not None
    return KernelState(
        links={tun: link},
        addresses=frozenset(
            LinkAddress(tun, ip_interface(address)) for address in held if address is not None
        ),
        routes=frozenset(_trunk_routes(snapshot, tun)),
        sysctls=_NODE_SYSCTLS
        | (_NODE_SYSCTLS6 if dual else {})
        | _link_sysctls(tun, dual=dual)
        | _filled(_TUN_SYSCTLS, tun),
    )


def _trunk_routes(snapshot: LocalView, tun: str) -> Iterator[Route]:
    for prefix in (snapshot.cidr, snapshot.cidr6):
        if prefix is None:
            continue
        yield Route(prefix, metric=FALLBACK_METRIC)
        source = _source(snapshot, prefix)
        if source is not None and prefix not in snapshot.own_prefixes:
            yield Route(prefix, tun, source=source, metric=default_metric(prefix))
    for prefix in snapshot.outside:
        source = _source(snapshot, prefix)
        if source is not None:
            yield Route(prefix, metric=FALLBACK_METRIC)
            yield Route(prefix, tun, source=source, metric=default_metric(prefix))
    for prefix in snapshot.own_prefixes:
        yield Route(prefix, metric=default_metric(prefix))


class _Key(NamedTuple):
    """All that a pod's part depends on."""

    pod: tuple[str, Address, Address | None, bool]
    """Its name, its addresses, and whether its runtime configures its end."""
    node: tuple[Address | None, Address | None]
    """Addresses of the node."""
    mtu: int
    """Of the host end."""
    dual: bool
    """Whether the cluster has IPv6."""


def _leg(key: _Key) -> KernelState:
    """One pod's part of the state."""
    (name, address, address6, handed), node, mtu, dual = key
    veth, macs = veth_name(name), veth_macs(name)
    held = [address] if address6 is None else [address, address6]
    addresses = {LinkAddress(veth, IPv4Interface((GATEWAY, 32)))}
    if address6 is not None:
        addresses.add(LinkAddress(veth, IPv6Interface((GATEWAY6, 64))))
    routes = set()
    for one in held:
        host, source = ip_network(one), node[0] if one.version == 4 else node[1]
        routes.add(Route(host, veth, source=source, metric=default_metric(host)))
        routes.add(Route(host, veth, metric=FALLBACK_METRIC))
    link = Link(veth, mtu=mtu, gso_max_size=GSO_MAX_SIZE, alias=name, mac=macs.host, master=0)
    return KernelState(
        links={veth: link},
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        # A runtime may give the pod's end another link-layer address than ours.
        neighbours=frozenset(Neighbour(veth, one, macs.pod) for one in held if not handed),
        sysctls=_link_sysctls(veth, dual=dual) | _filled(_VETH_SYSCTLS, veth),
    )


def _source(snapshot: LocalView, prefix: Prefix) -> Address | None:
    return snapshot.address if isinstance(prefix, IPv4Network) else snapshot.address6


def _link_sysctls(link: str, *, dual: bool) -> dict[str, str]:
    return _filled(_LINK_SYSCTLS | (_LINK_SYSCTLS6 if dual else _LINK_SYSCTLS_WITHOUT6), link)


def _filled(sysctls: Mapping[str, str], link: str) -> dict[str, str]:
    return {path.format(link): value for path, value in sysctls.items()}


def desired_pod_state(
    pod: str,
    addresses: Iterable[Address],
    mtu: int,
    *,
    link: str = POD_LINK,
    elsewhere: Collection[int] = (),
) -> KernelState:
    """The state of a pod's namespace: its addresses on its interface, and the node as its way out.

    Args:
        pod: its name.
        addresses: one per family.
        mtu: of the interface.
        link: name of the interface.
        elsewhere: IP versions of which the namespace has another way out already: this interface
            does not become one, see `node.kernel.pods`.
    """
    macs = veth_macs(pod)
    neighbours = {Neighbour(link, GATEWAY, macs.host)}
    held = {LinkAddress(link, ip_interface(address)) for address in addresses}
    dual = any(address.version == 6 for _, address in held)
    routes = set()
    if 4 not in elsewhere:
        routes.add(Route(ip_network(GATEWAY), link))
        routes.add(Route(IPv4Network("0.0.0.0/0"), link, gateway=GATEWAY))
    if dual:
        anywhere = IPv6Network("::/0")
        held.add(LinkAddress(link, IPv6Interface((POD_LINK_LOCAL, 64))))
        neighbours.add(Neighbour(link, GATEWAY6, macs.host))
        if 6 not in elsewhere:
            routes.add(Route(anywhere, link, gateway=GATEWAY6, metric=default_metric(anywhere)))
    return KernelState(
        links={
            "lo": Link("lo"),
            link: Link(link, mtu=mtu, gso_max_size=GSO_MAX_SIZE, mac=macs.pod),
        },
        addresses=frozenset(held),
        routes=frozenset(routes),
        neighbours=frozenset(neighbours),
        sysctls=_filled(_POD_SYSCTLS6, link) if dual else {},
    )

"""Pods in the world under the node's address: the rules of `egress = "masquerade"`.

    pod 10.244.1.2 --> veth --> routes --> [postrouting: source = address of the link] --> world
    pod 10.244.1.2 <-- veth <-- routes <-- [conntrack: destination = the pod again]    <-- world

Without it (`egress = "none"`) a pod's packets to the world leave under the pod's own address, which
nobody out there has a route to.

- Translated is what this node's own blocks send to anywhere but what is ours: the cluster's ranges,
  outside networks that any node advertises (they have a way back, and shall see who it is), and
  what never leaves a link or a machine. Pods and nodes go on seeing each other's own addresses.
- What conntrack cannot translate is dropped, and counted: a packet that belongs to no connection
  it knows (`ct state invalid`) would leave under the pod's address. Answers to who called a pod by
  its own address, over a route that others have made, leave as they are.
- The underlay's ports are closed here as well: peers would take a stranger's datagrams for this
  node's and hold the flood of a pod against it.
- The source ports of UDP are kept away from the underlay's. A pod that sends from 6875 to a peer's
  6875 would otherwise be given the very pair that the daemon uses, and with it the peer's answers.

What is translated is remembered by the kernel (conntrack) and ends by its timeouts: connections
that were open when the setting changed go on as they began.

References:
    nft(8), "NAT statements" and "Stateful objects"; RFC 3022 (traditional NAT), RFC 4787 (UDP).
    RFC 6890 (special purpose addresses).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final

from node.kernel.model import NAT_TABLE, RULE_TABLE, KernelSettings
from overlay.types import Prefix
from overlay.views import LocalView

UNDERLAY: Final = "underlay"
"""Counter, the guard's: datagrams of pods to the underlay's ports, here those of other machines."""

UNMASKED: Final = "unmasked"
"""Counter: packets to the world that could not be given the node's address."""

EGRESS_TRIAL: Final = (
    f"add table inet {NAT_TABLE}\n"
    f"add chain inet {NAT_TABLE} egress {{ type nat hook postrouting priority srcnat; }}\n"
    f"add rule inet {NAT_TABLE} egress meta l4proto udp masquerade to :1024-65535\n"
)
"""Rules that a machine takes if it can do all this; to be asked, not to be made."""

_NEAR: Final = (
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/127",
    "fe80::/10",
    "ff00::/8",
)
"""What no router forwards: an address there belongs to a link, a group or the machine itself."""

_FAMILIES: Final = {4: "ip", 6: "ip6"}
_FIRST_PORT, _LAST_PORT = 1024, 65535


def egress_filter(snapshot: LocalView, settings: KernelSettings) -> str:
    """The part in the table of filters: what must not leave. Empty without masquerade.

    Args:
        snapshot: ranges, own blocks and outside networks.
        settings: whether to masquerade, and the underlay's ports.
    """
    if not settings.masquerade:
        return ""
    ports = f"{settings.ports[0]}-{settings.ports[-1]}"
    before, behind = f"inet {RULE_TABLE} leaving", f"inet {RULE_TABLE} unmasked"
    late = "priority srcnat + 10"
    lines = [
        f"add counter inet {RULE_TABLE} {UNMASKED}",
        f"add chain {before} {{ type filter hook forward priority filter; policy accept; }}",
        f"add chain {behind} {{ type filter hook postrouting {late}; policy accept; }}",
    ]
    for world in _to_the_world(snapshot):
        lines += [
            f"add rule {before} {world} udp dport {ports} counter name {UNDERLAY} drop",
            f"add rule {behind} {world} ct state invalid,untracked counter name {UNMASKED} drop",
        ]
    return "".join(f"{line}\n" for line in lines)


def egress_nat(snapshot: LocalView, settings: KernelSettings) -> str:
    """The part in the table of translations. Empty without masquerade; arguments as above."""
    if not settings.masquerade:
        return ""
    chain = f"inet {NAT_TABLE} egress"
    ports = free_ports(settings.ports)
    lines = [f"add chain {chain} {{ type nat hook postrouting priority srcnat; policy accept; }}"]
    for world in _to_the_world(snapshot):
        lines += [
            f"add rule {chain} {world} meta l4proto udp masquerade to :{ports}",
            f"add rule {chain} {world} masquerade",
        ]
    return "".join(f"{line}\n" for line in lines)


def free_ports(taken: range) -> str:
    """The longer run of unprivileged ports beside those of the underlay, as `first-last`.

    >>> free_ports(range(6875, 6876)), free_ports(range(50000, 50004))
    ('6876-65535', '1024-49999')
    """
    below = (_FIRST_PORT, min(taken[0] - 1, _LAST_PORT))
    above = (max(taken[-1] + 1, _FIRST_PORT), _LAST_PORT)
    first, last = max(below, above, key=lambda run: run[1] - run[0])
    return f"{first}-{last}"


def _to_the_world(snapshot: LocalView) -> Iterator[str]:
    """What selects the packets of each family that go from our blocks to what is not ours."""
    for version, family in _FAMILIES.items():
        own = _merged(snapshot.own_prefixes, version)
        if not own:
            continue
        ours = (snapshot.cidr, snapshot.cidr6, *snapshot.outside, *snapshot.own_outside)
        kept = _merged((*ours, *map(ip_network, _NEAR)), version)
        yield f"{family} saddr {_set(own)} {family} daddr != {_set(kept)}"


def _merged(prefixes: tuple[Prefix | None, ...], version: int) -> list[str]:
    """Those of one family, without those that lie in another of them: nft wants no overlaps."""
    known = sorted({p for p in prefixes if p is not None and p.version == version}, key=_widest)
    kept: list[Prefix] = []
    for prefix in known:
        if not any(prefix.subnet_of(wider) for wider in kept):  # type: ignore[arg-type]
            kept.append(prefix)
    return list(map(str, kept))


def _widest(prefix: Prefix) -> tuple[int, int]:
    return prefix.prefixlen, int(prefix.network_address)


def _set(elements: list[str]) -> str:
    return f"{{ {', '.join(elements)} }}"

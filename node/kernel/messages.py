"""Values <-> netlink messages: one function per kind and direction, no socket.

Messages are pyroute2's: mappings of header fields with `get_attr` for the attributes behind them.
pyroute2 has no types, so a message is `Any` here, and nowhere else.

References:
    rtnetlink(7); Linux include/uapi/linux/{rtnetlink,if_link,if_addr}.h.
"""
# ruff: noqa: ANN401 - pyroute2 has no types; see above

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s
from ipaddress import ip_address, ip_network
from socket import AF_INET, AF_INET6
from typing import Any, Final, NamedTuple

from node.kernel.model import ROUTE_PROTOCOL
from overlay.types import Address

IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
IFF_RUNNING: Final = 0x40
IFA_F_TEMPORARY: Final = 0x01
IFA_F_NODAD: Final = 0x02
IFA_F_DADFAILED: Final = 0x08
IFA_F_DEPRECATED: Final = 0x20
IFA_F_TENTATIVE: Final = 0x40
RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255
FR_ACT_TO_TBL: Final = 1
RULE_PRIORITY: Final = 10_900
"""Of rules in a pod's namespace: before the main table's, 32766."""

_TABLES: Final = 0x6D00_0000
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_LINK: Final = 253
RT_SCOPE_NOWHERE: Final = 255
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
RTN_UNREACHABLE: Final = 7

FAMILIES: Final = {4: AF_INET, 6: AF_INET6}


class LinkFacts(NamedTuple):
    """What a link is, whoever made it.

    Attributes:
        kind: as in `ip link add type KIND`; empty for hardware.
        alias: free text; empty if it has none.
        carrier: whether there is somebody at the other end; of a TUN: a reader.
    """

    kind: str
    alias: str
    carrier: bool


def parse_facts(message: Any) -> LinkFacts:
    """What a link is."""
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    alias = message.get_attr("IFLA_IFALIAS")
    return LinkFacts(kind or "", alias or "", bool(message.get_attr("IFLA_CARRIER")))


def consulted_tables(rules: Iterable[Any]) -> list[int]:
    """The tables that rules lead to, in their order, but that of the machine's own addresses.

    Left out are rules for one VRF: what is routed there is another network.
    """
    tables = dict.fromkeys(
        rule.get_attr("FRA_TABLE") or rule["table"]
        for rule in rules
        if rule["action"] == FR_ACT_TO_TBL and not rule.get_attr("FRA_L3MDEV")
    )
    return [table for table in tables if table != RT_TABLE_LOCAL]


def table_of(link: str) -> int:
    """The number of the routing table of a pod's link, where it is not the way out.

    >>> hex(table_of("net1"))
    '0x6dadc249'
    """
    return _TABLES | int.from_bytes(blake2s(link.encode(), digest_size=3).digest(), "big")


def way_back(gateway: Address, index: int, table: int) -> list[dict[str, object]]:
    """The routes of such a table: to the gateway, and by it to everywhere."""
    family = FAMILIES[gateway.version]
    own = {"family": family, "table": table, "proto": ROUTE_PROTOCOL, "oif": index}
    anywhere = "0.0.0.0/0" if gateway.version == 4 else "::/0"
    near = own | {"dst": str(ip_network(gateway)), "scope": RT_SCOPE_LINK}
    return [near, own | {"dst": anywhere, "gateway": str(gateway)}]


def rule_request(source: Address, table: int) -> dict[str, object]:
    """A rule to add or remove: packets from `source` are routed by that table."""
    return {
        "family": FAMILIES[source.version],
        "src": str(source),
        "src_len": source.max_prefixlen,
        "table": table,
        "priority": RULE_PRIORITY,
        "protocol": ROUTE_PROTOCOL,
    }


def own_rule(message: Any) -> tuple[Address, int] | None:
    """Source and table of a rule; None if it is not one of ours."""
    source = message.get_attr("FRA_SRC")
    mark = message.get_attr("FRA_PROTOCOL"), message.get_attr("FRA_PRIORITY")
    if mark != (ROUTE_PROTOCOL, RULE_PRIORITY) or source is None:
        return None
    return ip_address(source), int(message.get_attr("FRA_TABLE"))

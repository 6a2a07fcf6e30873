"""Values <-> netlink messages: one function per kind and direction, no socket.

Messages are pyroute2's: mappings of header fields with `get_attr` for the attributes behind them.
pyroute2 has no types, so a message is `Any` here, and nowhere else.

References:
    rtnetlink(7); Linux include/uapi/linux/{rtnetlink,if_link,if_addr}.h.
"""
# ruff: noqa: ANN401 - pyroute2 has no types; see above

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2s
from ipaddress import ip_address, ip_interface, ip_network
from socket import AF_INET, AF_INET6
from typing import Any, Final, NamedTuple

from node.kernel.model import ROUTE_PROTOCOL, LinkAddress
from node.kernel.overlap import HostRoute
from overlay.types import Address, Prefix

IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
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
RTN_UNREACHABLE: Final = 7

_NOT_FOR_PEERS: Final = IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE
FAMILIES: Final = {4: AF_INET, 6: AF_INET6}


class HeldAddress(NamedTuple):
    """An address as the kernel has it."""

    held: LinkAddress
    for_peers: bool
    """Lasting, global and usable: worth telling other machines."""


def link_names(messages: list[Any]) -> dict[int, str]:
    """Index to name, for the messages that know links by index only."""
    return {message["index"]: message.get("ifname") for message in messages}


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


def is_up(message: Any) -> bool:
    """Whether a link is administratively up."""
    return bool(message["flags"] & IFF_UP)


def is_loopback(message: Any) -> bool:
    """Whether a link is the loopback."""
    return bool(message["flags"] & IFF_LOOPBACK)


def parse_address(message: Any, names: Mapping[int, str]) -> HeldAddress:
    """An address and its link."""
    # On point-to-point links IFA_ADDRESS is the far end and IFA_LOCAL the address.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    address = ip_interface(f"{text}/{message['prefixlen']}")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    return HeldAddress(
        LinkAddress(names.get(message["index"], ""), address),
        message["scope"] == RT_SCOPE_UNIVERSE
        and not address.ip.is_link_local
        and not flags & _NOT_FOR_PEERS,
    )


def parse_host_route(message: Any, names: Mapping[int, str]) -> HostRoute:
    """A route of anybody."""
    return HostRoute(
        _destination(message),
        names.get(message.get_attr("RTA_OIF"), ""),
        leads_nowhere=message["type"] != RTN_UNICAST,
        table=message.get_attr("RTA_TABLE") or message["table"],
    )


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


def _destination(message: Any) -> Prefix:
    anywhere = "0.0.0.0" if message["family"] == AF_INET else "::"  # noqa: S104 - a route, no bind
    return ip_network(f"{message.get_attr('RTA_DST') or anywhere}/{message['dst_len']}")


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

"""Netlink messages as bytes -> values, for what is read often.

    family header     ifinfomsg 16 bytes, ifaddrmsg 8, rtmsg 12, ndmsg 12
    attributes        see `node.kernel.frames`

A node with 250 pods has some 2,000 links, addresses, routes and neighbours. Taking all of it apart
with a general library is 400 ms of the interpreter, which the packet path needs as well; here only
the fields that count are read.

Per-link settings come along with the link (IFLA_AF_SPEC), as two arrays of numbers: no file below
/proc/sys has to be opened for them.

Numbers are in the machine's byte order, addresses in network order. The kernel is trusted.

References:
    rtnetlink(7), netlink(7). Linux include/uapi/linux/{if_link,if_addr,neighbour,rtnetlink}.h;
    the orders of the arrays are those of include/uapi/linux/ip.h (IPV4_DEVCONF_*, from 1) and
    ipv6.h (DEVCONF_*, from 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final, Generic, NamedTuple, TypeVar

from node.kernel.frames import attributes
from node.kernel.messages import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    IFF_LOOPBACK,
    IFF_RUNNING,
    IFF_UP,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    RTN_UNICAST,
)
from node.kernel.model import ROUTE_PROTOCOL, Link, LinkAddress, Neighbour, Route
from node.kernel.overlap import HostRoute

T = TypeVar("T")

LINK_HEADER: Final = Struct("=BxHiII")  # family, type, index, flags, change
ADDRESS_HEADER: Final = Struct("=BBBBI")  # family, prefix length, flags, scope, index
ROUTE_HEADER: Final = Struct("=BBBBBBBBI")
"""Family, lengths of destination and source, tos, table, protocol, scope, type, flags."""
NEIGHBOUR_HEADER: Final = Struct("=BxxxiHBB")  # family, index, state, flags, type

NAMESPACE_HEADER: Final = Struct("=Bxxx")  # family

NUD_PERMANENT: Final = 0x80

_U32: Final = Struct("=I")

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
_IFLA_LINK: Final = 5
IFLA_MASTER: Final = 10
IFLA_TXQLEN: Final = 13
IFLA_LINKINFO: Final = 18
IFLA_IFALIAS: Final = 20
IFLA_INFO_KIND: Final = 1
_IFLA_AF_SPEC: Final = 26
_IFLA_LINK_NETNSID: Final = 37
IFLA_GSO_MAX_SIZE: Final = 41
_IFLA_INET_CONF: Final = 1
_IFLA_INET6_CONF: Final = 2
_IFLA_INET6_ADDR_GEN_MODE: Final = 8
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
_IFA_FLAGS: Final = 8
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PRIORITY: Final = 6
RTA_PREFSRC: Final = 7
RTA_TABLE: Final = 15
NDA_DST: Final = 1
NDA_LLADDR: Final = 2
_NETNSA_NSID: Final = 1

_NOT_FOR_PEERS: Final = IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE

_SETTINGS4: Final = {
    "forwarding": 0,
    "proxy_arp": 2,
    "accept_redirects": 3,
    "send_redirects": 5,
    "rp_filter": 7,
    "accept_local": 22,
    "route_localnet": 25,
}
"""Place in the array of IFLA_INET_CONF: the enumeration begins with 1."""

_SETTINGS6: Final = {
    "forwarding": 0,
    "accept_ra": 3,
    "accept_redirects": 4,
    "proxy_ndp": 22,
    "disable_ipv6": 26,
    "accept_dad": 27,
}
"""Place in the array of IFLA_INET6_CONF."""

LINK_SETTINGS: Final = frozenset(
    {f"net/ipv4/conf/{{}}/{name}" for name in _SETTINGS4}
    | {f"net/ipv6/conf/{{}}/{name}" for name in (*_SETTINGS6, "addr_gen_mode")}
)
"""Paths below /proc/sys, `{}` for the link, that come along with links."""


@dataclass(frozen=True, slots=True)
class HeldLink:
    """A link as the kernel has it."""

    index: int
    link: Link
    settings4: tuple[int, ...]
    """Values of IPV4_DEVCONF_*; empty where the link has no IPv4."""
    settings6: tuple[int, ...]
    addr_gen_mode: int | None
    loopback: bool
    namespace: int | None
    """Number of the namespace that its other end is in, as seen from here; None: it has none, or
    that is in this namespace too."""
    peer: int | None
    """Index of its other end, there."""

    @property
    def takes_advertisements(self) -> bool:
        """Whether it has accept_ra=1: router advertisements, until the machine forwards."""
        place = _SETTINGS6["accept_ra"]
        return self.settings6[place : place + 1] == (1,) and not self.loopback

    def settings(self) -> Iterator[tuple[str, str]]:
        """Paths of `LINK_SETTINGS` with this link's name, and their values."""
        for version, values, places in (
            ("ipv4", self.settings4, _SETTINGS4),
            ("ipv6", self.settings6, _SETTINGS6),
        ):
            for name, place in places.items():
                if place < len(values):
                    yield f"net/{version}/conf/{self.link.name}/{name}", str(values[place])
        if self.addr_gen_mode is not None and self.settings6:
            yield f"net/ipv6/conf/{self.link.name}/addr_gen_mode", str(self.addr_gen_mode)


def parse_link(message: bytes) -> HeldLink:
    """A link, from its ifinfomsg on."""
    _, _, index, flags, _ = LINK_HEADER.unpack_from(message)
    found = attributes(message, LINK_HEADER.size)
    families = attributes(found.get(_IFLA_AF_SPEC, b""), 0)
    inet = attributes(families.get(AF_INET, b""), 0)
    inet6 = attributes(families.get(AF_INET6, b""), 0)
    mode = inet6.get(_IFLA_INET6_ADDR_GEN_MODE)
    mac, alias = found.get(IFLA_ADDRESS), found.get(IFLA_IFALIAS)
    link = Link(
        _text(found.get(IFLA_IFNAME)),
        up=bool(flags & IFF_UP),
        mtu=_number(found.get(IFLA_MTU)),
        gso_max_size=_number(found.get(IFLA_GSO_MAX_SIZE)),
        txqueuelen=_number(found.get(IFLA_TXQLEN)),
        alias=_text(alias) if alias is not None else None,
        mac=mac.hex(":") if mac else None,
        master=_number(found.get(IFLA_MASTER)) or 0,
        kind=_text(attributes(found.get(IFLA_LINKINFO, b""), 0).get(IFLA_INFO_KIND)),
    )
    return HeldLink(
        index,
        link,
        _numbers(inet.get(_IFLA_INET_CONF, b"")),
        _numbers(inet6.get(_IFLA_INET6_CONF, b"")),
        mode[0] if mode else None,
        loopback=bool(flags & IFF_LOOPBACK),
        namespace=_number(found.get(_IFLA_LINK_NETNSID)),
        peer=_number(found.get(_IFLA_LINK)),
    )


def is_running(message: bytes) -> bool:
    """Whether a link sends, from its ifinfomsg on; one that is up may drop everything as yet."""
    flags: int = LINK_HEADER.unpack_from(message)[3]
    return bool(flags & IFF_RUNNING)


def parse_namespace(message: bytes) -> int:
    """The number of a namespace, from its rtgenmsg on: 2^32 - 1 if it has none."""
    return int(_U32.unpack(attributes(message, NAMESPACE_HEADER.size)[_NETNSA_NSID])[0])


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int | None:
    return _U32.unpack(value)[0] if value is not None else None


def _numbers(values: bytes) -> tuple[int, ...]:
    return Struct(f"={len(values) // 4}i").unpack_from(values)


@dataclass(frozen=True, slots=True)
class OnLink(Generic[T]):
    """What a message says, and what of it depends on how links are called.

    Attributes:
        index: of the link it is about; 0 for none.
        value: None if it is none of ours.
    """

    index: int
    value: T | None


class HeldAddress(NamedTuple):
    """An address as the kernel has it."""

    held: LinkAddress
    for_peers: bool
    """Lasting, global and usable: worth telling other machines."""


def parse_held(message: bytes, names: Mapping[int, str]) -> HeldAddress:
    """An address of anybody, from its ifaddrmsg on, and its link as far as that is in `names`."""
    _, length, flags, scope, index = ADDRESS_HEADER.unpack_from(message)
    found = attributes(message, ADDRESS_HEADER.size)
    # On point-to-point links IFA_ADDRESS is the far end and IFA_LOCAL the address.
    address = ip_interface((found.get(IFA_LOCAL) or found[IFA_ADDRESS], length))
    flags = _number(found.get(_IFA_FLAGS)) or flags
    lasting = scope == RT_SCOPE_UNIVERSE and not flags & _NOT_FOR_PEERS
    return HeldAddress(
        LinkAddress(names.get(index, ""), address), lasting and not address.ip.is_link_local
    )


def parse_address(message: bytes, names: Mapping[int, str]) -> OnLink[LinkAddress]:
    """An address, from its ifaddrmsg on; only those on the links in `names` are ours."""
    index = ADDRESS_HEADER.unpack_from(message)[4]
    return OnLink(index, parse_held(message, names).held if index in names else None)


def is_own_route(message: bytes) -> bool:
    """Whether a route, from its rtmsg on, has our protocol number."""
    return bool(ROUTE_HEADER.unpack_from(message)[5] == ROUTE_PROTOCOL)


def is_local_route(message: bytes) -> bool:
    """Whether a route, from its rtmsg on, is to the machine itself."""
    return bool(ROUTE_HEADER.unpack_from(message)[7] == RTN_LOCAL)


def parse_host_route(message: bytes, names: Mapping[int, str]) -> HostRoute:
    """A route of anybody, from its rtmsg on."""
    family, length, _, _, table, _, _, kind, _ = ROUTE_HEADER.unpack_from(message)
    found = attributes(message, ROUTE_HEADER.size)
    return HostRoute(
        ip_network((found.get(RTA_DST, _anywhere(family)), length)),
        names.get(_number(found.get(RTA_OIF)) or 0, ""),
        leads_nowhere=kind != RTN_UNICAST,
        table=_number(found.get(RTA_TABLE)) or table,
    )


def _anywhere(family: int) -> bytes:
    return bytes(4 if family == AF_INET else 16)


def parse_route(message: bytes, names: Mapping[int, str]) -> OnLink[Route]:
    """A route, from its rtmsg on; those of the main table with our protocol number are ours.

    Its link is empty if it leads nowhere, and `?` where `names` does not have it.
    """
    family, length, _, _, table, made_by, _, kind, _ = ROUTE_HEADER.unpack_from(message)
    if table != RT_TABLE_MAIN or made_by != ROUTE_PROTOCOL:
        return OnLink(0, None)
    found = attributes(message, ROUTE_HEADER.size)
    gateway, source = found.get(RTA_GATEWAY), found.get(RTA_PREFSRC)
    index = _number(found.get(RTA_OIF)) if kind == RTN_UNICAST else None
    route = Route(
        ip_network((found.get(RTA_DST, _anywhere(family)), length)),
        names.get(index, "?") if index else "",
        gateway=ip_address(gateway) if gateway else None,
        source=ip_address(source) if source else None,
        metric=_number(found.get(RTA_PRIORITY)) or 0,
    )
    return OnLink(index or 0, route)


def parse_neighbour(message: bytes, names: Mapping[int, str]) -> OnLink[Neighbour]:
    """A neighbour, from its ndmsg on; permanent ones on the links in `names` are ours."""
    family, index, state, _, _ = NEIGHBOUR_HEADER.unpack_from(message)
    if not state & NUD_PERMANENT or index not in names or family not in (AF_INET, AF_INET6):
        return OnLink(index, None)
    found = attributes(message, NEIGHBOUR_HEADER.size)
    mac = found.get(NDA_LLADDR, b"").hex(":")
    return OnLink(index, Neighbour(names[index], ip_address(found[NDA_DST]), mac))

"""Changes the kernel's network state: netlink messages as bytes, over a socket that is cheap.

    type, flags, family header + attributes --Writer.ask--> the kernel's answer, or NetlinkError

Connecting a pod takes some thirty changes, in two namespaces. Through a general library each of
them costs most of a millisecond, and opening its socket more; here it is what the kernel takes.

References:
    rtnetlink(7), netlink(7) (NETLINK_EXT_ACK, NETLINK_CAP_ACK).
    Linux include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,veth}.h.
"""

from __future__ import annotations

import os
import socket
import sys
from struct import Struct
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from node.kernel.messages import (
    FAMILIES,
    IFA_F_NODAD,
    IFF_UP,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTN_UNICAST,
    RTN_UNREACHABLE,
)
from node.kernel.model import ROUTE_PROTOCOL, Link, LinkAddress, Neighbour, Route
from node.kernel.packed import (
    ADDRESS_HEADER,
    ATTRIBUTE,
    HEADER,
    LINK_HEADER,
    NEIGHBOUR_HEADER,
    NUD_PERMANENT,
    ROUTE_HEADER,
    attributes,
)

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29

REPLACE: Final = 0x500
"""Flags: make it, in the place of what is there (NLM_F_CREATE, NLM_F_REPLACE)."""
NEW: Final = 0x600
"""Flags: make it, unless it is there (NLM_F_CREATE, NLM_F_EXCL)."""

_NLM_F_REQUEST: Final = 0x01
_NLM_F_ACK: Final = 0x04
_NLMSG_ERROR: Final = 2
_NLMSGERR_MSG: Final = 1
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11

_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_MASTER: Final = 10
_IFLA_TXQLEN: Final = 13
_IFLA_LINKINFO: Final = 18
_IFLA_IFALIAS: Final = 20
_IFLA_GROUP: Final = 27
_IFLA_NET_NS_FD: Final = 28
_IFLA_GSO_MAX_SIZE: Final = 41
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_VETH_INFO_PEER: Final = 1
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_PREFSRC: Final = 7
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2

_U32: Final = Struct("=I")
_ERROR: Final = HEADER.size + 4
"""Bytes of an answer before its attributes: the code, and the header of the request."""

_ROOM: Final = 1 << 16
_PATIENCE: Final = 10.0


class Writer:
    """A netlink socket to the namespace of the thread that makes it.

    Raises:
        OSError: the kernel refused the socket. Nothing else.
    """

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        self._number = 0
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket. Twice is fine."""
        self._socket.close()

    def ask(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        """Send one request and wait until it is done.

        Args:
            kind: type of the message.
            body: its family header and attributes.
            flags: besides those of every request.

        Returns:
            What the kernel answered, from its family header on; empty if it only said yes.

        Raises:
            NetlinkError: the kernel refused.
            OSError: the socket is closed, or there is no answer. Nothing else.
        """
        self._number += 1
        flags |= _NLM_F_REQUEST | _NLM_F_ACK
        said = HEADER.pack(HEADER.size + len(body), kind, flags, self._number, 0) + body
        self._socket.send(said)
        answer = b""
        while True:
            received, at = self._socket.recv(_ROOM), 0
            while at < len(received):
                length, kind, _, number, _ = HEADER.unpack_from(received, at)
                inside = received[at + HEADER.size : at + length]
                at += (length + 3) & ~3
                if number != self._number:
                    continue  # the late answer to a request that was not waited for
                if kind == _NLMSG_ERROR:
                    _check(inside)
                    return answer
                answer = inside


def _check(inside: bytes) -> None:
    code = -int.from_bytes(inside[:4], sys.byteorder, signed=True)
    if code:
        said = attributes(inside, _ERROR).get(_NLMSGERR_MSG)
        why = said.rstrip(b"\0").decode(errors="replace") if said else os.strerror(code)
        raise NetlinkError(code, why)


# -- bodies of requests ---------------------------------------------------------------------------


def named(name: str) -> bytes:
    """The link of that name."""
    return LINK_HEADER.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, name)


def numbered(index: int) -> bytes:
    """The link of that number."""
    return LINK_HEADER.pack(0, 0, index, 0, 0)


def link_set(link: Link, index: int) -> bytes:
    """What a link shall be, as far as it is given, and whether it is up."""
    alias = b"" if link.alias is None else _attribute(_IFLA_IFALIAS, link.alias.encode())
    header = LINK_HEADER.pack(0, 0, index, IFF_UP if link.up else 0, IFF_UP)
    return header + _of_link(link) + alias


def link_renamed(index: int, name: str) -> bytes:
    """Another name for the link of that number."""
    return numbered(index) + _text(_IFLA_IFNAME, name)


def link_down(index: int) -> bytes:
    """The link of that number, down."""
    return LINK_HEADER.pack(0, 0, index, 0, IFF_UP)


def grouped(index: int, group: int) -> bytes:
    """The link of that number, or all of a group for 0; and the group it is, or they are, in."""
    return numbered(index) + _attribute(_IFLA_GROUP, _U32.pack(group))


def veth(link: Link, peer: Link, namespace: int | None) -> bytes:
    """A veth and its other end, in the namespace behind a descriptor, or in this one."""
    far = numbered(0) + _text(_IFLA_IFNAME, peer.name) + _of_link(peer)
    if namespace is not None:
        far += _attribute(_IFLA_NET_NS_FD, _U32.pack(namespace))
    kind = _text(_IFLA_INFO_KIND, "veth")
    data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, far))
    return named(link.name) + _of_link(link) + _attribute(_IFLA_LINKINFO, kind + data)


def _of_link(link: Link) -> bytes:
    numbers = {
        _IFLA_MTU: link.mtu,
        _IFLA_GSO_MAX_SIZE: link.gso_max_size,
        _IFLA_TXQLEN: link.txqueuelen,
        _IFLA_MASTER: link.master,
    }
    said = b"".join(
        _attribute(kind, _U32.pack(value)) for kind, value in numbers.items() if value is not None
    )
    return said if link.mac is None else said + _attribute(_IFLA_ADDRESS, _mac(link.mac))


def address_on(held: LinkAddress, index: int) -> bytes:
    """An address on the link of that number, usable at once."""
    one = held.address
    header = ADDRESS_HEADER.pack(
        FAMILIES[one.version], one.network.prefixlen, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index
    )
    packed = one.ip.packed
    return header + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)


def route_by(route: Route, index: int | None, *, any_scope: bool = False) -> bytes:
    """A route by the link of that number.

    Args:
        route: where to.
        index: None for a route that leads nowhere.
        any_scope: to remove it: scope "nowhere" matches any scope of an IPv4 route.
    """
    scope = RT_SCOPE_UNIVERSE if index is None or route.gateway else RT_SCOPE_LINK
    header = ROUTE_HEADER.pack(
        FAMILIES[route.prefix.version],
        route.prefix.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        ROUTE_PROTOCOL,
        RT_SCOPE_NOWHERE if any_scope else scope,
        RTN_UNREACHABLE if index is None else RTN_UNICAST,
        0,
    )
    said = _attribute(_RTA_PRIORITY, _U32.pack(route.metric))
    if route.prefix.prefixlen:
        said += _attribute(_RTA_DST, route.prefix.network_address.packed)
    if index is not None:
        said += _attribute(_RTA_OIF, _U32.pack(index))
    for kind, address in ((_RTA_GATEWAY, route.gateway), (_RTA_PREFSRC, route.source)):
        if address is not None:
            said += _attribute(kind, address.packed)
    return header + said


def neighbour_on(one: Neighbour, index: int) -> bytes:
    """A permanent neighbour on the link of that number."""
    header = NEIGHBOUR_HEADER.pack(FAMILIES[one.address.version], index, NUD_PERMANENT, 0, 0)
    address = _attribute(_NDA_DST, one.address.packed)
    return header + address + _attribute(_NDA_LLADDR, _mac(one.mac))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)

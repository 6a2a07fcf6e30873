"""Changes the kernel's network state: netlink messages as bytes, over a socket that is cheap.

    type, flags, family header + attributes --Writer.ask--> the kernel's answer, or NetlinkError

Connecting a pod takes some thirty changes, in two namespaces. Through a general library each of
them costs most of a millisecond, and opening its socket more; here it is what the kernel takes.

References:
    rtnetlink(7), netlink(7) (NETLINK_EXT_ACK, NETLINK_CAP_ACK).
    Linux include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,veth,net_namespace}.h.
"""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from node.kernel import packed
from node.kernel.frames import (
    HEADER,
    NLM_F_ACK,
    NLMSG_ERROR,
    ROOM,
    SOL_NETLINK,
    attribute,
    attributes,
    error_of,
    frame,
    split,
)
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

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNSID: Final = 90

REPLACE: Final = 0x500
"""Flags: make it, in the place of what is there (NLM_F_CREATE, NLM_F_REPLACE)."""
NEW: Final = 0x600
"""Flags: make it, unless it is there (NLM_F_CREATE, NLM_F_EXCL)."""

_NLMSGERR_MSG: Final = 1
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11

_IFLA_GROUP: Final = 27
_IFLA_NET_NS_FD: Final = 28
_IFLA_INFO_DATA: Final = 2
_VETH_INFO_PEER: Final = 1
_NETNSA_FD: Final = 3

_U32: Final = Struct("=I")
_ERROR: Final = HEADER.size + 4
"""Bytes of an answer before its attributes: the code, and the header of the request."""

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
            self._socket.setsockopt(SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(SOL_NETLINK, _NETLINK_EXT_ACK, 1)
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
        self._socket.send(frame(kind, flags | NLM_F_ACK, self._number, body))
        answer = b""
        while True:
            for kind, _, number, inside in split(self._socket.recv(ROOM)):
                if number != self._number:
                    continue  # the late answer to a request that was not waited for
                if kind == NLMSG_ERROR:
                    _check(inside)
                    return answer
                answer = inside


def _check(inside: bytes) -> None:
    code = error_of(inside)
    if code:
        said = attributes(inside, _ERROR).get(_NLMSGERR_MSG)
        why = said.rstrip(b"\0").decode(errors="replace") if said else os.strerror(code)
        raise NetlinkError(code, why)


# -- bodies of requests ---------------------------------------------------------------------------


def named(name: str) -> bytes:
    """The link of that name."""
    return packed.LINK_HEADER.pack(0, 0, 0, 0, 0) + _text(packed.IFLA_IFNAME, name)


def numbered(index: int) -> bytes:
    """The link of that number."""
    return packed.LINK_HEADER.pack(0, 0, index, 0, 0)


def link_set(link: Link, index: int) -> bytes:
    """What a link shall be, as far as it is given, and whether it is up."""
    alias = b"" if link.alias is None else attribute(packed.IFLA_IFALIAS, link.alias.encode())
    header = packed.LINK_HEADER.pack(0, 0, index, IFF_UP if link.up else 0, IFF_UP)
    return header + _of_link(link) + alias


def link_renamed(index: int, name: str) -> bytes:
    """Another name for the link of that number."""
    return numbered(index) + _text(packed.IFLA_IFNAME, name)


def link_down(index: int) -> bytes:
    """The link of that number, down."""
    return packed.LINK_HEADER.pack(0, 0, index, 0, IFF_UP)


def grouped(index: int, group: int) -> bytes:
    """The link of that number, or all of a group for 0; and the group it is, or they are, in."""
    return numbered(index) + attribute(_IFLA_GROUP, _U32.pack(group))


def veth(link: Link, peer: Link, namespace: int | None) -> bytes:
    """A veth and its other end, in the namespace behind a descriptor, or in this one."""
    far = numbered(0) + _text(packed.IFLA_IFNAME, peer.name) + _of_link(peer)
    if namespace is not None:
        far += attribute(_IFLA_NET_NS_FD, _U32.pack(namespace))
    kind = _text(packed.IFLA_INFO_KIND, "veth")
    data = attribute(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, far))
    return named(link.name) + _of_link(link) + attribute(packed.IFLA_LINKINFO, kind + data)


def _of_link(link: Link) -> bytes:
    numbers = {
        packed.IFLA_MTU: link.mtu,
        packed.IFLA_GSO_MAX_SIZE: link.gso_max_size,
        packed.IFLA_TXQLEN: link.txqueuelen,
        packed.IFLA_MASTER: link.master,
    }
    said = b"".join(
        attribute(kind, _U32.pack(value)) for kind, value in numbers.items() if value is not None
    )
    return said if link.mac is None else said + attribute(packed.IFLA_ADDRESS, _mac(link.mac))


def address_on(held: LinkAddress, index: int) -> bytes:
    """An address on the link of that number, usable at once."""
    one = held.address
    header = packed.ADDRESS_HEADER.pack(
        FAMILIES[one.version], one.network.prefixlen, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index
    )
    said = one.ip.packed
    return header + attribute(packed.IFA_LOCAL, said) + attribute(packed.IFA_ADDRESS, said)


def route_by(route: Route, index: int | None, *, any_scope: bool = False) -> bytes:
    """A route by the link of that number.

    Args:
        route: where to.
        index: None for a route that leads nowhere.
        any_scope: to remove it: scope "nowhere" matches any scope of an IPv4 route.
    """
    scope = RT_SCOPE_UNIVERSE if index is None or route.gateway else RT_SCOPE_LINK
    header = packed.ROUTE_HEADER.pack(
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
    said = attribute(packed.RTA_PRIORITY, _U32.pack(route.metric))
    if route.prefix.prefixlen:
        said += attribute(packed.RTA_DST, route.prefix.network_address.packed)
    if index is not None:
        said += attribute(packed.RTA_OIF, _U32.pack(index))
    for kind, address in ((packed.RTA_GATEWAY, route.gateway), (packed.RTA_PREFSRC, route.source)):
        if address is not None:
            said += attribute(kind, address.packed)
    return header + said


def neighbour_on(one: Neighbour, index: int) -> bytes:
    """A permanent neighbour on the link of that number."""
    family = FAMILIES[one.address.version]
    header = packed.NEIGHBOUR_HEADER.pack(family, index, packed.NUD_PERMANENT, 0, 0)
    address = attribute(packed.NDA_DST, one.address.packed)
    return header + address + attribute(packed.NDA_LLADDR, _mac(one.mac))


def namespace(descriptor: int) -> bytes:
    """The namespace behind a descriptor."""
    return packed.NAMESPACE_HEADER.pack(0) + attribute(_NETNSA_FD, _U32.pack(descriptor))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")

"""Removes the host's end of a pod's link, and with it the pod's, by a message to the kernel.

    nlmsghdr    length u32, type u16, flags u16, sequence u32, port u32
    ifinfomsg   family u8, padding u8, type u16, index i32, flags u32, change u32
    rtattr      length u16, type u16, name and a zero byte, filled to four bytes

Only for a DEL while no daemon runs: the namespace may live on without the container, and should not
keep the interface until the next daemon comes.

References:
    rtnetlink(7), netlink(7); linux/rtnetlink.h and linux/if_link.h for the numbers.
"""

from __future__ import annotations

import _socket
from struct import pack, unpack_from

PREFIX = "mus"
DIGITS = 10
"""How the host's end is named: `mus` and ten hex digits, see `node.kernel.model`."""

ROUTE = 0  # NETLINK_ROUTE
DELETE_LINK = 17  # RTM_DELLINK
REQUEST_WITH_ANSWER = 0x5  # NLM_F_REQUEST | NLM_F_ACK
NAME = 3  # IFLA_IFNAME

_HEADER = "=IHHII"
_INTERFACE = "=BxHiII"
_ATTRIBUTE = "=HH"
_HEADER_SIZE, _INTERFACE_SIZE, _ATTRIBUTE_SIZE = 16, 16, 4
_LONGEST_ANSWER = 8192


def is_host_end(name: object) -> bool:
    """Whether an interface of the host can be one of a pod's link.

    >>> is_host_end("mus0d501cc2b1"), is_host_end("muslin0"), is_host_end(None)
    (True, False, False)
    """
    if not isinstance(name, str) or len(name) != len(PREFIX) + DIGITS:
        return False
    return name.startswith(PREFIX) and all(c in "0123456789abcdef" for c in name[len(PREFIX) :])


def remove(name: str) -> None:
    """Remove an interface of this process's namespace. None there is fine.

    Raises:
        OSError: the kernel refused. Nothing else.
    """
    connection = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, ROUTE)
    try:
        connection.send(request(name))
        answer = connection.recv(_LONGEST_ANSWER)
    finally:
        connection.close()
    (code,) = unpack_from("=i", answer, _HEADER_SIZE)  # nlmsgerr: zero, or a negative error number
    if code and -code != _NO_DEVICE:
        raise OSError(-code, f"removing {name}")


def request(name: str) -> bytes:
    """The message that asks for it."""
    said = name.encode() + b"\0"
    length = _ATTRIBUTE_SIZE + len(said)
    attribute = pack(_ATTRIBUTE, length, NAME) + said + b"\0" * (-length % 4)
    size = _HEADER_SIZE + _INTERFACE_SIZE + len(attribute)
    header = pack(_HEADER, size, DELETE_LINK, REQUEST_WITH_ANSWER, 1, 0)
    return header + pack(_INTERFACE, 0, 0, 0, 0, 0) + attribute


_NO_DEVICE = 19
"""ENODEV."""

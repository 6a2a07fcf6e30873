"""Tells whether anything in the kernel's network state changed, for the price of one system call.

Reading and comparing the whole state costs a millisecond per pod, all of it under the interpreter's
lock, which the packet path needs as well. The kernel announces every change of a link, an address,
a route, a rule or a forwarding setting on multicast groups; nobody announced anything, so nothing
has to be read. What was announced does not matter: then everything is compared.

References:
    rtnetlink(7); Linux include/uapi/linux/rtnetlink.h (RTNLGRP_*).
    netlink(7): ENOBUFS when announcements were lost.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

_GROUPS: Final = {
    "link": 1,
    "queues": 4,
    "ipv4 address": 5,
    "ipv4 route": 7,
    "ipv4 rule": 8,
    "ipv6 address": 9,
    "ipv6 route": 11,
    "ipv6 rule": 19,
    "ipv4 settings": 24,
    "ipv6 settings": 25,
}
_MASK: Final = sum(1 << (group - 1) for group in _GROUPS.values())
_ROOM: Final = 65536


class KernelWatch:
    """Announcements of the namespace of the thread that made it.

    Args:
        protocol: the part of the kernel to listen to; the network's configuration.
        groups: the bits of the multicast groups to join.

    Raises:
        OSError: the kernel refused the socket. Nothing else.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE, groups: int = _MASK) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, protocol)
        try:
            self._socket.bind((0, groups))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def changed(self) -> bool:
        """Whether anything changed since the last call. Our own changes count.

        Raises:
            OSError: the socket is closed. Nothing else.
        """
        found = False
        while True:
            try:
                self._socket.recv(_ROOM)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            found = True

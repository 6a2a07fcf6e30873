"""Hears what anybody changes in the kernel's network state, for the price of waiting.

The kernel announces every change of a link, an address, a route, a rule, a setting or a packet
filter on multicast groups. What was announced does not matter: then everything is compared.
Where matters: namespaces of pods are known to the node's namespace by numbers, because their veths
end there, and announcements of all of them can be heard on one socket. A socket inside each pod
would keep the pod's namespace alive.

    KernelWatch.hear() --> Heard --> News: what is to be looked at

References:
    rtnetlink(7); Linux include/uapi/linux/rtnetlink.h (RTNLGRP_*), netfilter/nfnetlink.h
    (NFNLGRP_NFTABLES).
    netlink(7): ENOBUFS when announcements were lost; NETLINK_LISTEN_ALL_NSID, which needs
    CAP_NET_BROADCAST.
"""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import suppress
from typing import Final, NamedTuple

from node.kernel.frames import SOL_NETLINK

_GROUPS: Final = {
    "link": 1,
    "queue": 4,
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
NETWORK: Final = sum(1 << (group - 1) for group in _GROUPS.values())
"""Multicast groups of NETLINK_ROUTE. Without those of neighbours: a busy machine learns and forgets
them all the time, and one of ours that is lost is asked for."""

NETLINK_NETFILTER: Final = 12
RULES: Final = 1 << 6
"""Multicast group of NETLINK_NETFILTER: packet filters."""

_NETLINK_LISTEN_ALL_NSID: Final = 8
_ORDER: Final = sys.byteorder
_ROOM: Final = 65536
_SO_RCVBUFFORCE: Final = 33
WAITING: Final = 4 << 20
"""Bytes of announcements that may wait where those of pods' namespaces are heard.

A pod that comes makes some 50 of them, which are charged 27 KB. The kernel's default holds those of
eight, and what is lost costs a look into every pod."""

_NUMBER: Final = socket.CMSG_SPACE(4)


class News(NamedTuple):
    """What somebody may have changed.

    Attributes:
        node: links, addresses, routes or settings of the node's namespace.
        rules: packet filters there.
        inside: the same as `node` in namespaces of these numbers; None: in any.
        sweep: how many pods to look into that nothing was heard of.
    """

    node: bool = False
    rules: bool = False
    inside: frozenset[int] | None = frozenset()
    sweep: int = 0

    def __or__(self, other: object) -> News:
        """Both."""
        if not isinstance(other, News):
            return NotImplemented
        inside = None
        if self.inside is not None and other.inside is not None:
            inside = self.inside | other.inside
        return News(
            self.node or other.node,
            self.rules or other.rules,
            inside,
            max(self.sweep, other.sweep),
        )


NO_NEWS: Final = News()
ANYTHING: Final = News(node=True, rules=True, inside=None)


class Heard(NamedTuple):
    """What was announced since the last time.

    Attributes:
        here: something in the namespace of the socket.
        there: numbers of other namespaces in which something was.
        lost: announcements were lost: it may have been anything anywhere.
    """

    here: bool
    there: frozenset[int]
    lost: bool


class KernelWatch:
    """Announcements of the namespace of the thread that makes it.

    Args:
        protocol: the part of the kernel to listen to; the network's configuration.
        groups: the bits of the multicast groups to join.
        everywhere: whether to hear of other namespaces that have a number here, if that is
            allowed; much may wait then.

    Attributes:
        everywhere: whether it is.

    Raises:
        OSError: the kernel refused the socket. Nothing else.
    """

    def __init__(
        self,
        protocol: int = socket.NETLINK_ROUTE,
        groups: int = NETWORK,
        *,
        everywhere: bool = False,
    ) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, protocol)
        self.everywhere = False
        try:
            if everywhere:
                self.everywhere = self._listen_everywhere()
            self._socket.bind((0, groups))
        except OSError:
            self._socket.close()
            raise

    def _listen_everywhere(self) -> bool:
        with suppress(PermissionError):  # then more of it is lost
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, WAITING)
        try:
            self._ask_for_everything()
        except PermissionError:
            return False
        return True

    def _ask_for_everything(self) -> None:
        self._socket.setsockopt(SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def hear(self) -> Heard:
        """What was announced since the last call. Our own changes count.

        Raises:
            OSError: the socket is closed. Nothing else.
        """
        here = lost = False
        there: set[int] = set()
        while True:
            try:
                _, extra, _, _ = self._socket.recvmsg(_ROOM, _NUMBER)
            except BlockingIOError:
                return Heard(here, frozenset(there), lost)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            number = _namespace(extra)
            if number is None:
                here = True
            else:
                there.add(number)

    def changed(self) -> bool:
        """Whether anything was announced since the last call, wherever.

        Raises:
            OSError: the socket is closed. Nothing else.
        """
        here, there, lost = self.hear()
        return here or bool(there) or lost


def _namespace(extra: list[tuple[int, int, bytes]]) -> int | None:
    """The number of the namespace that an announcement is from; None: the socket's own."""
    for level, kind, data in extra:
        if (level, kind) == (SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID):
            return int.from_bytes(data[:4], _ORDER, signed=True)
    return None

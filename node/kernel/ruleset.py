"""Speaks with nf_tables itself, where running `nft` would cost too much.

    generation()         a number that every change of any rule in the namespace raises by one
    change(elements, n)  done only if the number is still n

Everything here blocks for some microseconds and belongs into the netlink thread.

References:
    netlink(7). Linux include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h (NFT_MSG_GETGEN,
    NFNL_BATCH_GENID); net/netfilter/nf_tables_api.c, nf_tables_commit.
"""

from __future__ import annotations

import socket
from typing import Final

from node.kernel.elements import NFT_MSG_GETGEN, Difference, messages
from node.kernel.frames import NLMSG_ERROR, ROOM, attributes, error_of, frame, split
from node.kernel.watch import NETLINK_NETFILTER

_NFTA_GEN_ID: Final = 1
_FAMILY_HEADER: Final = 4


def following(generation: int) -> int:
    """The number after one change; 0 is left out.

    >>> following(41), following(0xFFFF_FFFF)
    (42, 1)
    """
    return (generation + 1) & 0xFFFF_FFFF or 1


class RuleSet:
    """The rules of the namespace of the thread that makes it.

    Stays open: closing such a socket waits for what was deleted by it.

    Raises:
        OSError: the kernel refused the socket: it has no nf_tables, say. Nothing else.
    """

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, flags, NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket. Twice is fine."""
        self._socket.close()

    def generation(self) -> int | None:
        """The number of the present rules; None if the kernel does not say."""
        try:
            self._socket.send(frame(NFT_MSG_GETGEN, 0, 0, bytes(_FAMILY_HEADER)))
            for kind, inside in self._answers():
                if kind != NLMSG_ERROR:
                    number = attributes(inside, _FAMILY_HEADER)[_NFTA_GEN_ID]
                    return int.from_bytes(number, "big")
        except OSError:
            pass
        return None

    def change(self, elements: Difference, generation: int) -> bool:
        """Change elements of sets, all or none; returns whether it was done.

        Args:
            elements: what to add and to remove.
            generation: of the rules that this follows. If there are others now, nothing is done.
        """
        try:
            self._socket.send(messages(elements, generation))
            # The kernel answers before it returns from sending.
            said = [error_of(inside) for _, inside in self._answers()]
        except OSError:
            return False
        return said == [0]  # one answer, which says no error

    def _answers(self) -> list[tuple[int, bytes]]:
        """Kind and inside of each message that waits."""
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                said = self._socket.recv(ROOM)
            except BlockingIOError:
                return found
            found += ((kind, inside) for kind, _, _, inside in split(said))

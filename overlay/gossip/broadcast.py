"""News of who lives, passed on a limited number of times on the back of other messages.

Each claim that was new here goes out `RETRANSMIT * log10(N + 1)` times, those that went out least
often first. That is enough for an epidemic to reach everybody with high probability, and then it
stops by itself; comparing the claims' roots finds whom it missed.

References:
    SWIM (Das et al. 2002), section 4.1: piggybacked dissemination, lambda log n times each.
    memberlist, `queue.go`: transmit-limited broadcasts, RetransmitMult = 4.
"""

from __future__ import annotations

from math import ceil, log10
from operator import itemgetter
from typing import ClassVar, Final

from overlay.types import NodeId
from overlay.wire.handed import BYTES, INT, Handed, table

# -- implementation --------------------------------------------------------------------------------

RETRANSMIT: Final = 4

CLAIMS_PER_MESSAGE: Final = 6
"""With their proofs 700 bytes: a message with them still is one datagram."""


class Broadcasts:
    """Members about whom there is news to be passed on. What it is, is looked up when it goes."""

    __slots__ = ("_left",)

    HANDED: ClassVar = Handed(_left=table(BYTES, INT))

    def __init__(self) -> None:
        self._left: dict[NodeId, int] = {}  # times that it still goes out

    def __bool__(self) -> bool:
        return bool(self._left)

    def __len__(self) -> int:
        return len(self._left)

    def put(self, node: NodeId, members: int) -> None:
        """There is news about `node`, in a cluster of so many members. Replaces older news.

        With no members it is not passed on: whoever comes later compares.
        """
        self._left.pop(node, None)
        if members:
            self._left[node] = ceil(RETRANSMIT * log10(members + 1))

    def drop(self, node: NodeId) -> None:
        """There is nothing to be said about `node` any more."""
        self._left.pop(node, None)

    def take(self, count: int = CLAIMS_PER_MESSAGE) -> list[NodeId]:
        """Whom the next message is about: at most `count`, those first that went out least."""
        if not self._left:
            return []
        if len(self._left) <= count:
            chosen = list(self._left)
        else:
            # Sorting is stable, in reverse too, so of equals the oldest comes first.
            ordered = sorted(self._left.items(), key=itemgetter(1), reverse=True)
            chosen = [node for node, _ in ordered[:count]]
        for node in chosen:
            self._left[node] -= 1
            if not self._left[node]:
                del self._left[node]
        return chosen

"""Underlay addresses of peers: where a peer may be reached, and which address is tried now.

    its record says -------+--> of(peer), without those that must not be used
    it answered there -----+

While a handshake is under way, each of them is tried in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from overlay.types import Endpoint, NodeId

ANSWERED: Final = 2
"""Addresses kept of a peer's last sessions: that of a machine with its keys, and its own before."""


class Addresses:
    """The addresses of one node's peers.

    Args:
        usable: whether datagrams may be sent to an address at present; may change its mind.

    Attributes:
        answered: where peers answered in a session, latest first. A peer's record may name others:
            it is old, or of a machine with its keys.
    """

    def __init__(self, usable: Callable[[Endpoint], bool]) -> None:
        self.usable = usable
        self.answered: dict[NodeId, tuple[Endpoint, ...]] = {}
        self._told: dict[NodeId, tuple[Endpoint, ...]] = {}
        # Peers with several addresses, handshake under way: the one tried, and since when.
        self._trying: dict[NodeId, tuple[Endpoint, float]] = {}

    def of(self, node: NodeId) -> tuple[Endpoint, ...]:
        """Where a peer may be reached, most likely first."""
        told, answered = self._told.get(node, ()), self.answered.get(node, ())
        return tuple(filter(self.usable, dict.fromkeys((*told, *answered))))

    def after(self, node: NodeId, present: Endpoint | None) -> Endpoint | None:
        """The next one to try after `present`; None if there is none at all."""
        known = self.of(node)
        at = known.index(present) + 1 if present in known else 0
        return known[at % len(known)] if known else None

    def tell(self, node: NodeId, endpoints: tuple[Endpoint, ...]) -> bool:
        """Its record says these; whether that is news."""
        if self._told.get(node) == endpoints:
            return False
        self._told[node] = endpoints
        return True

    def answer(self, node: NodeId, endpoint: Endpoint) -> None:
        """A session came up there."""
        before = [one for one in self.answered.get(node, ()) if one != endpoint]
        self.answered[node] = (endpoint, *before)[:ANSWERED]

    def drop(self, node: NodeId) -> None:
        """Nobody talks to it at present: where it answered is all that is kept."""
        self._told.pop(node, None)
        self._trying.pop(node, None)

    def forget(self, node: NodeId) -> None:
        """It is no peer any more."""
        self.drop(node)
        self.answered.pop(node, None)

    # -- trying one after the other --------------------------------------------------------------

    def begin(self, node: NodeId, first: Endpoint, now: float) -> None:
        """A handshake begins at `first`: the others come next, where there are any."""
        if len(self.of(node)) > 1:
            self._trying.setdefault(node, (first, now))

    def rotate(
        self, connecting: Callable[[NodeId], bool], each: float, now: float
    ) -> Iterator[tuple[NodeId, Endpoint]]:
        """Peers whose handshake is to be repeated at another address, and which.

        Args:
            connecting: whether a handshake with a peer is under way.
            each: seconds that one address has to answer.
            now: monotonic seconds.
        """
        for node, (tried, since) in list(self._trying.items()):
            following = self.after(node, tried) if connecting(node) else None
            if following is None:
                del self._trying[node]  # nowhere else to try, or nothing left to
            elif now - since >= each:
                self._trying[node] = following, now
                yield node, following

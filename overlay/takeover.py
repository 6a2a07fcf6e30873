"""A session that goes on from another address with new keys: does somebody still answer at the old?

    session with X at E1      a new keypair with X is confirmed from E2
                  |                          |
                  '--- TAKEOVER_DELAY later -'--> one initiation to E1
                                                    no answer: X has restarted or moved, all is well
                                                    an answer: two machines have X's identity

Nothing is concluded here. Whoever answers at E1 gets the newest record of X by gossip, sees that it
did not make it, and says so (`overlay.conflict`). The session is with E1 again then.

A peer that only moves keeps its keys (`Peering.on_moved`) and is never asked about.
"""

from __future__ import annotations

from typing import ClassVar, Final, NamedTuple

from overlay.effects import Effect
from overlay.session.sessions import Sessions
from overlay.types import Endpoint, NodeId
from overlay.wire.handed import BYTES, ENDPOINT, SECONDS, Handed, row, table

TAKEOVER_DELAY: Final = 0.5
"""Seconds that the new session has first: its other end is to hear what we know of it meanwhile."""

ASK_INTERVAL: Final = 5.0
"""At most this often an old address of one peer is asked. Two machines that both insist would else
take the session from each other as fast as the network carries it."""


class _Doubt(NamedTuple):
    """An address that is to be asked."""

    endpoint: Endpoint
    at: float


class Takeovers:
    """The peers whose old address is to be asked.

    Args:
        sessions: which does the asking.
    """

    __slots__ = ("_asked", "_doubts", "_sessions")

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("_asked", "_doubts"), table(BYTES, row(_Doubt, ENDPOINT, SECONDS)))
    )

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._doubts: dict[NodeId, _Doubt] = {}
        self._asked: dict[NodeId, _Doubt] = {}

    def on_takeover(self, node: NodeId, was: Endpoint, endpoint: Endpoint, now: float) -> None:
        """A new keypair with `node` came into use at `endpoint`; the one before was used at `was`.

        When it is the answer to our own question, there is nothing more to ask.
        """
        asked = self._asked.get(node)
        if asked is None or (asked.endpoint != endpoint and now - asked.at >= ASK_INTERVAL):
            self._doubts.setdefault(node, _Doubt(was, now + TAKEOVER_DELAY))

    def forget(self, node: NodeId) -> None:
        """The peer is no member any more."""
        self._doubts.pop(node, None)
        self._asked.pop(node, None)

    def next_deadline(self) -> float | None:
        """When the next address is to be asked."""
        return min(doubt.at for doubt in self._doubts.values()) if self._doubts else None

    def on_deadline(self, now: float) -> list[Effect]:
        """Ask at the addresses that are due."""
        effects: list[Effect] = []
        for node, doubt in [item for item in self._doubts.items() if item[1].at <= now]:
            del self._doubts[node]
            self._asked[node] = _Doubt(doubt.endpoint, now)
            effects += self._sessions.ask_at(node, doubt.endpoint, now)
        return effects

"""What is remembered of initiations, so that an old one is not taken for a new one.

    stamp          of the last initiation of a member; the same member's next must be newer. Kept
                   with its session, and here while it has none
    ephemeral key  of every initiation that was authentic; a copy of it has the same

Both refuse copies. The stamp also finds those that are too old to be remembered one by one, and
those that were never accepted; their maker is told, for it may not know how far its own stamps had
come. A copy by somebody else is told nothing, and costs no X25519 operation: it is found before.

Only who holds a certificate or a token can fill these tables, so no stranger pushes anything out.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.types import NodeId
from overlay.wire.handed import BYTES, INT, Handed, keys, table

STAMPS: Final = 4096
"""Stamps remembered of lapsed sessions. An old initiation of others gets a useless keypair."""

SEEN: Final = 4096
"""Ephemeral keys remembered. A copy of what is forgotten is found by its stamp."""


class Copies:
    """Stamps and ephemeral keys of initiations."""

    __slots__ = ("_seen", "_stamps")

    HANDED: ClassVar = Handed(_stamps=table(BYTES, INT), _seen=keys(BYTES))

    def __init__(self) -> None:
        self._stamps: dict[NodeId, int] = {}
        self._seen: dict[bytes, None] = {}

    def is_copy(self, ephemeral: bytes) -> bool:
        """Whether an authentic initiation with this ephemeral key came before."""
        return ephemeral in self._seen

    def note(self, ephemeral: bytes) -> None:
        """An authentic initiation has come."""
        if len(self._seen) >= SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[ephemeral] = None

    def lapse(self, node: NodeId, stamp: int) -> None:
        """The session with `node` is dropped; `stamp` was its last one."""
        if len(self._stamps) >= STAMPS:
            del self._stamps[next(iter(self._stamps))]
        self._stamps[node] = stamp

    def last_stamp(self, node: NodeId) -> int:
        """The last one of a node without a session; -1 if none is remembered."""
        return self._stamps.get(node, -1)

    def forget(self, node: NodeId) -> int:
        """The same, and it is forgotten here."""
        return self._stamps.pop(node, -1)

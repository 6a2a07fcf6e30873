"""A reliable announcement: the last thing a leaving node does.

Gossip normally needs no acknowledgements, because whoever missed a change learns it from somebody
later. A node that leaves may be the only one that knows of its leaving, and there is no later. So
it repeats an offer to each member until that member says that it lacks nothing of it:

    leaving                                       member
    | -- Delta(items), Have(ids, confirm) ------> |
    | <------------------------ Want(ids) ------- |   the Delta was lost
    | -- Delta(those) --------------------------> |
    | -- Have(ids, confirm) --------------------> |   `request_retry` later
    | <------------------------ Want() ---------- |   confirmed

Nothing but such an offer is ever answered with an empty Want. An offer of more ids than one message
holds is made one message after the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.config import Timing
from overlay.gossip.sync import blobs_of
from overlay.types import NodeId
from overlay.wire.messages import Have, Want


class Offer:
    """One offer to some members.

    Args:
        ids: of the items that are offered.
        nodes: to whom.
        timing: `request_retry` between repetitions, `leave_after` until it is over.

    Attributes:
        confirmed: members that have said that they lack nothing of it.
    """

    __slots__ = ("_deadline", "_parts", "_pending", "_retry", "_retry_at", "confirmed")

    def __init__(
        self, ids: Iterable[bytes], nodes: Iterable[NodeId], timing: Timing, now: float
    ) -> None:
        self._parts = [Have(blob, confirm=True) for blob in blobs_of(ids) or [b""]]
        self._pending = dict.fromkeys(nodes, 0)  # node -> index of the part it is to confirm
        self._retry = timing.request_retry
        self._retry_at = now + self._retry
        self._deadline = now + timing.leave_after
        self.confirmed = 0

    @property
    def done(self) -> bool:
        """Whether all have confirmed, or time is up."""
        return not self._pending

    def current(self) -> list[tuple[NodeId, Have]]:
        """What each member that has not confirmed is to be sent."""
        return [(node, self._parts[part]) for node, part in self._pending.items()]

    def on_want(self, node: NodeId, message: Want) -> Have | None:
        """An answer of `node`; returns the part that follows the one it has just confirmed."""
        part = self._pending.get(node)
        if part is None or message.ids:
            return None
        if part + 1 < len(self._parts):
            self._pending[node] = part + 1
            return self._parts[part + 1]
        del self._pending[node]
        self.confirmed += 1
        return None

    def drop(self, node: NodeId) -> None:
        """Do not wait for `node`: it is no member any more."""
        self._pending.pop(node, None)

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None when done."""
        return None if self.done else min(self._retry_at, self._deadline)

    def on_deadline(self, now: float) -> list[tuple[NodeId, Have]]:
        """Repeat to whoever has not confirmed, or give up."""
        if now >= self._deadline:
            self._pending.clear()
        if self.done or now < self._retry_at:
            return []
        self._retry_at = now + self._retry
        return self.current()

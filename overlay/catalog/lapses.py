"""What is left of a record when its certificate has ended: nothing that gains its node anything.

    record --> admitted and held by every store, whatever the time
                  |
                  '--> certificate ended, by this node's clock? --no---> in effect
                                     |
                                     '--yes--> only who it is, and what binds its node, is in effect

Stores must not depend on clocks: what one member refuses and another holds is offered again and
again. So the time decides what has effect, and nothing else. Clocks differ, so for a minute or so
members differ in that; then all that hold the same items come to the same, however they got them.

A record binds its node by its certificate, its version, which removals it acknowledges, and that
its identity is in conflict. What it lists in use is not routed any more, but still kept from others
(`NodeRecord.whole`): its node may be certified again and come back with its pods.

That a certificate begins later is not asked: only a clock that is wrong makes that so, and nobody
gets a session by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from overlay.catalog.records import NodeRecord
from overlay.types import NodeId


class Lapses:
    """Says what of records is in effect for one node, as time goes by.

    Args:
        local: the node itself, whose own record is in effect here whatever its certificate is
            worth.

    Attributes:
        wall: the present, in Unix seconds; until one is told, nothing has ended.
    """

    __slots__ = ("_from", "_local", "_until", "wall")

    def __init__(self, local: NodeId | None) -> None:
        self._local = local
        self.wall = -math.inf
        # Between these nothing changes: the latest end that has passed, the next one to come.
        self._from, self._until = -math.inf, math.inf

    def tell(self, wall: float | None) -> None:
        """It is `wall` now, if that is known; what has ended by it is for `turned` to say."""
        if wall is not None:
            self.wall = wall

    def in_effect(self, record: NodeRecord) -> NodeRecord:
        """What of a record is in effect at present; the record itself if all of it is.

        A tombstone always is: who missed it must still learn of it.
        """
        whole = record.whole or record
        if whole.left or whole.node == self._local:
            return whole
        end = whole.certificate.not_after
        if self.wall < end:
            self._until = min(self._until, end)
            return whole
        self._from = max(self._from, end)
        return record if record.whole is not None else _bound(whole)

    def turned(self, records: Iterable[NodeRecord], wall: float) -> list[NodeRecord]:
        """Follow the time to `wall`, forwards or back: what is now in effect of other records.

        Args:
            records: all that `in_effect` returned and that are still held.
            wall: Unix seconds.

        Returns:
            Those that are otherwise in effect than before. Costs nothing while there are none.
        """
        self.tell(wall)
        if self._from <= wall < self._until:
            return []
        self._from, self._until = -math.inf, math.inf
        pairs = [(record, self.in_effect(record)) for record in records]
        return [now for before, now in pairs if now is not before]


def _bound(record: NodeRecord) -> NodeRecord:
    return NodeRecord(
        certificate=record.certificate,
        version=record.version,
        software=record.software,
        removals=record.removals,
        conflict=record.conflict,
        resumed=record.resumed,
        body=record.body,
        whole=record,
    )

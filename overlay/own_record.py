"""This node's record: what it tells others of itself, and under which version.

    holdings (blocks, pods) --------------+
    where it is reached, outside routes --+--> content --> record, signed
    removals known, complaints -----------+

Only this node writes its record, so all of it is decided here. What it says is not announced before
the engine has stored it (`overlay.steward`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from overlay.catalog.catalog import Catalog
from overlay.catalog.outside import announced, outside_of
from overlay.catalog.records import ENDPOINTS_MAX, NodeRecord, PodEntry, pack_record, seal_record
from overlay.catalog.removals import NO_REMOVALS
from overlay.complaints import Complaint
from overlay.config import Limits
from overlay.holdings import Holdings
from overlay.ipam.plan import BlockPlan
from overlay.keys import SIGNATURE_SIZE
from overlay.types import Endpoint, Prefix
from overlay.versions import TOMBSTONE, Versions
from overlay.wire.certificate import Identity
from overlay.wire.items import Item
from overlay.wire.packing import U64, pack

SPARE_SHARE: Final = 32
"""One part in so many of the largest record is left free by pods: what else changes, unasked."""


class OwnRecord:
    """Makes the record of one node.

    Args:
        identity: keys and certificate.
        catalog: what the cluster knows; this node's last record and the removals are read from it.
        plan: block numbers <-> addresses.
        holdings: what it tells of.
        boot: the number of this start.
        software: version shown to others.
        is_authority: whether this node can admit members at present.
        limits: `record` bounds the size of the record.

    Attributes:
        endpoints: where this node is reached.
        routes: outside ones, as the operator wants them.
        crossed: see `overlay.crossing`.
        complaints: of other members.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        catalog: Catalog,
        plan: BlockPlan,
        holdings: Holdings,
        boot: int,
        software: str,
        is_authority: Callable[[], bool],
        limits: Limits,
    ) -> None:
        self._identity, self._catalog, self._plan = identity, catalog, plan
        self._holdings = holdings
        self._software, self._is_authority, self._limits = software, is_authority, limits
        self.versions = Versions(catalog, identity.node, boot)
        self.endpoints: tuple[Endpoint, ...] = ()
        self.routes: tuple[Prefix, ...] = ()
        self.crossed: tuple[Prefix, ...] = ()
        self.complaints: tuple[Complaint, ...] = ()
        self._announced = (0, NO_REMOVALS, False)

    def is_outdated(self) -> bool:
        """Whether others must hear of what we did not do: free blocks, removals, authorities."""
        return self._announced != self._unasked()

    def _unasked(self) -> tuple[int, bytes, bool]:
        return self._holdings.free_count(), self._catalog.acknowledgement(), self._is_authority()

    def make(self, *, conflict: bool = False, content: NodeRecord | None = None) -> Item:
        """The record as it is now, under a version never used before; or the node's tombstone.

        With `conflict`, another machine has this node's identity: nothing is to be had from it.
        With `content`, what that record says is signed instead of what the node holds.

        Raises:
            CapacityError: the record is too large (`record`). Nothing else.
        """
        self._announced = self._unasked()
        version = TOMBSTONE if self._holdings.left else self.versions.next()
        packed = self._packed(version, conflict=conflict, content=content)
        return seal_record(self._identity, version, packed, limit=self._limits.record)

    def has_room(self, pod: str, wall: float) -> bool:
        """Whether the record, with this pod as well, leaves `SPARE_SHARE` of its limit free."""
        limit = self._limits.record
        entry = pack([pod, self._plan.blocks, self._plan.last_pod_host, int(wall)])
        return SIGNATURE_SIZE + len(self._packed(U64) + entry) <= limit - limit // SPARE_SHARE

    def goes_on_from(self, last: NodeRecord) -> bool:
        """Whether this node's last record, of the process before, says what one made now would."""
        self._announced = self._unasked()
        now = self._content(last.version)
        return last == replace(now, resumed=last.resumed)

    def _packed(
        self, version: int, *, conflict: bool = False, content: NodeRecord | None = None
    ) -> bytes:
        return pack_record(self._content(version, conflict=conflict, content=content))

    def _content(
        self, version: int, *, conflict: bool = False, content: NodeRecord | None = None
    ) -> NodeRecord:
        free, removals, authority = self._announced
        said = content or self._held()
        return replace(
            said,
            certificate=self._identity.certificate,
            version=version,
            endpoints=said.endpoints[:ENDPOINTS_MAX],
            free_blocks=0 if conflict else free,
            software=self._software,
            is_authority=authority,
            # Whoever uses those blocks must itself know of a removal.
            removals=content.removals if content else removals,
            left=self._holdings.left,
            conflict=conflict,
            resumed=self.versions.resumed,
            complaints=() if conflict else self.complaints,
            crossed=self.crossed,
        )

    def _held(self) -> NodeRecord:
        own, holdings = self._identity.certificate, self._holdings
        held = sorted(holdings.pods.items())
        routes = announced(self.routes, own.routes, self._plan.cluster)
        return NodeRecord(
            own,
            0,
            outside_of(self.endpoints, routes),
            tuple(holdings.blocks_in_use),
            pods=tuple(PodEntry(pod.name, pod.block, pod.host, pod.since) for _, pod in held),
            routes=routes,
        )

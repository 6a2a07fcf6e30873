"""Moves blocks between this node and others: gives, grows, hands back, takes back.

    a member asks           --> a free block of ours, if its record shows that it needs one
    few addresses left here --> a free block of ours into use, or ask a member for one
    a block long idle here  --> back to the authority's node
    a block came back       --> rests for a quarantine, like the address of a deleted pod

and, on the authority's node alone, by its word (`Base` in `overlay.ipam.deeds`):

    a block came back                --> forget its chain: no former owner has a say in it any more
    a block of a removed node, when
      every member has acknowledged
      and none uses it               --> take it

Why acknowledgements. The removed node may have signed a block over to a member that the authority
has not heard of. A node that knows of the removal does not begin to use such a block, and its next
record says both that it knows and which blocks it uses already. So when everybody's record says so,
a block that none of them lists is in nobody's use, and will be in nobody's.

Everything here is decided from what is known and returns items to be stored and announced; the
steward does both.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from overlay.agenda import earliest
from overlay.catalog.keys import block_of_deed, deed_item
from overlay.effects import Report
from overlay.ipam.deeds import sign_base
from overlay.ipam.idle import IdleBlocks
from overlay.ipam.returned import ReturnedBlocks
from overlay.keys import SigningKey
from overlay.parts import Parts
from overlay.types import BlockIndex, NodeId
from overlay.views import NodeState
from overlay.wire.cluster import Cluster
from overlay.wire.handed import Handed, part
from overlay.wire.items import Item


class Tidied(NamedTuple):
    """What putting things in order came to."""

    deeds: list[Item]
    """To be stored, then announced."""
    reports: list[Report]
    changed: bool
    """Whether this node's record is to be made anew."""


class Landlord:
    """Looks after one node's blocks.

    Args:
        parts: the machines of the node.
        local: the node.
        cluster: whose blocks.
    """

    HANDED: ClassVar = Handed(_idle=part(IdleBlocks), _returned=part(ReturnedBlocks))

    def __init__(self, parts: Parts, *, local: NodeId, cluster: Cluster) -> None:
        self._parts = parts
        self._local = local
        self._cluster = cluster
        self._idle = IdleBlocks(parts.timing.block_idle_after)
        self._returned = ReturnedBlocks(parts.catalog.titles, local, parts.timing.quarantine)

    @property
    def _authority(self) -> SigningKey | None:
        return self._parts.authority

    def next_deadline(self) -> float | None:
        """When `tidy` has something to do next, unless something changes before."""
        return earliest(self._idle.next_deadline(), self._returned.next_deadline())

    def tidy(self, now: float) -> Tidied:
        """Put everything in order that can be: cheap, and idempotent."""
        holdings = self._parts.holdings
        if holdings.left or holdings.ended:
            self._let_rest([], now)
            self._parts.seeker.found()
            self._idle.watch((), now)
            return Tidied([], [], changed=False)
        changed = holdings.give_up_lost()
        taken, reports = self._reclaim()
        self._let_rest(taken, now)
        deeds = [self._base(block) for block in (*self._come_back(), *taken)]
        grown = self._grow(now)
        reports += grown
        handed, freed = self._hand_back(now)
        deeds += handed
        return Tidied(deeds, reports, bool(changed or grown or freed or deeds))

    # -- growth ----------------------------------------------------------------------------------

    def _grow(self, now: float) -> list[Report]:
        parts, holdings = self._parts, self._parts.holdings
        if holdings.blocks_in_use and holdings.free_slots(now) >= holdings.low_water:
            parts.seeker.found()
            return []
        if not holdings.use_a_block():
            parts.seeker.seek(now)
            return []
        parts.seeker.found()
        prefix = str(parts.plan.prefix4(holdings.blocks_in_use[-1]))
        return [Report("block.received", {"prefix": prefix})]

    # -- handing back ----------------------------------------------------------------------------

    def _hand_back(self, now: float) -> tuple[list[Item], bool]:
        """Deeds for idle blocks, and whether some block is not in use any more."""
        holdings, freed = self._parts.holdings, False
        deeds: list[Item] = []
        self._idle.watch(self._returnable(), now)
        for block in self._idle.due(now):
            taker = None if self._authority else self._ready_authority(now)
            if (taker or self._authority) and holdings.can_spare(block, now):
                deed = holdings.release(block, taker)
                deeds += [deed] if deed else []
                freed = True
            else:
                self._idle.postpone(block, now)
        self._idle.watch(self._returnable() - {block_of_deed(deed) for deed in deeds}, now)
        return deeds, freed

    def _returnable(self) -> set[BlockIndex]:
        unused = set(self._parts.holdings.unused())
        # The authority's node keeps what it owns: for it, idle is what it need not use.
        return unused & set(self._parts.holdings.blocks_in_use) if self._authority else unused

    def _ready_authority(self, now: float) -> NodeId | None:
        nodes = self._parts.catalog.nodes.values()
        state = self._parts.gossip.state
        ready = (
            record.node
            for record in nodes
            if record.is_authority and state(record.node, now) is NodeState.READY
        )
        return min(ready, default=None)

    # -- the authority's word --------------------------------------------------------------------

    def _come_back(self) -> list[BlockIndex]:
        """Blocks that are this node's by a deed: who had one before could sign that deed again."""
        if self._authority is None or self._authority.is_locked:
            return []
        titles, removed = self._parts.catalog.titles, self._parts.catalog.removed
        back = [block for block in sorted(titles.moved_to(self._local)) if titles.moves(block)[1]]
        return [block for block in back if not titles.is_of(block, removed)]

    def _reclaim(self) -> tuple[list[BlockIndex], list[Report]]:
        """Blocks of removed nodes that can be taken."""
        if self._authority is None or self._authority.is_locked:
            return [], []
        if not self._parts.catalog.removed or self.waiting_for():
            return [], []
        used = self._used_by_others()
        taken = [block for block in self._parts.catalog.held() if block not in used]
        return taken, [Report("block.reclaimed", {"count": len(taken)})] if taken else []

    def _let_rest(self, taken: list[BlockIndex], now: float) -> None:
        holdings = self._parts.holdings
        holdings.resting = self._returned.watch(holdings.blocks_in_use, taken, now)

    def _base(self, block: BlockIndex) -> Item:
        assert self._authority is not None
        chain = self._parts.catalog.titles.chain(block)
        # One more where the block changes hands, also if we know only part of what was signed:
        # the higher base wins over any number of deeds.
        sequence = chain.sequence + (chain.owner != self._local)
        base = sign_base(
            self._authority,
            cluster=self._cluster.id,
            block=block,
            sequence=max(1, sequence, chain.base_sequence + 1),
            owner=self._local,
        )
        return deed_item(base)

    def _used_by_others(self) -> set[BlockIndex]:
        records = self._parts.catalog.nodes.items()
        return {
            block
            for node, record in records
            if node != self._local
            for block in (record.whole or record).blocks_in_use
        }

    def waiting_for(self) -> list[str]:
        """Names of members that have not acknowledged all removals; in order.

        A node that was certified and is not known yet counts: it may be one that got its first
        block in another part of a divided cluster.
        """
        catalog, registrar = self._parts.catalog, self._parts.registrar
        if not catalog.removed:
            return []
        ours = catalog.acknowledgement()
        waiting = {
            record.name
            for node, record in catalog.nodes.items()
            if node != self._local and not record.left and record.removals != ours
        }
        if registrar is not None:
            known = catalog.nodes.keys() | catalog.removed.keys()
            waiting |= {name for name, node in registrar.holders() if node not in known}
        return sorted(waiting)

    def reclaimable(self) -> int:
        """How many blocks of removed nodes are still to be taken."""
        catalog = self._parts.catalog
        return len(set(catalog.held()) - self._used_by_others())

"""What this node itself holds: address blocks, pods, and the record that tells others of them.

    titles (who owns which block) --+
                                    +--> blocks in use --> pod addresses --> record, signed
    the operator's `pod add` -------+

Only this node writes its record and only it signs deeds for its blocks, so everything here is
decided without asking anyone. Nothing here is announced before the engine has stored it.

Error contract: an operation that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from typing import Final

from overlay.attachment import NOTHING_SAID, Attachment
from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import deed_item
from overlay.catalog.outside import announced, outside_of
from overlay.catalog.records import ENDPOINTS_MAX, NodeRecord, PodEntry, pack_record, seal_record
from overlay.catalog.removals import NO_REMOVALS
from overlay.complaints import Complaint
from overlay.config import Limits, Timing
from overlay.ending import Ending, ending_of
from overlay.errors import RefusedError
from overlay.ipam.allocator import Allocator, no_free_address, pick_block_to_give
from overlay.ipam.deeds import sign_deed
from overlay.ipam.plan import NODE_HOST, BlockPlan
from overlay.keys import SIGNATURE_SIZE
from overlay.resting import stored_rests
from overlay.state import NodeState, StoredPod
from overlay.tenants import Tenants
from overlay.types import Address, BlockIndex, Endpoint, NodeId, Prefix
from overlay.versions import TOMBSTONE, Versions
from overlay.wire.certificate import Identity
from overlay.wire.items import Item
from overlay.wire.packing import U64, pack

SPARE_SHARE: Final = 32
"""One part in so many of the largest record is left free by pods: what else changes, unasked."""

LOW_WATER_SHARE: Final = 8
"""A node wants another block when less than one part in so many of a block is free, and not less
than one address: asking takes a moment, and pods come in batches."""

GIVEN_SHARE: Final = 2
"""A member that has had blocks gets another one when its record shows pods in at least one part in
so many of their addresses. Its other addresses may rest; and since a record has room for some three
thousand pods, no member can invent enough of them to collect all blocks."""


class Holdings:
    """Blocks, pods and record of one node.

    Args:
        identity: keys and certificate.
        catalog: what the cluster knows; titles of blocks are read from it.
        plan: block numbers <-> addresses.
        state: what was stored; `boot` is already this start's.
        software: version shown to others.
        is_authority: whether this node can admit members at present.
        limits: `record` bounds the size of the record.
        quarantine: seconds that the address of a deleted pod rests.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        catalog: Catalog,
        plan: BlockPlan,
        state: NodeState,
        software: str,
        is_authority: Callable[[], bool],
        limits: Limits,
        quarantine: float = Timing().quarantine,
    ) -> None:
        self._identity, self._catalog, self._plan = identity, catalog, plan
        self._software, self._is_authority, self._limits = software, is_authority, limits
        self.versions = Versions(catalog, identity.node, state.boot)
        self._announced = (0, NO_REMOVALS, False)
        self._free_counted, self._free_count = (-1, -1, -1), 0
        self.complaints: tuple[Complaint, ...] = ()  # what the record says of others
        self.told, self.left = state.told, state.left
        self.endpoints: tuple[Endpoint, ...] = ()
        self.routes: tuple[Prefix, ...] = ()  # outside ones, as the operator wants them
        self.crossed: tuple[Prefix, ...] = ()  # see `overlay.crossing`
        self.blocks_in_use: list[BlockIndex] = list(state.blocks_in_use)
        self.quarantine, self.allocator = quarantine, Allocator(plan, quarantine)
        self.resting: Set[BlockIndex] = frozenset()  # blocks (`overlay.ipam.returned`)
        for block in self.blocks_in_use:
            self.allocator.add_block(block)
        self.tenants = Tenants(plan, self.allocator, state.pods, state.reserved)
        self.pods = self.tenants.pods

    # -- addresses -----------------------------------------------------------------------------

    @property
    def address(self) -> Address | None:
        """The node's own IPv4 address: the first of its first block."""
        used = self.blocks_in_use
        return self._plan.address4(used[0], NODE_HOST) if used else None

    @property
    def address6(self) -> Address | None:
        """The node's own IPv6 address, where the cluster has IPv6."""
        used = self.blocks_in_use
        return self._plan.address6(used[0], NODE_HOST) if used else None

    def owned(self) -> set[BlockIndex]:
        """All blocks titled to this node, in use or not."""
        return set(self._catalog.titles.blocks_of(self._identity.node))

    def free(self) -> list[BlockIndex]:
        """Blocks it could use or give away; not those that a removed node may have given twice."""
        free = self.owned() - set(self.blocks_in_use)
        return sorted(block for block in free if not self._catalog.is_held(block))

    def free_count(self) -> int:
        """How many blocks `free` has.

        Counted anew only when a block has moved or was taken into use, or a node was removed: it is
        asked after every item that gossip brings.
        """
        titles, used = self._catalog.titles, self.blocks_in_use
        asked = (titles.generation, len(used), len(self._catalog.removed))
        if self._free_counted != asked:
            node = self._identity.node
            kept = {one for one in (*used, *self._catalog.held()) if titles.owner(one) == node}
            self._free_counted, self._free_count = asked, titles.count_of(node) - len(kept)
        return self._free_count

    def is_outdated(self) -> bool:
        """Whether others must hear of what we did not do: free blocks, removals, authorities."""
        return self._announced != self._unasked()

    def _unasked(self) -> tuple[int, bytes, bool]:
        return self.free_count(), self._catalog.acknowledgement(), self._is_authority()

    @property
    def ended(self) -> Ending | None:
        """How the cluster ended this node's membership behind its back, if it has."""
        return ending_of(self._catalog, self._identity.node, left=self.left)

    def use_a_block(self) -> bool:
        """Use an owned block more, one that never moved if possible; False if there is none."""
        block = self._spare()
        if block is not None:
            self.blocks_in_use.append(block)
            self.allocator.add_block(block)
        return block is not None

    def _spare(self) -> BlockIndex | None:
        stays = {*self.blocks_in_use, *self._catalog.held(), *self.resting}
        return next(self._catalog.titles.spare(self._identity.node, stays), None)

    def lost(self) -> list[BlockIndex]:
        """Blocks in use that are titled to another node: nothing is routed here for them.

        Their title lost against another one: the authority's, or a deed that was signed twice.
        """
        owner = self._catalog.titles.owner
        return [block for block in self.blocks_in_use if owner(block) != self._identity.node]

    def give_up_lost(self) -> bool:
        """Hand out nothing of lost blocks, and drop those without pods; True if there were any."""
        lost = self.lost()
        self.allocator.close_all_but(set(self.blocks_in_use) - set(lost))
        dropped = [block for block in lost if not self.allocator.pods_in(block)]
        for block in dropped:
            self._drop(block)
        return bool(dropped)

    def _drop(self, block: BlockIndex) -> None:
        self.blocks_in_use.remove(block)
        self.allocator.remove_block(block)

    def free_slots(self, now: float) -> int:
        """How many pods could be given an address at `now`."""
        return self.allocator.free_slots(now)

    @property
    def low_water(self) -> int:
        """With fewer free addresses than this, another block is wanted."""
        return max(1, self._plan.capacity // LOW_WATER_SHARE)

    def unused(self) -> Set[BlockIndex]:
        """Owned blocks without pods that need not stay: in use but not the first, or free."""
        extra = {b for b in self.blocks_in_use[1:] if not self.allocator.pods_in(b)}
        kept = set(self.blocks_in_use) - extra
        return (extra | self._catalog.titles.moved_to(self._identity.node)) - kept

    def can_spare(self, block: BlockIndex, now: float) -> bool:
        """Whether `block` is empty, and there is enough room without it.

        Enough is twice what makes a node ask for another: blocks shall not go to and fro. Nobody
        takes a block whose chain has no room for the deed.
        """
        if not self.allocator.is_empty(block, now) or self._catalog.is_held(block):
            return False
        own = self._plan.capacity if block in self.blocks_in_use else 0
        enough = self.free_slots(now) - own >= 2 * self.low_water
        return enough and self._catalog.titles.room(block) > 0

    def release(self, block: BlockIndex, taker: NodeId | None) -> Item | None:
        """Use `block` no longer; sign it over to `taker`. Apply and store that before it is sent.

        Args:
            block: an owned one without pods.
            taker: None to keep it, free.
        """
        if block in self.blocks_in_use:
            self._drop(block)
        return None if taker is None else self._transfer(block, taker)

    def use_blocks(self, blocks: Iterable[BlockIndex]) -> None:
        """Take those of these blocks into use that are this node's."""
        for block in sorted(self.owned() & set(blocks) - set(self.blocks_in_use)):
            self.blocks_in_use.append(block)
            self.allocator.add_block(block)

    # -- pods ----------------------------------------------------------------------------------

    def add_pod(
        self,
        name: str,
        netns: str,
        address: Address | None,
        wall: float,
        now: float,
        *,
        owner: str = "cli",
        boot_id: str = "",
        attachment: Attachment = NOTHING_SAID,
    ) -> StoredPod:
        """Give a pod its addresses. `wall` is the present in Unix seconds.

        Raises:
            ConfigError, RefusedError: see `Tenants.check`, `check_room` and `Tenants.take`.
        """
        self.tenants.check(name, netns, owner, attachment)
        self.prepare(address, now)
        block, host = self.tenants.take(name, address, owner, now)
        pod = StoredPod(name, netns, block, host, int(wall), owner, boot_id, attachment)
        return self.tenants.add(pod)

    def check_room(self, now: float) -> None:
        """Whether there is an address to give.

        Raises:
            RefusedError: `node-removed`, `node-left`, `no-block`, `no-free-address`. Nothing else.
        """
        if self.ended is not None:
            self.ended.refuse()
        if not self.blocks_in_use:
            fix = "wait until a member gives it one"
            raise RefusedError("no-block", "this node has no address block yet", fix)
        if not self.allocator.free_slots(now) and self._spare() is None:
            raise no_free_address()

    def prepare(self, address: Address | None, now: float) -> None:
        """Take a block into use if an address (None: any) needs it. Raises as `check_room`."""
        if address is None or self.ended is not None or not self.blocks_in_use:
            self.check_room(now)
        if address is None and not self.allocator.free_slots(now):
            self.use_a_block()

    def remove_pod(self, name: str, now: float) -> StoredPod:
        """Take a pod's addresses back. Raises RefusedError, `no-such-pod`, and nothing else."""
        return self.tenants.remove(name, now)

    # -- giving blocks away --------------------------------------------------------------------

    def give(self, taker: NodeId, request: int) -> Item:
        """Sign one free block over to `taker`. Apply and store the result before it is sent.

        A taker that asks again because the answer was lost gets the same answer: the deed with
        that request's number, whoever signed it. It gets what it has already as long as its record
        does not use it, and another block only when its record shows that it has use for one.

        Args:
            taker: who asks.
            request: the number of its request, 1 <= request < 2**64.

        Raises:
            RefusedError: `node-removed`, `no-free-block`, `has-room`. Nothing else.
        """
        if self.ended is not None or taker in self._catalog.removed:
            raise RefusedError("node-removed", "one of us is no member any more")
        titles = self._catalog.titles
        record = self._catalog.nodes.get(taker)
        used, pods = (record.blocks_in_use, len(record.pods)) if record else ((), 0)
        spare = []
        for block in sorted(titles.moved_to(taker)):
            chain = titles.chain(block)
            if any((deed.taker, deed.request) == (taker, request) for deed in chain.deeds):
                return deed_item(chain)
            if block not in used and not self._catalog.is_held(block):
                spare.append(chain)
        if spare:
            return deed_item(spare[0])
        had = titles.given_to(taker, back_at=self._identity.node)
        if had * self._plan.capacity > pods * GIVEN_SHARE:
            raise RefusedError("has-room", "the blocks you were given have few pods")
        stays = {*self.blocks_in_use, *self._catalog.held(), *self.resting}
        picked = pick_block_to_give(titles, self._identity.node, stays)
        if picked is None:
            raise RefusedError("no-free-block", "this node has no block to give away")
        return self._transfer(picked, taker, request)

    def hand_back(self, taker: NodeId) -> list[Item]:
        """Sign everything over to `taker`: this node is leaving. Apply and store it first.

        Its pods lose their addresses; the caller disconnects them.
        """
        room = self._catalog.titles.room
        # One whose chain is full is taken back when an operator removes what is left of this node.
        items = [self._transfer(block, taker) for block in sorted(self.owned()) if room(block)]
        self.blocks_in_use.clear()
        self.tenants.clear()
        self.left = True
        return items

    def _transfer(self, block: BlockIndex, taker: NodeId, request: int = 0) -> Item:
        chain, cluster = self._catalog.titles.chain(block), self._identity.certificate.cluster
        key = self._identity.signing
        return deed_item(sign_deed(key, chain, taker, cluster=cluster, request=request))

    def record(self, *, conflict: bool = False, content: NodeRecord | None = None) -> Item:
        """This node's record as it is now, under a version never used before; or its tombstone.

        With `conflict`, another machine has this node's identity: nothing is to be had from it.
        With `content`, what that record says is signed instead of what the node holds.

        Raises:
            CapacityError: the record is too large (`record`). Nothing else.
        """
        self._announced = self._unasked()
        version = TOMBSTONE if self.left else self.versions.next()
        packed = self._packed(version, conflict=conflict, content=content)
        return seal_record(self._identity, version, packed, limit=self._limits.record)

    def has_room(self, pod: str, wall: float) -> bool:
        """Whether the record, with this pod as well, leaves `SPARE_SHARE` of its limit free."""
        limit = self._limits.record
        entry = pack([pod, self._plan.blocks, self._plan.last_pod_host, int(wall)])
        return SIGNATURE_SIZE + len(self._packed(U64) + entry) <= limit - limit // SPARE_SHARE

    def _packed(
        self, version: int, *, conflict: bool = False, content: NodeRecord | None = None
    ) -> bytes:
        own, (free, removals, authority) = self._identity.certificate, self._announced
        held, blocks = sorted(self.pods.items()), tuple(self.blocks_in_use)
        pods = tuple(PodEntry(p.name, p.block, p.host, p.since) for _, p in held)
        routes = announced(self.routes, own.routes, self._plan.cluster)
        endpoints = outside_of(self.endpoints, routes)
        said = content or NodeRecord(own, 0, endpoints, blocks, pods=pods, routes=routes)
        told = replace(
            said,
            certificate=own,
            version=version,
            endpoints=said.endpoints[:ENDPOINTS_MAX],
            free_blocks=0 if conflict else free,
            software=self._software,
            is_authority=authority,
            # Whoever uses those blocks must itself know of a removal.
            removals=content.removals if content else removals,
            left=self.left,
            conflict=conflict,
            resumed=self.versions.resumed,
            complaints=() if conflict else self.complaints,
            crossed=self.crossed,
        )
        return pack_record(told)

    def check_invariants(self) -> None:
        """Assert that pods and allocator agree. For tests."""
        self.allocator.check_invariants()
        self.tenants.check_invariants()

    def stored(
        self, tokens: bytes = b"", names: bytes = b"", *, standing: int = 0, epoch: float = 0.0
    ) -> NodeState:
        """The state to persist, but for the items. `epoch` is Unix seconds at monotonic zero."""
        return NodeState(
            boot=self.versions.boot,
            pods=tuple(pod for _, pod in sorted(self.pods.items())),
            tokens=tokens,
            names=names,
            blocks_in_use=tuple(self.blocks_in_use),
            left=self.left,
            told=self.told,
            standing=standing,
            resting=stored_rests(self.allocator, epoch),
            certificate=self._identity.kept,
            reserved=tuple(held for _, held in sorted(self.tenants.reserved.items())),
        )

"""What this node itself holds: address blocks and pods.

    titles (who owns which block) --+
                                    +--> blocks in use --> pod addresses
    the operator's `pod add` -------+

Only this node signs deeds for its blocks, so everything here is decided without asking anyone. What
it says of them to others is its record (`overlay.own_record`).

Error contract: an operation that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace
from typing import Final

from overlay.attachment import NOTHING_SAID, Attachment
from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import deed_item
from overlay.config import Timing
from overlay.ending import Ending, ending_of
from overlay.errors import RefusedError
from overlay.ipam.allocator import Allocator, no_free_address, pick_block_to_give
from overlay.ipam.deeds import sign_deed
from overlay.ipam.plan import NODE_HOST, BlockPlan
from overlay.resting import stored_rest
from overlay.state import NodeState, StoredPod, pod_key, slot_key
from overlay.tenants import Tenants
from overlay.types import Address, BlockIndex, NodeId
from overlay.wire.certificate import Identity
from overlay.wire.items import Item

LOW_WATER_SHARE: Final = 8
"""A node wants another block when less than one part in so many of a block is free, and not less
than one address: asking takes a moment, and pods come in batches."""

GIVEN_SHARE: Final = 2
"""A member that has had blocks gets another one when its record shows pods in at least one part in
so many of their addresses. Its other addresses may rest; and since a record has room for some three
thousand pods, no member can invent enough of them to collect all blocks."""


class Holdings:
    """Blocks and pods of one node.

    Args:
        identity: keys and certificate.
        catalog: what the cluster knows; titles of blocks are read from it.
        plan: block numbers <-> addresses.
        state: what was stored.
        quarantine: seconds that the address of a deleted pod rests.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        catalog: Catalog,
        plan: BlockPlan,
        state: NodeState,
        quarantine: float = Timing().quarantine,
    ) -> None:
        self._identity, self._catalog, self._plan = identity, catalog, plan
        self._free_counted, self._free_count = (-1, -1, -1), 0
        self.told, self.left = state.told, state.left
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

    def check_invariants(self) -> None:
        """Assert that pods and allocator agree. For tests."""
        self.allocator.check_invariants()
        self.tenants.check_invariants()

    def stored(
        self,
        boot: int,
        *,
        tokens: bytes = b"",
        names: bytes = b"",
        standing: int = 0,
        epoch: float = 0.0,
        whole: bool = True,
    ) -> NodeState:
        """The state to persist, but for the items; if not `whole`, but for what changes singly.

        `boot` is the number of this start, `epoch` Unix seconds at monotonic zero.
        """
        state = NodeState(
            boot=boot,
            tokens=tokens,
            names=names,
            blocks_in_use=tuple(self.blocks_in_use),
            left=self.left,
            told=self.told,
            standing=standing,
            certificate=self._identity.kept,
        )
        if not whole:
            return state
        return replace(
            state,
            pods=tuple(pod for _, pod in sorted(self.pods.items())),
            resting=tuple(stored_rest(rest, epoch) for rest in self.allocator.rests.values()),
            reserved=tuple(held for _, held in sorted(self.tenants.reserved.items())),
        )

    def take_changed(self, epoch: float) -> dict[str, dict[bytes, object]]:
        """What changes singly and has changed since the last call, for `overlay.storing.Unstored`.

        `epoch` is Unix seconds at monotonic zero.
        """
        rests = self.allocator.rests.take_changed().items()
        return {
            "pods": {pod_key(name): pod for name, pod in self.pods.take_changed().items()},
            "resting": {
                slot_key(*slot): None if rest is None else stored_rest(rest, epoch)
                for slot, rest in rests
            },
            "reserved": {
                slot_key(*slot): held for slot, held in self.tenants.reserved.take_changed().items()
            },
        }

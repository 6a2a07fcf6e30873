"""What the cluster knows, as this node sees it: gossip's opaque items, understood.

    item b"n".. --> record --+                      nodes, names, pods
                             +--> who may use what --> routes, ranges, blocks
    item b"b".. --> titles --+
    item b"a".. --> removed: what the node's record says has no effect any more
    item b"c"   --> judge:   whose word on nodes, removals and blocks counts

Outside routes, which no deed gives, are decided in `overlay.catalog.outside`.

A block is routed to a node iff the node's record lists it in use *and* the titles say that the
node owns it. Both are needed, and either may arrive first: everything else here is derived from
the two, so any order of the same items gives the same catalog.

Why both: the title alone would route traffic to nodes that do not expect it (free blocks are
owned too); the record alone would let any member claim addresses of another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from overlay.catalog.blocks import block_views, blocks_used
from overlay.catalog.judge import Judge
from overlay.catalog.keys import block_of_key, node_of_key
from overlay.catalog.lapses import Lapses
from overlay.catalog.lies import Lie, lie_of
from overlay.catalog.outside import Heard
from overlay.catalog.reader import Reader
from overlay.catalog.records import NodeRecord, PodEntry
from overlay.catalog.removals import (
    Removal,
    acknowledgement,
    decode_removal_untrusted,
    open_removal_untrusted,
    removal_content,
    removed_of_key,
)
from overlay.config import Limits
from overlay.errors import AuthError, CapacityError, WireError
from overlay.ipam.plan import BlockPlan
from overlay.ipam.titles import Titles
from overlay.types import BlockIndex, NodeId, Prefix
from overlay.views import BlockView
from overlay.wire.authority import AUTHORITIES_KEY
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item

Route = tuple[Prefix, NodeId]


class RouteChanges(NamedTuple):
    """What became of routes. One whose node changed is in both."""

    added: tuple[Route, ...]
    removed: tuple[Prefix, ...]


class Catalog:
    """Records and titles of one cluster.

    Error contract: nothing here raises for what a peer sent. What does not hold is not admitted,
    and changes nothing.

    Args:
        cluster: whose items these are.
        plan: its blocks.
        limits: `record` and `deed_chain` bound single items.
        reader: reads items of this cluster; its own unless given.
        local: this node, whose own record is in effect here whatever its certificate is worth.

    Attributes:
        nodes: the newest record of each node, tombstones included, removed nodes not. To be read
            only.
        removed: the nodes that the authority has removed. To be read only.
        departed: the newest record of each removed node, None if none is known: only to be shown.
        lie: why no honest node would have sent the item that `admit` was asked about last; None if
            an honest one might have.
        judge: whose word counts.
        lapses: what is left of records whose certificates have ended.
        void: the last record of each node whose certificate lost its worth with the authority that
            signed it, until it has another one: only to be shown.
        titles: who owns which block.
        generation: grows whenever `routes`, or who may use which block, may have changed.
        heard: whether what nodes say of outside routes and of underlay addresses may have changed.
    """

    __slots__ = (
        "_admitted",
        "_cluster",
        "_held",
        "_moved",
        "_plan",
        "_reader",
        "_removals",
        "departed",
        "generation",
        "heard",
        "judge",
        "lapses",
        "lie",
        "nodes",
        "removed",
        "titles",
        "void",
    )

    def __init__(
        self,
        cluster: Cluster,
        plan: BlockPlan,
        limits: Limits,
        reader: Reader | None = None,
        local: NodeId | None = None,
    ) -> None:
        self._cluster = cluster
        self._plan = plan
        self._reader = reader or Reader(cluster, limits)
        self._removals: dict[NodeId, Item] = {}
        # Records between `admit` and `apply`, so that each is decoded only once.
        self._admitted: dict[bytes, tuple[Item, NodeRecord]] = {}
        # Blocks that may be routed otherwise than when changes were last taken: how it was then.
        self._moved: dict[BlockIndex, NodeId | None] = {}
        self._held: tuple[tuple[int, int], tuple[BlockIndex, ...]] = (0, 0), ()
        self.nodes: dict[NodeId, NodeRecord] = {}
        self.removed: dict[NodeId, Removal] = {}
        self.departed: dict[NodeId, NodeRecord | None] = {}
        self.void: dict[NodeId, NodeRecord] = {}
        self.lapses = Lapses(local)
        self.judge = Judge(cluster, local, self._is_node)
        self.titles = Titles(cluster, limits, self._reader, self.judge.check_base)
        self.generation = 0
        self.lie: Lie | None = None
        self.heard = Heard()

    # -- items in ----------------------------------------------------------------------------------

    def admit(self, item: Item, wall: float | None) -> bool:
        """Whether an item from elsewhere is what it claims to be. For `gossip.Store`.

        A record must be signed by its node, and its certificate by an authority that is trusted.
        What of it has effect at `wall` (Unix seconds), and whether its node was removed, is another
        question: all stores shall hold the same. Without `wall`, the item was admitted before.

        A removal, as the base of a chain, must be signed by an authority that is trusted, or stand
        (`Trust.stands`). What was admitted before is not asked again.

        A chain of deeds must be valid, and better than the one known. Checking and merging it are
        one act of the ledger: it is in force at once. So is a list that continues the one known.
        Items of any other kind are refused. `lie` says whose fault it is that this one was.
        """
        block, self.judge.restoring = block_of_key(item.key), wall is None
        self.lie = None
        self.lapses.tell(wall)
        try:
            if block is not None:
                return self._admit_chain(block, item)
            if removed_of_key(item.key) is not None:
                removal = open_removal_untrusted(item, self._cluster)
                self.judge.check_removal(removal, removal_content(item))
                return True
            if item.key == AUTHORITIES_KEY:
                self.judge.admit(item)
                return True
            return self._admit_record(item)
        except (WireError, AuthError, CapacityError) as error:
            self.lie = lie_of(error)
            return False

    def apply(self, item: Item) -> bool:
        """Let an item take effect that was admitted, or that this node made itself.

        Returns:
            Whether it is in effect now and, unless it is a chain, was not before. False for one
            that is older than what is known, and for one that does not decode.
        """
        block = block_of_key(item.key)
        try:
            if block is not None:
                return self._apply_chain(block, item)
            if removed_of_key(item.key) is not None:
                return self._apply_removal(item)
            if item.key == AUTHORITIES_KEY:
                return self._apply_list(item)
            return self._apply_record(item)
        except (WireError, AuthError, CapacityError):
            return False

    def _admit_record(self, item: Item) -> bool:
        node = node_of_key(item.key)
        if node is None:
            return False
        record = self._reader.record(item)
        self.judge.check_record(record)
        self._admitted[item.key] = (item, record)
        return True

    def _admit_chain(self, block: BlockIndex, item: Item) -> bool:
        chain = self._reader.chain(item.body)
        if (chain.block, chain.base_sequence) != (block, item.version):
            return False
        self._note([block])
        return self.titles.admit(item.body) or self.titles.holds(block, item.body)

    def _apply_record(self, item: Item) -> bool:
        node = node_of_key(item.key)
        if node is None:
            return False
        before = self.nodes.get(node) or self.departed.get(node) or self.void.get(node)
        if before is not None and (item.version, item.body) <= (before.version, before.body):
            return False
        admitted, record = self._admitted.pop(item.key, (None, None))
        if record is None or admitted != item:
            record = self._reader.record(item)
        if not self.judge.certifies(record):
            return False
        if record.node in self.removed:
            self.departed[record.node] = record
            return True
        before = None if self.void.pop(record.node, None) else before
        self._hold(before, self.lapses.in_effect(record))
        return True

    def _hold(self, before: NodeRecord | None, record: NodeRecord) -> None:
        if before is None or (before.removals, before.left) != (record.removals, record.left):
            self.generation += 1
        self.heard.on_record(before, record)
        used = before.blocks_in_use if before is not None else ()
        if used != record.blocks_in_use:
            self.generation += 1
            self._note(frozenset(used) ^ frozenset(record.blocks_in_use))
        self.nodes[record.node] = record

    def look(self, wall: float) -> list[NodeRecord]:
        """Follow the time, `wall` in Unix seconds: the records whose certificates have ended."""
        turned = self.lapses.turned(self.nodes.values(), wall)
        for record in turned:
            self._hold(self.nodes[record.node], record)
        return [record for record in turned if record.whole is not None]

    def _apply_removal(self, item: Item) -> bool:
        removal = decode_removal_untrusted(item, self._cluster)
        held = self._removals.get(removal.node)
        if held is not None and item.body <= held.body:
            return False
        record = self.nodes.get(removal.node) or self.departed.get(removal.node)
        self._note(record.blocks_in_use if record is not None else ())
        self.nodes.pop(removal.node, None)
        self.void.pop(removal.node, None)
        self._removals[removal.node] = item
        self.removed[removal.node] = removal
        self.departed[removal.node] = record
        self.generation += 1
        self.heard.on_loss()
        return True

    def _apply_chain(self, block: BlockIndex, item: Item) -> bool:
        # Usually the ledger has it by now: from `admit`, or because this node signed the deed.
        self._note([block])
        if not self.titles.holds(block, item.body) and not self.titles.admit(item.body):
            return False
        self.generation += 1
        return True

    def _apply_list(self, item: Item) -> bool:
        """Records without a certificate that is worth anything lose their effect."""
        self.judge.apply(item)
        for node, record in list(self.nodes.items()):
            if not self.judge.certifies(record):
                self._note(record.blocks_in_use)
                self.void[node] = self.nodes.pop(node)
        for node, last in self.departed.items():
            if last is not None and not self.judge.certifies(last):
                self.departed[node] = None
        self.generation += 1
        self.heard.on_loss()
        return True

    def _note(self, blocks: Iterable[BlockIndex]) -> None:
        """Remember how these blocks are routed, before that changes."""
        for block in blocks:
            if block not in self._moved:
                self._moved[block] = self._routed(block)

    def _routed(self, block: BlockIndex) -> NodeId | None:
        """A block is routed to its owner if that wants it, and else to nobody."""
        record = self.nodes.get(self.titles.owner(block))
        return record.node if record is not None and block in record.blocks_in_use else None

    def take_route_changes(self) -> RouteChanges:
        """What became of `routes` since the last call. Costs what changed, not what there is."""
        moved, self._moved = self._moved, {}
        added: list[Route] = []
        removed: list[Prefix] = []
        for block, before in moved.items():
            after = self._routed(block)
            if after == before:
                continue
            prefixes = self._prefixes_of(block)
            if before is not None:
                removed += prefixes
            if after is not None:
                added += [(prefix, after) for prefix in prefixes]
        return RouteChanges(tuple(added), tuple(removed))

    # -- removed nodes -----------------------------------------------------------------------------

    def acknowledgement(self) -> bytes:
        """What this node's record says of the removals it knows."""
        return acknowledgement(self.removed)

    def is_out(self, node: NodeId | None) -> bool:
        """Whether a node is removed, or its certificate void: what it says counts no more."""
        return node in self.removed or node in self.void

    def _is_node(self, key: bytes) -> bool:
        node = NodeId(key)
        return node in self.nodes or self.is_out(node)

    def is_held(self, block: BlockIndex) -> bool:
        """Whether a removed node owns `block`, or gave it away.

        Whoever owns it must not begin to use it: the other may have given it to somebody else too.
        """
        return self.titles.is_of(block, self.removed)

    def held(self) -> tuple[BlockIndex, ...]:
        """All blocks of which `is_held` is true, in order."""
        asked = (self.titles.generation, len(self.removed))
        if self._held[0] != asked:
            self._held = asked, self.titles.passed_by(self.removed)
        return self._held[1]

    # -- views out ---------------------------------------------------------------------------------

    def by_name(self, name: str) -> NodeRecord | None:
        """The node with this name.

        A name may be certified again after its node has left: the newest certificate decides. Two
        authorities may have given it at once, with one serial: then the ids do, for everybody.
        """
        named = (record for record in self.nodes.values() if record.name == name)
        return max(named, key=lambda one: (one.certificate.serial, one.node), default=None)

    def routes(self) -> tuple[Route, ...]:
        """Which node each block in use is routed to, both families, in order of blocks."""
        return tuple(
            (prefix, self.titles.owner(block))
            for block in sorted(blocks_used(self.nodes, self.titles))
            for prefix in self._prefixes_of(block)
        )

    def ranges_of(self, node: NodeId) -> tuple[Prefix, ...]:
        """The prefixes that are routed to `node`: all that it may send from."""
        record = self.nodes.get(node)
        blocks = sorted(record.blocks_in_use) if record is not None else []
        return tuple(
            prefix
            for block in blocks
            if self.titles.owner(block) == node
            for prefix in self._prefixes_of(block)
        )

    def pods(self) -> tuple[tuple[NodeId, PodEntry], ...]:
        """All pods at addresses that are routed to their node, by names of node and pod."""
        return tuple(
            (record.node, pod)
            for record in sorted(self.nodes.values(), key=lambda record: (record.name, record.node))
            for pod in sorted(record.pods, key=lambda pod: pod.name)
            if self.titles.owner(pod.block) == record.node
        )

    def block_views(self) -> tuple[BlockView, ...]:
        """Every block of the cluster, with its owner and state, as few rows as possible."""
        return block_views(
            self._plan, self.titles, self.nodes, self._cluster.genesis, self.departed
        )

    def check_invariants(self) -> None:
        """Assert that the parts agree. For tests."""
        self.titles.check_invariants()
        assert self.removed.keys() == self.departed.keys()
        assert not self.removed.keys() & self.nodes.keys()
        assert not self.void.keys() & self.nodes.keys()
        assert all(map(self.judge.certifies, self.nodes.values()))
        assert self.removed.keys() == self._removals.keys()
        used = blocks_used(self.nodes, self.titles)
        assert all(self._routed(block) == self.titles.owner(block) for block in used)
        for node, record in self.nodes.items():
            assert record.node == node
            assert not (record.left and (record.blocks_in_use or record.free_blocks or record.pods))
            for prefix in self.ranges_of(node):
                block = self._plan.index_of(prefix.network_address)
                assert block in record.blocks_in_use
                assert self.titles.owner(block) == node

    def _prefixes_of(self, block: BlockIndex) -> tuple[Prefix, ...]:
        prefix4, prefix6 = self._plan.prefix4(block), self._plan.prefix6(block)
        return (prefix4,) if prefix6 is None else (prefix4, prefix6)

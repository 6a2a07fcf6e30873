"""Leaving: hand every block back, and do not go before somebody knows.

    leave --> deeds and tombstone stored (`left`) --> told to the neighbours
                  |                                        |
                  |  crash: the next start goes on here    '-- confirmed --> `told` stored --> Left
                  '----------------------------------------^

Between `left` and `told` this node is the only one that knows whose its blocks are now. So it must
not be thrown away: a start in between repeats the farewell, and does nothing else.
"""

from __future__ import annotations

from typing import Final

from overlay.catalog.blocks import choose_giver
from overlay.catalog.keys import block_of_key
from overlay.effects import Effect, Left
from overlay.errors import RefusedError, WireError
from overlay.ipam.deeds import decode_chain_untrusted
from overlay.parts import Parts
from overlay.types import NodeId
from overlay.views import NodeState
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item

FAREWELLS: Final = 8
"""Members that are told, if none of the neighbours can be reached."""


class Farewell:
    """The end of one node's membership.

    Args:
        parts: the machines of the node.
        local: the node.
        cluster: what it leaves.

    Attributes:
        open: whether it waits for members to confirm that it leaves.
    """

    def __init__(self, parts: Parts, local: NodeId, cluster: Cluster) -> None:
        self._parts = parts
        self._local = local
        self._cluster = cluster
        self._items: list[Item] = []
        self.open = False

    def begin(self, now: float) -> list[Effect]:
        """Hand back everything; the caller stores it, then calls `say`.

        Raises:
            RefusedError: `authority`, `node-removed`, `node-left`, `no-member`. Nothing else.
        """
        parts = self._parts
        if parts.registrar is not None:
            raise RefusedError(
                "authority",
                "this node holds the authority's key: without it nobody can join any more",
                "stop the daemon with SIGTERM if the whole cluster ends",
            )
        if parts.holdings.ended is not None:
            parts.holdings.ended.refuse()
        taker = self._choose_taker(self._ready_members(now))
        if taker is None:
            raise RefusedError(
                "no-member", "no member is reachable to take the blocks", "try again when one is"
            )
        items = parts.holdings.hand_back(taker)
        changed = parts.knowledge.take_own(items, now)
        items.append(parts.record.make())
        changed += parts.knowledge.take_own(items[-1:], now)
        parts.seeker.found()
        self._items = items
        self.open = True
        return changed

    def resume(self) -> None:
        """Go on with a farewell that was stored, but of which nobody is known to have heard."""
        store = self._parts.store
        own = store.get(self._parts.own_key)
        self._items = [item for item in store.items() if self._gave_away(item)]
        self._items += [own] if own is not None else []
        self.open = True

    def _gave_away(self, item: Item) -> bool:
        if block_of_key(item.key) is None:
            return False
        try:
            chain = decode_chain_untrusted(item.body, self._cluster)
        except WireError:
            return False
        return any(deed.giver == self._local for deed in chain.deeds)

    def say(self, now: float) -> list[Effect]:
        """Tell every ready neighbour, from the beginning; in a small cluster that is everybody."""
        near, ready = self._parts.gossip.neighbours(), self._ready_members(now)
        told = [node for node in ready if node in near] or ready[:FAREWELLS]
        return self._parts.gossip.offer(self._items, told, now)

    def hush(self, now: float) -> None:
        """It could not be stored: stop telling. `say` begins anew."""
        if self._parts.holdings.left:
            self.open, self._parts.holdings.told = True, False
            self._parts.gossip.offer((), (), now)

    def is_over(self) -> bool:
        """Whether all who were told have confirmed, or time is up."""
        return self.open and self._parts.gossip.offer_done

    def end(self, now: float) -> list[Effect]:
        """Time is up: `Left` if a member has confirmed; else once more."""
        confirmed = self._parts.gossip.offer_confirmed
        if not confirmed:
            return self.say(now)
        self.open = False
        self._parts.holdings.told = True
        return [Left(confirmed)]

    def _choose_taker(self, ready: list[NodeId]) -> NodeId | None:
        """Who gets the blocks of a node that leaves: the authority's node if it is reachable.

        It never leaves. Any other may be leaving at this very moment and give its own to us; then
        both lots would be lost.
        """
        catalog = self._parts.catalog
        records = (catalog.nodes.get(node) for node in ready)
        authorities = [record.node for record in records if record and record.is_authority]
        if authorities:
            return min(authorities)
        giver = choose_giver(catalog.nodes, {self._local}, lambda node: node in ready)
        return giver or min(ready, default=None)

    def _ready_members(self, now: float) -> list[NodeId]:
        members = self._parts.gossip.snapshot(now)
        # Some live whom we cannot reach all the same.
        ready = (one for one, view in members.items() if view.state is NodeState.READY)
        return [node for node in ready if members[node].reached]

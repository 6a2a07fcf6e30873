"""What follows from a new list of authorities, and from time: who proves nothing is cut off.

    list in effect --> records whose certificates are void: dropped from the store, as everywhere
                   --> sessions with their nodes: the list is said in them, then they end
                   --> sessions with nodes of which no record is known: end, and may begin anew
                   --> this node's own certificate is void: all sessions end
    a certificate ends --> its record gains its node nothing more; the session with it ends

A node is back as soon as its record comes with a certificate by an authority that is trusted, and
of today: name, blocks and pods are still its own.

With the routes that end with a certificate, the session must: packets that its node sends by it
would look like those of a liar. It is no loss, as no handshake passes any more.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import node_key, node_of_key
from overlay.effects import Effect, Report, SendControl
from overlay.gossip.machine import Gossip
from overlay.gossip.store import Store
from overlay.peering import Peering
from overlay.types import NodeId
from overlay.wall import Wall
from overlay.wire.authority import AUTHORITIES_KEY
from overlay.wire.certificate import Identity
from overlay.wire.control import encode
from overlay.wire.handed import BYTES, Handed, many
from overlay.wire.items import Item
from overlay.wire.messages import Delta

_RECORDS: Final = node_key(NodeId(b""))


class Distrust:
    """Acts on lists of authorities.

    Args:
        identity: this node's.
        store, catalog: the items, and what they mean.
        gossip, peering: told about nodes that are members no more.
        wall: says when certificates have ended.
    """

    HANDED: ClassVar = Handed(_last_words=many(BYTES, set))

    def __init__(
        self,
        *,
        identity: Identity,
        store: Store,
        catalog: Catalog,
        gossip: Gossip,
        peering: Peering,
        wall: Wall,
    ) -> None:
        self._wall = wall
        self._identity = identity
        self._store = store
        self._catalog = catalog
        self._gossip = gossip
        self._peering = peering
        self._last_words: set[NodeId] = set()  # said in sessions that end with the next look
        self._news: Item | None = None

    @property
    def is_void(self) -> bool:
        """Whether this node's own certificate is worth nothing any more."""
        return not self._catalog.judge.trust.trusts(self._identity.certificate.issuer)

    def is_ending(self, node: NodeId | None) -> bool:
        """Whether a session is kept for its last word alone, because its certificate is void.

        One that comes up later was opened with a certificate that counts: by what is said in it,
        others learn of the node's new record.
        """
        return node in self._last_words

    def observe(self, item: Item) -> None:
        """An item took effect; `settle` follows when all that came with it did."""
        if item.key == AUTHORITIES_KEY:
            self._news = item

    def settle(self, now: float) -> list[Effect]:
        """Act on a list that took effect; nothing happens if there was none."""
        item, self._news = self._news, None
        if item is None:
            return []
        self._prune()
        nodes = {one.node for one in self._peering.sessions.keypairs.values()}
        nodes |= self._catalog.void.keys() | self._peering.paths.keys()
        effects: list[Effect] = []
        for node in sorted(node for node in nodes if node is not None):
            if self.is_void or node in self._catalog.void:
                effects += self._begin_cut(node, item, now)
            elif node not in self._catalog.nodes and node not in self._catalog.removed:
                # By which authority it was certified nobody remembers: it may prove itself again.
                effects += self._end(node, now)
        return effects

    def _prune(self) -> None:
        """Drop records that have no effect for want of a certificate. All stores do the same.

        Kept, they would be offered to nodes that joined later, which must refuse them.
        """
        catalog, local = self._catalog, self._identity.node
        for item in self._store.items(_RECORDS):
            node = node_of_key(item.key)
            in_effect = node in catalog.nodes or catalog.departed.get(NodeId(node or b""))
            if node != local and not in_effect:
                self._store.discard(item.key)

    def _begin_cut(self, node: NodeId, item: Item, now: float) -> list[Effect]:
        effects: list[Effect] = []
        void = self._catalog.void.get(node)
        if void is not None and self._gossip.state(node, now) is not None:
            self._gossip.remove_member(node)
            effects.append(Report("member.void", {"peer": void.name}))
        path = self._peering.paths.get(node)
        if path is None or path.keypair is None:
            # Also a handshake that is half done: it must not come up after this.
            return effects + self._end(node, now)
        self._last_words.add(node)
        return [*effects, SendControl(node, encode(Delta((item,))))]

    def on_look(self, now: float) -> list[Effect]:
        """End sessions whose last word is said, or whose time is over; once per second or so."""
        effects: list[Effect] = []
        for record in self._catalog.look(self._wall.at(now)):
            effects += [Report("member.expired", {"peer": record.name})]
            effects += self._end(record.node, now)
        ending, self._last_words = self._last_words, set()
        if self.is_void:
            ending |= self._peering.paths.keys()
        for node in sorted(ending):
            if self.is_void or node not in self._catalog.nodes:
                effects += self._end(node, now)
        return effects

    def _end(self, node: NodeId, now: float) -> list[Effect]:
        if node in self._peering.paths:
            return self._peering.lapse(node, now)
        self._peering.sessions.lapse(node)
        return []

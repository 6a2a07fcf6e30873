"""From gossip items to routes and peers: the one way in which the cluster's state takes effect.

    items learned --> catalog --> routes          (who owns which prefix, or takes packets there)
                          |-----> peers           (those we talk to: new addresses, gone members)
                          '-----> members         (whom to probe)

A removed node is told so, if there is a session to tell it in, and has none any more with the next
look at the peers. Nothing that it says counts from the removal on (`overlay.engine`). The same is
done with one whose certificate is void (`overlay.distrust`).

Everything derived follows from the catalog, which says what has changed: an item costs what it
changes, whatever the size of the cluster. The catalog's invariants compare that with all anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import node_of_key
from overlay.catalog.records import NodeRecord
from overlay.catalog.removals import removed_of_key
from overlay.distrust import Distrust
from overlay.effects import Effect, NetworkChanged, Report, SendControl
from overlay.forwarding.inbound import Inbound
from overlay.forwarding.outbound import Outbound
from overlay.gossip.machine import Gossip
from overlay.gossip.store import Store
from overlay.outside import Outside
from overlay.peering import Peering
from overlay.reminders import Reminders
from overlay.routing.table import Announcement, RouteTable
from overlay.types import NodeId
from overlay.wire.authority import AUTHORITIES_KEY
from overlay.wire.control import encode
from overlay.wire.handed import BYTES, SECONDS, Handed, part, table
from overlay.wire.items import Item
from overlay.wire.messages import Delta

TEND_INTERVAL: Final = 1.0
"""Between looks at the peers: who was heard by data alone, whose session is silent or idle."""

FAREWELL: Final = 5.0
"""Seconds that the session with a member is kept after it left. It repeats its last items until we
have confirmed them, for `Timing.leave_after` at most, and we can only confirm in a session."""

GREETED: Final = 16
"""Members that a node connects to when it starts: in a small cluster everybody. In a larger one its
neighbours: they are whom it had sessions with, unless it exchanged packets with others."""


class Knowledge:
    """Applies what gossip learned to everything that depends on it.

    Args:
        local: this node, which is neither its own peer nor its own member.
        outside: decides on outside routes.
        store, catalog: the items, and what they mean.
        gossip, peering: told about members.
        routes: derived from the catalog.
        outbound, inbound: their flow caches are emptied when routes change.
        distrust: acts on lists of authorities.
        restarted: acts on a peer that has started again, as its record with this boot says.
    """

    HANDED: ClassVar = Handed(_gone=table(BYTES, SECONDS), _distrust=part(Distrust))

    def __init__(
        self,
        *,
        local: NodeId,
        outside: Outside,
        store: Store,
        catalog: Catalog,
        gossip: Gossip,
        peering: Peering,
        routes: RouteTable,
        outbound: Outbound,
        inbound: Inbound,
        distrust: Distrust,
        restarted: Callable[[NodeId, int, float], list[Effect]],
    ) -> None:
        self._local = local
        self._restarted = restarted
        self._outside = outside
        self._store = store
        self._catalog = catalog
        self._gossip = gossip
        self._peering = peering
        self._routes = routes
        self._outbound = outbound
        self._inbound = inbound
        self._distrust = distrust
        self._gone: dict[NodeId, float] = {}  # members that left, and when to forget them
        self._reminders = Reminders(local, catalog, peering.paths)

    def restore(self, items: Iterable[Item], now: float) -> None:
        """Start from stored items, before any time is told; what does not verify is left out."""
        # Whose word counts first: the rest is judged by it.
        items = sorted(items, key=lambda item: item.key != AUTHORITIES_KEY)
        for item in self._store.merge(items):
            self._catalog.apply(item)
        # What was left out is to leave the disk, too.
        self._store.unstored = {item.key for item in items if self._store.get(item.key) != item}
        for node in list(self._catalog.nodes):
            self._introduce(node, now)
        self.reroute(now)

    def to_greet(self) -> list[NodeId]:
        """Members to connect to at start: what sessions they have with us from before are dead.

        Those who are not greeted notice that by the new record (`overlay.tending`).
        """
        others = [node for node in self._catalog.nodes if node != self._local]
        return others if len(others) <= GREETED else self._gossip.neighbours()

    def take_own(self, items: Iterable[Item], now: float) -> list[Effect]:
        """Items this node made itself take effect here."""
        effects: list[Effect] = []
        for item in items:
            self._catalog.apply(item)
            self._distrust.observe(item)
            effects += self._banish(item, now)
        effects += self._distrust.settle(now)
        own = self._catalog.nodes.get(self._local)
        if own is not None and not own.left:
            self._gossip.set_boot(own.boot)
        return effects + self.reroute(now)

    def take_learned(self, now: float) -> list[Effect]:
        """Items that gossip brought since the last call take effect; usually there are none."""
        learned = self._gossip.take_learned()
        if not learned:
            return []
        effects: list[Effect] = []
        for item in learned:
            node = node_of_key(item.key)
            before = None if node is None else self._catalog.nodes.get(node)
            self._catalog.apply(item)
            self._distrust.observe(item)
            effects += self._banish(item, now)
            if node is not None:
                effects += self._introduce(node, now)
            if before is not None:
                effects += self._compare(before, now)
        return effects + self._distrust.settle(now) + self.reroute(now)

    def _compare(self, before: NodeRecord, now: float) -> list[Effect]:
        """A record came where `before` was in force: has its node forgotten it, or begun anew?"""
        effects = self._reminders.compare(before)
        record = self._catalog.nodes.get(before.node)
        if record is not None and record.boot > before.boot and not record.left:
            effects += self._restarted(before.node, record.boot, now)
        return effects

    def _introduce(self, node: NodeId, now: float) -> list[Effect]:
        record = self._catalog.nodes.get(node)
        if record is None:
            return []
        node = record.node  # held once, not with each table that asks for it
        if node == self._local:
            # A copy of its state has, or it did itself before a backup was put back.
            return [Report("node.departed")] if record.left else []
        if record.left:
            return self._dismiss(record, now)
        self._gone.pop(node, None)
        self._peering.refresh(node)
        known = self._gossip.state(node, now) is not None
        effects = self._gossip.add_member(node, record.boot, now)
        if not known:
            effects.append(Report("member.known", {"peer": record.name}, debug=True))
        return effects

    def _dismiss(self, record: NodeRecord, now: float) -> list[Effect]:
        if self._gossip.state(record.node, now) is None:
            return []
        self._gossip.remove_member(record.node)
        self._gone[record.node] = now + FAREWELL
        return [Report("member.left", {"peer": record.name})]

    def _banish(self, item: Item, now: float) -> list[Effect]:
        node = removed_of_key(item.key)
        if node is None:
            return []
        effects: list[Effect] = [
            Report("member.removed", {"peer": self._catalog.removed[node].name})
        ]
        self._gossip.remove_member(node)
        path = self._peering.paths.get(node)
        if path is None or path.keypair is None:
            # Also a handshake that is half done: it must not come up after this.
            return effects + self._peering.forget(node, now)
        self._gone[node] = now
        effects.append(SendControl(node, encode(Delta((item,)))))
        return effects

    def forget_gone(self, now: float) -> list[Effect]:
        """Let go of members that left a while ago."""
        effects: list[Effect] = []
        for node in [node for node, at in self._gone.items() if now >= at]:
            del self._gone[node]
            effects += self._peering.forget(node, now)
        return effects

    def tend(self, now: float) -> list[Effect]:
        """Packets prove life as well as probes do."""
        effects = self.forget_gone(now) + self._distrust.on_look(now)
        effects += self._reminders.on_look() + self.reroute(now)
        for node in self._outside.to_call():
            effects += self._peering.connect(node, now)
        for node, path in self._peering.paths.items():
            if path.heard_at is not None and now - path.heard_at <= TEND_INTERVAL:
                effects += self._gossip.on_heard(node, path.heard_at, now)
        return effects

    def reroute(self, now: float) -> list[Effect]:
        """Follow the catalog's routes; NetworkChanged if they are not what they were."""
        blocks, outside = self._catalog.take_route_changes(), self._outside.take_changes(now)
        effects = self._outside.take_reports()
        if not any((*blocks, *outside)):
            return effects
        added = [Announcement(prefix, node, "block") for prefix, node in blocks.added]
        added += [Announcement(prefix, node, "advertised") for prefix, node in outside.added]
        changes = self._routes.update(added, (*blocks.removed, *outside.removed), now)
        effects += self._readdress(now) if any(outside) else []
        if not changes.added and not changes.removed:
            return effects
        self._outbound.forget_flows()
        self._inbound.forget_flows()
        return [NetworkChanged(), *effects]

    def _readdress(self, now: float) -> list[Effect]:
        """Other addresses of members are of use: what was begun with one that is not, ends."""
        effects: list[Effect] = []
        for node in self._outside.affected():
            path = self._peering.paths.get(node)
            if path is not None and path.keypair is None:
                effects += self._peering.lapse(node, now)
            self._peering.refresh(node)
        return effects

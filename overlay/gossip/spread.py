"""How items travel: news to the neighbours by id, whoever lacks it asks, and stores are compared.

    an own item changed      small: the item itself, to all neighbours; else as news
    an item was new here     news: its id to each neighbour that has not offered it
    ids that are unknown     wanted: asked for, of one of those that offered them
    every gossip interval    the roots of all this node has, to one random neighbour

News for one neighbour goes at once if none went lately, and else together with what comes within
`offer_interval`; so do wants. After many ids the wait is up to three times as long. So a single
change takes a round trip per hop, and many at once take few messages. News goes once; what is lost
on the way, another neighbour offers too, and what nobody offered is found by comparing stores. News
of a key that changes all the time does not go (`damping`): it is left to that comparison.

References:
    Demers et al. 1987: rumours for speed, anti-entropy for certainty.
    Bitcoin's inventory messages (`inv`, `getdata`): ids first, so that an item crosses each link
    of a flood at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Final

from overlay.agenda import earliest
from overlay.complaints import Complaints
from overlay.config import Timing
from overlay.debts import Debts
from overlay.faults import Fault
from overlay.gossip.damping import Damping
from overlay.gossip.letter import Action, Letter
from overlay.gossip.store import Store
from overlay.gossip.sync import (
    MESSAGES_PER_TURN,
    NOTHING,
    blobs_of,
    compare,
    deltas_of,
    details_of,
    differing,
    ids_in,
    ids_of,
    wanted_items,
)
from overlay.gossip.wanted import Wanted
from overlay.types import NodeId
from overlay.wire.handed import Handed, part
from overlay.wire.items import ID_SIZE, Item
from overlay.wire.messages import Buckets, Delta, Have, Ids, Summary, Want

# -- implementation --------------------------------------------------------------------------------

PUSHED_BYTES: Final = 1_000
"""Own items up to this size go whole: a datagram more saves the neighbours a round trip."""

NEWS_LIMIT: Final = 4096
"""Ids that wait to be offered to one neighbour. What is not offered is found by comparing."""

MANY: Final = 8
"""Ids in one turn for which the wait for the next becomes longer by one more interval."""

LONGEST: Final = 3
"""Intervals waited at most: a mass join of 1,000 nodes has several hundred ids per interval, and a
message costs as much as many of them."""

COMPARE_FOR: Final = 2.0
"""Seconds for which one comparison keeps others from beginning, unless it ends before: a node that
starts with little differs from all its neighbours, and one of them is enough. Whoever had that time
while others were turned away rests as long for each of them, `MOST_DENIED` at most: however many
liars take turns, those who were turned away get theirs."""

MOST_DENIED: Final = 8
"""Nodes turned away that one who compared makes room for: as many as a node has neighbours."""

ANSWERS: Final = 1_000_000.0
"""Bytes of items per second that one node gets for its wants; of a large store, more."""

ANSWERS_AHEAD: Final = 20.0
"""Seconds of that at once: who comes back wants all there is."""

FULL_ANSWERS: Final = 2
"""All there is, so often at once, is what one node gets at least, however much it is."""


ItemMessage = Buckets | Ids | Have | Want | Delta


def _intervals(ids: int) -> int:
    """Offer intervals to wait after so many ids went out."""
    return min(1 + ids // MANY, LONGEST)


class _Outbox:
    """What one neighbour is still to be offered, and from when on."""

    __slots__ = ("free_at", "ids")

    def __init__(self) -> None:
        self.ids: dict[bytes, None] = {}
        self.free_at = float("-inf")


class Spread:
    """The items of one node, on their way in and out.

    Error contract: nothing received raises.

    Args:
        store: the items.
        timing: `offer_interval`, `want_retry`.
        neighbours: who is offered news at present.
        round_trip: seconds to a node and back; 0 if that is not known.
        complaints: the book of what members did wrong.

    Attributes:
        store: the items.
        damping: which keys change too often to be offered.
        muted: whether own items are kept from others (see `Gossip.mute`).
        learned: items of others that were new, until somebody takes them.
    """

    __slots__ = (
        "_answered",
        "_ask_at",
        "_comparing",
        "_complaints",
        "_denied",
        "_flush_at",
        "_may_ask_at",
        "_neighbours",
        "_outboxes",
        "_own_keys",
        "_rests",
        "_timing",
        "_wanted",
        "damping",
        "learned",
        "muted",
        "store",
    )

    HANDED: ClassVar = Handed(damping=part(Damping), store=part(Store))

    def __init__(
        self,
        store: Store,
        timing: Timing,
        neighbours: Callable[[], Collection[NodeId]],
        round_trip: Callable[[NodeId], float],
        complaints: Complaints | None = None,
    ) -> None:
        self.store = store
        self._complaints = complaints or Complaints()
        self._answered: Debts[NodeId] = Debts(ANSWERS_AHEAD)
        self.damping = Damping()
        self.muted = False
        self.learned: list[Item] = []
        self._timing = timing
        self._neighbours = neighbours
        self._flush_at: float | None = None
        self._ask_at: float | None = None  # when what is wanted may be asked for
        self._may_ask_at = float("-inf")
        self._wanted = Wanted(timing, round_trip)
        self._outboxes: dict[NodeId, _Outbox] = {}
        self._own_keys: set[bytes] = set()
        self._comparing: tuple[NodeId, float, float] | None = None  # the last: with whom, from, to
        self._denied: set[NodeId] = set()  # who was turned away meanwhile
        self._rests: dict[NodeId, float] = {}  # who leaves others their turn, and until when

    @property
    def hidden(self) -> Collection[bytes]:
        """Keys not to be spoken of."""
        return self._own_keys if self.muted else NOTHING

    # -- own items ---------------------------------------------------------------------------------

    def keep(self, items: Sequence[Item]) -> list[Item]:
        """Keep own items; returns those that were new.

        Raises:
            CapacityError: the store is full; items in front of the one that no longer fitted are
                kept. Nothing else.
        """
        changed = [item for item in items if self.store.put(item)]
        self._own_keys.update(item.key for item in items)
        return changed

    def publish(self, items: Sequence[Item], now: float) -> list[Action]:
        """Keep own items and tell the neighbours. Raises as `keep`."""
        changed = self.keep(items)
        if self.muted or not changed:
            return []
        changed = [item for item in changed if self.damping.on_change(item.key, now)]
        if sum(len(item.key) + len(item.body) for item in changed) > PUSHED_BYTES:
            neighbours = self._neighbours()
            for item in changed:
                self._tell(self.store.name(item), neighbours)
            return self._flush(now)
        deltas = deltas_of(changed)
        return [Letter(node, delta) for node in self._neighbours() for delta in deltas]

    # -- input -------------------------------------------------------------------------------------

    def on_message(self, node: NodeId, message: ItemMessage, now: float) -> list[Action]:
        """A member's message about items."""
        match message:
            case Buckets():
                return self.on_buckets(node, message, now)
            case Ids():
                return self.on_ids(node, message, now)
            case Have():
                return self.on_have(node, message, now)
            case Want():
                return self.on_want(node, message, now)
            case Delta():
                return self.on_delta(node, message, now)

    def on_have(self, node: NodeId, message: Have, now: float) -> list[Action]:
        """A member has these; ask for what is unknown."""
        ids = ids_in(message.ids)
        outbox = self._outboxes.get(node)
        if outbox is not None and outbox.ids:
            for one in ids:
                outbox.ids.pop(one, None)
        if message.confirm:
            # A refusal is no reason to say that it is here; and it is asked of this node alone.
            lacking = [o for o in ids if not (self.store.holds(o) or o in self.store.superseded)]
            return [Letter(node, Want(b"".join(lacking)))]
        for one in ids:
            if self.store.lacks(one):
                self._wanted.offer(node, one)
        return self._ask(now)

    def on_want(self, node: NodeId, message: Want, now: float) -> list[Action]:
        """A member lacks these; nothing is sent to one that has got too much already."""
        if self._answered.is_spent(node, now):
            why = "it asks for more items than a member may"
            self._complaints.note(node, Fault.GOSSIP_FLOOD, now, why)
            return []
        deltas = deltas_of(wanted_items(self.store, message.ids, self.hidden))
        size = sum(len(item.key) + len(item.body) for delta in deltas for item in delta.items)
        rate = max(ANSWERS, self.store.size * FULL_ANSWERS / ANSWERS_AHEAD)
        self._answered.spend(node, size / rate, now)
        return [Letter(node, delta) for delta in deltas]

    def on_delta(self, node: NodeId, message: Delta, now: float) -> list[Action]:
        """Items came: keep what is new, and pass the news on."""
        new = self.store.merge(message.items)
        have = {one: self._wanted.got(one) for one in map(self.store.name, message.items)}
        if self._comparing is not None and not self._wanted:
            other, begun, end = self._comparing
            self._comparing = other, begun, min(now, end)
        self.learned += new
        neighbours = [one for one in self._neighbours() if one != node]
        hidden = self.hidden
        for item in new:
            if item.key not in hidden and self.damping.on_change(item.key, now):
                one = self.store.name(item)
                self._tell(one, neighbours, without=have[one])
        return self._flush(now) + self._ask(now)

    # -- comparing ---------------------------------------------------------------------------------

    def on_summary(self, node: NodeId, message: Summary) -> list[Action]:
        """A member says what it holds, in one hash; if we hold something else, say it in more."""
        if message.root == self.store.root():
            return []
        return [Letter(node, details_of(self.store, self.hidden))]

    def on_buckets(self, node: NodeId, message: Buckets, now: float) -> list[Action]:
        """A member holds something else than we do: list what we have where that differs."""
        ids = ids_of(self.store, differing(self.store, message), self.hidden)
        return [] if ids is None or not self._compare(node, now) else [Letter(node, ids)]

    def on_ids(self, node: NodeId, message: Ids, now: float) -> list[Action]:
        """A member lists what it has in some buckets: ask for what it has more, offer the rest."""
        if not message.buckets and not self._compare(node, now):
            return []  # all it has, in answer to our summary
        lacking, surplus = compare(self.store, message, self.hidden)
        for one in lacking:
            self._wanted.offer(node, one)
        offers = [Letter(node, Have(blob)) for blob in blobs_of(surplus)[:MESSAGES_PER_TURN]]
        return [*self._ask(now), *offers]

    def is_busy(self, node: NodeId, now: float) -> bool:
        """Whether a comparison with another one than `node` is under way."""
        busy = self._comparing
        return busy is not None and busy[0] != node and now < busy[2]

    def _compare(self, node: NodeId, now: float) -> bool:
        """Begin a comparison with `node`, or go on with it; False if it is another one's turn."""
        if self.is_busy(node, now):
            self._denied.add(node)
            return False
        if self._comparing is not None:
            last, begun, end = self._comparing
            if last == node and now < end:
                return True
            if others := self._denied - {last}:
                self._rests[last] = end + (end - begun) * min(len(others), MOST_DENIED)
                self._denied = set()
        if now < self._rests.get(node, now):
            return False
        self._comparing = (node, now, now + COMPARE_FOR)
        return True

    # -- output ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while nothing waits."""
        return earliest(self._wanted.next_deadline(), self._flush_at, self._ask_at)

    def on_deadline(self, now: float) -> list[Action]:
        """Offer what waited, ask again for what did not come."""
        self.store.superseded.on_time(now)
        self.store.unwelcome.on_time(now)
        self.damping.on_time(now)
        self._answered.expire(now)
        if self._rests:
            self._rests = {node: until for node, until in self._rests.items() if until > now}
        self._wanted.on_deadline(now)
        if self._flush_at is None or now < self._flush_at:
            return self._ask(now)
        return self._flush(now) + self._ask(now)

    def _tell(
        self, one: bytes, neighbours: Collection[NodeId], without: Collection[NodeId] = ()
    ) -> None:
        """Offer an item that is held to these neighbours, those left out that have it."""
        outboxes = self._outboxes
        for node in neighbours:
            if node in without:
                continue
            outbox = outboxes.get(node)
            if outbox is None:
                outbox = outboxes[node] = _Outbox()
            if len(outbox.ids) < NEWS_LIMIT:
                outbox.ids[one] = None

    def _flush(self, now: float) -> list[Action]:
        """Offer what waits to whom nothing was offered lately."""
        self._flush_at = None
        neighbours, hidden = self._neighbours(), self.hidden
        letters: list[Action] = []
        for node, outbox in list(self._outboxes.items()):
            if node not in neighbours:
                del self._outboxes[node]
            elif outbox.ids:
                at = outbox.free_at
                if now < at:
                    self._flush_at = at if self._flush_at is None else min(self._flush_at, at)
                    continue
                # What was superseded while it waited is news no more; what is muted never was.
                held = [one for one in outbox.ids if self.store.holds(one)]
                if hidden:
                    held = [one for one in held if self.store.key_of(one) not in hidden]
                letters += [Letter(node, Have(blob)) for blob in blobs_of(held)]
                outbox.ids.clear()
                outbox.free_at = now + self._timing.offer_interval * _intervals(len(held))
        return letters

    def _ask(self, now: float) -> list[Action]:
        """Ask for what waits, together with what comes until the last time is long enough ago."""
        self._ask_at = None
        if not self._wanted.is_waiting:
            return []
        if now < self._may_ask_at:
            self._ask_at = self._may_ask_at
            return []
        asked = self._wanted.ask(now)
        if asked:
            many = sum(len(want.ids) for _, want in asked) // ID_SIZE
            self._may_ask_at = now + self._timing.offer_interval * _intervals(many)
        return [Letter(node, want) for node, want in asked]

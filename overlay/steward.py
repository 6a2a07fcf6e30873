"""Acts on what this node holds: requests of members, joiners and operators, and the disk.

    request --> check --> change in memory --> Persist --> announce
                  |                               |
                  '-- refused: nothing changed    '-- failed: nothing announced, mute until it works

Every change takes effect here first, is stored next, and is told to others last. The methods
return effects that the engine settles.

Error contract: RefusedError, CapacityError and ConfigError are for whoever asked, and nothing has
changed then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overlay.admission import Registrar
from overlay.agenda import earliest
from overlay.catalog.keys import block_of_deed
from overlay.catalog.removals import removal_key
from overlay.conflict import Conflict, Standing
from overlay.effects import Effect, Left, NetworkChanged, Persist, Report, SendControl
from overlay.errors import RefusedError
from overlay.farewell import Farewell
from overlay.landlord import Landlord
from overlay.pace import COUNT_WAITS, Pace
from overlay.parts import Parts
from overlay.removing import Remover
from overlay.resting import restore_rests
from overlay.session.transport import Keypair
from overlay.state import NodeState as StoredState
from overlay.storing import Storing
from overlay.types import Endpoint, NodeId, Prefix
from overlay.wire.authority import AUTHORITIES_KEY
from overlay.wire.certificate import Identity
from overlay.wire.cluster import Cluster
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import BlockRequest, Delta, JoinRequest, Refusal

PERSIST_DELAY: Final = 1.0
"""What gossip brought is stored this much later: it can be learned again, so a burst of changes
costs one write. What is ours to lose is stored at once."""

JOIN_ITEMS_SIZE: Final = 32_000
"""Bytes of items a joiner gets to start with; gossip brings the rest."""

JOIN_MOST: Final = 58_000
"""Bytes of items that fit a grant, beside what else is in it."""


class Steward:
    """Looks after one node's holdings.

    Args:
        parts, identity, cluster: the machines of the node, and who it is.
        disk: what it holds.

    Attributes:
        conflict: knows whether another machine has this node's identity.
        not_stored: why the state could not be stored; empty while it can.
        persist_at: when the state is to be stored again, or None.
        landlord: moves blocks.
        farewell, pace: end this node's membership; when it announces.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        identity: Identity,
        cluster: Cluster,
        disk: StoredState,
    ) -> None:
        self.parts = parts
        self.identity = identity
        self.cluster = cluster
        self.not_stored = ""
        self._failed_at: float | None = None
        self.persist_at: float | None = None
        self.landlord = Landlord(parts, local=identity.node, cluster=cluster)
        self.farewell = Farewell(parts, identity.node, cluster)
        self._remover = Remover(parts, identity)
        self._seen_generation = 0
        self.pace = Pace(parts.record_interval)
        self._storing = Storing(parts, disk)
        self._rests = disk.resting
        self.conflict = Conflict(parts, Standing(disk.standing))

    def start(self, now: float) -> list[Effect]:
        """Use the stored block, or any owned one, or seek one; announce the record.

        A node that was leaving when it stopped goes on with that, and makes no record any more.
        """
        epoch, allocator = self.parts.wall.epoch, self.parts.holdings.allocator
        restore_rests(allocator, self._rests, epoch, now)
        if self.parts.holdings.left:
            self.farewell.resume()
            return [self.persist(), *self.farewell.say(now)]
        self.conflict.start(now)
        if self.conflict.frozen:
            return self.own_changed(now)
        tidied = self.landlord.tidy(now)
        return [*self.own_changed(now, *tidied.deeds), *tidied.reports]

    # -- what this node holds ------------------------------------------------------------------

    def own_changed(self, now: float, *deeds: Item, wait: float | None = None) -> list[Effect]:
        """Something changed: let it take effect, store it, tell all; the record may `wait` (s)."""
        parts = self.parts
        changed = parts.knowledge.take_own(deeds, now)
        self._seen_generation = parts.catalog.generation
        content, holdings = self.conflict.content, parts.holdings
        if (content is not None and content.conflict) or holdings.left or holdings.ended:
            self.pace.on_announced(now)
            return [self.persist(), NetworkChanged(), *changed]  # all is said already
        news = list(deeds)
        if wait is None or parts.seeker.seeking or self.pace.on_change(now, wait):
            self.pace.on_announced(now)
            news.append(parts.record.make(conflict=self.conflict.frozen, content=content))
            changed += parts.knowledge.take_own(news[-1:], now)
            parts.record.versions.note_made()
        announce = parts.gossip.publish(news, now) if news else []
        return [self.persist(), NetworkChanged(), *changed, *announce]

    @property
    def told(self) -> bool:
        """Whether the record says all there is: nothing waits to be announced."""
        return self.pace.due_at is None

    def learn(self, now: float) -> list[Effect]:
        """Let what gossip brought take effect; take a block into use if one was sought."""
        parts = self.parts
        effects = parts.knowledge.take_learned(now)
        if self.persist_at is None and parts.store.unstored:
            self.persist_at = now + PERSIST_DELAY
        if (found := self.conflict.look(now)) is not None:
            answer, done = found
            effects += [*(self.own_changed(now) if answer else [self.persist()]), *done]
        if parts.catalog.generation == self._seen_generation:
            return effects
        self._seen_generation = parts.catalog.generation
        return effects + self.tidy(now)

    def tidy(self, now: float) -> list[Effect]:
        """Put blocks in order; tell others what they must know of that, or of what we learned.

        They must know where to ask for a block, and whose removal we know of.
        """
        if self.not_stored or self.conflict.frozen:
            return []  # what would be signed now could not be kept, or may be signed twice
        tidied = self.landlord.tidy(now)
        outdated = self.parts.record.is_outdated() and not self.parts.holdings.left
        if not tidied.changed:
            # The record can wait, but not that of one who asks for a block: it is judged by it.
            due = outdated and self.pace.on_change(now, COUNT_WAITS)
            due |= self.parts.seeker.seeking and self.pace.due_at is not None
            return [*(self.own_changed(now) if due else ()), *tidied.reports]
        return [*self.own_changed(now, *tidied.deeds), *tidied.reports]

    def claim(self, now: float) -> list[Effect]:
        """The operator says: this is the only machine with this identity.

        Raises:
            RefusedError: `not-stored`, `node-removed`, `node-left`, and those of
                `Conflict.claim`. Nothing else.
        """
        self.check_storable()
        if self.parts.holdings.ended is not None:
            self.parts.holdings.ended.refuse()
        done = self.conflict.claim(now)
        tidied = self.landlord.tidy(now)
        return [*self.own_changed(now, *tidied.deeds), *tidied.reports, *done]

    def on_block_request(self, node: NodeId, request: BlockRequest, now: float) -> list[Effect]:
        """A member asks for a block: sign one over to it, or say why not."""
        holdings = self.parts.holdings
        if self.not_stored:
            return [SendControl(node, encode(_not_stored(request.request)))]
        try:
            self.conflict.check_met(now)
            deed = holdings.give(node, request.request)
            if not self.parts.store.fits(deed.key):
                raise RefusedError("store-full", "this node cannot remember another deed")
        except RefusedError as refused:
            answer = Refusal(request.request, refused.code, str(refused))
            return [SendControl(node, encode(answer))]
        answer_deed = SendControl(node, encode(Delta((deed,))))
        if self.parts.store.get(deed.key) == deed:
            return [answer_deed]  # asked again: it was stored and announced the first time
        effects = [*self.own_changed(now, deed, wait=COUNT_WAITS), answer_deed]
        block = str(self.parts.plan.prefix4(block_of_deed(deed)))
        effects.append(Report("block.given", {"peer": self.parts.name_of(node), "prefix": block}))
        return effects

    def persist(self) -> Persist:
        """Store what differs from what is stored."""
        return self._storing.persist(self.conflict.standing)

    def on_persist_failed(self, lost: Sequence[Persist], why: str, now: float) -> list[Effect]:
        """The state could not be stored: nothing of ours is announced until it can.

        What was lost is part of the next `Persist`.
        """
        self._storing.refuse(lost)
        again = self._failed_at is not None and now - self._failed_at <= 2 * PERSIST_DELAY
        self._failed_at = now
        self.not_stored = why
        self.persist_at = now + PERSIST_DELAY
        self.parts.gossip.mute(True)
        # The driver has discarded what was to be sent, but not what waits for a session.
        self.parts.peering.drop_waiting()
        self.farewell.hush(now)
        return [] if again else [Report("state.not-stored", {"why": why})]

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        # What must not be signed now (`tidy`) is not due again and again.
        waits = self.not_stored or self.conflict.frozen
        tidy_at = None if waits else self.landlord.next_deadline()
        return earliest(self.persist_at, self.pace.due_at, tidy_at)

    def on_deadline(self, now: float) -> list[Effect]:
        """Store what has waited, or try again what failed; announce; end a leave that is over."""
        if self.persist_at is not None and now >= self.persist_at:
            return self._store_again(now)
        if self.pace.is_due(now):
            return self.own_changed(now)
        # A leave that is not stored has not happened: nobody was told.
        if self.farewell.is_over() and not self.not_stored:
            effects = self.farewell.end(now)
            return [self.persist(), *effects] if self.parts.holdings.told else effects
        idle_at = self.landlord.next_deadline()
        return self.tidy(now) if idle_at is not None and now >= idle_at else []

    def _store_again(self, now: float) -> list[Effect]:
        # Optimistic: if it fails again, the driver discards what follows and says so.
        self.persist_at = None
        effects: list[Effect] = [self.persist()]
        if self.not_stored:
            self.not_stored = ""
            self.parts.gossip.mute(False)
            effects += self.farewell.say(now) if self.farewell.open else []
            effects += self.tidy(now)  # a block that came meanwhile is not mentioned again
        return effects

    def check_storable(self) -> None:
        """Whether anything can be stored at present.

        Raises:
            RefusedError: `not-stored`. Nothing else.
        """
        if self.not_stored:
            what = f"the state folder cannot be written ({self.not_stored})"
            raise RefusedError("not-stored", what, "mend it")

    def check_may_give(self) -> None:
        """Whether this node may hand anything out.

        Raises:
            RefusedError: `not-stored`, `identity-conflict`. Nothing else.
        """
        self.check_storable()
        self.conflict.check()

    # -- joining -------------------------------------------------------------------------------

    def on_join_request(
        self, keypair: Keypair, request: JoinRequest, source: Endpoint, now: float
    ) -> list[Effect]:
        """A joiner asks to be made a member: certify it, or say why not."""
        registrar = self.parts.registrar
        if registrar is None or keypair.joiner is None or keypair.joiner_token is None:
            return []
        if not self.conflict.has_met(now):
            return []  # it asks again
        try:
            self.conflict.check()
        except RefusedError as refused:
            refusal = Refusal(request.request, refused.code, str(refused))
            return self.parts.peering.answer(keypair, source, refusal)
        if self.not_stored:
            # Also when the token admitted this very node: that may be what was not stored.
            return self.parts.peering.answer(keypair, source, _not_stored(request.request))
        if request.static != keypair.joiner_static:
            refusal = Refusal(
                request.request, "bad-key", "the request names another static key than was used"
            )
            return self.parts.peering.answer(keypair, source, refusal)
        decision = registrar.on_join_request(
            request,
            token=keypair.joiner_token,
            joiner=keypair.joiner,
            items=self.items_for_joiner(),
            gone=self.gone_names(registrar),
            wall=self.parts.wall.at(now),
            removed=self.parts.catalog.removed,
        )
        effects: list[Effect] = [self.persist()] if decision.changed else []
        if decision.changed:
            name = {"node": request.name, "endpoint": str(source)}
            effects.append(Report("node.admitted", name))
        return effects + self.parts.peering.answer(keypair, source, decision.answer)

    def items_for_joiner(self, limit: int = JOIN_ITEMS_SIZE) -> tuple[Item, ...]:
        """For a new node: authorities, our record, removals, others' records; `limit` bytes."""
        store = self.parts.store
        first = [store.get(key) for key in (AUTHORITIES_KEY, self.parts.own_key)]
        items = [item for item in first if item is not None]
        size = sum(len(item.body) for item in items)
        if size > JOIN_MOST:  # the list and our record, both long: others' must do
            items, size, limit = items[:1], len(items[0].body), JOIN_MOST
        # Who is removed first: a newcomer that has not heard of it would be waited for.
        removals = store.items(removal_key(self.identity.node)[:1])
        for item in (*removals, *store.items(self.parts.own_key[:1])):
            taken = len(item.body) + len(item.key) + 16
            if item.key != self.parts.own_key and size + taken <= limit:
                items.append(item)
                size += taken
        return tuple(items)

    def gone_names(self, registrar: Registrar) -> frozenset[str]:
        """Names that are free again: their last holder has left, or was removed."""
        # The name of one that left may have been given to another since, which is alive.
        catalog = self.parts.catalog
        registrar.heed(record.certificate for record in catalog.nodes.values())
        left = [(record.name, node) for node, record in catalog.nodes.items() if record.left]
        left += [(removal.name, node) for node, removal in catalog.removed.items()]
        return frozenset(name for name, node in left if registrar.holder(name) == node)

    # -- operator's requests -------------------------------------------------------------------

    def leave(self, now: float) -> list[Effect]:
        """Hand all blocks back and tell the others.

        `Left` follows when they know, or when time is up and one does. Asking again is harmless.

        Raises:
            RefusedError: see `Farewell.begin`; `not-stored`, `identity-conflict`. Nothing else.
        """
        self.check_may_give()
        parts = self.parts
        if parts.holdings.left:
            return [] if self.farewell.open else [Left(parts.gossip.offer_confirmed)]
        changed = self.farewell.begin(now)
        offer = self.farewell.say(now)
        self.pace.on_announced(now)
        return [self.persist(), *changed, *offer]

    def remove(self, name: str, now: float, *, force: bool) -> list[Effect]:
        """Declare a node dead for ever: revoke its certificate, take its blocks when all know.

        Raises:
            RefusedError: see `Remover.prepare`; `not-stored`, `identity-conflict`. Nothing else.
        """
        self.check_may_give()
        wall = self.parts.wall.at(now)
        removal = self._remover.prepare(name, force=force, wall=wall, now=now)
        report = Report("node.removed", {"node": name})
        return [*self.own_changed(now, removal), report, *self.tidy(now)]

    def on_endpoints(self, endpoints: tuple[Endpoint, ...], now: float) -> list[Effect]:
        """This machine's underlay addresses changed."""
        if endpoints == self.parts.record.endpoints:
            return []
        self.parts.record.endpoints = endpoints
        return self.own_changed(now, wait=0.0)

    def on_routes(self, routes: tuple[Prefix, ...], now: float) -> list[Effect]:
        """The operator wants other outside routes advertised."""
        if routes == self.parts.record.routes:
            return []
        self.parts.record.routes = routes
        return self.own_changed(now, wait=0.0)

    def on_crossed(self, crossed: tuple[Prefix, ...], now: float) -> list[Effect]:
        """The machine reaches other parts of the cluster's ranges by itself than before."""
        if crossed == self.parts.record.crossed:
            return []
        self.parts.record.crossed = crossed
        return self.own_changed(now)


def _not_stored(request: int) -> Refusal:
    """What others are told; why is this node's own business."""
    return Refusal(request, "not-stored", "this node cannot store anything at the moment")

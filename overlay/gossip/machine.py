"""The gossip machine of one node: items in and out (`spread`), who lives (`liveness`), as one.

    own change, news     ids to the neighbours; who lacks an item asks for it
    Summary              each `gossip_interval` to one random neighbour: repairs whatever was lost
    Probe                each `probe_interval` to one subject: who is alive, how far, how lossy
    claims               on the back of all of these: who is suspect, dead, alive again

A node's cost per second does not grow with the cluster: it has eight neighbours, and everything
that goes out regularly goes to one or a few of them.

References:
    Demers et al. 1987, "Epidemic algorithms for replicated database maintenance": rumours for
    speed, anti-entropy for certainty.
    SWIM (Das et al. 2002), Lifeguard (Dadgar et al. 2018): see `liveness`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from overlay.agenda import earliest
from overlay.config import Timing
from overlay.effects import Effect, Report, SendControl
from overlay.gossip.letter import Action, GossipMessage, Letter
from overlay.gossip.liveness import Liveness
from overlay.gossip.local import LocalNode
from overlay.gossip.member import MemberView
from overlay.gossip.offer import Offer
from overlay.gossip.spread import Spread
from overlay.gossip.store import Store
from overlay.gossip.sync import deltas_of
from overlay.types import NodeId, short_id
from overlay.views import NodeState
from overlay.wire.claims import ClaimState
from overlay.wire.control import encode
from overlay.wire.handed import BYTES, Handed, Values, many, part
from overlay.wire.items import Item
from overlay.wire.messages import (
    Buckets,
    Claims,
    Delta,
    Ids,
    IndirectProbe,
    IndirectReply,
    Probe,
    ProbeReply,
    Summary,
    Want,
)

# -- implementation --------------------------------------------------------------------------------

JITTER: Final = 0.25
"""Each wait for the next summary is `gossip_interval`, give or take this share of it, so that
nodes that started together do not stay in step."""

STRANGERS: Final = 2
"""Neighbours to tell things to as long as none was met: one may be dead. Those tell all others."""

CLAIMS_PER_TURN: Final = 256
"""Claims in answer to a summary with another claims' root: 30 kB. In a large cluster of which many
were suspect once, several rounds bring the rest."""


class Gossip:
    """What one node says and hears about the cluster's items and members.

    Four verbs, and `take_learned`: items that merging brought in since it was last called, for
    whoever knows what they mean. Everything sent is a `SendControl` effect.

    Error contract: a message changes nothing but the store (admitted items), what is believed and
    known of members, and an open offer. Nothing received raises.

    Args:
        local: this node, and how claims are proven.
        store: the replicated items.
        timing: all intervals.
        rng: draws partners and jitter.
        name_of: how a member is called in reports.
    """

    __slots__ = (
        "_liveness",
        "_met",
        "_name_of",
        "_offer",
        "_rng",
        "_spread",
        "_summary_at",
        "_timing",
    )

    HANDED: ClassVar = Handed(_liveness=part(Liveness), _spread=part(Spread), _met=many(BYTES, set))

    def __init__(
        self,
        local: LocalNode,
        store: Store,
        timing: Timing,
        rng: random.Random,
        name_of: Callable[[NodeId], str] = short_id,
    ) -> None:
        self._timing = timing
        self._rng = rng
        self._name_of = name_of
        self._liveness = Liveness(local, timing, rng, name_of)
        round_trip = self._liveness.hearsay.members.round_trip
        self._spread = Spread(store, timing, self._partners, round_trip, local.complaints)
        self._met: set[NodeId] = set()  # members that something came from
        self._offer: Offer | None = None
        self._summary_at: float | None = None

    # -- members -----------------------------------------------------------------------------------

    def add_member(self, node: NodeId, boot: int, now: float) -> list[Effect]:
        """A record of `node` with this boot is known: gossip with it, and about it, from now on.

        A greater boot than the last one says that it started again: it lives. Otherwise nothing
        happens when it is a member already.
        """
        if self._summary_at is None:
            self._summary_at = now + self._rng.uniform(0.0, self._timing.gossip_interval)
        return self._post(self._liveness.add(node, boot, now))

    def remove_member(self, node: NodeId) -> None:
        """Forget `node`: it has left. Nothing happens if it was no member."""
        self._liveness.remove(node)
        self._met.discard(node)
        if self._offer is not None:
            self._offer.drop(node)
        if not self._liveness.hearsay.members:
            self._summary_at = None

    def inherit(self, values: Values) -> None:
        """Go on from what another process of this node knew. All members must be added before."""
        self.HANDED.put(self, values)
        hearsay = self._liveness.hearsay
        members, rings = hearsay.members, hearsay.rings
        hearsay.accused = {n: at for n, at in hearsay.accused.items() if n in members}
        hearsay.dead = {node: None for node in hearsay.dead if node in members}
        for node in members.notable():
            if node in hearsay.dead:
                rings.remove(node)
            else:
                rings.suspect(node, members.claim(node).state is not ClaimState.ALIVE)

    def set_boot(self, boot: int) -> None:
        """This node's own record has this boot."""
        self._liveness.hearsay.set_boot(boot)

    def on_heard(self, node: NodeId, at: float, now: float) -> list[Effect]:
        """Something authenticated came from `node` at `at`, now or in the recent past."""
        return self._post(self._liveness.on_heard(node, at, now))

    def state(self, node: NodeId, now: float) -> NodeState | None:
        """Whether a member is ready, suspect or dead; None for a node that is no member."""
        members = self._liveness.hearsay.members
        return members.state(node, now) if node in members else None

    def is_dead(self, node: NodeId) -> bool:
        """Whether a member is believed dead."""
        return node in self._liveness.hearsay.dead

    def unreached(self, now: float) -> list[NodeId]:
        """Subjects that live, others say, though probes of this node fail: the way is broken."""
        hearsay = self._liveness.hearsay
        views = ((node, hearsay.members.view(node, now)) for node in hearsay.rings.subjects())
        return [n for n, v in views if v and v.state is NodeState.READY and not v.reached]

    def neighbours(self) -> list[NodeId]:
        """Members that this node gossips with: eight in a large cluster, all in a small one."""
        return list(self._liveness.hearsay.rings.neighbours())

    def snapshot(self, now: float) -> Mapping[NodeId, MemberView]:
        """All members as they are now."""
        members = self._liveness.hearsay.members
        views = ((node, members.view(node, now)) for node in members.nodes())
        return {node: view for node, view in views if view is not None}

    def counters(self) -> Mapping[str, int]:
        """What happened that should not happen often, by name; they only grow, but the first.

        `awareness` is how badly this node itself is, 0 to 8.
        """
        hearsay = self._liveness.hearsay
        return {
            "awareness": self._liveness.awareness.score,
            "damped": self._spread.damping.suppressed,
            "forged_claims": hearsay.forged,
            "refuted": hearsay.refuted,
            "refused_items": self._spread.store.refused,
            "overflowed_items": self._spread.store.overflowed,
        }

    # -- input -------------------------------------------------------------------------------------

    def on_message(self, node: NodeId, message: GossipMessage, now: float) -> list[Effect]:
        """A control message came over the session with `node`, which need not be a member."""
        actions = self._liveness.on_heard(node, now, now)
        self._met.add(node)
        match message:
            case Buckets() | Ids() | Delta() | Want():
                pass
            case _:
                actions += self._liveness.on_claims(node, message.claims, now)
        refused = self._spread.store.refused
        actions += self._answer(node, message, now)
        if refused := self._spread.store.refused - refused:
            name = self._name_of(node)
            actions.append(Report("gossip.refused", {"peer": name, "count": refused}, debug=True))
        return self._post(actions)

    def publish(self, items: Sequence[Item], now: float) -> list[Effect]:
        """Own items changed: keep them and tell the neighbours at once.

        Raises:
            CapacityError: the store is full; items in front of the one that no longer fitted are
                kept. Nothing else.
        """
        return self._post(self._spread.publish(items, now))

    def greet(self, node: NodeId, now: float) -> list[Effect]:
        """A session with `node` came up: compare all we hold, one of us may have been away.

        Not while we compare with another: the answer would be ignored. A summary follows in time.
        """
        self._liveness.hearsay.members.on_session(node)
        if self._spread.is_busy(node, now):
            return []
        return self._post([Letter(node, self._summary())])

    def probe(self, node: NodeId, token: int, now: float) -> list[Effect]:
        """Probe a member because somebody asked; `ProbeAnswered` with `token` follows, or nothing.

        Raises:
            StateError: `node` is no member. Nothing else.
        """
        return self._post(self._liveness.probe(node, token, now))

    def mute(self, muted: bool) -> None:
        """Whether own items are kept from others, because they could not be stored.

        What is announced must survive a crash: a deed or a version that is forgotten after it was
        seen elsewhere would be made again, and differently. A mute node goes on probing, learning
        and passing on what is not its own. Once it may speak again, its next summaries bring to
        light what it held back.
        """
        self._spread.muted = muted

    def offer(self, items: Sequence[Item], nodes: Iterable[NodeId], now: float) -> list[Effect]:
        """Hand `items` to `nodes` reliably, as the last thing before this node leaves.

        Progress is in `offer_done` and `offer_confirmed`. An offer replaces an earlier one.

        Raises:
            CapacityError: as `publish`. Nothing else.
        """
        self._spread.keep(items)
        held = (self._spread.store.id_of(item.key) for item in items)
        self._offer = Offer([one for one in held if one is not None], nodes, self._timing, now)
        pushed = deltas_of(items)
        letters: list[Action] = []
        for node, have in self._offer.current():
            letters += [*(Letter(node, delta) for delta in pushed), Letter(node, have)]
        return self._post(letters)

    @property
    def offer_confirmed(self) -> int:
        """Members that have confirmed the offer."""
        return 0 if self._offer is None else self._offer.confirmed

    @property
    def offer_done(self) -> bool:
        """Whether an offer was made and is over: all confirmed, or `leave_after` passed."""
        return self._offer is not None and self._offer.done

    # -- output ------------------------------------------------------------------------------------

    def take_learned(self) -> list[Item]:
        """Items of other nodes that merging brought in since the last call, in order."""
        learned, self._spread.learned = self._spread.learned, []
        return learned

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while there is nothing to do."""
        return earliest(
            self._summary_at,
            self._liveness.next_deadline(),
            self._spread.next_deadline(),
            None if self._offer is None else self._offer.next_deadline(),
        )

    def on_deadline(self, now: float) -> list[Effect]:
        """Probe, judge, pass on, and ask one neighbour whether it holds the same."""
        actions = self._liveness.on_deadline(now) + self._spread.on_deadline(now)
        if self._summary_at is not None and now >= self._summary_at:
            wait = self._rng.uniform(1 - JITTER, 1 + JITTER)
            self._summary_at = now + self._timing.gossip_interval * wait
            if partners := self._acquainted() or self.neighbours():
                actions.append(Letter(self._rng.choice(partners), self._summary()))
        if self._offer is not None:
            actions += [Letter(node, have) for node, have in self._offer.on_deadline(now)]
        return self._post(actions)

    def check_invariants(self, now: float) -> None:
        """Assert that the parts agree. For tests."""
        self._spread.store.check_invariants()
        self._liveness.check_invariants(now)
        assert (self._summary_at is None) == (not self._liveness.hearsay.members)

    # -- answers -----------------------------------------------------------------------------------

    def _answer(self, node: NodeId, message: GossipMessage, now: float) -> list[Action]:
        match message:
            case Probe() | ProbeReply() | IndirectProbe() | IndirectReply():
                return self._liveness.on_message(node, message, now)
            case Claims():
                return self._on_claims(node, message)
            case Summary():
                return self._on_summary(node, message)
            case Want() if self._offer and (following := self._offer.on_want(node, message)):
                return [Letter(node, following)]
            case _:
                return self._spread.on_message(node, message, now)

    def _on_summary(self, node: NodeId, message: Summary) -> list[Action]:
        hearsay = self._liveness.hearsay
        actions = self._spread.on_summary(node, message)
        if message.claims_root == hearsay.root():
            hearsay.members.told = True
        else:
            actions.append(Letter(node, Claims(hearsay.notable(CLAIMS_PER_TURN), ask=True)))
        return actions

    def _on_claims(self, node: NodeId, message: Claims) -> list[Action]:
        hearsay = self._liveness.hearsay
        hearsay.members.told = True
        if not message.ask:
            return []
        return [Letter(node, Claims(hearsay.notable(CLAIMS_PER_TURN)))]

    def _partners(self) -> list[NodeId]:
        """Neighbours to tell things to: those that were met; a few others, as long as none was.

        Probes make the sessions, two in a second. While many nodes join, neighbours change with
        every record that comes, and who told each of them something would only shake hands.
        """
        return self._acquainted() or self.neighbours()[:STRANGERS]

    def _acquainted(self) -> list[NodeId]:
        met = self._met
        return [node for node in self._liveness.hearsay.rings.neighbours() if node in met]

    def _summary(self) -> Summary:
        store = self._spread.store
        return Summary(store.root(), len(store), self._liveness.hearsay.root())

    def _post(self, actions: Iterable[Action]) -> list[Effect]:
        """Make effects of letters, each with what there is to say about lives beside."""
        effects: list[Effect] = []
        hearsay = self._liveness.hearsay
        for action in actions:
            if not isinstance(action, Letter):
                effects.append(action)
                continue
            message = action.message
            match message:
                case Buckets() | Ids() | Delta() | Want() | Claims():
                    pass
                case _:
                    if claims := hearsay.piggyback(action.node):
                        message = replace(message, claims=claims)
            effects.append(SendControl(action.node, encode(message), action.once))
        return effects

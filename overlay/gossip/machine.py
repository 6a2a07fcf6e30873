"""The gossip machine of one node: own changes out, other nodes' changes in, everyone probed.

    own change    pushed at once to up to `FANOUT` members
    news          an item that was new here is passed on to `RELAY_FANOUT` others, once
    Summary       each `gossip_interval` to one random member: repairs whatever was lost
    Probe         to each member each `probe_interval`: who is alive, how far, how lossy

The first two make changes fast, the third makes them certain. Relaying stops by itself, because
a node passes on only what changed its own store, and that happens once per item and node.

References:
    Demers et al. 1987, "Epidemic algorithms for replicated database maintenance": rumours for
    speed, anti-entropy for certainty.
    SWIM (Das et al. 2002): probing as the failure detector. Differs from SWIM: members are
    probed all by each, without indirect probes and without hearsay.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, assert_never

from overlay.config import Timing
from overlay.effects import Effect, ProbeAnswered, Report, SendControl
from overlay.errors import StateError
from overlay.gossip.member import Change, Members, MemberView
from overlay.gossip.offer import Offer
from overlay.gossip.schedule import ProbeSchedule
from overlay.gossip.store import Store
from overlay.gossip.sync import (
    NOTHING,
    answer_digest,
    answer_summary,
    answer_want,
    deltas_of,
    digests_of,
    summary_of,
)
from overlay.types import NodeId, short_id
from overlay.views import NodeState
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta, Digest, Message, Probe, ProbeReply, Summary, Want

# -- implementation --------------------------------------------------------------------------------

FANOUT: Final = 8
"""Members that get an own change directly. A small cluster has it everywhere in one step."""

RELAY_FANOUT: Final = 3
"""Members that news is passed on to. With three per node a rumour that starts at eight misses a
node with a chance of about e**-3, and anti-entropy finds those within a few rounds."""

PUSHED_ITEMS: Final = 16
"""More items than this at once are offered by digest instead of pushed: a node that has just
caught up with the cluster holds mostly what the others have already."""

JITTER: Final = 0.25
"""Each wait for the next summary is `gossip_interval`, give or take this share of it, so that
nodes that started together do not stay in step."""

SILENT_SHARE: Final = 1 / 5
"""Share of the summaries that go to a member that is suspect or dead: two halves of a cluster
that both take the other for dead must find each other again."""

GossipMessage = Probe | ProbeReply | Summary | Digest | Want | Delta


class Gossip:
    """What one node says and hears about the cluster's items and members.

    Four verbs, and `take_learned`: items that merging brought in since it was last called, for
    whoever knows what they mean. Everything sent is a `SendControl` effect.

    Error contract: a message changes nothing but the store (admitted items), the evidence about
    its sender and an open offer. Nothing received raises.

    Args:
        store: the replicated items.
        timing: all intervals.
        rng: draws partners and jitter.
        name_of: how a member is called in reports.
    """

    __slots__ = (
        "_learned",
        "_members",
        "_muted",
        "_name_of",
        "_offer",
        "_own_keys",
        "_rng",
        "_schedule",
        "_store",
        "_summary_at",
        "_timing",
    )

    def __init__(
        self,
        store: Store,
        timing: Timing,
        rng: random.Random,
        name_of: Callable[[NodeId], str] = short_id,
    ) -> None:
        self._store = store
        self._timing = timing
        self._rng = rng
        self._name_of = name_of
        self._members = Members(timing)
        self._schedule = ProbeSchedule(timing.probe_interval, rng)
        self._learned: list[Item] = []
        self._own_keys: set[bytes] = set()
        self._muted = False
        self._offer: Offer | None = None
        self._summary_at: float | None = None

    # -- members -----------------------------------------------------------------------------------

    def add_member(self, node: NodeId, now: float) -> None:
        """Probe `node` and gossip with it from now on; nothing happens if that is so already."""
        if not self._members.add(node, now):
            return
        self._schedule.add(node, now)
        if self._summary_at is None:
            self._summary_at = now + self._rng.uniform(0.0, self._timing.gossip_interval)

    def remove_member(self, node: NodeId) -> None:
        """Forget `node`: it has left. Nothing happens if it was no member."""
        self._members.remove(node)
        self._schedule.remove(node)
        if self._offer is not None:
            self._offer.drop(node)
        if not self._members:
            self._summary_at = None

    def on_heard(self, node: NodeId, now: float) -> list[Effect]:
        """Something authenticated came from `node` at `now`, which may lie in the recent past."""
        change = self._members.on_heard(node, now)
        return [] if change is None else [self._report(change)]

    def state(self, node: NodeId, now: float) -> NodeState | None:
        """Whether a member is ready, suspect or dead; None for a node that is no member."""
        view = self._members.view(node, now)
        return None if view is None else view.state

    def snapshot(self, now: float) -> Mapping[NodeId, MemberView]:
        """All members as they are now."""
        views = ((node, self._members.view(node, now)) for node in self._members.nodes())
        return {node: view for node, view in views if view is not None}

    # -- input -------------------------------------------------------------------------------------

    def on_message(self, node: NodeId, message: GossipMessage, now: float) -> list[Effect]:
        """A control message came over the session with `node`, which need not be a member."""
        return self.on_heard(node, now) + self._answer(node, message, now)

    def publish(self, items: Sequence[Item], now: float) -> list[Effect]:
        """Own items changed: keep them and push them to members at once.

        Raises:
            CapacityError: the store is full; items in front of the one that no longer fitted are
                kept. Nothing else.
        """
        changed = [item for item in items if self._store.put(item)]
        self._own_keys.update(item.key for item in items)
        if self._muted or not changed:
            return []
        return self._push(changed, self._choose(FANOUT, now))

    def greet(self, node: NodeId) -> list[Effect]:
        """A session with `node` came up: compare stores at once, one of us may have been away."""
        return [] if self._offering else [_send(node, summary_of(self._store))]

    def probe(self, node: NodeId, token: int, now: float) -> list[Effect]:
        """Probe a member because somebody asked; `ProbeAnswered` with `token` follows, or nothing.

        Raises:
            StateError: `node` is no member. Nothing else.
        """
        if node not in self._members:
            raise StateError("only members are probed")
        return [_send(node, Probe(self._members.new_probe(node, now, token)))]

    def mute(self, muted: bool) -> None:
        """Whether own items are kept from others, because they could not be stored.

        What is announced must survive a crash: a deed or a version that is forgotten after it was
        seen elsewhere would be made again, and differently. A mute node goes on probing, learning
        and passing on what is not its own. Once it may speak again, its next summaries bring to
        light what it held back.
        """
        self._muted = muted

    def offer(self, items: Sequence[Item], nodes: Iterable[NodeId], now: float) -> list[Effect]:
        """Hand `items` to `nodes` reliably, as the last thing before this node leaves.

        Progress is in `offer_done` and `offer_confirmed`. An offer replaces an earlier one.

        Raises:
            CapacityError: as `publish`. Nothing else.
        """
        for item in items:
            self._store.put(item)
        self._own_keys.update(item.key for item in items)
        self._offer = Offer(self._store.describe(items), nodes, self._timing, now)
        pushed = deltas_of(items)
        effects: list[Effect] = []
        for node, digest in self._offer.current():
            messages: list[Message] = [*pushed, digest]
            effects += [_send(node, message) for message in messages]
        return effects

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
        learned, self._learned = self._learned, []
        return learned

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while there is nothing to do."""
        deadlines = (
            self._summary_at,
            self._schedule.next_deadline(),
            self._members.next_deadline(),
            None if self._offer is None else self._offer.next_deadline(),
        )
        return min((at for at in deadlines if at is not None), default=None)

    def on_deadline(self, now: float) -> list[Effect]:
        """Probe who is due, notice who fell silent, ask one member whether it holds the same."""
        effects: list[Effect] = [self._report(change) for change in self._members.changes(now)]
        effects += [
            _send(node, Probe(self._members.new_probe(node, now)))
            for node in self._schedule.due(now)
        ]
        if self._summary_at is not None and now >= self._summary_at:
            effects += self._open_round(now)
        if self._offer is not None:
            effects += [_send(node, digest) for node, digest in self._offer.on_deadline(now)]
        return effects

    def check_invariants(self, now: float) -> None:
        """Assert that the parts agree. For tests."""
        self._store.check_invariants()
        self._members.check_invariants(now)
        assert (self._summary_at is None) == (not self._members)

    # -- answers -----------------------------------------------------------------------------------

    def _answer(self, node: NodeId, message: GossipMessage, now: float) -> list[Effect]:
        answers: list[Message]
        match message:
            case Probe(sequence):
                answers = [ProbeReply(sequence)]
            case ProbeReply(sequence):
                return self._on_probe_reply(node, sequence, now)
            case Summary():
                # While an offer is open every empty Want must be about the offer.
                answers = (
                    [] if self._offering else answer_summary(self._store, message, self._hidden)
                )
            case Digest():
                answers = answer_digest(self._store, message, self._hidden)
            case Want():
                answers = self._on_want(node, message)
            case Delta():
                return self._on_delta(node, message, now)
            case _:
                assert_never(message)
        return [_send(node, answer) for answer in answers]

    def _on_probe_reply(self, node: NodeId, sequence: int, now: float) -> list[Effect]:
        answer = self._members.on_probe_reply(node, sequence, now)
        if answer is None or answer.token is None:
            return []
        return [ProbeAnswered(node, answer.token, answer.rtt)]

    def _on_want(self, node: NodeId, message: Want) -> list[Message]:
        if self._offer is not None and (following := self._offer.on_want(node, message)):
            return [following]
        return answer_want(self._store, message, self._hidden)

    def _on_delta(self, node: NodeId, message: Delta, now: float) -> list[Effect]:
        refused = self._store.refused
        new = self._store.merge(message.items)
        self._learned += new
        effects = self._relay(node, new, now)
        if refused := self._store.refused - refused:
            effects.append(_refused_report(self._name_of(node), refused))
        return effects

    def _relay(self, source: NodeId, new: list[Item], now: float) -> list[Effect]:
        hidden = self._hidden
        news = [item for item in new if item.key not in hidden]
        if not news or self._offering:
            return []
        return self._push(news, self._choose(RELAY_FANOUT, now, without=source))

    # -- initiative --------------------------------------------------------------------------------

    def _open_round(self, now: float) -> list[Effect]:
        wait = self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._summary_at = now + self._timing.gossip_interval * wait
        partner = self._choose_partner(now)
        return [] if partner is None else [_send(partner, summary_of(self._store))]

    def _choose_partner(self, now: float) -> NodeId | None:
        ready: list[NodeId] = []
        silent: list[NodeId] = []
        for node in self._members.nodes():
            live = self._members.state(node, now) is NodeState.READY
            (ready if live else silent).append(node)
        prefer_silent = self._rng.random() < SILENT_SHARE
        candidates = (silent or ready) if prefer_silent else (ready or silent)
        return self._rng.choice(candidates) if candidates else None

    def _choose(self, count: int, now: float, without: NodeId | None = None) -> list[NodeId]:
        """Up to `count` random members that are not dead."""
        candidates = [
            node
            for node in self._members.nodes()
            if node != without and self._members.state(node, now) is not NodeState.DEAD
        ]
        if len(candidates) <= count:
            return candidates
        return self._rng.sample(candidates, count)

    def _push(self, items: Sequence[Item], nodes: Iterable[NodeId]) -> list[Effect]:
        messages: Sequence[Message]
        if len(items) <= PUSHED_ITEMS:
            messages = deltas_of(items)
        else:
            messages = digests_of(self._store.describe(items), complete=False)
        encoded = [encode(message) for message in messages]
        return [SendControl(node, message) for node in nodes for message in encoded]

    @property
    def _hidden(self) -> Collection[bytes]:
        return self._own_keys if self._muted else NOTHING

    @property
    def _offering(self) -> bool:
        return self._offer is not None and not self._offer.done

    def _report(self, change: Change) -> Report:
        silent = round(change.silent, 3)
        name = self._name_of(change.node)
        return Report(f"member.{change.state}", {"peer": name, "silent": silent})


def _refused_report(peer: str, count: int) -> Report:
    return Report("gossip.refused", {"peer": peer, "count": count}, debug=True)


def _send(node: NodeId, message: Message) -> SendControl:
    return SendControl(node, encode(message))

"""SWIM with Lifeguard's refinements, over the subjects and observers of the rings.

    probe fails, directly and through others --> accuse: suspect, own evidence
    suspicion is not contradicted in time ----> condemn: dead
    somebody else accuses one of our subjects -> it is probed at once
    anything authentic from a suspect --------> our accusation is withdrawn
    our own timers come late -----------------> nobody is judged now, all waits get longer

Only observers have evidence, so only they let time pass judgement; everybody else believes claims
(`hearsay`). A suspicion that somebody else raised makes an observer probe, not judge: it accuses by
its own evidence or not at all, and those who do confirm each other.

References:
    SWIM (Das et al. 2002), section 3: probes, direct and indirect.
    Lifeguard (Dadgar et al. 2018), section IV: local health (`awareness`), dynamic suspicion
    (`suspicion`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, Final

from overlay.config import Timing
from overlay.effects import ProbeAnswered
from overlay.errors import StateError
from overlay.gossip.awareness import Awareness
from overlay.gossip.hearsay import Hearsay
from overlay.gossip.letter import Action, Letter
from overlay.gossip.local import LocalNode
from overlay.gossip.probe import Pending, Probes, Step
from overlay.gossip.suspicion import least_timeout, timeout
from overlay.types import NodeId
from overlay.views import NodeState
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.handed import INT, YES, Handed, part
from overlay.wire.messages import Claims, IndirectProbe, IndirectReply, Probe, ProbeReply

# -- specification ---------------------------------------------------------------------------------

HELPERS: Final = 3
"""Other observers that are asked to reach a subject that did not answer, and told if it is
suspected."""

# -- implementation --------------------------------------------------------------------------------

JITTER: Final = 0.1
"""Each wait for the next probe is the interval, give or take this share of it."""

LATE: Final = 0.25
"""Seconds by which a timer may come late before this node doubts itself."""

URGENT: Final = 3
"""Subjects that are probed out of turn per probe interval, because somebody accuses them; and turns
in a row that such subjects get, or one that accuses others all the time would have none looked at
whom it does not accuse."""

HELPED: Final = 8
"""Times that others are helped per probe interval. Beyond that the answer is "not yet", at once."""

HELPED_EACH: Final = 4
"""The same for one other: who asks without end leaves as much for the rest."""

CALLERS: Final = 8
"""Per dead member, members that call it within `dead_call_interval`. In a large cluster with few
dead each calls less often, so that a dead node's address is not flooded."""


LifeMessage = Probe | ProbeReply | IndirectProbe | IndirectReply


class Liveness:
    """Who lives, as one node finds out by itself.

    Error contract: nothing received raises.

    Attributes:
        hearsay: what it believes, and says.
        awareness: how well this node itself is.
    """

    __slots__ = (
        "_allowance",
        "_call_at",
        "_deadline",
        "_helped",
        "_in_a_row",
        "_is_stale",
        "_probe_at",
        "_probes",
        "_refuted",
        "_rng",
        "_round",
        "_timing",
        "_urgent",
        "awareness",
        "hearsay",
    )

    HANDED: ClassVar = Handed(
        hearsay=part(Hearsay), awareness=part(Awareness), _refuted=INT, _is_stale=YES
    )

    def __init__(
        self,
        local: LocalNode,
        timing: Timing,
        rng: random.Random,
        name_of: Callable[[NodeId], str],
    ) -> None:
        self.hearsay = Hearsay(local, timing, rng, name_of)
        self.awareness = Awareness()
        self._timing = timing
        self._rng = rng
        self._probes = Probes()
        self._round: list[NodeId] = []
        self._urgent: dict[NodeId, None] = {}
        self._allowance = URGENT
        self._in_a_row = 0  # turns of the round that accused subjects got
        self._helped: dict[NodeId, int] = {}  # how often, in this interval
        self._refuted = 0
        self._probe_at: float | None = None
        self._call_at: float | None = None
        self._deadline: float | None = None
        self._is_stale = False

    # -- members -----------------------------------------------------------------------------------

    def add(self, node: NodeId, boot: int, now: float) -> list[Action]:
        """A record of `node` with this boot is known; nothing happens if that is so already."""
        actions = self.hearsay.add(node, boot, now)
        if actions is None:
            return []
        if self._probe_at is None:
            self._probe_at = now + self._rng.uniform(0.0, self._timing.probe_interval)
        self._is_stale = True
        return actions

    def remove(self, node: NodeId) -> None:
        """`node` is no member any more; nothing happens if it was none."""
        self.hearsay.remove(node)
        self._probes.drop(node)
        self._urgent.pop(node, None)
        if not self.hearsay.members:
            self._probe_at = self._call_at = None
        self._is_stale = True

    # -- input -------------------------------------------------------------------------------------

    def on_heard(self, node: NodeId, at: float, now: float) -> list[Action]:
        """Something authentic came from `node` at `at`, now or a while ago."""
        accused = node in self.hearsay.accused
        actions = self.hearsay.on_heard(node, at, now)
        if actions is None:
            return []
        self._probes.on_heard(node, at)
        self._is_stale |= accused
        return actions

    def on_claims(self, sender: NodeId, claims: tuple[Claim, ...], now: float) -> list[Action]:
        """What a member says of others, and of us, on the back of any message."""
        if not claims:
            return []
        self._is_stale = True
        actions = self.hearsay.on_claims(sender, claims, now)
        for node in self.hearsay.take_doubted():
            if self._allowance > 0:
                self._allowance -= 1
                actions += self._start(node, now)
            else:
                self._urgent[node] = None
        return actions

    def on_message(self, node: NodeId, message: LifeMessage, now: float) -> list[Action]:
        """A member's question, or answer, about who lives."""
        match message:
            case Probe():
                return [Letter(node, ProbeReply(message.sequence))]
            case ProbeReply():
                return self.on_probe_reply(node, message, now)
            case IndirectProbe():
                return self.on_indirect_probe(node, message, now)
            case IndirectReply():
                self._probes.on_help(node, message.sequence, message.reached)
                return []

    def on_probe_reply(self, node: NodeId, message: ProbeReply, now: float) -> list[Action]:
        """A probe came back."""
        pending = self._probes.on_reply(node, message.sequence)
        if pending is None:
            return []
        self._is_stale = True
        rtt = now - pending.sent_at
        if pending.token is not None:
            return [ProbeAnswered(node, pending.token, rtt)]
        if pending.asker is not None:
            asker, sequence = pending.asker
            return [Letter(asker, IndirectReply(sequence, reached=True))]
        self.hearsay.members.on_probed(node, True, rtt if pending.timed else None)
        self.awareness.apply(-1)
        return []

    def on_indirect_probe(self, node: NodeId, message: IndirectProbe, now: float) -> list[Action]:
        """A member cannot reach another, and asks whether we can."""
        target, asker = message.node, (node, message.sequence)
        helped = self._helped.get(node, 0)
        spent = helped >= HELPED_EACH or sum(self._helped.values()) >= HELPED
        if target not in self.hearsay.members or self._probes.full or spent:
            return [Letter(node, IndirectReply(message.sequence, reached=False))]
        self._helped[node] = helped + 1
        sequence = self._probes.help(target, asker, self._timing.probe_timeout, now)
        self._is_stale = True
        return [Letter(target, Probe(sequence))]

    def probe(self, node: NodeId, token: int, now: float) -> list[Action]:
        """Probe a member because somebody asked; `ProbeAnswered` with `token` follows, or nothing.

        Raises:
            StateError: `node` is no member. Nothing else.
        """
        if node not in self.hearsay.members:
            raise StateError("only members are probed")
        self._is_stale = True
        return [Letter(node, Probe(self._probes.ask(node, token, now)))]

    # -- time --------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while there is nothing to do.

        Remembered between changes, because it is asked for after every datagram.
        """
        if self._is_stale:
            self._is_stale = False
            deadlines = [
                self._probe_at,
                self._call_at,
                self._probes.next_deadline(),
                self.hearsay.next_deadline(),
                *(self._judged_at(node) for node in self.hearsay.accused),
            ]
            self._deadline = min((at for at in deadlines if at is not None), default=None)
        return self._deadline

    def on_deadline(self, now: float) -> list[Action]:
        """Probe who is next, judge whom time has judged, call one of the dead."""
        asked = self.next_deadline()
        if asked is None or now < asked:
            return []
        self._is_stale = True
        if now - asked > LATE:
            self._postpone(now - asked, now)
            actions: list[Action] = []
        else:
            actions = self._step(now)
            for node in list(self.hearsay.accused):
                if now >= self._judged_at(node):
                    actions += self.hearsay.say(node, ClaimState.DEAD, now)
        actions += self.hearsay.on_deadline(now)
        self.awareness.apply(self.hearsay.refuted - self._refuted)
        self._refuted = self.hearsay.refuted
        if self._probe_at is not None and now >= self._probe_at:
            actions += self._next_round(now)
        return actions + self._call(now)

    def _postpone(self, late: float, now: float) -> None:
        """This node slept, or is starved: what others said meanwhile may still wait to be read."""
        self.awareness.apply(1)
        self._probes.postpone(late, now)
        late += self._timing.probe_timeout
        self.hearsay.members.postpone(late)
        for node in self.hearsay.accused:
            self.hearsay.accused[node] += late

    def _next_round(self, now: float) -> list[Action]:
        wait = self._timing.probe_interval * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._probe_at = now + wait
        self._allowance, self._helped = URGENT, {}
        node = self._next_subject()
        return [] if node is None else self._start(node, now)

    def _next_subject(self) -> NodeId | None:
        subjects = self.hearsay.rings.subjects()
        while self._urgent and self._in_a_row < URGENT:
            node = next(iter(self._urgent))
            del self._urgent[node]
            if node in subjects:
                self._in_a_row += 1
                return node
        self._in_a_row = 0
        while self._round:
            node = self._round.pop()
            if node in subjects:
                return node
        self._round = list(subjects)
        self._rng.shuffle(self._round)
        return self._round.pop() if self._round else None

    def _start(self, node: NodeId, now: float) -> list[Action]:
        if self._probes.probes(node):
            return []
        members = self.hearsay.members
        # A member that was not heard may have to wait for a session first: no round trip time.
        timed = members.heard_at(node) is not None
        timed = timed and members.state(node, now) is NodeState.READY
        wait = self.awareness.scale(self._timing.probe_timeout)
        sequence = self._probes.start(node, wait, now, timed=timed)
        self._is_stale = True
        return [Letter(node, Probe(sequence))]

    # -- judgement ---------------------------------------------------------------------------------

    def _step(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for pending, step in self._probes.due(now):
            match step:
                case Step.REPEAT:
                    actions.append(Letter(pending.node, Probe(pending.sequence)))
                case Step.INDIRECT:
                    actions += self._ask_for_help(pending)
                case Step.NACK if pending.asker is not None:
                    asker, sequence = pending.asker
                    actions.append(Letter(asker, IndirectReply(sequence, reached=False)))
                case Step.VERDICT:
                    actions += self._on_verdict(pending, now)
                case _:
                    pass
        return actions

    def _ask_for_help(self, pending: Pending) -> list[Action]:
        if pending.heard:
            return []
        helpers = self._co_observers(pending.node)
        helpers = self._rng.sample(helpers, min(HELPERS, len(helpers)))
        pending.helpers = dict.fromkeys(helpers, False)
        message = IndirectProbe(pending.sequence, pending.node)
        return [Letter(helper, message) for helper in helpers]

    def _on_verdict(self, pending: Pending, now: float) -> list[Action]:
        node, members = pending.node, self.hearsay.members
        members.on_probed(node, False)
        if pending.heard:
            return []
        self.awareness.apply(pending.silent_helpers if pending.helpers else 1)
        if members.state(node, now) is NodeState.DEAD:
            return []
        self._urgent[node] = None  # it is not let out of sight now
        if node in self.hearsay.accused:
            return []
        self.hearsay.accused[node] = now
        actions = self.hearsay.say(node, ClaimState.SUSPECT, now)
        others = self._co_observers(node)
        told = self._rng.sample(others, min(HELPERS, len(others)))
        message = Claims((self.hearsay.claim(node),))
        return actions + [Letter(other, message) for other in told]

    def _co_observers(self, node: NodeId) -> list[NodeId]:
        """Others that watch `node` and seem to be well."""
        rings = self.hearsay.rings
        members = self.hearsay.members
        return [
            other
            for other in rings.observers_of(node)
            if other in members and not rings.is_suspect(other)
        ]

    def _judged_at(self, node: NodeId) -> float:
        least = least_timeout(len(self.hearsay.rings), self._timing)
        expected = len(self._co_observers(node))
        wait = timeout(
            self.hearsay.accusers(node), expected, least, least * self._timing.suspicion_most
        )
        return self.hearsay.accused[node] + wait

    # -- the dead ----------------------------------------------------------------------------------

    def _call(self, now: float) -> list[Action]:
        """Call one of the dead, from time to time, for ever."""
        dead = self.hearsay.dead
        if not dead:
            self._call_at = None
            return []
        if self._call_at is None:
            self._call_at = now + self._call_wait()
        if now < self._call_at:
            return []
        self._call_at = now + self._call_wait()
        node = self._rng.choice(list(dead))
        return [Letter(node, Claims(self.hearsay.about(node)), once=True)]

    def _call_wait(self) -> float:
        crowd = max(1.0, len(self.hearsay.rings) / (CALLERS * len(self.hearsay.dead)))
        return self._timing.dead_call_interval * crowd * self._rng.uniform(0.5, 1.5)

    def check_invariants(self, now: float) -> None:
        """Assert that the parts agree. For tests."""
        self.hearsay.check_invariants(now)
        assert (self._probe_at is None) == (not self.hearsay.members)

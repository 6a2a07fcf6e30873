"""Probes under way: what was asked, of whom, and what is next if no answer comes.

    0           timeout / 2         timeout             2 * timeout
    | Probe ----> | Probe again ----> | IndirectProbe ----> | verdict
    |             |                   |  to helpers         |
    '-- ProbeReply, an IndirectReply that reached it, or anything authentic from it: no verdict

Three kinds share this table: probes of this node's own rounds, probes on behalf of another
(answered to it with "not yet" after 0.8 of the timeout, so that it knows that we live), and probes
that an operator asked for.

References:
    SWIM (Das et al. 2002), section 3.1: direct, then indirect probes.
    Lifeguard (Dadgar et al. 2018), section IV.A: the nack of an indirect probe, at 80 %.
    RFC 6298, section 3 (Karn): what was sent twice is not timed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from overlay.types import NodeId

# -- specification ---------------------------------------------------------------------------------

NACK_SHARE: Final = 0.8
"""Of the timeout, until a helper says "not yet"."""

# -- implementation --------------------------------------------------------------------------------

LIMIT: Final = 256
"""Probes under way. Helping others stops there; a member cannot make this table grow."""

ASKED_LIFE: Final = 10.0
"""Seconds for which a reply to an operator's probe is waited for."""


class Step(Enum):
    """What is next for a probe."""

    REPEAT = "repeat"
    INDIRECT = "indirect"
    VERDICT = "verdict"
    NACK = "nack"
    FORGET = "forget"


@dataclass(slots=True)
class Pending:
    """One probe under way. Times are monotonic seconds."""

    node: NodeId
    sequence: int
    sent_at: float
    timeout: float
    step: Step
    due: float
    timed: bool = False
    """Whether its round trip says something about the path."""
    token: int | None = None
    """What an operator's request was given with."""
    asker: tuple[NodeId, int] | None = None
    """On whose behalf, and its sequence."""
    heard: bool = False
    """Something else came from the node meanwhile, or a helper reached it."""
    helpers: dict[NodeId, bool] = field(default_factory=dict)
    """Who was asked to probe it too, and whether he answered."""

    @property
    def silent_helpers(self) -> int:
        """Helpers of which nothing came back, not even that they had no success."""
        return sum(not answered for answered in self.helpers.values())


class Probes:
    """The probes under way of one node, of all three kinds."""

    __slots__ = ("_pending", "_sequence")

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether others are not helped any more."""
        return len(self._pending) >= LIMIT

    def probes(self, node: NodeId) -> bool:
        """Whether a probe of this node's own round is under way to `node`."""
        return any(
            one.node == node and one.token is None and one.asker is None
            for one in self._pending.values()
        )

    def start(self, node: NodeId, timeout: float, now: float, *, timed: bool = False) -> int:
        """A probe of an own round goes to `node`; returns its sequence."""
        pending = Pending(
            node, self._next(), now, timeout, Step.REPEAT, now + timeout / 2, timed=timed
        )
        return self._add(pending)

    def help(self, node: NodeId, asker: tuple[NodeId, int], timeout: float, now: float) -> int:
        """A probe goes to `node` on behalf of `asker`; returns its sequence."""
        due = now + timeout * NACK_SHARE
        return self._add(Pending(node, self._next(), now, timeout, Step.NACK, due, asker=asker))

    def ask(self, node: NodeId, token: int, now: float) -> int:
        """A probe that somebody asked for goes to `node`; returns its sequence."""
        due = now + ASKED_LIFE
        return self._add(
            Pending(node, self._next(), now, ASKED_LIFE, Step.FORGET, due, token=token)
        )

    def on_reply(self, node: NodeId, sequence: int) -> Pending | None:
        """The reply of `node` to a probe: that is over. None if no such probe is under way."""
        pending = self._pending.get(sequence)
        if pending is None or pending.node != node:
            return None
        return self._pending.pop(sequence)

    def on_help(self, helper: NodeId, sequence: int, reached: bool) -> None:
        """A helper has answered."""
        pending = self._pending.get(sequence)
        if pending is not None and helper in pending.helpers:
            pending.helpers[helper] = True
            pending.heard |= reached

    def on_heard(self, node: NodeId, at: float) -> None:
        """Something else came from `node` at `at`."""
        for pending in self._pending.values():
            if pending.node == node and pending.sent_at <= at:
                pending.heard = True

    def drop(self, node: NodeId) -> None:
        """`node` is no member any more."""
        gone = [number for number, one in self._pending.items() if one.node == node]
        for number in gone:
            del self._pending[number]

    def next_deadline(self) -> float | None:
        """When `due` has something; None while nothing is under way."""
        return min((pending.due for pending in self._pending.values()), default=None)

    def due(self, now: float) -> list[tuple[Pending, Step]]:
        """What is to be done now, in order; each goes on to its next step, the last ones end."""
        ready = [one for one in self._pending.values() if now >= one.due]
        steps = []
        for pending in sorted(ready, key=lambda one: (one.due, one.sequence)):
            steps.append((pending, pending.step))
            self._advance(pending)
        return steps

    def postpone(self, late: float, now: float) -> None:
        """This node was asleep for so long: replies may wait to be read."""
        for pending in self._pending.values():
            pending.due = max(pending.due + late, now + pending.timeout / 2)

    def _advance(self, pending: Pending) -> None:
        if pending.step is Step.REPEAT:
            pending.step, pending.due = Step.INDIRECT, pending.due + pending.timeout / 2
            pending.timed = False
        elif pending.step is Step.INDIRECT:
            pending.step, pending.due = Step.VERDICT, pending.due + pending.timeout
        else:
            del self._pending[pending.sequence]

    def _add(self, pending: Pending) -> int:
        self._pending[pending.sequence] = pending
        return pending.sequence

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

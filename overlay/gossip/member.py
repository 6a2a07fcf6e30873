"""Who is alive, judged from this node's own evidence alone.

Every member is probed directly; anything authenticated that comes from it counts as a sign of
life. Silence makes it suspect, then dead. Nobody is believed about anybody else, so one node
with a bad link cannot declare others dead; the price is probes between all pairs.

                    silent for suspect_after        silent for dead_after
           READY ----------------------------> SUSPECT ------------------> DEAD
             ^                                    |                          |
             +------------- heard ----------------+---------- heard ---------+
                                                  ^
                                   added: nothing heard yet

LEFT is not in here: a member says that itself, in its record.

References:
    RFC 6298, section 2: smoothing of round trip times, `SRTT += (R - SRTT) / 8`. Differs from
    the RFC: there is no variance, because nothing is retransmitted by this clock.
    SWIM (Das et al. 2002), section 4.2: suspicion before declaring a member dead.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from overlay.config import Timing
from overlay.types import NodeId
from overlay.views import NodeState

# -- specification ---------------------------------------------------------------------------------

RTT_GAIN: Final = 1 / 8
"""Weight of a new round trip time in the smoothed one."""

# -- implementation --------------------------------------------------------------------------------

LOSS_WINDOW: Final = 16
"""Probes over which loss is counted, and for which late replies are still understood: half a
minute at the default interval."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member at one moment."""

    state: NodeState
    rtt: float | None
    """Smoothed round trip time; None before the first reply of a member that was ready."""
    loss: float | None
    """Share of the last `LOSS_WINDOW` probes that stayed unanswered; None before there are any."""
    seen: float | None
    """Seconds since it was last heard; None if never."""


class Change(NamedTuple):
    """A member's state is no longer what was last reported of it."""

    node: NodeId
    state: NodeState
    silent: float
    """Seconds since it was heard, or since it was added."""


class Answer(NamedTuple):
    """A probe came back."""

    rtt: float
    token: int | None
    """What the caller gave with the probe."""


@dataclass(slots=True)
class _Probe:
    sequence: int
    sent_at: float
    token: int | None
    timed: bool
    """Whether its round trip says something about the path. A probe to a silent member may have
    to wait for a session first."""
    answered: bool = False


class _Member:
    __slots__ = ("added_at", "heard_at", "probes", "reported", "rtt")

    def __init__(self, now: float) -> None:
        self.added_at = now
        self.heard_at: float | None = None
        self.reported = NodeState.SUSPECT
        self.rtt: float | None = None
        self.probes: deque[_Probe] = deque(maxlen=LOSS_WINDOW)

    @property
    def silent_since(self) -> float:
        return self.added_at if self.heard_at is None else self.heard_at


class Members:
    """Liveness of all other members.

    Error contract: evidence about a node that is no member changes nothing. State follows from
    times alone; `changes` only remembers what it has reported.
    """

    __slots__ = ("_changes_at", "_members", "_sequence", "_timing")

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._members: dict[NodeId, _Member] = {}
        self._sequence = 0
        # No member changes by silence before this. A lower bound: signs of life only delay it,
        # and are far too frequent to look for the next minimum each time.
        self._changes_at: float | None = None

    def __contains__(self, node: NodeId) -> bool:
        return node in self._members

    def __len__(self) -> int:
        return len(self._members)

    def nodes(self) -> list[NodeId]:
        """All members, in the order they were added."""
        return list(self._members)

    def add(self, node: NodeId, now: float) -> bool:
        """Watch a member from now on; False if it is watched already."""
        if node in self._members:
            return False
        self._members[node] = _Member(now)
        self._expect_change(now + self._timing.dead_after)
        return True

    def remove(self, node: NodeId) -> None:
        """Forget a member; nothing happens if there is none."""
        self._members.pop(node, None)

    def on_heard(self, node: NodeId, now: float) -> Change | None:
        """Something authenticated came from `node` at `now`, which may lie in the recent past.

        Returns:
            The change, when this is what made the member ready.
        """
        member = self._members.get(node)
        if member is None or (member.heard_at is not None and now <= member.heard_at):
            return None
        silent = now - member.silent_since
        member.heard_at = now
        if member.reported is NodeState.READY:
            return None
        member.reported = NodeState.READY
        self._expect_change(now + self._timing.suspect_after)
        return Change(node, NodeState.READY, silent)

    def new_probe(self, node: NodeId, now: float, token: int | None = None) -> int:
        """A probe goes to the member `node`; returns its sequence number."""
        self._sequence += 1
        timed = self.state(node, now) is NodeState.READY
        self._members[node].probes.append(_Probe(self._sequence, now, token, timed))
        return self._sequence

    def on_probe_reply(self, node: NodeId, sequence: int, now: float) -> Answer | None:
        """The reply to a probe; None if no such probe waits (a duplicate, or too long ago)."""
        member = self._members.get(node)
        if member is None:
            return None
        waiting = (one for one in member.probes if one.sequence == sequence and not one.answered)
        probe = next(waiting, None)
        if probe is None:
            return None
        probe.answered = True
        rtt = now - probe.sent_at
        if probe.timed:
            member.rtt = rtt if member.rtt is None else member.rtt + (rtt - member.rtt) * RTT_GAIN
        return Answer(rtt, probe.token)

    def state(self, node: NodeId, now: float) -> NodeState:
        """READY, SUSPECT or DEAD. `node` must be a member."""
        member = self._members[node]
        # Compared as deadlines, not as ages: a timer set for exactly this moment must find it.
        if now >= member.silent_since + self._timing.dead_after:
            return NodeState.DEAD
        if member.heard_at is None or now >= member.heard_at + self._timing.suspect_after:
            return NodeState.SUSPECT
        return NodeState.READY

    def view(self, node: NodeId, now: float) -> MemberView | None:
        """The member as it is now; None for a node that is not one."""
        member = self._members.get(node)
        if member is None:
            return None
        seen = None if member.heard_at is None else now - member.heard_at
        return MemberView(self.state(node, now), member.rtt, self._loss(member, now), seen)

    def changes(self, now: float) -> list[Change]:
        """Members whose state has changed by silence since it was last reported."""
        if self._changes_at is None or now < self._changes_at:
            return []
        changes = []
        self._changes_at = None
        for node, member in self._members.items():
            state = self.state(node, now)
            if state is not member.reported:
                member.reported = state
                changes.append(Change(node, state, now - member.silent_since))
            if state is not NodeState.DEAD:
                self._expect_change(self._next_change(member, state))
        return changes

    def next_deadline(self) -> float | None:
        """When to call `changes` again; None while there is nobody to wait for."""
        return self._changes_at

    def check_invariants(self, now: float) -> None:
        """Assert that no change by silence can be missed. For tests."""
        for node, member in self._members.items():
            assert len(member.probes) <= LOSS_WINDOW
            if member.reported is not NodeState.DEAD:
                assert self._changes_at is not None
                assert self._changes_at <= self._next_change(member, member.reported)
            if self._changes_at is None or now < self._changes_at:
                assert self.state(node, now) is member.reported

    def _loss(self, member: _Member, now: float) -> float | None:
        patience = self._timing.probe_interval
        settled = [p for p in member.probes if p.answered or now - p.sent_at >= patience]
        if not settled:
            return None
        return sum(not probe.answered for probe in settled) / len(settled)

    def _next_change(self, member: _Member, state: NodeState) -> float:
        ready = state is NodeState.READY
        return member.silent_since + (
            self._timing.suspect_after if ready else self._timing.dead_after
        )

    def _expect_change(self, at: float) -> None:
        self._changes_at = at if self._changes_at is None else min(self._changes_at, at)

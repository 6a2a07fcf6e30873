"""The members as one node believes them to be: claims merged by maximum, and its own evidence.

    claim     alive --------> suspect --------> dead          within one incarnation: only upwards
                ^                |                |
                +---- alive, incarnation + 1 -----+           signed by the member itself
                +---- a record of a later boot ---+

    state     READY           SUSPECT           DEAD

Claims form a semilattice, so all nodes that heard the same believe the same. What a node makes of
them differs in two points from the bare claim:

- Word that a member is dead, of which no suspicion was known, counts as suspicion at first. For
  `refute_within` the member may contradict. So no liar can have a live member declared dead, as
  long as that hears of it; and halves of a cluster that took each other for dead can merge
  without believing each other's old claims about those who are among them.
- Before anybody has told this node what is believed, who was not heard is suspect.

LEFT is not in here: a member says that itself, in its record.

References:
    SWIM (Das et al. 2002), section 4.2: suspicion, incarnation numbers, the order of claims.
    RFC 6298, section 2: smoothing of round trip times, `SRTT += (R - SRTT) / 8`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2s
from typing import ClassVar, Final, NamedTuple

from overlay.config import Timing
from overlay.gossip.evidence import NOTHING, Evidence
from overlay.types import NodeId
from overlay.views import NodeState
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.handed import BOOL, BYTES, INT, SECONDS, Handed, Values, fresh, keys, table
from overlay.wire.messages import ROOT_SIZE

# -- specification ---------------------------------------------------------------------------------

RTT_GAIN: Final = 1 / 8
"""Weight of a new round trip time in the smoothed one."""

_CLAIM: Final = struct.Struct(">IIB")
"""Boot, incarnation and state, behind the node id, in the claims' root."""

# -- implementation --------------------------------------------------------------------------------

LOSS_WINDOW: Final = 16
"""Probes over which loss is counted."""

_SILENT: Final = 2
"""Unanswered probes in a row after which there seems to be no direct way."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member at one moment."""

    state: NodeState
    rtt: float | None
    """Smoothed round trip time; None for a member that was not probed, or never answered."""
    loss: float | None
    """Share of the last `LOSS_WINDOW` probes that stayed unanswered; None if none were sent."""
    seen: float | None
    """Seconds since anything came from it directly; None if nothing ever did."""
    reached: bool
    """False when the last probes of it failed, whoever else may reach it."""


class Change(NamedTuple):
    """A member's state is no longer what was last reported of it."""

    node: NodeId
    state: NodeState
    silent: float
    """Seconds since it was heard directly, or else since it was first doubted."""


class Members:
    """All other members.

    Error contract: what is said about a node that is no member changes nothing.

    Attributes:
        told: whether any member has said yet what it believes; see the module.
        root: XOR of the hashes of all claims that are not plainly alive.
    """

    __slots__ = (
        "_boots",
        "_evidence",
        "_is_stale",
        "_next",
        "_notable",
        "_sentenced",
        "_timing",
        "root",
        "told",
    )

    HANDED: ClassVar = Handed(
        told=BOOL,
        _boots=table(BYTES, INT),
        _evidence=table(BYTES, fresh(Evidence, Evidence)),
        _notable=keys(BYTES),
        _sentenced=table(BYTES, SECONDS),
    )

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._boots: dict[NodeId, int] = {}  # of all members
        self._evidence: dict[NodeId, Evidence] = {}  # of those of which there is any
        self._notable: dict[NodeId, None] = {}  # not plain; the one that changed last comes last
        self._sentenced: dict[NodeId, float] = {}  # dead by hearsay, and when it counts
        self._next: float | None = None  # the first of these, unless one changed meanwhile
        self._is_stale = False
        self.root = 0
        self.told = False

    def __contains__(self, node: NodeId) -> bool:
        return node in self._boots

    def __len__(self) -> int:
        return len(self._boots)

    def nodes(self) -> list[NodeId]:
        """All members, in the order they were added."""
        return list(self._boots)

    def inherit(self, values: Values) -> None:
        """What another process knew holds for members whose records are here, of the same boot."""
        boots = values["_boots"]
        self.told = values["told"]
        for name in ("_evidence", "_notable", "_sentenced"):
            known = {
                n: one for n, one in values[name].items() if self._boots.get(n) == boots.get(n, -1)
            }
            setattr(self, name, known)
        self.root, self._is_stale = 0, True
        for node in self._notable:
            self.root ^= claim_hash(self.claim(node))

    # -- claims ------------------------------------------------------------------------------------

    def add(self, node: NodeId, boot: int, now: float) -> bool:
        """A record of `node` with this boot is known; whether it is a new member or a new start."""
        known = self._boots.get(node)
        if known is not None and boot <= known:
            return False
        if node in self._evidence:
            self._set(node, Claim(node, boot, 0, ClaimState.ALIVE, False, b""), now)
        self._boots[node] = boot
        return True

    def remove(self, node: NodeId) -> None:
        """Forget a member; nothing happens if there is none."""
        if node in self._notable:
            self.root ^= claim_hash(self.claim(node))
        self._boots.pop(node, None)
        self._evidence.pop(node, None)
        self._notable.pop(node, None)
        self._spare(node)

    def claim(self, node: NodeId, own: bool = False) -> Claim:
        """What is believed of the member `node`, to be passed on."""
        member = self._of(node)
        return Claim(node, self._boots[node], member.incarnation, member.state, own, member.proof)

    def is_news(self, claim: Claim) -> bool:
        """Whether `claim` would change what is believed.

        One of another boot than that of the record here says nothing: the record of that boot has
        to come first, or is long known.
        """
        if claim.boot != self._boots.get(claim.node):
            return False
        member = self._of(claim.node)
        return (claim.incarnation, claim.state) > (member.incarnation, member.state)

    def is_current(self, claim: Claim) -> bool:
        """Whether `claim` is about the incarnation that is known here."""
        return (
            claim.boot == self._boots.get(claim.node)
            and claim.incarnation == self._of(claim.node).incarnation
        )

    def merge(self, claim: Claim, now: float) -> bool:
        """Believe `claim` if it is news, and proven; whether it was news."""
        if not self.is_news(claim):
            return False
        self._set(claim.node, claim, now)
        return True

    def _set(self, node: NodeId, claim: Claim, now: float) -> None:
        member = self._evidence_of(node)
        if not member.plain:
            self.root ^= claim_hash(self.claim(node))
        again = (claim.boot, claim.incarnation) != (self._boots[node], member.incarnation)
        if again or member.state is ClaimState.ALIVE:
            member.since = now
        if again:  # within one incarnation the proof that was checked is kept
            member.proof = claim.proof
            member.misses = 0  # it could not answer then; whether it can now is yet to be seen
        self._boots[node] = claim.boot
        member.incarnation, member.state = claim.incarnation, claim.state
        self._notable.pop(node, None)
        self._spare(node)
        if not member.plain:
            self.root ^= claim_hash(self.claim(node))
            self._notable[node] = None
        if member.state is ClaimState.DEAD and self.state(node, now) is not NodeState.DEAD:
            self._sentenced[node] = member.since + self._timing.refute_within
            self._is_stale = True

    def _spare(self, node: NodeId) -> None:
        if self._sentenced.pop(node, None) is not None:
            self._is_stale = True

    def notable(self) -> list[NodeId]:
        """Members of which there is something to say; the one that changed last comes last."""
        return list(self._notable)

    def postpone(self, late: float) -> None:
        """Let hearsay of deaths count so many seconds later: nobody could contradict meanwhile."""
        for node in self._sentenced:
            self._sentenced[node] += late
            self._evidence[node].since += late
        self._is_stale = True

    def next_sentence(self) -> float | None:
        """When hearsay of a death begins to count; None if there is none."""
        if self._is_stale:  # when many die at once there are hundreds, and they change less often
            self._is_stale = False
            self._next = min(self._sentenced.values(), default=None)
        return self._next

    def take_sentenced(self, now: float) -> list[NodeId]:
        """Members whose death counts from now on."""
        first = self.next_sentence()
        if first is None or now < first:
            return []
        due = [node for node, at in self._sentenced.items() if now >= at]
        for node in due:
            self._spare(node)
        return due

    # -- evidence ----------------------------------------------------------------------------------

    def on_heard(self, node: NodeId, at: float) -> bool:
        """Something authentic came from `node` at `at`; False if later things were heard before."""
        if node not in self._boots:
            return False
        member = self._evidence_of(node)
        if member.heard_at is not None and at <= member.heard_at:
            return False
        member.heard_at = at
        return True

    def on_probed(self, node: NodeId, answered: bool, rtt: float | None = None) -> None:
        """A probe of `node` is over. `rtt` in seconds, if it says something about the path."""
        if node not in self._boots:
            return
        member = self._evidence_of(node)
        member.misses = 0 if answered else member.misses + 1
        bits = member.probes << 1 | answered
        if bits >> (LOSS_WINDOW + 1):
            bits = bits & ((1 << LOSS_WINDOW) - 1) | 1 << LOSS_WINDOW
        member.probes = bits
        if rtt is not None:
            member.rtt = rtt if member.rtt is None else member.rtt + (rtt - member.rtt) * RTT_GAIN

    def on_session(self, node: NodeId) -> None:
        """A handshake with `node` succeeded: there is a way in both directions."""
        member = self._evidence.get(node)
        if member is not None:
            member.misses = 0

    def heard_at(self, node: NodeId) -> float | None:
        """When `node` was last heard directly; None if never."""
        member = self._evidence.get(node)
        return None if member is None else member.heard_at

    def round_trip(self, node: NodeId) -> float:
        """Seconds to a node and back, smoothed; 0 if no probe has measured that."""
        member = self._evidence.get(node)
        return 0.0 if member is None or member.rtt is None else member.rtt

    # -- states ------------------------------------------------------------------------------------

    def state(self, node: NodeId, now: float) -> NodeState:
        """READY, SUSPECT or DEAD. `node` must be a member."""
        member = self._of(node)
        if member.state is ClaimState.ALIVE:
            untold = member.heard_at is None and not self.told
            return NodeState.SUSPECT if untold else NodeState.READY
        if member.state is ClaimState.DEAD and now >= member.since + self._timing.refute_within:
            return NodeState.DEAD
        return NodeState.SUSPECT

    def change(self, node: NodeId, now: float) -> Change | None:
        """The member's state, if it is not what this returned last."""
        member = self._of(node)
        state = self.state(node, now)
        if state is member.reported or (member.reported is None and not self._is_notable(member)):
            return None
        member.reported = state
        silent = now - (member.since if member.heard_at is None else member.heard_at)
        return Change(node, state, silent)

    def view(self, node: NodeId, now: float) -> MemberView | None:
        """The member as it is now; None for a node that is not one."""
        if node not in self._boots:
            return None
        member = self._of(node)
        count = member.probes.bit_length() - 1
        answered = member.probes.bit_count() - 1
        return MemberView(
            state=self.state(node, now),
            rtt=member.rtt,
            loss=None if not count else 1 - answered / count,
            seen=None if member.heard_at is None else now - member.heard_at,
            reached=member.misses < _SILENT,
        )

    def check_invariants(self) -> None:
        """Assert that root, list and claims agree. For tests."""
        root = 0
        assert self._evidence.keys() <= self._boots.keys()
        for node in self._boots:
            member = self._of(node)
            assert member.plain == (node not in self._notable)
            assert bool(member.proof) == bool(member.incarnation)
            assert member.probes < 1 << (LOSS_WINDOW + 1)
            if not member.plain:
                root ^= claim_hash(self.claim(node))
        assert root == self.root
        assert self._sentenced.keys() <= self._notable.keys()
        assert self.next_sentence() == min(self._sentenced.values(), default=None)

    def _evidence_of(self, node: NodeId) -> Evidence:
        """To be added to."""
        evidence = self._evidence.get(node)
        if evidence is None:
            evidence = self._evidence[node] = Evidence()
        return evidence

    def _of(self, node: NodeId) -> Evidence:
        """To be read only. `node` must be a member."""
        return self._evidence.get(node) or NOTHING

    @staticmethod
    def _is_notable(member: Evidence) -> bool:
        # That somebody lives whom this node never met is no news.
        return member.heard_at is not None or member.state is not ClaimState.ALIVE


def claim_hash(claim: Claim) -> int:
    """The part of a claim in the root: 64 bits."""
    stamp = _CLAIM.pack(claim.boot, claim.incarnation, claim.state)
    return int.from_bytes(blake2s(claim.node + stamp, digest_size=ROOT_SIZE).digest(), "big")

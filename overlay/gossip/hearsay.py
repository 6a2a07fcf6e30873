"""What members say of each other's lives: claims in, claims out, and what is believed.

    claim about another --> believed by maximum --> rings, news to pass on, a report
    claim about us, bad --> refuted: next incarnation, signed
    anything from whom we believe suspect, or dead --> it is told so, and will refute

Confirmations of a suspicion are counted by the authenticated sender, which must be an observer of
the accused, and not by what a message says: one liar is one accuser.

References:
    SWIM (Das et al. 2002), section 4: dissemination, suspicion, refutation.
    Lifeguard (Dadgar et al. 2018), section IV.C, the buddy system: whatever is sent to a suspect
    starts with the claim about it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, Final

from overlay.config import Timing
from overlay.effects import Report
from overlay.faults import Fault
from overlay.gossip.broadcast import CLAIMS_PER_MESSAGE, Broadcasts
from overlay.gossip.letter import Action, Letter
from overlay.gossip.local import LocalNode
from overlay.gossip.member import Members, claim_hash
from overlay.gossip.rings import Rings
from overlay.types import NodeId
from overlay.views import NodeState
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.handed import BOOL, BYTES, CLAIM, INT, SECONDS, Handed, keys, maybe, part, table
from overlay.wire.messages import ROOT_SIZE, Claims
from overlay.wire.packing import U32

# -- specification ---------------------------------------------------------------------------------

CLAIMS_FANOUT: Final = 3
"""Neighbours that get a message of claims alone, per `claims_interval`."""

# -- implementation --------------------------------------------------------------------------------

REFUTE_INTERVAL: Final = 0.2
"""Seconds between two refutations: whoever accuses without end makes no endless flood."""

TELLERS: Final = 16
"""Accusers that are answered directly. The others learn it as everybody does."""

WARN_INTERVAL: Final = 0.5
"""Seconds between two messages to a suspect, or dead, member that is heard: it lives, and must know
what is said of it."""


class Hearsay:
    """Claims, as one node hears, believes and passes them on.

    Error contract: nothing received raises; what is said about nodes that are no members, or is
    not proven, changes nothing but a counter.

    Attributes:
        members: claims and evidence.
        rings: who watches whom.
        accused: members that this node suspects from its own evidence, and since when.
        dead: members that are, in the order in which they became it.
        forged: claims whose proof did not hold.
        refuted: how often this node had to contradict.
    """

    __slots__ = (
        "_accusers",
        "_doubted",
        "_has_lied",
        "_is_accused",
        "_local",
        "_name_of",
        "_news",
        "_own",
        "_refute_at",
        "_refuted_at",
        "_rng",
        "_spread_at",
        "_tellers",
        "_timing",
        "_warned",
        "accused",
        "dead",
        "forged",
        "members",
        "refuted",
        "rings",
    )

    HANDED: ClassVar = Handed(
        members=part(Members),
        **dict.fromkeys(("accused", "_warned"), table(BYTES, SECONDS)),
        **dict.fromkeys(("dead", "_doubted", "_tellers"), keys(BYTES)),
        **dict.fromkeys(("forged", "refuted"), INT),
        _own=CLAIM,
        _news=part(Broadcasts),
        _accusers=table(BYTES, keys(BYTES)),
        _is_accused=BOOL,
        **dict.fromkeys(("_refute_at", "_spread_at"), maybe(SECONDS)),
        _refuted_at=SECONDS,
    )

    def __init__(
        self,
        local: LocalNode,
        timing: Timing,
        rng: random.Random,
        name_of: Callable[[NodeId], str],
    ) -> None:
        self.members = Members(timing)
        self.rings = Rings(local.node)
        self.accused: dict[NodeId, float] = {}
        self.dead: dict[NodeId, None] = {}
        self.forged = self.refuted = 0
        self._local = local
        self._own = Claim(local.node, local.boot, 0, ClaimState.ALIVE, True, b"")
        self._timing = timing
        self._rng = rng
        self._name_of = name_of
        self._news = Broadcasts()
        self._accusers: dict[NodeId, dict[NodeId, None]] = {}
        self._doubted: dict[NodeId, None] = {}
        self._tellers: dict[NodeId, None] = {}
        self._warned: dict[NodeId, float] = {}
        self._spread_at: float | None = None
        self._is_accused = False
        self._has_lied = False  # the message that is being read holds a claim that was forged
        self._refute_at: float | None = None
        self._refuted_at = float("-inf")

    # -- members -----------------------------------------------------------------------------------

    def add(self, node: NodeId, boot: int, now: float) -> list[Action] | None:
        """A record with this boot is known; None if nothing is new about that."""
        known = node in self.members
        if not self.members.add(node, boot, now):
            return None
        self._acquit(node)
        self._news.drop(node)
        self.dead.pop(node, None)
        self.rings.add(node)
        self.rings.suspect(node, suspected=False)
        return self._changed(node, now) if known else []

    def remove(self, node: NodeId) -> None:
        """`node` is no member any more; nothing happens if it was none."""
        self.members.remove(node)
        self.rings.remove(node)
        self._acquit(node)
        self._news.drop(node)
        self.dead.pop(node, None)

    def set_boot(self, boot: int) -> None:
        """This node's own record has this boot now: what was said of an earlier one is void."""
        if boot > self._own.boot:
            self._own = Claim(self._local.node, boot, 0, ClaimState.ALIVE, True, b"")
            self._news.drop(self._local.node)

    def on_heard(self, node: NodeId, at: float, now: float) -> list[Action] | None:
        """Something authentic came from `node` at `at`; None if that is no evidence of anything."""
        if not self.members.on_heard(node, at):
            return None
        self.accused.pop(node, None)
        actions = self._changed(node, now)
        if self.members.claim(node).state is not ClaimState.ALIVE:
            actions += self._warn(node, now)
        return actions

    def _warn(self, node: NodeId, now: float) -> list[Action]:
        if now - self._warned.get(node, float("-inf")) < WARN_INTERVAL:
            return []
        self._warned[node] = now
        return [Letter(node, Claims(self.about(node)))]

    def _changed(self, node: NodeId, now: float) -> list[Action]:
        """A report if the member's state is another than the last one reported."""
        change = self.members.change(node, now)
        if change is None:
            return []
        silent = round(change.silent, 3)
        name = self._name_of(node)
        return [Report(f"member.{change.state}", {"peer": name, "silent": silent})]

    def _acquit(self, node: NodeId) -> None:
        self.accused.pop(node, None)
        for known in (self._accusers, self._warned, self._doubted):
            known.pop(node, None)

    # -- claims in ---------------------------------------------------------------------------------

    def on_claims(self, sender: NodeId, claims: tuple[Claim, ...], now: float) -> list[Action]:
        """What a member says of others, and of us."""
        actions: list[Action] = []
        self._has_lied = False
        for claim in claims:
            if claim.node == self._local.node:
                self._on_accusation(sender, claim, now)
            elif claim.node in self.members:
                actions += self._on_claim(sender, claim, now)
        return actions

    def _on_claim(self, sender: NodeId, claim: Claim, now: float) -> list[Action]:
        node, members = claim.node, self.members
        news = members.is_news(claim)
        if news and not members.is_current(claim):
            if not self._is_proven(sender, claim, now):
                return []
            self._acquit(node)  # of what was said of an earlier incarnation
        actions = self._believe(claim, now) if news else []
        if claim.state is ClaimState.ALIVE or not members.is_current(claim):
            return actions
        if claim.own and sender != node and sender in self.rings.observers_of(node):
            self._accusers.setdefault(node, {})[sender] = None
        if news and node in self.rings.subjects():
            self._doubted[node] = None
        return actions

    def _is_proven(self, sender: NodeId, claim: Claim, now: float) -> bool:
        """Whether the claim's node has gone on to that incarnation; noted if not.

        The check costs more than all else here. Nobody honest passes on what does not hold, so
        after one such claim nothing of the message is checked any more, or believed.
        """
        if self._has_lied or self._local.is_proven(claim):
            return not self._has_lied
        self._has_lied = True
        self.forged += 1
        name = "this node" if claim.node == self._local.node else self._name_of(claim.node)
        evidence = f"it says that {name} contradicted, which did not"
        self._local.complaints.note(sender, Fault.FORGED_CLAIM, now, evidence)
        return False

    def say(self, node: NodeId, state: ClaimState, now: float) -> list[Action]:
        """This node says from its own evidence that a member is suspect, or dead."""
        claim = self.members.claim(node, own=True)._replace(state=state)
        return self._believe(claim, now) if self.members.is_news(claim) else []

    def _believe(self, claim: Claim, now: float) -> list[Action]:
        self.members.merge(claim, now)
        self._put(claim.node, now)
        return self.follow(claim.node, now)

    def follow(self, node: NodeId, now: float) -> list[Action]:
        """What is believed of a member has changed: let it have its effects."""
        claimed = self.members.claim(node).state
        if self.members.state(node, now) is NodeState.DEAD:
            self.rings.remove(node)
            self.dead[node] = None
            self.accused.pop(node, None)
            self._accusers.pop(node, None)
            self._doubted.pop(node, None)
        else:
            self.dead.pop(node, None)
            self.rings.add(node)
            self.rings.suspect(node, suspected=claimed is not ClaimState.ALIVE)
        if claimed is ClaimState.ALIVE:
            self._acquit(node)
        return self._changed(node, now)

    def accusers(self, node: NodeId) -> int:
        """Other observers that have said, from their own evidence, that `node` is suspect."""
        return len(self._accusers.get(node, ()))

    def take_doubted(self) -> list[NodeId]:
        """Subjects of which somebody else said that they are suspect, since the last call."""
        doubted, self._doubted = self._doubted, {}
        return list(doubted)

    # -- we ourselves ------------------------------------------------------------------------------

    def _on_accusation(self, sender: NodeId, claim: Claim, now: float) -> None:
        own = self._own
        if claim.boot != own.boot or claim.state is ClaimState.ALIVE:
            return
        if claim.incarnation > own.incarnation and self._is_proven(sender, claim, now):
            self._own = own = own._replace(incarnation=claim.incarnation)
        if claim.incarnation > own.incarnation:
            return
        # Who says so has to know, and need not be a neighbour: it may be one who comes back.
        if len(self._tellers) < TELLERS:
            self._tellers[sender] = None
        self._is_accused |= claim.incarnation == own.incarnation
        if self._refute_at is None:
            self._refute_at = max(now, self._refuted_at + REFUTE_INTERVAL)

    def _refute(self, now: float) -> list[Action]:
        self._refute_at, self._refuted_at = None, now
        if self._is_accused:  # else somebody has not heard of the last refutation yet
            self._is_accused = False
            self.refuted += 1
            incarnation = min(self._own.incarnation + 1, U32)
            proof = self._local.prove(self._own.boot, incarnation)
            self._own = self._own._replace(incarnation=incarnation, proof=proof)
            self._put(self._local.node, now)
            self._spread_at = now
        tellers, self._tellers = self._tellers, {}
        return [Letter(node, Claims((self._own,))) for node in tellers]

    # -- claims out --------------------------------------------------------------------------------

    def piggyback(self, node: NodeId) -> tuple[Claim, ...]:
        """What to say to `node` beside what is said anyway: first of all what is said of it."""
        said = self.about(node)
        news = self._news.take(CLAIMS_PER_MESSAGE - len(said))
        return said + tuple(self.claim(one) for one in news if one != node)

    def about(self, node: NodeId) -> tuple[Claim, ...]:
        """The claim about `node`, unless it is alive, or no member."""
        if node not in self.members:
            return ()
        claim = self.claim(node)
        return () if claim.state is ClaimState.ALIVE else (claim,)

    def notable(self, most: int) -> tuple[Claim, ...]:
        """Up to `most` claims that are not plainly alive: the newest, and a sample of the rest."""
        nodes = self.members.notable()
        if len(nodes) > most:
            newest = nodes[-most // 2 :]
            nodes = self._rng.sample(nodes[: -len(newest)], most - len(newest)) + newest
        claims = tuple(self.claim(node) for node in nodes)
        return (*claims, self._own) if self._own.incarnation else claims

    def root(self) -> bytes:
        """One hash over all that is not plainly alive, this node's own claim included."""
        root = self.members.root ^ (claim_hash(self._own) if self._own.incarnation else 0)
        return root.to_bytes(ROOT_SIZE, "big")

    def claim(self, node: NodeId) -> Claim:
        """What this node says of a member, or of itself."""
        if node == self._local.node:
            return self._own
        return self.members.claim(node, own=node in self.accused)

    def _put(self, node: NodeId, now: float) -> None:
        self._news.put(node, len(self.members))
        if self._spread_at is None:
            self._spread_at = now + self._timing.claims_interval

    def _spread(self, now: float) -> list[Action]:
        neighbours = self.rings.neighbours()
        chosen = self._rng.sample(neighbours, min(CLAIMS_FANOUT, len(neighbours)))
        actions: list[Action] = []
        for node in chosen:
            claims = self.piggyback(node)
            if claims:
                actions.append(Letter(node, Claims(claims)))
        more = self._news and chosen
        self._spread_at = now + self._timing.claims_interval if more else None
        return actions

    # -- time --------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do."""
        deadlines = (self._refute_at, self._spread_at, self.members.next_sentence())
        return min((at for at in deadlines if at is not None), default=None)

    def on_deadline(self, now: float) -> list[Action]:
        """Contradict, pass on what is new, let hearsay of deaths count."""
        actions: list[Action] = []
        if self._refute_at is not None and now >= self._refute_at:
            actions += self._refute(now)
        for node in self.members.take_sentenced(now):
            actions += self.follow(node, now)
        if self._spread_at is not None and now >= self._spread_at:
            actions += self._spread(now)
        return actions

    def check_invariants(self, now: float) -> None:
        """Assert that rings and tables follow the claims. For tests."""
        self.members.check_invariants()
        self.rings.check_invariants()
        for node in self.members.nodes():
            dead = self.members.state(node, now) is NodeState.DEAD
            sentenced = dead and node not in self.dead  # counts with the next deadline
            assert sentenced or (node in self.rings) == (node not in self.dead)
            assert sentenced or dead == (node in self.dead)
        assert self.accused.keys() <= set(self.members.nodes())
        assert len(self.rings) <= len(self.members) + 1

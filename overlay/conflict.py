"""Two machines with one identity: recognised, shown, nothing handed out until an operator decides.

A state folder that was restored from a backup, or copied to a second machine, makes a node that
acts under an identity whose latest doings it does not know: it could give away the same address, or
the same block, a second time. The proof is a record under this node's own key, newer than any that
it has made, or one from before this start that is later than its state. Nobody else can sign them.

              a newer record of ours, or a later one than our state, shown by a member
         SOLE ------------------------------------------------------> frozen: HOLDS or COPY
           ^                                                            |
           +------------------ claim (`muslin ipam claim`) -------------+

A frozen node gives no address, signs no deed and admits nobody; packets flow. It says so in its
record, so that every member shows it. What else is in that record must not cut anybody's pods off:

    HOLDS   others were routing to this machine: it signs what it holds itself
    COPY    others were routing to what somebody else had signed: it signs just that again

A flagged record needs no answer, so two machines outdo each other once, not for ever. A COPY whose
addresses are not those in the record is a second machine. There is one session per node id, so it
keeps quiet from then on, or the pods of the other one would lose their way in.

How the news travels: a machine with an old state sends stamps that members have seen before. They
tell it the highest one they know, in an answer that makes no session (`StampRefused`). It becomes
quiet at once, with that one member as its herald: there it learns the newer record. Where its
stamps are newer, because it started later, it takes sessions over and the old address is asked
(`overlay.takeover`).

References:
    Lamport 1978 on why a counter that goes backwards breaks an order; design, section 5.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from overlay.agenda import earliest
from overlay.catalog.records import NodeRecord
from overlay.effects import Effect, Report
from overlay.errors import AuthError, RefusedError, WireError
from overlay.knowledge import GREETED
from overlay.parts import Parts
from overlay.resting import rest_all
from overlay.types import NodeId
from overlay.views import Problem
from overlay.wire.control import encode
from overlay.wire.handed import SECONDS, Handed, maybe
from overlay.wire.items import Item
from overlay.wire.messages import Goodbye

CODE: Final = "identity-conflict"
_WHY: Final = (
    "a newer record of it is about than this machine has made, so its state is from a backup or "
    "another machine runs on a copy of it"
)
_FIX: Final = "stop the other machine, if there is one, then run muslin ipam claim on this one"

REASSERT_INTERVAL: Final = 10.0
"""At most this often a node outdoes a newer record of its own, which makes others take no notice of
what it says. Two machines with one identity would else do it as fast as the network carries it."""

SETTLED_AFTER: Final = 5.0
"""A node whose first session is this old is the one that others route to: a newer record of it that
is older than its sessions would have come with the first of them."""

DOUBT: Final = 8.0
"""Seconds after which a stamp that a member refused is forgotten if no newer record has come. A
member may lie about stamps, but it cannot sign our record."""

MEETING: Final = 2.5
"""Seconds after a start that is not the first for which a node that knows members waits for one of
them before it hands anything out: they may know what its state does not."""

HEARING: Final = 1.0
"""Seconds that the first member it meets has to say so."""

JUST_STARTED: Final = "just-started"

HERALD_TIME: Final = 10.0
"""Seconds that a second machine has to tell its herald that it exists."""


class Standing(IntEnum):
    """Whether another machine has this node's identity. Stored."""

    SOLE = 0  #: none is known of
    HOLDS = 1  #: one is, and others route to this machine
    COPY = 2  #: one is, and others route to what this machine did not sign first


class Conflict:
    """What one node knows of other machines with its identity.

    Args:
        parts: the machines of the node.
        standing: as stored.

    Attributes:
        standing: what is to be stored and announced.
    """

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("_first_session", "_doubt_until", "_unmet_until"), maybe(SECONDS)),
        _silent_at=maybe(SECONDS),
        _reassert_at=SECONDS,
    )

    def __init__(self, parts: Parts, standing: Standing) -> None:
        self._parts = parts
        self.standing = standing
        self._first_session: float | None = None
        self._doubt_until: float | None = None
        self._unmet_until: float | None = None
        self._silent_at: float | None = None
        self._reassert_at = 0.0
        self._recalled: NodeRecord | None = None  # shown by a member, until it is signed again

    @property
    def frozen(self) -> bool:
        """Whether nothing may be handed out or signed away."""
        return self.standing is not Standing.SOLE

    @property
    def content(self) -> NodeRecord | None:
        """The record whose content is to be signed again; None: what this node itself holds."""
        return self.known if self.standing is Standing.COPY else None

    @property
    def known(self) -> NodeRecord | None:
        """The newest record of this node, whoever signed it; the one its state had forgotten."""
        own = self._parts.catalog.nodes.get(self._parts.local)
        recalled = self._recalled
        said = own is not None and own.boot >= self._parts.record.versions.boot
        return own if recalled is None or said else recalled

    def check(self) -> None:
        """Whether addresses and blocks may be handed out.

        Raises:
            RefusedError: `identity-conflict`. Nothing else.
        """
        if self.frozen:
            raise RefusedError(CODE, _WHY, _FIX)
        if self._doubt_until is not None:
            why = "a member knows of later doings of this node than its own state"
            raise RefusedError(CODE, why, f"try again in {DOUBT:.0f} s")

    def check_met(self, now: float) -> None:
        """As `check`, and whether a member has had the time to say that our state is old.

        Raises:
            RefusedError: `identity-conflict`, `just-started`. Nothing else.
        """
        self.check()
        if not self.has_met(now):
            why = "this node has just started, and others may know of later doings of it"
            raise RefusedError(JUST_STARTED, why, f"try again in {MEETING:.0f} s")

    def has_met(self, now: float) -> bool:
        """Whether it is over that a member may come and say so."""
        return self._unmet_until is None or now >= self._unmet_until

    def problem(self) -> Problem | None:
        """What `status` says of it."""
        if not self.frozen:
            return None
        what = "this node's identity is in use twice: no address and no block is handed out"
        return Problem(CODE, what, _WHY, _FIX)

    # -- what happens ----------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """A second machine stays quiet across restarts; nobody hands out what others may have."""
        if self._is_elsewhere():
            self._parts.sessions.voice.quiet = True
        others = (r for node, r in self._parts.catalog.nodes.items() if node != self._parts.local)
        if self.known is not None and not all(record.left for record in others):
            self._unmet_until = now + MEETING

    def on_session_up(self, now: float) -> None:
        """A session with any member came up."""
        if self._first_session is None:
            self._first_session = now
            if self._unmet_until is not None:
                self._unmet_until = min(self._unmet_until, now + HEARING)

    def on_stamp_refused(self, node: NodeId, now: float) -> list[Effect]:
        """A member has seen greater stamps of ours than we have made."""
        if self.frozen or self._first_session is not None or self._doubt_until is not None:
            return []  # it is known already, or the session that is being made will tell
        self._doubt_until = now + DOUBT
        effects = self._fall_silent(node, now)
        return [*effects, Report("identity.doubted", {"peer": self._parts.name_of(node)})]

    def look(self, now: float) -> tuple[bool, list[Effect]] | None:
        """Whether a record of ours is about that we did not make: then freeze.

        Returns:
            None if there is nothing new. Else whether the caller shall sign a record above it, and
            what is to be done when it has stored all that.
        """
        versions = self._parts.record.versions
        newer = versions.overtaken_by()
        if newer is None:
            return None
        standing = self._standing_after(newer, now)
        # A flagged record says it all, unless it leaves out what this machine has.
        answer = not newer.conflict or (standing is Standing.HOLDS and not self._says_all(newer))
        if answer and now < self._reassert_at:
            return None
        self.standing = standing
        done = self._freeze(newer, now)
        if answer:
            self._reassert_at = now + REASSERT_INTERVAL
            versions.raise_boot()
        else:
            versions.follow(newer)
        why = "its state is from a backup, or another machine runs on a copy of it"
        return answer, [Report("record.overtaken", {"why": why}), *done]

    def recall(self, item: Item, now: float) -> list[Effect] | None:
        """A member shows what this node has said before it started: was it forgotten? Then freeze.

        What the member shows may have been said by this machine or by another one with its
        identity: its state cannot tell.

        Args:
            item: under this node's key, unchecked.
            now: seconds, monotonic.

        Returns:
            None if there is nothing new. Else what is to be done when the caller has stored that
            and signed a record.
        """
        versions = self._parts.record.versions
        if self.frozen or item.version >> 32 >= versions.boot:
            return None
        try:
            record = self._parts.reader.record(item)
        except (WireError, AuthError):
            return None
        if not versions.forgot(record):
            return None
        versions.recall(record)
        versions.raise_boot()
        self.standing = Standing.HOLDS if self._was_settled(now) else Standing.COPY
        self._reassert_at = now + REASSERT_INTERVAL
        if self.standing is Standing.COPY:
            self._recalled = record
        else:
            self._adopt(record, now)
        why = "a member knows a later record of this node than its state: it is from a backup"
        return [Report("record.recalled", {"why": why}), *self._freeze(record, now)]

    def _standing_after(self, newer: NodeRecord, now: float) -> Standing:
        if newer.conflict and self._is_foreign(newer):
            return Standing.COPY
        if self.frozen:
            return self.standing
        return Standing.HOLDS if self._was_settled(now) else Standing.COPY

    def _says_all(self, newer: NodeRecord) -> bool:
        """Whether others that go by this record reach what this machine holds."""
        holdings = self._parts.holdings
        held = {(pod.name, pod.block, pod.host) for pod in holdings.pods.values()}
        said = {(pod.name, pod.block, pod.host) for pod in newer.pods}
        return held <= said and set(holdings.blocks_in_use) <= set(newer.blocks_in_use)

    def _freeze(self, newer: NodeRecord, now: float) -> list[Effect]:
        self._doubt_until = None
        self._parts.seeker.found()  # it may ask for no block now
        voice = self._parts.sessions.voice
        voice.quiet = self._is_elsewhere()
        if not voice.quiet:
            voice.herald = self._silent_at = None
            return self._connect_all(now)
        if newer.conflict:
            return self._go_away(now)
        voice.herald = voice.herald or self._any_peer()
        self._silent_at = now + HERALD_TIME
        return []

    def claim(self, now: float) -> list[Effect]:
        """This is the only machine with the identity: go on from all that is known, and speak.

        Returns:
            What is to be done when the caller has stored that and signed a record.

        Raises:
            RefusedError: `no-conflict`, or `no-member`: it is not known yet what the other machine
                did. Nothing else.
        """
        if self._doubt_until is not None:
            why = "what others know of this node has not been learned yet"
            raise RefusedError("no-member", why, f"try again in {DOUBT:.0f} s")
        if not self.frozen:
            why = "no other machine is known to have this node's identity"
            raise RefusedError("no-conflict", why, "there is nothing to claim")
        if self.known is not None:
            self._adopt(self.known, now)
        self.standing = Standing.SOLE
        # Whoever signs after this is another machine, whatever the sessions' age.
        self._first_session = now - SETTLED_AFTER
        self._unmet_until = None
        self._silent_at = None
        voice = self._parts.sessions.voice
        voice.quiet, voice.herald = False, None
        voice.raise_to(self._parts.record.versions.raise_boot())
        return [Report("identity.claimed"), *self._connect_all(now)]

    def _adopt(self, other: NodeRecord, now: float) -> None:
        """Go on from what the other machine did, as far as the blocks are still this node's."""
        holdings = self._parts.holdings
        holdings.use_blocks(other.blocks_in_use)
        rest_all(holdings.allocator, other.pods, holdings.quarantine, now)

    # -- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When a doubt or the herald's time ends."""
        return earliest(self._doubt_until, self._silent_at)

    def on_deadline(self, now: float) -> list[Effect]:
        """End what has lasted long enough."""
        if self._doubt_until is not None and now >= self._doubt_until:
            self._doubt_until = None
            voice = self._parts.sessions.voice
            voice.quiet, voice.herald = False, None
            return self._connect_all(now)
        if self._silent_at is not None and now >= self._silent_at:
            return self._go_away(now)
        return []

    # -- to whom we speak ------------------------------------------------------------------------

    def _was_settled(self, now: float) -> bool:
        return self._first_session is not None and now - self._first_session >= SETTLED_AFTER

    def _is_foreign(self, record: NodeRecord) -> bool:
        """Whether it names other underlay addresses than this machine has; unknown ones do not."""
        ours = self._parts.record.endpoints
        return bool(ours and record.endpoints) and not set(ours) & set(record.endpoints)

    def _is_elsewhere(self) -> bool:
        known = self.known
        return self.standing is Standing.COPY and known is not None and self._is_foreign(known)

    def _any_peer(self) -> NodeId | None:
        paths = self._parts.paths
        return min((node for node, path in paths.items() if path.keypair), default=None)

    def _connect_all(self, now: float) -> list[Effect]:
        """With everybody who was talked to, and some others: gossip brings the rest."""
        peering, parts = self._parts.peering, self._parts
        others = sorted(node for node in parts.catalog.nodes if node != parts.local)
        nodes = dict.fromkeys([*peering.paths, *others[:GREETED]])
        return [effect for node in nodes for effect in peering.connect(node, now)]

    def _fall_silent(self, herald: NodeId | None, now: float) -> list[Effect]:
        """Drop all sessions and handshakes but those with the herald."""
        sessions, why = self._parts.sessions, "another machine has this identity"
        sessions.voice.quiet, sessions.voice.herald = True, herald
        others = [node for node in self._parts.paths if node != herald]
        return [effect for node in others for effect in sessions.close(node, now, why)]

    def _go_away(self, now: float) -> list[Effect]:
        """Everybody knows: leave the sessions to the other machine."""
        self._silent_at = None
        peering, said = self._parts.peering, []
        for node in [node for node, path in peering.paths.items() if path.keypair]:
            said += peering.send(node, encode(Goodbye()), now)  # while there are keys to seal it
        return [*said, *self._fall_silent(None, now)]

"""Renewing this node's certificate: asking for a new one, for ever, until one is there.

    certificate is due --> wait a moment --> RenewRequest to a ready member that can certify
                                                |   no answer, a refusal, a grant that fails
                              patience doubles  |   a check: ask the next of them, later
                                                v
                           RenewGrant, checked --> kept --> stored --> used (`overlay.certifying`)

It is due when less than a third of its life is left, or when its issuer is not the one that signs
new certificates at present (`overlay.validity`). Whoever certifies is trusted to say who is a
member, but what it sends here is checked like anything else: a certificate that is for another key,
name or time would cut this node off as surely as none.

Patience runs on the monotonic clock, the certificate on the wall clock: a clock that is set makes
nobody wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from overlay.config import Timing
from overlay.drops import DropReason
from overlay.effects import Effect, Report, SendControl
from overlay.errors import AuthError, ConfigError, WireError
from overlay.types import NodeId
from overlay.validity import is_due, life
from overlay.wall import Wall
from overlay.wire.certificate import Certificate, Identity
from overlay.wire.control import encode
from overlay.wire.handed import BOOL, BYTES, INT, SECONDS, TEXT, Handed, maybe, table
from overlay.wire.messages import Refusal, RenewGrant, RenewRequest

SPREAD_SHARE: Final = 60
"""A due certificate is asked for within one part in so many of its life."""

PATIENCE_SHARE: Final = 100
"""And again within one part in so many: one that lives for a day is not asked for in hours."""

PASSING: Final = frozenset({"not-due", "just-started"})
"""Codes of refusals that mean nothing but "later": the clocks differ, or it has just started."""

DOUBLINGS: Final = 20
"""Of the patience, at most; it is bounded otherwise, this keeps the number small."""

Check = Callable[[Certificate, Certificate, float], bool]

OTHER_ROUTES: Final = "it allows other routes"
"""What an operator may do with a certificate that is made by hand, and nobody else."""

CHECKS: Final[Mapping[str, Check]] = {
    "it is for another node": lambda new, old, _: new.node == old.node,
    "it is for another key": lambda new, old, _: new.static == old.static,
    "it is for another name": lambda new, old, _: new.name == old.name,
    "it is for another cluster": lambda new, old, _: new.cluster == old.cluster,
    OTHER_ROUTES: lambda new, old, _: new.routes == old.routes,
    "its serial is not greater": lambda new, old, _: new.serial > old.serial,
    "it does not end later": lambda new, old, _: new.not_after > old.not_after,
    "it is not valid yet (is the clock right?)": lambda new, _, wall: wall >= new.not_before,
    "it is not valid any more (is the clock right?)": lambda new, _, wall: wall < new.not_after,
}
"""What must be true of a new certificate beside the old one at a wall time, and what is said where
it is not."""


def check_new(new: Certificate, old: Certificate, wall: float, *, by_hand: bool = False) -> None:
    """Whether a certificate may take the place of the one in use; who signed it is not asked.

    Args:
        new: the certificate.
        old: the one in use.
        wall: the present, in Unix seconds.
        by_hand: whether an operator installs it: then it may allow other routes.

    Raises:
        AuthError: a check fails (BAD_CERTIFICATE). Nothing else.
    """
    for what, holds in CHECKS.items():
        if not holds(new, old, wall) and not (by_hand and what == OTHER_ROUTES):
            raise AuthError(what, DropReason.BAD_CERTIFICATE)


def check_grant(
    data: bytes, old: Certificate, read: Callable[[bytes], Certificate], wall: float
) -> Certificate:
    """The certificate in a grant, if it may take the place of the one in use.

    Args:
        data: the encoded certificate.
        old: the one in use.
        read: reads a certificate and checks that an authority we trust has signed it.
        wall: the present, in Unix seconds.

    Raises:
        WireError: it does not parse.
        AuthError: it is not signed as it must be, or a check fails (BAD_CERTIFICATE). Nothing else.
    """
    new = read(data)
    check_new(new, old, wall)
    return new


def present_identity(identity: Identity, kept: bytes) -> Identity:
    """What a node starts with: its keys, and the newer of two certificates.

    The newer one is that with the greater serial: what a node is granted has a greater one than
    what it had.

    Args:
        identity: its keys, with the certificate it joined with.
        kept: the one in its state, encoded; empty if there is none.

    Returns:
        An identity of its own: renewing it does not change the one given.

    Raises:
        ConfigError: the kept one is damaged, or of another node or cluster. Nothing else.
    """
    joined = identity.certificate
    present = Identity(identity.signing, identity.static, joined)
    if not kept:
        return present
    try:
        certificate = Certificate.decode_untrusted(kept)
    except WireError as error:
        raise ConfigError(f"the stored {error}") from error
    if any(
        getattr(certificate, field) != getattr(joined, field)
        for field in ("node", "static", "name", "cluster")
    ):
        raise ConfigError("the stored certificate is for other keys, or of another cluster")
    if certificate.serial > joined.serial:
        present.keep(certificate)
        present.use_kept()
    return present


@dataclass(frozen=True, slots=True)
class RenewalSnapshot:
    """All state of a renewal. Equal before and after an answer to a question that was not asked."""

    ask_at: float | None
    tries: int
    asked: Mapping[NodeId, float]
    why: str
    refused: bool


class Renewal:
    """The asking of one node.

    Args:
        identity: whose certificate it is about.
        timing: how soon, and how often.
        rng: draws request numbers, and who is asked when.
        wall: Unix time.
        certifiers: the ready members that can certify, at a given monotonic time.
        issuer: key of the authority that signs new certificates at present.
        read: reads a certificate and checks that an authority we trust has signed it.
        name_of: a member's name.

    Attributes:
        why: why there is no new certificate yet, in one clause; empty while none is wanted.
        refused: whether somebody declined, or sent what is none, since one is wanted.
    """

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("_request", "_tries"), INT),
        _ask_at=maybe(SECONDS),
        _asked=table(BYTES, SECONDS),
        why=TEXT,
        refused=BOOL,
    )

    def __init__(
        self,
        *,
        identity: Identity,
        timing: Timing,
        rng: random.Random,
        wall: Wall,
        certifiers: Callable[[float], Sequence[NodeId]],
        issuer: Callable[[], bytes],
        read: Callable[[bytes], Certificate],
        name_of: Callable[[NodeId], str],
    ) -> None:
        self._identity = identity
        self._timing = timing
        self._rng = rng
        self._wall = wall
        self._certifiers = certifiers
        self._issuer = issuer
        self._read = read
        self._name_of = name_of
        self._request = 0
        self._ask_at: float | None = None
        self._tries = 0
        self._asked: dict[NodeId, float] = {}
        self.why = ""
        self.refused = False

    @property
    def wanted(self) -> bool:
        """Whether a new certificate is wanted."""
        return self._ask_at is not None

    def on_look(self, now: float) -> None:
        """Look whether the certificate is due; called about once a second."""
        certificate = self._identity.certificate
        if not is_due(certificate, self._issuer(), self._wall.at(now)):
            self._ask_at, self._tries, self.why, self.refused = None, 0, "", False
            self._asked.clear()
        elif self._ask_at is None:
            spread = min(self._timing.renew_spread, life(certificate) / SPREAD_SHARE)
            self._ask_at = now + self._rng.random() * spread
            self._request = self._rng.getrandbits(63)
            self.why = "nobody was asked yet"

    def next_deadline(self) -> float | None:
        """When to ask next."""
        return self._ask_at

    def is_due(self, now: float) -> bool:
        """Whether it is time to ask, or to ask again."""
        return self._ask_at is not None and now >= self._ask_at

    def wait(self, now: float) -> None:
        """Something was tried: be patient before the next time."""
        timing = self._timing
        longest = min(timing.renew_retry_max, life(self._identity.certificate) / PATIENCE_SHARE)
        patience = min(timing.renew_retry * 2**self._tries, longest)
        self._tries = min(self._tries + 1, DOUBLINGS)
        self._ask_at = now + patience * (1 + self._rng.random()) / 2

    def on_deadline(self, now: float) -> list[Effect]:
        """Ask the one that was not asked for longest; nothing if called early."""
        if not self.is_due(now):
            return []
        self.wait(now)
        ready = self._certifiers(now)
        if not ready:
            self.why = "no node that holds the authority's key is reachable"
            return []
        draw = {node: self._rng.random() for node in ready}
        node = min(ready, key=lambda one: (self._asked.get(one, float("-inf")), draw[one]))
        self._asked[node] = now
        if not self.refused:  # what was said before says more
            self.why = f"{self._name_of(node)} was asked and has not answered"
        return [SendControl(node, encode(RenewRequest(self._request)))]

    def on_grant(
        self, node: NodeId, grant: RenewGrant, now: float
    ) -> tuple[Certificate | None, list[Effect]]:
        """A member sends a certificate: the certificate, if it is good and was asked for."""
        if not self._is_answer(node, grant.request):
            return None, []
        try:
            wall = self._wall.at(now)
            return check_grant(grant.certificate, self._identity.certificate, self._read, wall), []
        except (WireError, AuthError) as error:
            return None, self._fail(node, f"sent a certificate that is not used: {error}")

    def by_hand(self, data: bytes, now: float) -> Certificate:
        """A certificate that the operator has for this node, checked.

        Raises:
            WireError: it does not parse.
            AuthError: it is not signed as it must be, or a check fails (BAD_CERTIFICATE). Nothing
                else.
        """
        new = self._read(data)
        check_new(new, self._identity.certificate, self._wall.at(now), by_hand=True)
        return new

    def on_refusal(self, node: NodeId, refusal: Refusal) -> list[Effect]:
        """A member declined. It is asked again: what it lacks may come."""
        if not self._is_answer(node, refusal.request):
            return []
        if refusal.code in PASSING:
            return []
        return self._fail(node, f"declined: {refusal.text}")

    def _is_answer(self, node: NodeId, request: int) -> bool:
        return self.wanted and request == self._request and node in self._asked

    def _fail(self, node: NodeId, what: str) -> list[Effect]:
        self.refused, self.why = True, f"{self._name_of(node)} {what}"
        return [Report("certificate.refused", {"peer": self._name_of(node), "why": what})]

    def snapshot(self) -> RenewalSnapshot:
        """All state, comparable with `==`."""
        return RenewalSnapshot(self._ask_at, self._tries, dict(self._asked), self.why, self.refused)

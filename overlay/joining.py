"""Becoming a member: the side of a join that has nothing but a token.

    start --> HANDSHAKE --response--> ASKING --grant, checked--> DONE
                 |   ^                  |  |
                 |   '--member silent---'  '--refusal, or a grant that proves nothing--> FAILED
                 '--nobody answered in time--------------------------------------------> FAILED

The machine tries every endpoint of the token in turn, because only one of them may be reachable
from here, and comes back to each with growing patience. Requests are repeated until answered;
repeating is harmless, because the authority gives the same node the same certificate again.

A grant is believed only after everything in it was checked against the token and our own keys: the
session proves that the member knows the token's secret, not that it speaks for the authority.

The authority's side is `overlay.admission`.

References:
    WireGuard paper (Donenfeld 2017), section 5.2: a pre-shared key mixed into the handshake; here
    the token's secret.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from overlay.admission import JOIN_CONTEXT, join_signed_bytes
from overlay.catalog.trust import pinned_trust
from overlay.channel import Channel
from overlay.config import Settings
from overlay.effects import Effect, SendDatagram
from overlay.errors import AuthError, RefusedError, StateError, WireError
from overlay.keys import UNLOCK, SigningKey, StaticKey
from overlay.session.joiner import JoinSession
from overlay.session.suites import offered_suites
from overlay.types import Endpoint, Entropy
from overlay.wire.certificate import Certificate
from overlay.wire.cluster import Cluster
from overlay.wire.handshake import JoinerHello
from overlay.wire.header import TYPE_DATA, Header
from overlay.wire.items import Item
from overlay.wire.messages import JoinGrant, JoinRequest, Message, Refusal
from overlay.wire.token import JoinToken

ASK_TRIES: Final = 10
"""Requests under one keypair before a new handshake: the member may have restarted since."""

_ASK_AGAIN: Final = "make another token with muslin token"
_FIXES: Final = {
    "token-used": _ASK_AGAIN,
    "token-expired": _ASK_AGAIN,
    "token-revoked": _ASK_AGAIN,
    "token-unknown": _ASK_AGAIN,
    "authority-locked": UNLOCK,
    "name-taken": "choose another name with --name",
    "bad-name": "choose another name with --name",
}
"""What the operator of the new node can do about a refusal, by its code."""


class Phase(Enum):
    """How far a join has come."""

    IDLE = "idle"  #: not started
    HANDSHAKE = "handshake"  #: no member has answered
    ASKING = "asking"  #: a session is up, the request is not answered
    DONE = "done"  #: `outcome` is there
    FAILED = "failed"  #: `failure` says why


@dataclass(frozen=True, slots=True)
class JoinOutcome:
    """All that makes a process a node."""

    certificate: Certificate
    cluster: Cluster
    psk: bytes = field(repr=False)
    """The cluster's pre-shared key, 32 bytes."""
    items: tuple[Item, ...]
    """Gossip items to start with; not checked here, whoever stores them does."""
    member: Endpoint
    """Where the member that answered was reached."""


class JoinerSnapshot(NamedTuple):
    """All state of a `Joiner`, without keys."""

    phase: Phase
    endpoint: Endpoint
    tries: int
    retry_at: float
    answered: bool


class Joiner:
    """One attempt to join.

    Error contract: datagrams never raise. One that does not authenticate changes nothing.

    Args:
        token: the join token.
        signing, static: the new node's own keys.
        name: the name it asks for.
        settings: `Timing.request_retry`, `handshake_retry_max`, `handshake_give_up`.
        entropy: makes ephemeral keys.
        rng: draws the request number.
        epoch: Unix seconds at monotonic zero, to check the certificate's validity.

    Attributes:
        phase: how far it has come.
        answered: whether the member in the token was heard at all.
        outcome: the result; None until `phase` is DONE.
        failure: why it failed; None unless `phase` is FAILED. Codes: `no-answer`, `bad-grant`,
            `bad-token`, or the authority's (`token-used`, `token-expired`, `name-taken`, ...).
    """

    __slots__ = (
        "_channel",
        "_endpoint",
        "_epoch",
        "_give_up_at",
        "_request",
        "_retry_at",
        "_session",
        "_settings",
        "_signing",
        "_static",
        "_token",
        "_tries",
        "answered",
        "failure",
        "outcome",
        "phase",
    )

    def __init__(
        self,
        *,
        token: JoinToken,
        signing: SigningKey,
        static: StaticKey,
        name: str,
        settings: Settings,
        entropy: Entropy,
        rng: random.Random,
        epoch: float,
    ) -> None:
        self._token = token
        self._signing = signing
        self._static = static
        self._settings = settings
        self._epoch = epoch
        self._request = _sign_request(rng.getrandbits(32), token, signing, static, name)
        suites = offered_suites(prefer_aes=settings.prefer_aes)
        self._session = JoinSession(
            static=static,
            hello=JoinerHello(token.id, signing.public, suites),
            secret=token.secret,
            member=token.member,
            member_static=token.static,
            timing=settings.timing,
            entropy=entropy,
        )
        self._channel: Channel | None = None
        self._endpoint = token.endpoints[0]
        self._tries = 0
        self._retry_at = 0.0
        self._give_up_at = 0.0
        self.phase = Phase.IDLE
        self.answered = False
        self.outcome: JoinOutcome | None = None
        self.failure: RefusedError | None = None

    @property
    def finished(self) -> bool:
        """Whether `outcome` or `failure` is there."""
        return self.phase in (Phase.DONE, Phase.FAILED)

    def start(self, now: float) -> list[Effect]:
        """Begin. Call once.

        Raises:
            StateError: it was started before. Nothing else.
        """
        if self.phase is not Phase.IDLE:
            raise StateError("a join is started once")
        self._give_up_at = now + self._settings.timing.handshake_give_up
        return self._shake_hands(now)

    # -- sending -----------------------------------------------------------------------------------

    def _shake_hands(self, now: float) -> list[Effect]:
        """Send a fresh initiation to the next endpoint."""
        endpoints, timing = self._token.endpoints, self._settings.timing
        if self.phase is not Phase.HANDSHAKE:
            self.phase = Phase.HANDSHAKE
            self._channel = None
            self._tries = 0
        self._endpoint = endpoints[self._tries % len(endpoints)]
        # A response must come before the next initiation replaces what it answers. So every round
        # through the endpoints is slower than the one before: a far member gets its time, too.
        patience = timing.request_retry * 2.0 ** (self._tries // len(endpoints))
        self._retry_at = now + min(patience, timing.handshake_retry_max)
        self._tries += 1
        try:
            initiation = self._session.start(now)
        except AuthError as error:
            return self._fail("bad-token", f"the join token makes no sense ({error})")
        return [SendDatagram(self._endpoint, initiation)]

    def _ask(self, now: float) -> list[Effect]:
        """Send the request, for the first time or again."""
        assert self._channel is not None, "asking needs a session"
        self._retry_at = now + self._settings.timing.request_retry
        self._tries += 1
        datagrams = self._channel.seal(self._request)
        return [SendDatagram(self._endpoint, datagram) for datagram in datagrams]

    # -- datagrams ---------------------------------------------------------------------------------

    def on_datagram_untrusted(self, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        """Take one datagram from the underlay; what is not for this join is ignored."""
        try:
            kind = Header.decode_untrusted(datagram).type
            if self.phase is Phase.ASKING and kind == TYPE_DATA:
                return self._on_burst_untrusted(datagram, now)
            if self.phase is Phase.HANDSHAKE and kind != TYPE_DATA:
                return self._on_response_untrusted(datagram, source, now)
        except (AuthError, WireError):
            pass  # anyone may send anything here; the answer may still come
        return []

    def _on_response_untrusted(self, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        keypair = self._session.on_response_untrusted(datagram, now)
        self.answered = True
        if keypair is None:
            return []  # under load: the next initiation shows the cookie that came
        settings = self._settings
        self._channel = Channel(keypair, settings.timing, settings.limits)
        self._endpoint = source
        self._tries = 0
        self.phase = Phase.ASKING
        return self._ask(now)

    def _on_burst_untrusted(self, datagram: bytes, now: float) -> list[Effect]:
        assert self._channel is not None, "asking needs a session"
        for message in self._channel.open_untrusted(datagram, now):
            self._on_message(message, now)
        return []

    def _on_message(self, message: Message, now: float) -> None:
        match message:
            case Refusal(request, code, text) if request == self._request.request:
                self._fail(code, text, _FIXES.get(code, ""))
            case JoinGrant(request) if request == self._request.request:
                try:
                    self.outcome = self._checked(message, self._epoch + now)
                    self.phase = Phase.DONE
                except (AuthError, WireError) as error:
                    self._fail("bad-grant", f"the member's answer proves nothing: {error}")
            case _:
                pass  # not an answer to what we asked

    def _checked(self, grant: JoinGrant, wall: float) -> JoinOutcome:
        """What a grant brings, if it is from the token's authority and for us.

        Raises:
            WireError, AuthError: it is not.
        """
        cluster = Cluster.decode_untrusted(grant.cluster)
        cluster.verify()
        trust = pinned_trust(grant.items, cluster, self._token.authority_fingerprint)
        certificate = Certificate.decode_untrusted(grant.certificate)
        trust.check_certificate(certificate, wall)
        ours = (self._signing.public, self._static.public, self._request.name)
        if (certificate.node, certificate.static, certificate.name) != ours:
            raise AuthError("the certificate is not for this node's keys and name")
        return JoinOutcome(certificate, cluster, grant.psk, grant.items, self._endpoint)

    def _fail(self, code: str, message: str, fix: str = "") -> list[Effect]:
        self.failure = RefusedError(code, message, fix)
        self.phase = Phase.FAILED
        return []

    # -- time --------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next; None once finished."""
        if self.finished or self.phase is Phase.IDLE:
            return None
        waiting = self._channel.next_deadline() if self._channel is not None else None
        due = min(self._retry_at, self._give_up_at)
        return due if waiting is None else min(due, waiting)

    def on_deadline(self, now: float) -> list[Effect]:
        """Repeat, start over, or give up; nothing if called early."""
        if self._channel is not None:
            self._channel.expire(now)
        if self.finished or self.phase is Phase.IDLE:
            return []
        if now >= self._give_up_at:
            return self._give_up()
        if now < self._retry_at:
            return []
        channel = self._channel
        if channel is not None and channel.usable(now) and self._tries < ASK_TRIES:
            return self._ask(now)
        return self._shake_hands(now)

    def _give_up(self) -> list[Effect]:
        if self.answered:
            why = f"{self._endpoint} answered, but did not decide on the request"
            return self._fail("no-answer", why, "look at the log of that node, then try again")
        tried = ", ".join(str(endpoint) for endpoint in self._token.endpoints)
        why = f"nobody answered at {tried}"
        fix = (
            "see that the node that made the token runs, that UDP reaches it, and that it has not "
        )
        return self._fail("no-answer", why, f"{fix}forgotten the token")

    def snapshot(self) -> JoinerSnapshot:
        """All state, comparable with `==`."""
        return JoinerSnapshot(
            self.phase, self._endpoint, self._tries, self._retry_at, self.answered
        )


def _sign_request(
    number: int, token: JoinToken, signing: SigningKey, static: StaticKey, name: str
) -> JoinRequest:
    signed = join_signed_bytes(token.id, static.public, name)
    signature = signing.sign(JOIN_CONTEXT, signed)
    return JoinRequest(request=number, name=name, static=static.public, signature=signature)

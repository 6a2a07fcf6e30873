"""Who may have a session: what an initiation must prove before it is answered.

    1. mac1: the sender knows our public key                 one hash
    2. under load, mac2: it can be reached at its address    two hashes; else a cookie goes back
       and there is a turn for it                            see `overlay.session.ratelimit`
    3. Noise: it holds its static key                        two X25519 operations
    4. a certificate of our cluster for that key, or         one Ed25519 verification
       the id of a token that is still good                  one look-up
    5. a cipher we have in common
    6. it is newer than the last of its member

Cheapest first, and after step 1 comes a look whether it is a copy (`overlay.session.copies`). What
fails is not remembered, only how much arrives and, under load, from where it came.

How long a refusal takes tells at which step it happened, so which step fails must not depend on
anything that a stranger may not know. Steps 1 to 3 depend on what the sender put together itself.
In step 4 a certificate for another key than the sender's is refused before it is looked up:
whoever shows the certificate of somebody else does not learn whether it is (or was) a member's.

A joiner's token proves nothing yet: its id is all that was shown. The secret becomes the
pre-shared key of the response, so whoever does not know it cannot use the session.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import ClassVar, Final

from overlay.config import Settings
from overlay.drops import DropReason
from overlay.effects import Effect, Report
from overlay.errors import AuthError, WireError
from overlay.keys import KEY_SIZE
from overlay.session.cookie import MacChecker, MacMaker
from overlay.session.copies import Copies
from overlay.session.handshake import (
    Admission,
    AnsweredError,
    Received,
    RevokedError,
    StaleError,
    read_initiation_untrusted,
    refuse,
)
from overlay.session.ratelimit import RateLimit
from overlay.session.suites import choose_suite
from overlay.types import Endpoint, Entropy, NodeId
from overlay.wall import Wall
from overlay.wire.certificate import Certificate, Identity
from overlay.wire.handed import Handed, part
from overlay.wire.handshake import (
    INITIATION_LIMIT,
    MAC_SIZE,
    NO_MAC,
    RESPONSE_LIMIT,
    REVOKED_LIMIT,
    Initiation,
    JoinerHello,
    MemberHello,
    RevokedPayload,
    StalePayload,
    Suite,
)
from overlay.wire.header import HEADER_SIZE

EPHEMERAL_AT: Final = HEADER_SIZE + 4
"""Behind the sender's index in an initiation."""


class Gate:
    """Decides about initiations, and which responses are looked at; sends nothing itself.

    Args:
        identity: ours.
        psk: the cluster's pre-shared key.
        settings: limits, and whether AES is preferred.
        wall: Unix time.
        entropy: makes cookies, and keys of answers.
        token_secret: the secret of the join token with a given id, if it is still good.
        read_certificate: reads a certificate, checks that an authority we trust signed it; raises
            RevokedError for that of a node that was removed.
        live_stamp: the stamp of the last initiation of a node with a session; -1 if unknown.

    Attributes:
        copies: what is remembered of initiations.
        limit: who is answered under load.
    """

    __slots__ = (
        "_checker",
        "_entropy",
        "_identity",
        "_live_stamp",
        "_prefer_aes",
        "_psk",
        "_read_certificate",
        "_said_loaded",
        "_token_secret",
        "_wall",
        "copies",
        "limit",
    )

    HANDED: ClassVar = Handed(copies=part(Copies), limit=part(RateLimit), _checker=part(MacChecker))

    def __init__(
        self,
        *,
        identity: Identity,
        psk: bytes,
        settings: Settings,
        wall: Wall,
        entropy: Entropy,
        token_secret: Callable[[bytes], bytes | None],
        read_certificate: Callable[[bytes], Certificate],
        live_stamp: Callable[[NodeId], int],
    ) -> None:
        self._identity = identity
        self._psk = psk
        self._prefer_aes = settings.prefer_aes
        self._wall = wall
        self._token_secret = token_secret
        self._read_certificate = read_certificate
        self._live_stamp = live_stamp
        self._entropy = entropy
        self._said_loaded = False
        self.copies = Copies()
        self._checker = MacChecker(identity.static.public, entropy)
        self.limit = RateLimit(settings.limits.handshakes_per_second)

    def is_hopeless(self, datagram: memoryview, source: Endpoint, now: float) -> bool:
        """Whether an initiation can be dropped at once: see `RateLimit.is_hopeless`."""
        return self.limit.is_hopeless(source.host, now, shows=datagram[-MAC_SIZE:] != NO_MAC)

    def check_response_untrusted(self, datagram: bytes, index: int, now: float) -> None:
        """Whether the sender of a response knows our public key, and it shall be looked at.

        Args:
            datagram: a response.
            index: of the initiation that it answers, for which we wait.
            now: monotonic seconds.

        Raises:
            AuthError: it does not, or too many came in this second (RATE_LIMITED).
            WireError: no response has that size. Nothing else.
        """
        if len(datagram) > REVOKED_LIMIT:  # before anything is hashed: a datagram may have 64 KB
            raise WireError(f"a response of {len(datagram)} bytes, over {REVOKED_LIMIT}")
        self._checker.check_mac1(datagram)
        if not self.limit.responses.take(index, now):
            raise AuthError("too many responses", DropReason.RATE_LIMITED)

    def check_initiation_untrusted(
        self, datagram: bytes, source: Endpoint, now: float
    ) -> bytes | None:
        """Steps 1 and 2; the cookie reply to send instead of a response, or None to go on.

        Args:
            datagram: an initiation, not yet decoded: most of a flood ends here.
            source: where it came from.
            now: monotonic seconds.

        Raises:
            AuthError: mac1 is wrong; it is a copy (REPLAYED); or there is no turn for it
                (RATE_LIMITED).
            WireError: no initiation has that size. Nothing else.
        """
        if not RESPONSE_LIMIT <= len(datagram) <= INITIATION_LIMIT:
            raise WireError(f"an initiation of {len(datagram)} bytes")
        self._checker.check_mac1(datagram)
        # In front of the meter: who repeats what it saw makes no load, and gets no cookie for it.
        if self.copies.is_copy(datagram[EPHEMERAL_AT : EPHEMERAL_AT + KEY_SIZE]):
            raise AuthError("an initiation that was seen before", DropReason.REPLAYED)
        if not self.limit.meter.arrived(now):
            return None
        if not self._shows_cookie(datagram, source, now):
            if not self.limit.cookie(source.host, now):
                raise AuthError("under load, and no turn at a cookie", DropReason.RATE_LIMITED)
            sender = int.from_bytes(datagram[HEADER_SIZE:EPHEMERAL_AT], "big")
            return self._checker.cookie_reply(datagram, sender, source, now)
        if not self.limit.handshake(source.host, now):
            raise AuthError("under load, and no turn at a handshake", DropReason.RATE_LIMITED)
        return None

    def _shows_cookie(self, datagram: bytes, source: Endpoint, now: float) -> bool:
        # Zeros are what everybody sends who has no cookie: not worth a hash.
        return datagram[-MAC_SIZE:] != NO_MAC and self._checker.mac2_is_valid(datagram, source, now)

    def admit_untrusted(
        self, message: Initiation, source: Endpoint, now: float
    ) -> tuple[Received, Admission]:
        """The decrypted initiation, and the terms on which to answer it.

        Raises:
            AuthError: it does not verify (BAD_HANDSHAKE), or its certificate does not
                (BAD_CERTIFICATE); AnsweredError if that is because the node was removed;
                StaleError if it is not newer than the last of its member.
            WireError: what is in it does not parse. Nothing else.
        """
        try:
            received, admission = self._admit(message, now)
        except (AuthError, WireError):
            if self.limit.meter.loaded:  # so it has shown mac2
                self.limit.failed(source.host, now)
            raise
        self.copies.note(message.ephemeral)
        if admission.node is not None:
            self._refuse_old(admission.node, received, admission, now)
        return received, admission

    def _refuse_old(
        self, node: NodeId, received: Received, admission: Admission, now: float
    ) -> None:
        # Joiners keep no stamp. A copy of what is forgotten costs one half-open keypair.
        last = max(self._live_stamp(node), self.copies.last_stamp(node))
        if admission.stamp <= last:
            stale = refuse(received, self._psk, StalePayload(last), self._entropy)
            raise StaleError(MacMaker(received.remote_static).with_macs(stale, now))

    def _admit(self, message: Initiation, now: float) -> tuple[Received, Admission]:
        received = read_initiation_untrusted(message, self._identity.static)
        if not isinstance(received.hello, MemberHello):
            return received, self._admit_joiner(received.hello)
        try:
            return received, self._admit_member(received, received.hello, now)
        except RevokedError as error:
            raise self._answered(received, message, error, now) from error

    def _answered(
        self, received: Received, message: Initiation, error: RevokedError, now: float
    ) -> AuthError:
        """With the proof, which is no secret; never longer than what is answered."""
        if not error.proof:
            return error
        refusal = refuse(received, self._psk, RevokedPayload(error.proof), self._entropy)
        answer = MacMaker(received.remote_static).with_macs(refusal, now)
        if len(answer) > min(len(message.encode()), REVOKED_LIMIT):
            return error
        return AnsweredError(str(error), error.reason, answer)

    def _admit_member(self, received: Received, hello: MemberHello, now: float) -> Admission:
        shown = Certificate.decode_untrusted(hello.certificate)
        if not compare_digest(shown.static, received.remote_static):
            raise AuthError("a certificate for another static key", DropReason.BAD_CERTIFICATE)
        certificate = self._read_certificate(hello.certificate)
        certificate.check_time(self._wall.at(now))
        if certificate.node == self._identity.node:
            raise AuthError("a certificate for our own identity", DropReason.BAD_CERTIFICATE)
        suite = self._choose_suite(hello.suites)
        return Admission(self._psk, suite, node=certificate.node, stamp=hello.stamp)

    def _admit_joiner(self, hello: JoinerHello) -> Admission:
        secret = self._token_secret(hello.token_id)
        if secret is None:
            raise AuthError("an initiation with a token that is not good (any more)")
        suite = self._choose_suite(hello.suites)
        return Admission(secret, suite, joiner=hello.node, joiner_token=hello.token_id)

    def _choose_suite(self, offered: tuple[int, ...]) -> Suite:
        suite = choose_suite(offered, prefer_aes=self._prefer_aes)
        if suite is None:
            raise AuthError("an initiation that offers no cipher we know")
        return suite

    def on_look(self, now: float) -> list[Effect]:
        """Whether a load has begun or ended since the last look."""
        loaded, meter = self.limit.look(now), self.limit.meter
        if loaded is self._said_loaded:
            return []
        self._said_loaded = loaded
        return [Report(f"load.{'begun' if loaded else 'ended'}", {"count": meter.rate})]

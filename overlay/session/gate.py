"""Who may have a session: what an initiation must prove before it is answered.

    1. mac1: the sender knows our public key                 two hashes
    2. under load, mac2: it can be reached at its address    two hashes; else a cookie goes back
    3. Noise: it holds its static key                        four X25519 operations
    4. a certificate of our cluster for that key, or         one Ed25519 verification
       the id of a token that is still good                  one look-up
    5. a cipher we have in common

Cheapest first. Nothing is remembered but the rate of arrivals; whether the initiation is newer
than the last of the same node is asked where that is known, in `overlay.session.peer`.

A joiner's token proves nothing yet: its id is all that was shown. The secret becomes the
pre-shared key of the response, so whoever does not know it cannot use the session.
"""

from __future__ import annotations

from collections.abc import Callable

from overlay.config import Settings
from overlay.drops import DropReason
from overlay.errors import AuthError
from overlay.session.cookie import LoadMeter, MacChecker, MacMaker
from overlay.session.handshake import (
    Admission,
    AnsweredError,
    Received,
    RevokedError,
    read_initiation_untrusted,
    refuse,
)
from overlay.session.suites import choose_suite
from overlay.types import Endpoint, Entropy
from overlay.wall import Wall
from overlay.wire.certificate import Certificate, Identity
from overlay.wire.handshake import (
    REVOKED_LIMIT,
    Initiation,
    JoinerHello,
    MemberHello,
    RevokedPayload,
    Suite,
)


class Gate:
    """Decides about initiations; answers and keeps nothing itself.

    Args:
        identity: ours.
        psk: the cluster's pre-shared key.
        settings: limits, and whether AES is preferred.
        wall: Unix time.
        entropy: makes cookies, and keys of answers.
        token_secret: the secret of the join token with a given id, if it is still good.
        read_certificate: reads a certificate and checks that our authority signed it; raises
            RevokedError for that of a node that was removed.
    """

    __slots__ = (
        "_checker",
        "_entropy",
        "_identity",
        "_load",
        "_prefer_aes",
        "_psk",
        "_read_certificate",
        "_token_secret",
        "_wall",
    )

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
    ) -> None:
        self._identity = identity
        self._psk = psk
        self._prefer_aes = settings.prefer_aes
        self._wall = wall
        self._token_secret = token_secret
        self._read_certificate = read_certificate
        self._entropy = entropy
        self._checker = MacChecker(identity.static.public, entropy)
        self._load = LoadMeter(settings.limits.handshakes_per_second)

    def check_mac1(self, datagram: bytes) -> None:
        """Whether the sender of a decodable initiation or response knows our public key.

        Raises:
            AuthError: it does not. Nothing else.
        """
        self._checker.check_mac1(datagram)

    def demand_cookie(
        self, datagram: bytes, sender: int, source: Endpoint, now: float
    ) -> bytes | None:
        """Under load, the cookie reply to send instead of a response; else None.

        Args:
            datagram: an initiation whose mac1 is valid.
            sender: the index in it.
            source: where it came from.
            now: monotonic seconds.
        """
        if not self._load.overloaded(now) or self._checker.mac2_is_valid(datagram, source, now):
            return None
        return self._checker.cookie_reply(datagram, sender, source, now)

    def admit_untrusted(self, message: Initiation, now: float) -> tuple[Received, Admission]:
        """The decrypted initiation, and the terms on which to answer it.

        Raises:
            AuthError: it does not verify (BAD_HANDSHAKE), or its certificate does not
                (BAD_CERTIFICATE); AnsweredError if that is because the node was removed.
            WireError: what is in it does not parse. Nothing else.
        """
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
        certificate = self._read_certificate(hello.certificate)
        certificate.check_time(self._wall.at(now))
        if certificate.static != received.remote_static:
            raise AuthError("a certificate for another static key", DropReason.BAD_CERTIFICATE)
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

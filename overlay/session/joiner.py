"""The session of a process that has no certificate yet: the initiator's half, with a token.

A joining process knows one member from its token: the static key, and a secret that only that
member can look up. The secret takes the place of the cluster's pre-shared key, so both ends prove
with the handshake itself that they know the token, and neither shows it.

    joiner                                                     member
      | -- initiation: token id, joiner's node id -----------> |  finds the secret by the id
      | <- response, under the secret ------------------------ |
      | == JoinRequest, in a burst ===========================>|  keypair confirmed
      | <= JoinGrant or Refusal, in a burst ================== |

The member's half is `overlay.session.sessions`. What is asked and granted is not known here.
"""

from __future__ import annotations

from overlay.config import Timing
from overlay.errors import AuthError, WireError
from overlay.keys import StaticKey
from overlay.session import timing as when
from overlay.session.cookie import MacChecker, MacMaker
from overlay.session.handshake import Attempt
from overlay.session.transport import Keypair
from overlay.types import Entropy, NodeId
from overlay.wire.handshake import CookieReply, JoinerHello, Response
from overlay.wire.header import TYPE_COOKIE_REPLY, TYPE_RESPONSE, Header


class JoinSession:
    """Gets one keypair with the member that a token names. When to repeat is the caller's choice.

    Error contract: a method that raises has changed nothing; the right answer may still come.

    Args:
        static: the joiner's own static key, which its certificate will name.
        hello: token id, the joiner's node id, and the ciphers it can use.
        secret: the token's secret, 32 bytes.
        member: node id of the member in the token.
        member_static: its X25519 public key, also from the token.
        timing: for the life of the keypair.
        entropy: makes ephemeral keys and indexes.
    """

    __slots__ = (
        "_attempt",
        "_checker",
        "_entropy",
        "_hello",
        "_macs",
        "_member",
        "_member_static",
        "_secret",
        "_static",
        "_timing",
    )

    def __init__(
        self,
        *,
        static: StaticKey,
        hello: JoinerHello,
        secret: bytes,
        member: NodeId,
        member_static: bytes,
        timing: Timing,
        entropy: Entropy,
    ) -> None:
        self._static = static
        self._hello = hello
        self._secret = secret
        self._member = member
        self._member_static = member_static
        self._timing = timing
        self._entropy = entropy
        self._macs = MacMaker(member_static)
        self._checker = MacChecker(static.public, entropy)
        self._attempt: Attempt | None = None

    def start(self, now: float) -> bytes:
        """A fresh initiation to send to the member. It replaces the one before.

        Raises:
            AuthError: the token's static key is of low order. Nothing else.
        """
        self._attempt = Attempt(
            static=self._static,
            remote_static=self._member_static,
            psk=self._secret,
            hello=self._hello,
            index=int.from_bytes(self._entropy(4), "big"),
            entropy=self._entropy,
        )
        return self._macs.with_macs(self._attempt.datagram, now)

    def on_response_untrusted(self, datagram: bytes, now: float) -> Keypair | None:
        """Read what came back.

        Returns:
            The keypair, whose first burst must be sent at once to confirm it; or None if the
            member is under load and sent a cookie: then `start` again after a moment.

        Raises:
            AuthError: it answers nothing we sent, or does not verify.
            WireError: it is no response, or does not parse. Nothing else.
        """
        kind = Header.decode_untrusted(datagram).type
        if kind == TYPE_COOKIE_REPLY:
            reply = CookieReply.decode_untrusted(datagram)
            self._check_receiver(reply.receiver)
            self._macs.read_cookie_untrusted(reply, now)
            return None
        if kind != TYPE_RESPONSE:
            raise WireError(f"type {kind} where a response is expected")
        response = Response.decode_untrusted(datagram)
        self._checker.check_mac1(datagram)
        finished = self._check_receiver(response.receiver).finish_untrusted(
            response,
            node=self._member,
            now=now,
            expires_at=when.expires_at(now, self._timing),
        )
        if not isinstance(finished, tuple):
            raise WireError("a word to a member, where a joiner asked")
        self._attempt = None
        return finished[0]

    def _check_receiver(self, index: int) -> Attempt:
        if self._attempt is None or self._attempt.index != index:
            raise AuthError("an answer to nothing we sent")
        return self._attempt

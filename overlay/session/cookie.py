"""MACs and cookies: cheap proofs that come before the expensive ones.

A handshake costs its receiver several X25519 operations, so whoever can send datagrams could keep
it busy. Two MACs at the end of initiations and responses prevent that:

    mac1   always checked. Keyed with the receiver's static public key: proves that the sender
           knows whom it talks to. Without it a node does not answer at all, so a port scan finds
           nothing.
    mac2   checked under load only. Keyed with a cookie the receiver sent to the very address the
           initiation claims to come from: proves that the sender can receive there.

    initiator                                         responder under load
      | -- initiation, mac1, no mac2 ------------------> | costs two hashes
      | <- cookie reply: nonce, sealed cookie ---------- | cookie = MAC(secret, address)
      |    (kept for 120 s)                              | keeps nothing
      | -- initiation, mac1, mac2 by the cookie -------> | goes on with the handshake

The cookie is sealed under a key that only those who know the responder's public key can make, and
bound to mac1 of the initiation it answers, so nobody can plant a false one who did not see that
initiation.

References:
    WireGuard paper (Donenfeld 2017), sections 5.3, 5.4.4 and 5.4.7. Differs from it: the library
    has no XChaCha20-Poly1305, so its 24-byte nonce is hashed into the key instead and
    ChaCha20-Poly1305 runs with a zero nonce, once per key. Only initiations are ever answered
    with a cookie; mac2 of a response is sent as zeros and not checked.
"""

from __future__ import annotations

from hashlib import blake2s
from hmac import compare_digest
from typing import ClassVar, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.errors import AuthError
from overlay.types import Endpoint, Entropy
from overlay.wire.handed import BYTES, SECONDS, Handed
from overlay.wire.handshake import (
    COOKIE_NONCE_SIZE,
    MAC_SIZE,
    NO_MAC,
    CookieReply,
    covered_by_mac1,
    covered_by_mac2,
)

# -- specification ---------------------------------------------------------------------------------

COOKIE_LIFE: Final = 120.0
"""Seconds an initiator keeps a cookie, and between changes of a responder's cookie secret."""

_MAC1_LABEL: Final = b"muslin mac1"
_COOKIE_LABEL: Final = b"muslin cookie"
_SECRET_SIZE: Final = 32
_ZERO_NONCE: Final = bytes(12)


def _mac(key: bytes, data: bytes) -> bytes:
    return blake2s(data, key=key, digest_size=MAC_SIZE).digest()


def _cookie_key(static: bytes) -> bytes:
    """The key under which the node with public key `static` seals its cookies."""
    return blake2s(_COOKIE_LABEL + static).digest()


def _cookie_aead(key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    """The cipher that seals one cookie."""
    return ChaCha20Poly1305(blake2s(nonce, key=key).digest())


class MacMaker:
    """Puts MACs on messages to one receiver, and keeps the cookie it gave us.

    Args:
        remote_static: the receiver's X25519 public key.

    Attributes:
        cookie_until: when the cookie is too old to use; 0.0 without one.
    """

    __slots__ = ("_cookie", "_last_mac1", "_mac1_key", "_remote_static", "cookie_until")

    def __init__(self, remote_static: bytes) -> None:
        self._remote_static = remote_static
        self._mac1_key = blake2s(_MAC1_LABEL + remote_static).digest()
        self._last_mac1 = b""
        self._cookie = b""
        self.cookie_until = 0.0

    def with_macs(self, datagram: bytes, now: float) -> bytes:
        """An encoded initiation or response with its MACs filled in."""
        covered = covered_by_mac1(datagram)
        self._last_mac1 = _mac(self._mac1_key, covered)
        covered += self._last_mac1
        return covered + (_mac(self._cookie, covered) if now < self.cookie_until else NO_MAC)

    def read_cookie_untrusted(self, reply: CookieReply, now: float) -> None:
        """Keep the cookie in `reply` for the messages to come.

        Error contract: after an error the old cookie is still there. A reply is taken once, so a
        replayed one cannot prolong the life of its cookie.

        Raises:
            AuthError: it does not answer the last message that was made. Nothing else.
        """
        if not self._last_mac1:
            raise AuthError("a cookie, though the last message has its own already")
        aead = _cookie_aead(_cookie_key(self._remote_static), reply.nonce)
        try:
            cookie = aead.decrypt(_ZERO_NONCE, reply.enc_cookie, self._last_mac1)
        except InvalidTag as error:
            raise AuthError("a cookie that answers nothing we sent") from error
        self._cookie = cookie
        self.cookie_until = now + COOKIE_LIFE
        self._last_mac1 = b""


class MacChecker:
    """Checks the MACs of messages to this node, and hands out cookies.

    Args:
        static: this node's X25519 public key.
        entropy: makes the cookie secret and the nonces of cookie replies.
    """

    __slots__ = ("_cookie_key", "_entropy", "_mac1_key", "_secret", "_secret_until")

    HANDED: ClassVar = Handed(_secret=BYTES, _secret_until=SECONDS)

    def __init__(self, static: bytes, entropy: Entropy) -> None:
        self._cookie_key = _cookie_key(static)
        self._entropy = entropy
        self._mac1_key = blake2s(_MAC1_LABEL + static).digest()
        self._secret = b""
        self._secret_until = 0.0

    def check_mac1(self, datagram: bytes) -> None:
        """Whether the sender of a decodable initiation or response knows our public key.

        Raises:
            AuthError: it does not. Nothing else.
        """
        expected = _mac(self._mac1_key, covered_by_mac1(datagram))
        if not compare_digest(expected, covered_by_mac2(datagram)[-MAC_SIZE:]):
            raise AuthError("mac1 is wrong: the sender does not know this node's key")

    def mac2_is_valid(self, datagram: bytes, source: Endpoint, now: float) -> bool:
        """Whether the sender has received a recent cookie of ours at `source`."""
        expected = _mac(self._cookie(source, now), covered_by_mac2(datagram))
        return compare_digest(expected, datagram[-MAC_SIZE:])

    def cookie_reply(self, datagram: bytes, sender: int, source: Endpoint, now: float) -> bytes:
        """The datagram that gives whoever reads at `source` a cookie.

        Args:
            datagram: the initiation that is refused; its mac1 is valid.
            sender: the index its sender wants to be addressed by.
            source: where it came from.
            now: monotonic seconds.
        """
        nonce = self._entropy(COOKIE_NONCE_SIZE)
        mac1 = covered_by_mac2(datagram)[-MAC_SIZE:]
        cookie = self._cookie(source, now)
        sealed = _cookie_aead(self._cookie_key, nonce).encrypt(_ZERO_NONCE, cookie, mac1)
        return CookieReply(sender, nonce, sealed).encode()

    def _cookie(self, source: Endpoint, now: float) -> bytes:
        if now >= self._secret_until:
            self._secret = self._entropy(_SECRET_SIZE)
            self._secret_until = now + COOKIE_LIFE
        return _mac(self._secret, source.host.encode() + source.port.to_bytes(2, "big"))

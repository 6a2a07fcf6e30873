"""Handshake messages: initiation, response, cookie reply, and what is encrypted inside them.

    initiation   16       4        32          48         16+n       16     16
              +--------+--------+-----------+------------+---------+------+------+
              | header | sender | ephemeral | enc_static | payload | mac1 | mac2 |
              +--------+--------+-----------+------------+---------+------+------+
    response  +--------+--------+-----------+            +---------+------+------+
              | header | sender | ephemeral |            | payload | mac1 | mac2 |
              +--------+--------+-----------+            +---------+------+------+
    cookie    +--------+------------+------------+
    reply     | header |  nonce 24  | cookie 32  |
              +--------+------------+------------+

`sender` is the index by which the sender wants to be addressed from now on; the header's receiver
is the index that the other side chose (0 in an initiation). `ephemeral`, `enc_static` and the
payload are the Noise messages `e, es, s, ss` and `e, ee, se, psk`. mac1 covers everything in front
of it and proves knowledge of the receiver's static key; mac2 covers everything in front of it, mac1
included, and proves that the sender can be reached at its address.

This file knows where the bytes are. What they prove is decided in `overlay.session`.

References:
    WireGuard paper (Donenfeld 2017), sections 5.4.2 to 5.4.7: the same messages with fixed sizes.
    Noise Protocol Framework, revision 34, section 7.5 (IK) and section 9 (psk2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from overlay.errors import StateError, WireError
from overlay.keys import KEY_SIZE
from overlay.types import Endpoint, NodeId
from overlay.wire.cursor import Reader
from overlay.wire.header import (
    HEADER_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Header,
)
from overlay.wire.packing import U16, Fields, pack
from overlay.wire.token import TOKEN_ID_SIZE

# -- specification ---------------------------------------------------------------------------------

TAG_SIZE: Final = 16
MAC_SIZE: Final = 16
ENC_STATIC_SIZE: Final = KEY_SIZE + TAG_SIZE
COOKIE_NONCE_SIZE: Final = 24
ENC_COOKIE_SIZE: Final = MAC_SIZE + TAG_SIZE
NO_MAC: Final = bytes(MAC_SIZE)
"""mac2 of a sender without a cookie, and the place of macs not yet computed."""

INITIATION_LIMIT: Final = 1232
"""An IPv6 packet of 1280 bytes without its IP and UDP headers: passes every path unfragmented."""

RESPONSE_LIMIT: Final = 160
"""Longest response. Also the least size of an initiation, so that a forged source address never
makes a responder send more bytes than it was sent."""

REVOKED_LIMIT: Final = 400
"""Longest response that shows a removal. It answers an initiation with a certificate, which is
longer; whoever makes one sees to that."""

PROOF_LIMIT: Final = 256
"""Bytes of the proof in it."""

COOKIE_REPLY_SIZE: Final = HEADER_SIZE + COOKIE_NONCE_SIZE + ENC_COOKIE_SIZE

HELLO_LIMIT: Final = (
    INITIATION_LIMIT - HEADER_SIZE - 4 - KEY_SIZE - ENC_STATIC_SIZE - TAG_SIZE - 2 * MAC_SIZE
)
"""Bytes of a packed hello: what an initiation of the largest size has room for."""

RESPONSE_PAYLOAD_LIMIT: Final = (
    RESPONSE_LIMIT - HEADER_SIZE - 4 - KEY_SIZE - TAG_SIZE - 2 * MAC_SIZE
)
"""Bytes of a packed response payload: what a response of the largest size has room for."""

SUITES_LIMIT: Final = 8
HOST_LIMIT: Final = 45
"""Characters of a numeric address: an IPv6 address with an embedded IPv4 one."""

_HELLO_MEMBER: Final = 1
_HELLO_JOINER: Final = 2
_NO_SUITE: Final = 0


class Suite(IntEnum):
    """AEAD of the transport keys of a session. Append only; unknown numbers are ignored."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


@dataclass(frozen=True, slots=True)
class Initiation:
    """First message of a handshake, from whoever wants a session."""

    sender: int
    """Index the initiator wants to be addressed by, 0 <= sender < 2**32."""
    ephemeral: bytes
    enc_static: bytes
    enc_payload: bytes
    """An encrypted hello, 16 bytes longer than it."""
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def encode(self) -> bytes:
        """The datagram."""
        head = Header(TYPE_INITIATION).encode() + self.sender.to_bytes(4, "big")
        noise = self.ephemeral + self.enc_static + self.enc_payload
        return head + noise + self.mac1 + self.mac2

    @classmethod
    def decode_untrusted(cls, datagram: bytes | memoryview) -> Self:
        """Read an initiation.

        Raises:
            WireError: not an initiation, or its size is outside `RESPONSE_LIMIT` to
                `INITIATION_LIMIT`. Nothing else.
        """
        _, reader = _open(datagram, TYPE_INITIATION, "initiation")
        if not RESPONSE_LIMIT <= len(datagram) <= INITIATION_LIMIT:
            raise WireError(
                f"initiation: {len(datagram)} bytes, not {RESPONSE_LIMIT} to {INITIATION_LIMIT}"
            )
        return cls(
            sender=reader.u32(),
            ephemeral=reader.take(KEY_SIZE),
            enc_static=reader.take(ENC_STATIC_SIZE),
            enc_payload=_take_payload(reader),
            mac1=reader.take(MAC_SIZE),
            mac2=reader.take(MAC_SIZE),
        )


@dataclass(frozen=True, slots=True)
class Response:
    """Second message of a handshake; both sides have the session keys after it."""

    receiver: int
    """`sender` of the initiation this answers."""
    sender: int
    """Index the responder wants to be addressed by, 0 <= sender < 2**32."""
    ephemeral: bytes
    enc_payload: bytes
    """An encrypted `ResponsePayload`, 16 bytes longer than it."""
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def encode(self) -> bytes:
        """The datagram."""
        head = Header(TYPE_RESPONSE, receiver=self.receiver).encode()
        noise = self.ephemeral + self.enc_payload
        return head + self.sender.to_bytes(4, "big") + noise + self.mac1 + self.mac2

    @classmethod
    def decode_untrusted(cls, datagram: bytes | memoryview) -> Self:
        """Read a response.

        Raises:
            WireError: not a response, too short, or over `REVOKED_LIMIT`. Nothing else.
        """
        header, reader = _open(datagram, TYPE_RESPONSE, "response")
        if len(datagram) > REVOKED_LIMIT:
            raise WireError(f"response: {len(datagram)} bytes, over {RESPONSE_LIMIT}")
        return cls(
            receiver=header.receiver,
            sender=reader.u32(),
            ephemeral=reader.take(KEY_SIZE),
            enc_payload=_take_payload(reader),
            mac1=reader.take(MAC_SIZE),
            mac2=reader.take(MAC_SIZE),
        )


@dataclass(frozen=True, slots=True)
class CookieReply:
    """Sent instead of a response under load: prove that you receive at your address, come again."""

    receiver: int
    """`sender` of the refused message."""
    nonce: bytes
    enc_cookie: bytes

    def encode(self) -> bytes:
        """The datagram."""
        header = Header(TYPE_COOKIE_REPLY, receiver=self.receiver).encode()
        return header + self.nonce + self.enc_cookie

    @classmethod
    def decode_untrusted(cls, datagram: bytes | memoryview) -> Self:
        """Read a cookie reply.

        Raises:
            WireError: not a cookie reply, or not `COOKIE_REPLY_SIZE` bytes. Nothing else.
        """
        header, reader = _open(datagram, TYPE_COOKIE_REPLY, "cookie reply")
        reply = cls(
            receiver=header.receiver,
            nonce=reader.take(COOKIE_NONCE_SIZE),
            enc_cookie=reader.take(ENC_COOKIE_SIZE),
        )
        reader.expect_end()
        return reply


def _open(datagram: bytes | memoryview, number: int, what: str) -> tuple[Header, Reader]:
    header = Header.decode_untrusted(datagram)
    if header.type != number:
        raise WireError(f"{what}: type {header.type} instead of {number}")
    return header, Reader(datagram[HEADER_SIZE:])


def _take_payload(reader: Reader) -> bytes:
    # Its length is what the fixed fields leave over, and it ends in a tag.
    size = reader.remaining - 2 * MAC_SIZE
    if size < TAG_SIZE:
        raise WireError(f"a payload of {size} bytes where a tag alone has {TAG_SIZE}")
    return reader.take(size)


def covered_by_mac1(datagram: bytes) -> bytes:
    """The bytes of an encoded initiation or response that its mac1 covers."""
    return datagram[: -2 * MAC_SIZE]


def covered_by_mac2(datagram: bytes) -> bytes:
    """The bytes of an encoded initiation or response that its mac2 covers; mac1 is the last."""
    return datagram[:-MAC_SIZE]


@dataclass(frozen=True, slots=True)
class MemberHello:
    """What a member says in its initiation."""

    stamp: int
    """boot << 32 | n: grows with every initiation of the node, so that none can be replayed."""
    certificate: bytes
    suites: tuple[int, ...]
    """AEADs the initiator is willing to use, as `Suite` numbers."""

    def encode(self) -> bytes:
        """The plaintext of the payload."""
        return _pack_hello([_HELLO_MEMBER, self.stamp, self.certificate, self.suites])


@dataclass(frozen=True, slots=True)
class JoinerHello:
    """What a node without a certificate says, whose handshake uses a token's secret as PSK."""

    token_id: bytes
    """Names the join token, 16 bytes."""
    node: NodeId
    """Identity that the joiner will ask a certificate for."""
    suites: tuple[int, ...]

    def encode(self) -> bytes:
        """The plaintext of the payload."""
        return _pack_hello([_HELLO_JOINER, self.token_id, self.node, self.suites])


Hello = MemberHello | JoinerHello


def decode_hello_untrusted(data: bytes) -> Hello:
    """Read the decrypted payload of an initiation.

    Anyone who knows the receiver's static key can have written it: its certificate, or the token's
    secret in the response, is what proves something.

    Raises:
        WireError: neither kind of hello, or over a limit. Nothing else.
    """
    fields = Fields.unpack_untrusted(data, HELLO_LIMIT, "hello", count=4)
    suites = _suites(fields.sequence(3, SUITES_LIMIT))
    kind = fields.integer(0)
    if kind == _HELLO_MEMBER:
        return MemberHello(fields.integer(1), fields.bytes(2), suites)
    if kind == _HELLO_JOINER:
        node = NodeId(fields.bytes(2, KEY_SIZE))
        return JoinerHello(fields.bytes(1, TOKEN_ID_SIZE), node, suites)
    raise WireError(f"hello: kind {kind} is not known")


def _pack_hello(values: list[object]) -> bytes:
    packed = pack(values)
    if len(packed) > HELLO_LIMIT:
        raise StateError(f"a hello of {len(packed)} bytes, over {HELLO_LIMIT}")
    return packed


def _suites(values: list[object]) -> tuple[int, ...]:
    numbers = Fields(values, "suites")
    return tuple(numbers.integer(i, 0, U16) for i in range(len(values)))


@dataclass(frozen=True, slots=True)
class ResponsePayload:
    """What the responder says in its response."""

    suite: int
    """AEAD it chose among those offered, as a `Suite` number."""
    observed: Endpoint
    """Where the initiation came from, as the responder saw it: tells a node its public address."""

    def encode(self) -> bytes:
        """The plaintext of the payload."""
        return pack([self.suite, self.observed.host, self.observed.port])

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Self:
        """Read the decrypted payload of a response.

        Raises:
            WireError: wrong shape, or the host is not a numeric address. Nothing else.
        """
        fields = Fields.unpack_untrusted(data, RESPONSE_PAYLOAD_LIMIT, "response payload", count=3)
        host, port = fields.text(1, HOST_LIMIT), fields.integer(2, 0, U16)
        try:
            observed = Endpoint.of(host, port)
        except ValueError as error:
            raise WireError(f"response payload: {host!r} is not an address") from error
        return cls(suite=fields.integer(0, 0, U16), observed=observed)


@dataclass(frozen=True, slots=True)
class StalePayload:
    """What the responder says instead when the stamp was not newer than the last: no session.

    Suite 0 is no suite, so that it cannot be taken for a choice.
    """

    stamp: int
    """The highest stamp that the responder has accepted from the initiator."""

    def encode(self) -> bytes:
        """The plaintext of the payload."""
        return pack([_NO_SUITE, self.stamp])


@dataclass(frozen=True, slots=True)
class RevokedPayload:
    """What the responder says instead when the initiator was removed: no session, ever."""

    proof: bytes
    """The authority's word that it was, at most `PROOF_LIMIT` bytes; not checked here."""

    def encode(self) -> bytes:
        """The plaintext of the payload."""
        return pack([_NO_SUITE, 0, self.proof])


def decode_response_payload_untrusted(
    data: bytes,
) -> ResponsePayload | StalePayload | RevokedPayload:
    """Read the decrypted payload of a response, of any kind.

    Raises:
        WireError: none of the kinds. Nothing else.
    """
    fields = Fields.unpack_untrusted(data, REVOKED_LIMIT, "response payload", count=2)
    if fields.integer(0, 0, U16) == _NO_SUITE:
        if len(fields) > 2:
            return RevokedPayload(fields.bytes(2, limit=PROOF_LIMIT))
        return StalePayload(fields.integer(1))
    return ResponsePayload.decode_untrusted(data)

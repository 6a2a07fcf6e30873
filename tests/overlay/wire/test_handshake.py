"""Layouts of handshake messages and of what is encrypted inside them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import StateError, WireError
from overlay.types import Endpoint, NodeId
from overlay.wire.certificate import CERTIFICATE_MAX
from overlay.wire.handshake import (
    COOKIE_REPLY_SIZE,
    HELLO_LIMIT,
    INITIATION_LIMIT,
    MAC_SIZE,
    PROOF_LIMIT,
    RESPONSE_LIMIT,
    RESPONSE_PAYLOAD_LIMIT,
    SUITES_LIMIT,
    CookieReply,
    Initiation,
    JoinerHello,
    MemberHello,
    Response,
    ResponsePayload,
    RevokedPayload,
    StalePayload,
    Suite,
    covered_by_mac1,
    covered_by_mac2,
    decode_hello_untrusted,
    decode_response_payload_untrusted,
)
from overlay.wire.packing import U64, pack
from tests.support.pcap import all_frames

INDEXES = st.integers(0, 2**32 - 1)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


INITIATIONS = st.builds(
    Initiation,
    sender=INDEXES,
    ephemeral=exactly(32),
    enc_static=exactly(48),
    enc_payload=st.binary(min_size=28, max_size=HELLO_LIMIT + 16),
    mac1=exactly(16),
    mac2=exactly(16),
)
RESPONSES = st.builds(
    Response,
    receiver=INDEXES,
    sender=INDEXES,
    ephemeral=exactly(32),
    enc_payload=st.binary(min_size=16, max_size=RESPONSE_PAYLOAD_LIMIT + 16),
    mac1=exactly(16),
    mac2=exactly(16),
)
COOKIE_REPLIES = st.builds(CookieReply, receiver=INDEXES, nonce=exactly(24), enc_cookie=exactly(32))
SUITES = st.lists(st.integers(0, 65535), max_size=SUITES_LIMIT).map(tuple)
HELLOS = st.builds(
    MemberHello, stamp=st.integers(0, U64), certificate=st.binary(max_size=400), suites=SUITES
) | st.builds(JoinerHello, token_id=exactly(16), node=exactly(32).map(NodeId), suites=SUITES)


def test_initiation_is_these_bytes():
    message = Initiation(
        sender=0x01020304,
        ephemeral=b"e" * 32,
        enc_static=b"s" * 48,
        enc_payload=b"p" * 40,
        mac1=b"1" * 16,
        mac2=b"2" * 16,
    )
    header = "01000000" + "00000000" + "0000000000000000"
    expected = bytes.fromhex(header + "01020304") + b"e" * 32 + b"s" * 48 + b"p" * 40
    assert message.encode() == expected + b"1" * 16 + b"2" * 16


def test_response_is_these_bytes():
    message = Response(
        receiver=0x0A0B0C0D,
        sender=0x01020304,
        ephemeral=b"e" * 32,
        enc_payload=b"p" * 20,
        mac1=b"1" * 16,
        mac2=b"2" * 16,
    )
    header = "02000000" + "0a0b0c0d" + "0000000000000000"
    expected = bytes.fromhex(header + "01020304") + b"e" * 32 + b"p" * 20
    assert message.encode() == expected + b"1" * 16 + b"2" * 16


def test_cookie_reply_is_these_bytes():
    message = CookieReply(receiver=0x0A0B0C0D, nonce=b"n" * 24, enc_cookie=b"c" * 32)
    header = "03000000" + "0a0b0c0d" + "0000000000000000"
    assert message.encode() == bytes.fromhex(header) + b"n" * 24 + b"c" * 32
    assert len(message.encode()) == COOKIE_REPLY_SIZE


@given(INITIATIONS | RESPONSES | COOKIE_REPLIES)
def test_messages_survive_the_wire(message):
    assert type(message).decode_untrusted(message.encode()) == message
    assert type(message).decode_untrusted(memoryview(message.encode())) == message


@given(INITIATIONS | RESPONSES)
def test_macs_cover_everything_in_front_of_them(message):
    datagram = message.encode()
    assert covered_by_mac1(datagram) + message.mac1 + message.mac2 == datagram
    assert covered_by_mac2(datagram) + message.mac2 == datagram


def test_macs_start_out_empty():
    message = Initiation(1, bytes(32), bytes(48), bytes(60))
    assert message.encode()[-2 * MAC_SIZE :] == bytes(32)


def test_no_answer_is_longer_than_the_shortest_initiation():
    joiner = JoinerHello(bytes(16), NodeId(bytes(32)), ())
    shortest = Initiation(0, bytes(32), bytes(48), joiner.encode() + bytes(16)).encode()
    longest_host = Endpoint("2001:db8:1111:2222:3333:4444:5555:6666", 65535)
    payload = ResponsePayload(65535, longest_host).encode()
    longest = Response(0, 0, bytes(32), payload + bytes(16)).encode()
    assert COOKIE_REPLY_SIZE <= len(longest) <= RESPONSE_LIMIT <= len(shortest)


def test_size_limits_are_exact():
    fixed = 16 + 4 + 32 + 48 + 16 + 16
    for size in (RESPONSE_LIMIT, INITIATION_LIMIT):
        datagram = Initiation(0, bytes(32), bytes(48), bytes(size - fixed)).encode()
        assert len(datagram) == size
        Initiation.decode_untrusted(datagram)
    for size in (RESPONSE_LIMIT - 1, INITIATION_LIMIT + 1):
        datagram = Initiation(0, bytes(32), bytes(48), bytes(size - fixed)).encode()
        with pytest.raises(WireError, match=f"{size} bytes"):
            Initiation.decode_untrusted(datagram)
    with pytest.raises(WireError, match="401 bytes"):
        Response.decode_untrusted(Response(0, 0, bytes(32), bytes(317)).encode())
    Response.decode_untrusted(Response(0, 0, bytes(32), bytes(316)).encode())
    assert len(Response(0, 0, bytes(32), bytes(76)).encode()) == RESPONSE_LIMIT == 160
    Response.decode_untrusted(Response(0, 0, bytes(32), bytes(76)).encode())


def test_payload_without_room_for_its_tag_is_refused():
    Response.decode_untrusted(Response(0, 0, bytes(32), bytes(16)).encode())
    for size in (0, 15):
        with pytest.raises(WireError, match=f"payload of {size} bytes"):
            Response.decode_untrusted(Response(0, 0, bytes(32), bytes(size)).encode())


@given(INITIATIONS | RESPONSES | COOKIE_REPLIES, st.data())
def test_cut_or_mistyped_messages_are_refused(message, data):
    datagram = message.encode()
    # What is left of an initiation may be a valid shorter one: only the fixed part is cut.
    fixed = {Initiation: RESPONSE_LIMIT, Response: 100, CookieReply: 72}[type(message)]
    size = data.draw(st.integers(0, fixed - 1))
    with pytest.raises(WireError):
        type(message).decode_untrusted(datagram[:size])
    with pytest.raises(WireError, match="type 4"):
        type(message).decode_untrusted(b"\4" + datagram[1:])


def test_long_cookie_reply_is_refused():
    with pytest.raises(WireError, match="1 bytes too many"):
        CookieReply.decode_untrusted(CookieReply(1, bytes(24), bytes(32)).encode() + b"x")


def test_hellos_are_these_bytes():
    member = MemberHello(stamp=1 << 32 | 5, certificate=b"cert", suites=(1, 2))
    assert member.encode().hex() == "9401cf0000000100000005c40463657274920102"
    joiner = JoinerHello(token_id=b"t" * 16, node=NodeId(b"n" * 32), suites=(2,))
    assert joiner.encode().hex() == "9402c410" + "74" * 16 + "c420" + "6e" * 32 + "9102"


@given(HELLOS)
def test_hellos_survive_the_wire(hello):
    assert decode_hello_untrusted(hello.encode()) == hello


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1, 5, b"cert"],
        [3, 5, b"cert", [1]],
        [True, 5, b"cert", [1]],
        [1, -1, b"cert", [1]],
        [1, 5, "cert", [1]],
        [1, 5, b"cert", [1] * (SUITES_LIMIT + 1)],
        [1, 5, b"cert", [65536]],
        [1, 5, b"cert", ["aes"]],
        [1, 5, b"cert", 1],
        [2, b"t" * 15, b"n" * 32, [1]],
        [2, b"t" * 16, b"n" * 33, [1]],
    ],
)
def test_malformed_hello_is_refused(values):
    with pytest.raises(WireError, match=r"hello|suites"):
        decode_hello_untrusted(pack(values))


def test_the_largest_certificate_fits_an_initiation() -> None:
    hello = MemberHello(U64, bytes(CERTIFICATE_MAX), tuple(range(200, 200 + SUITES_LIMIT)))
    assert len(hello.encode()) <= HELLO_LIMIT


def test_hello_that_does_not_fit_is_the_callers_mistake():
    fits = MemberHello(0, bytes(HELLO_LIMIT - 7), ())
    assert len(fits.encode()) == HELLO_LIMIT
    with pytest.raises(StateError, match=f"over {HELLO_LIMIT}"):
        MemberHello(0, bytes(HELLO_LIMIT - 6), ()).encode()


def test_later_fields_are_ignored():
    hello = decode_hello_untrusted(pack([1, 5, b"cert", [1], "new"]))
    assert hello == MemberHello(5, b"cert", (1,))
    payload = ResponsePayload.decode_untrusted(pack([1, "192.0.2.1", 9, "new"]))
    assert payload == ResponsePayload(Suite.AES_256_GCM, Endpoint("192.0.2.1", 9))


def test_refusals_are_these_bytes():
    stale, revoked = StalePayload(5), RevokedPayload(b"word")
    assert (stale.encode().hex(), revoked.encode().hex()) == ("920005", "930000c404776f7264")
    for refusal in (stale, revoked):
        assert decode_response_payload_untrusted(refusal.encode()) == refusal
    for proof in (bytes(PROOF_LIMIT + 1), "text"):
        with pytest.raises(WireError, match="response payload"):
            decode_response_payload_untrusted(pack([0, 0, proof]))


def test_response_payload_is_these_bytes():
    payload = ResponsePayload(Suite.CHACHA20_POLY1305, Endpoint("192.0.2.1", 6875))
    assert payload.encode().hex() == "9302a93139322e302e322e31cd1adb"


@given(st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535))
def test_response_payload_survives_the_wire(address, port, suite):
    payload = ResponsePayload(suite, Endpoint.of(str(address), port))
    assert ResponsePayload.decode_untrusted(payload.encode()) == payload


def test_observed_endpoint_is_put_into_its_one_form():
    payload = ResponsePayload.decode_untrusted(pack([1, "::ffff:192.0.2.1", 9]))
    assert payload.observed == Endpoint("192.0.2.1", 9)


@pytest.mark.parametrize(
    "values",
    [
        [1, "192.0.2.1"],
        [1, "example.org", 9],
        [1, "", 9],
        [1, "192.0.2.1", 65536],
        [-1, "192.0.2.1", 9],
        [1, b"192.0.2.1", 9],
        [1, "1" * 46, 9],
    ],
)
def test_malformed_response_payload_is_refused(values):
    with pytest.raises(WireError, match="response payload"):
        ResponsePayload.decode_untrusted(pack(values))


DECODERS = [
    Initiation.decode_untrusted,
    Response.decode_untrusted,
    CookieReply.decode_untrusted,
    decode_hello_untrusted,
    decode_response_payload_untrusted,
    ResponsePayload.decode_untrusted,
]


@given(st.sampled_from(DECODERS), st.binary(max_size=1300) | st.binary(min_size=60, max_size=200))
def test_random_bytes_are_decoded_or_refused(decode, data):
    with suppress(WireError):
        decode(data)


def test_captures_are_decoded_or_refused(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        for decode in DECODERS:
            for kind in (b"", b"\1", b"\2", b"\3"):
                with suppress(WireError):
                    decode(kind + frame[len(kind) :])

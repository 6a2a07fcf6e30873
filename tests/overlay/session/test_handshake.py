"""The two halves of the handshake, byte by byte."""

from __future__ import annotations

import pytest

from overlay.errors import AuthError, WireError
from overlay.keys import StaticKey
from overlay.session.cookie import MacMaker
from overlay.session.handshake import (
    Admission,
    Attempt,
    Received,
    answer,
    read_initiation_untrusted,
)
from overlay.session.noise import MUSLIN, Handshake
from overlay.session.suites import Suite
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wire.handshake import Initiation, JoinerHello, Response, ResponsePayload
from tests.support.session_net import opened, sealed

INITIATOR, RESPONDER = StaticKey(b"\x01" * 32), StaticKey(b"\x02" * 32)
PSK = b"\x05" * 32
JOINER, MEMBER = NodeId(b"\x07" * 32), NodeId(b"\x08" * 32)
HELLO = JoinerHello(b"\x06" * 16, JOINER, (1, 2))
OBSERVED = Endpoint("192.0.2.1", 6875)


def attempt(psk: bytes = PSK, suites: tuple[int, ...] = (1, 2)) -> Attempt:
    return Attempt(
        static=INITIATOR,
        remote_static=RESPONDER.public,
        psk=psk,
        hello=JoinerHello(HELLO.token_id, HELLO.node, suites),
        index=0x01020304,
        entropy=lambda size: b"\x03" * size,
    )


def receive(datagram: bytes) -> Received:
    return read_initiation_untrusted(Initiation.decode_untrusted(datagram), RESPONDER)


def respond(received: Received, suite: Suite = Suite.AES_256_GCM) -> tuple[Response, Keypair]:
    datagram, keypair = answer(
        received,
        Admission(PSK, suite, joiner=JOINER, joiner_token=HELLO.token_id),
        index=0x05060708,
        observed=OBSERVED,
        entropy=lambda size: b"\x04" * size,
        now=10.0,
        expires_at=190.0,
    )
    return Response.decode_untrusted(datagram), keypair


def finish(first: Attempt, response: Response) -> tuple[Keypair, Endpoint]:
    return first.finish_untrusted(response, node=MEMBER, now=11.0, expires_at=191.0)


def test_both_halves_end_with_one_keypair_that_works():
    first = attempt()
    received = receive(first.datagram)
    assert received.hello == HELLO
    assert received.remote_static == INITIATOR.public
    response, theirs = respond(received)
    ours, observed = finish(first, response)
    assert observed == OBSERVED
    assert (ours.local_index, ours.remote_index) == (0x01020304, 0x05060708)
    assert (theirs.local_index, theirs.remote_index) == (0x05060708, 0x01020304)
    assert (ours.node, theirs.node, theirs.joiner) == (MEMBER, None, JOINER)
    assert (ours.created_at, ours.expires_at) == (11.0, 191.0)
    assert (theirs.created_at, theirs.expires_at) == (10.0, 190.0)
    assert opened(theirs, sealed(ours, b"there")) == b"there"
    assert opened(ours, sealed(theirs, b"back")) == b"back"


def test_messages_of_a_handshake_with_fixed_keys_are_these_bytes():
    first = attempt()
    response, theirs = respond(receive(first.datagram))
    ours, _ = finish(first, response)
    to_responder, to_initiator = MacMaker(RESPONDER.public), MacMaker(INITIATOR.public)
    assert to_responder.with_macs(first.datagram, 0.0).hex() == GOLDEN_INITIATION
    assert to_initiator.with_macs(response.encode(), 0.0).hex() == GOLDEN_RESPONSE
    assert sealed(ours, b"hello").hex() == GOLDEN_BURST
    assert opened(theirs, bytes.fromhex(GOLDEN_BURST)) == b"hello"


GOLDEN_INITIATION = (
    "01000000000000000000000000000000010203045dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d"
    "488bdaf9df1c6e0124b3ef220a26599fb2188bb723276fc173af67616c817fc32fd04d686d87ec15"
    "2fac10ee9af85c79df8a8f63022d3901e4b60e1bc3f982a3cace9cefbb2138d0a4384debeb2e82fd"
    "f00051ebd86a277b15aa168916c221e5924f5dc262cd30939a449f84675969f996a57078790cdf0a"
    "4858392de81cf68197e0e5e620c66e061f7466885d2932a83f927141eb0000000000000000000000"
    "0000000000"
)
GOLDEN_RESPONSE = (
    "0200000001020304000000000000000005060708ac01b2209e86354fb853237b5de0f4fab13c7fcb"
    "f433a61c019369617fecf10b95b80f2e183028e382e38d13cb235c00f1bd768cd085d69713e9eaf3"
    "3bae225994954ed2f7c1bd842ffbebe0ad1d6d00000000000000000000000000000000"
)
GOLDEN_BURST = "04000000050607080000000000000000d29d538ef26a320f5ea3305d0366d8f48365df5fa6"


def test_a_response_that_chooses_what_was_not_offered_is_refused():
    first = attempt(suites=(2,))
    response, _ = respond(receive(first.datagram), suite=Suite.AES_256_GCM)
    with pytest.raises(AuthError, match="not offered"):
        finish(first, response)


def test_a_wrong_response_leaves_the_attempt_able_to_take_the_right_one():
    first = attempt()
    received = receive(first.datagram)
    response, _ = respond(received)
    wrong = Response(response.receiver, response.sender, response.ephemeral, bytes(40))
    with pytest.raises(AuthError):
        finish(first, wrong)
    assert finish(first, response)


def test_an_authentic_response_with_nonsense_inside_leaves_the_attempt_as_it_was():
    first = attempt()
    responder = Handshake(MUSLIN, RESPONDER, prologue=b"muslin 1", psk=PSK)
    message = Initiation.decode_untrusted(first.datagram)
    responder.read_untrusted(message.ephemeral + message.enc_static + message.enc_payload)
    noise = responder.write(b"\xc1", lambda size: b"\x04" * size)
    nonsense = Response(first.index, 1, noise[:32], noise[32:])
    for _ in range(2):
        with pytest.raises(WireError):
            finish(first, nonsense)
    response, _ = respond(receive(first.datagram))
    assert finish(first, response)


def test_an_initiation_with_nonsense_inside_is_a_wire_error():
    noise = Handshake(
        MUSLIN, INITIATOR, prologue=b"muslin 1", remote_static=RESPONDER.public, psk=PSK
    )
    message = noise.write(b"\x90" + bytes(60), lambda size: b"\x03" * size)
    with pytest.raises(WireError):
        read_initiation_untrusted(
            Initiation(1, message[:32], message[32:80], message[80:]), RESPONDER
        )


def test_an_initiation_to_somebody_else_does_not_open():
    message = Initiation.decode_untrusted(attempt().datagram)
    with pytest.raises(AuthError):
        read_initiation_untrusted(message, INITIATOR)


def test_another_pre_shared_key_is_noticed_by_the_initiator():
    first = attempt(psk=b"\x09" * 32)
    response, _ = respond(receive(first.datagram))
    with pytest.raises(AuthError):
        finish(first, response)


def test_the_response_says_what_was_chosen_and_seen():
    payload = ResponsePayload(Suite.CHACHA20_POLY1305, OBSERVED)
    assert ResponsePayload.decode_untrusted(payload.encode()) == payload


def test_representations_show_no_keys():
    received = receive(attempt().datagram)
    text = repr(received) + repr(Admission(PSK, Suite.AES_256_GCM)) + repr(attempt())
    assert r"\x05\x05" not in text
    assert "05" * 8 not in text

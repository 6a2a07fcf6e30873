"""Sessions of processes without a certificate, both halves."""

from __future__ import annotations

import pytest

from overlay.config import Limits, Settings
from overlay.errors import AuthError, WireError
from overlay.session.cookie import MacMaker
from overlay.wire.handshake import (
    CookieReply,
)
from tests.support.clusters import signing_key, static_key
from tests.support.session_net import (
    SECRET,
    STRANGER,
    TOKEN,
    Network,
    Node,
    join_session,
    opened,
    refuse,
    sealed,
)


def member_with_token(**options) -> Node:
    return Network(**options).add(2, token_secret={TOKEN: SECRET}.get)


def test_a_joiner_with_a_good_token_gets_a_keypair_that_belongs_to_no_node():
    member, joiner = member_with_token(), join_session()
    [response] = member.sessions.on_handshake_untrusted(joiner.start(0.0), STRANGER, 0.0)
    keypair = joiner.on_response_untrusted(response.datagram, 0.1)
    assert (keypair.node, keypair.confirmed, keypair.initiator) == (member.id, True, True)
    [theirs] = member.sessions.keypairs.values()
    assert (theirs.node, theirs.joiner, theirs.joiner_token) == (
        None,
        signing_key(50).public,
        TOKEN,
    )
    assert opened(theirs, sealed(keypair, b"request")) == b"request"
    assert not theirs.confirmed
    assert member.sessions.on_opened(theirs, STRANGER, 0.2) == []
    assert theirs.confirmed
    assert opened(keypair, sealed(theirs, b"grant")) == b"grant"


def test_a_token_nobody_knows_is_refused():
    refuse(member_with_token(), join_session(token=b"u" * 16).start(0.0))


def test_a_joiner_that_guesses_the_secret_cannot_read_the_response():
    member, joiner = member_with_token(), join_session(secret=b"x" * 32)
    [response] = member.sessions.on_handshake_untrusted(joiner.start(0.0), STRANGER, 0.0)
    with pytest.raises(AuthError):
        joiner.on_response_untrusted(response.datagram, 0.1)


def test_a_replayed_joiner_initiation_is_refused_while_its_keypair_lives():
    member, joiner = member_with_token(), join_session()
    datagram = joiner.start(0.0)
    member.sessions.on_handshake_untrusted(datagram, STRANGER, 0.0)
    refuse(member, datagram)


def test_joiners_count_as_half_open_even_when_confirmed_and_expire():
    member = member_with_token(settings=Settings(limits=Limits(half_open=2)))
    for seed in (1, 2, 3):
        datagram = join_session(seed=seed).start(0.0)
        member.sessions.on_handshake_untrusted(datagram, STRANGER, 0.0)
        keypair = list(member.sessions.keypairs.values())[-1]
        member.sessions.on_opened(keypair, STRANGER, 0.0)
        member.sessions.check_invariants()
    assert len(member.sessions.keypairs) == 2
    assert [confirmed for *_, confirmed in member.sessions.snapshot().joiners] == [True, True]
    member.sessions.on_deadline(180.0)
    assert member.sessions.keypairs == {}


def test_a_cookie_is_kept_for_the_next_start():
    member = member_with_token(settings=Settings(limits=Limits(handshakes_per_second=0)))
    joiner = join_session()
    [cookie] = member.sessions.on_handshake_untrusted(joiner.start(0.0), STRANGER, 0.0)
    assert joiner.on_response_untrusted(cookie.datagram, 0.1) is None
    [response] = member.sessions.on_handshake_untrusted(joiner.start(1.0), STRANGER, 1.0)
    assert joiner.on_response_untrusted(response.datagram, 1.1) is not None


def test_a_joiner_refuses_what_answers_nothing_and_still_takes_the_right_answer():
    member, joiner = member_with_token(), join_session()
    with pytest.raises(AuthError):
        joiner.on_response_untrusted(CookieReply(0, bytes(24), bytes(32)).encode(), 0.0)
    initiation = joiner.start(0.0)
    [response] = member.sessions.on_handshake_untrusted(initiation, STRANGER, 0.0)
    payload, mac1, receiver = (bytearray(response.datagram) for _ in range(3))
    payload[-40] ^= 1
    mac1[-20] ^= 1
    receiver[4] ^= 1
    readdressed = MacMaker(static_key(50).public).with_macs(bytes(receiver), 0.0)
    for wrong in (
        initiation,
        bytes(payload),
        bytes(mac1),
        readdressed,
        response.datagram[:-1],
        b"",
    ):
        with pytest.raises((AuthError, WireError)):
            joiner.on_response_untrusted(wrong, 0.1)
    assert joiner.on_response_untrusted(response.datagram, 0.1) is not None
    with pytest.raises(AuthError):
        joiner.on_response_untrusted(response.datagram, 0.2)


def test_a_later_start_makes_the_earlier_response_void():
    member, joiner = member_with_token(), join_session()
    [response] = member.sessions.on_handshake_untrusted(joiner.start(0.0), STRANGER, 0.0)
    joiner.start(1.0)
    with pytest.raises(AuthError):
        joiner.on_response_untrusted(response.datagram, 1.1)

"""What an initiation must prove: mac1, a cookie under load, a certificate."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import pytest

from overlay.config import Limits, Settings
from overlay.drops import DropReason
from overlay.effects import RemovalShown
from overlay.errors import AuthError
from overlay.keys import SigningKey
from overlay.session.handshake import AnsweredError, RevokedError
from overlay.types import Endpoint
from overlay.wire.certificate import issue_certificate
from overlay.wire.handshake import (
    COOKIE_REPLY_SIZE,
    INITIATION_LIMIT,
)
from tests.support.clusters import AUTHORITY, WALL, make_identity, signing_key, static_key
from tests.support.session_net import (
    CLUSTER,
    SECRET,
    STRANGER,
    TOKEN,
    Network,
    Node,
    initiation,
    join_session,
    refuse,
    two,
    up,
)


def test_a_message_without_a_valid_mac1_is_refused_silently():
    _, a, b = two()
    datagram = initiation(a, b)
    with pytest.raises(AuthError) as refusal:
        b.sessions.on_handshake_untrusted(datagram[:-32] + bytes(32), STRANGER, 0.0)
    assert refusal.value.reason is DropReason.BAD_HANDSHAKE
    assert b.sessions.cookies_sent == 0


def with_certificate(network: Network, number: int, **changes) -> Node:
    """A node whose certificate was issued with other values than it should have."""
    identity = make_identity(number, CLUSTER)
    fields = {
        "node": identity.node,
        "static": identity.static.public,
        "name": identity.name,
        "cluster": CLUSTER.id,
        "serial": 1,
        "not_before": WALL - 1000,
        "not_after": WALL + 1000,
    }
    authority = changes.pop("authority", AUTHORITY)
    certificate = issue_certificate(authority, **{**fields, **changes})
    return network.add(number, identity=replace(identity, certificate=certificate))


@pytest.mark.parametrize(
    "changes",
    [
        {"not_after": WALL},
        {"not_before": WALL + 1},
        {"cluster": b"another!"},
        {"authority": SigningKey(b"\x66" * 32)},
    ],
    ids=["expired", "not yet valid", "other cluster", "other authority"],
)
def test_a_certificate_that_proves_nothing_is_refused(changes):
    network = Network()
    a, b = with_certificate(network, 1, **changes), network.add(2)
    a.knows(b)
    before = b.sessions.snapshot()
    with pytest.raises(AuthError) as refusal:
        b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    assert refusal.value.reason is DropReason.BAD_CERTIFICATE
    assert b.sessions.snapshot() == before


def test_a_certificate_expires_while_the_node_runs():
    network = Network()
    a, b = with_certificate(network, 1), network.add(2)
    a.knows(b)
    network.now = 999.0
    assert b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 999.0)
    network.now = 1000.0
    a.sessions.close(b.id, 1000.0)
    with pytest.raises(AuthError, match="expired"):
        b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 1000.0)


class Impostor:
    """An identity whose certificate is somebody else's; `Identity` itself would refuse it."""

    def __init__(self, number: int, victim: int) -> None:
        self.static = static_key(number)
        self.certificate = make_identity(victim, CLUSTER).certificate
        self.node = signing_key(number).public


def test_a_stolen_certificate_is_useless_without_its_static_key():
    network = Network()
    a, b = network.add(1, identity=Impostor(1, victim=3)), network.add(2)
    a.knows(b)
    with pytest.raises(AuthError, match="another static key") as refusal:
        b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    assert refusal.value.reason is DropReason.BAD_CERTIFICATE


def test_a_second_node_with_our_own_identity_is_refused():
    network = Network()
    twin, b = network.add(2), network.add(2)
    other = network.add(3)
    other_id = other.id
    twin.sessions.introduce(other_id, b.identity.static.public)
    [effect] = twin.sessions.connect(other_id, b.endpoint, 0.0)
    with pytest.raises(AuthError, match="our own identity"):
        b.sessions.on_handshake_untrusted(effect.datagram, twin.endpoint, 0.0)


def test_a_node_with_another_cluster_key_gets_no_session():
    network = Network()
    a, b = network.add(1, psk=b"\x06" * 32), network.add(2)
    a.knows(b)
    a.connect(b)
    network.run(0.5)
    assert a.sessions.sending_keypair(b.id, 0.5) is None
    assert isinstance(a.refused[0], AuthError)


def under_load() -> tuple[Network, Node, Node]:
    return two(settings=Settings(limits=Limits(handshakes_per_second=0)))


def test_under_load_a_cookie_comes_back_and_the_next_try_shows_it():
    network, a, b = under_load()
    a.connect(b)
    network.run(0.5)
    assert not up(a, b)
    assert b.sessions.cookies_sent == 1
    network.run(2.0)
    assert up(a, b)
    assert b.sessions.cookies_sent == 1


def test_a_cookie_does_not_help_from_another_address():
    _, a, b = under_load()
    [cookie] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    a.sessions.on_handshake_untrusted(cookie.datagram, b.endpoint, 0.0)
    [retry] = a.sessions.on_deadline(1.2)
    [again] = b.sessions.on_handshake_untrusted(retry.datagram, STRANGER, 1.2)
    assert again.datagram[0] == 3
    assert b.sessions.keypairs == {}


def test_demanding_a_cookie_remembers_nothing():
    _, a, b = under_load()
    datagram = initiation(a, b)
    before = b.sessions.snapshot()
    for _ in range(3):
        [cookie] = b.sessions.on_handshake_untrusted(datagram, STRANGER, 0.0)
        assert cookie.endpoint == STRANGER
    assert b.sessions.snapshot() == before


def test_a_replayed_or_damaged_cookie_changes_nothing():
    _, a, b = under_load()
    [cookie] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)
    for bit in range(4 * 8, len(cookie.datagram) * 8):
        # The rest of the header carries nothing in a handshake message.
        if 64 <= bit < 128:
            continue
        flipped = bytearray(cookie.datagram)
        flipped[bit // 8] ^= 1 << bit % 8
        refuse(a, bytes(flipped))
    assert a.sessions.on_handshake_untrusted(cookie.datagram, b.endpoint, 0.0) == []
    assert a.sessions.snapshot().peers[0].cookie_until == 120.0
    refuse(a, cookie.datagram)


def test_load_is_measured_per_second():
    network, a, b = two(settings=Settings(limits=Limits(handshakes_per_second=1)))
    c = network.add(3)
    c.knows(b)
    [first] = b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.1)
    [second] = b.sessions.on_handshake_untrusted(initiation(c, b), c.endpoint, 0.9)
    assert (first.datagram[0], second.datagram[0]) == (2, 3)
    [retry] = c.sessions.on_deadline(1.2)
    [third] = b.sessions.on_handshake_untrusted(retry.datagram, c.endpoint, 1.2)
    assert third.datagram[0] == 2


def test_no_answer_is_larger_than_what_it_answers():
    for settings_ in (Settings(), Settings(limits=Limits(handshakes_per_second=0))):
        network, a, b = two(settings=settings_)
        longest = Endpoint("2001:db8:1111:2222:3333:4444:5555:6666", 65535)
        for datagram in (initiation(a, b), join_session().start(0.0)):
            b.sessions = network.add(2, token_secret=lambda _: SECRET).sessions
            [answer] = b.sessions.on_handshake_untrusted(datagram, longest, 0.0)
            assert COOKIE_REPLY_SIZE <= len(answer.datagram) <= len(datagram) <= INITIATION_LIMIT


def removed_at(b: Node, proof: bytes) -> None:
    def read(_: bytes) -> NoReturn:
        raise RevokedError(proof)

    b.sessions._gate._read_certificate = read


def test_a_removed_node_is_shown_the_proof_and_gets_no_session():
    _, a, b = two()
    removed_at(b, b"p" * 190)
    sent = initiation(a, b)
    before = b.sessions.snapshot()
    with pytest.raises(AnsweredError) as refusal:
        b.sessions.on_handshake_untrusted(sent, a.endpoint, 0.0)
    assert refusal.value.reason is DropReason.BAD_CERTIFICATE
    assert b.sessions.snapshot() == before
    assert 160 < len(refusal.value.answer) <= len(sent)
    waiting = a.sessions.snapshot()
    shown = a.sessions.on_handshake_untrusted(refusal.value.answer, b.endpoint, 0.0)
    assert shown == [RemovalShown(b.id, b"p" * 190)]
    assert a.sessions.snapshot() == waiting  # until somebody has checked it


@pytest.mark.parametrize("proof", [b"", b"p" * 400])
def test_what_is_no_proof_or_longer_than_its_question_is_not_shown(proof):
    _, a, b = two()
    removed_at(b, proof)
    with pytest.raises(RevokedError):
        b.sessions.on_handshake_untrusted(initiation(a, b), a.endpoint, 0.0)


def test_an_offer_of_unknown_ciphers_only_is_refused():
    member = Network().add(2, token_secret={TOKEN: SECRET}.get)
    assert "cipher" in str(refuse(member, join_session(suites=(9, 77)).start(0.0)))

"""What an initiation must prove: mac1 and a certificate; and what a refusal tells."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import NoReturn

import pytest

from overlay.config import Limits, Settings
from overlay.drops import DropReason
from overlay.effects import RemovalShown
from overlay.errors import AuthError
from overlay.keys import SigningKey, StaticKey
from overlay.session.handshake import AnsweredError, Attempt, RevokedError
from overlay.types import Endpoint
from overlay.wire.certificate import issue_certificate
from overlay.wire.handshake import (
    COOKIE_REPLY_SIZE,
    INITIATION_LIMIT,
    Initiation,
    MemberHello,
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


# -- how long a refusal takes ----------------------------------------------------------------------


def test_a_certificate_of_somebody_else_is_not_looked_up():
    """Whether it is a member's, a removed node's, or nobody's: the same is done, and no more."""

    def look_up(_: bytes) -> NoReturn:
        pytest.fail("it was looked up")

    network = Network()
    a = network.add(1, identity=Impostor(1, victim=3))
    b = network.add(2, read_certificate=look_up)
    a.knows(b)
    assert str(refuse(b, initiation(a, b))) == "a certificate for another static key"


def shown_by_a_stranger(b: Node, certificate: bytes) -> Initiation:
    """An initiation that anybody can make: with a key of its own, and a certificate of others."""
    attempt = Attempt(
        static=static_key(77),
        remote_static=b.identity.static.public,
        psk=bytes(32),
        hello=MemberHello(1, certificate, (1,)),
        index=1,
        entropy=random.Random(5).randbytes,
    )
    return Initiation.decode_untrusted(attempt.datagram)


def test_refusing_costs_as_much_whoever_is_meant(monkeypatch):
    """Counted in what takes time: X25519 operations and signatures."""
    b = Network().add(2)
    gate = b.sessions._gate
    known = make_identity(3, CLUSTER).certificate
    gate._read_certificate(known.encode())  # so it is remembered
    done: Counter[str] = Counter()
    exchange = StaticKey.exchange

    def counted(self: StaticKey, remote: bytes) -> bytes:
        done["x25519"] += 1
        return exchange(self, remote)

    monkeypatch.setattr(StaticKey, "exchange", counted)
    monkeypatch.setattr(
        "overlay.wire.certificate.verify", lambda *_: done.update(["ed25519"]) or False
    )
    costs = []
    for certificate in (known, replace(known, signature=bytes(64)), replace(known, serial=9)):
        done.clear()
        message = shown_by_a_stranger(b, certificate.encode())
        with pytest.raises(AuthError):
            gate.admit_untrusted(message, STRANGER, 0.0)
        costs.append(dict(done))
    assert costs == [{"x25519": costs[0]["x25519"]}] * 3

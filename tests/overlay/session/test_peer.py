"""A session in time: retries, rekeys, expiry, and the end."""

from __future__ import annotations

import pytest

from overlay.effects import Report, SendDatagram, SessionDown, SessionUp, StampRefused
from overlay.session.handshake import Attempt
from overlay.wire.handshake import StalePayload
from tests.support.session_net import (
    TERRIBLE,
    two,
)


@pytest.mark.parametrize("crossing", [False, True])
def test_ten_minutes_of_traffic_survive_every_rekey_without_a_gap(crossing):
    network, a, b = two()
    a.connect(b)
    if crossing:
        b.connect(a)
    network.run(0.5)
    for second in range(1, 601):
        assert a.send(b, b"a%d" % second), second
        assert b.send(a, b"b%d" % second), second
        network.run(second + 0.5)
    assert {data for _, data in a.received} >= {b"b%d" % second for second in range(1, 601)}
    assert {data for _, data in b.received} >= {b"a%d" % second for second in range(1, 601)}
    rekeys = [effect for effect in a.effects if isinstance(effect, SessionUp)]
    assert 5 <= len(rekeys) <= 7
    assert len(a.sessions.keypairs) <= 2
    assert a.downs() == b.downs() == []


@pytest.mark.parametrize("seed", range(3))
def test_rekeys_over_a_terrible_network_never_take_the_keys_away(seed):
    network, a, b = two(seed=seed)
    a.connect(b)
    network.run(1.0)
    network.link = TERRIBLE
    for second in range(2, 500):
        assert a.send(b, b"."), second
        assert b.send(a, b"."), second
        network.run(float(second))


def test_an_initiator_rekeys_at_rekey_after():
    network, a, b = two()
    a.connect(b)
    network.run(119.9)
    assert (a.ups(b), b.ups(a)) == (1, 1)
    network.run(120.2)
    assert (a.ups(b), b.ups(a)) == (2, 2)
    assert a.sessions.rekeyed_at(b.id) > 119
    assert a.sessions.established_at(b.id) < 1


def test_a_responder_that_still_sends_rekeys_when_the_initiator_does_not():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    # Initiations of `a` get lost from now on; everything else arrives.
    forward = network.send
    network.send = lambda sender, target, datagram: (
        None if sender is a and datagram[0] == 1 else forward(sender, target, datagram)
    )
    for second in range(2, 200):
        assert b.send(a, b"x"), second
        network.run(float(second))
    assert b.sessions.rekeyed_at(a.id) == pytest.approx(165, abs=1)
    assert b.sessions.sending_keypair(a.id, network.now).initiator


def test_an_idle_responder_lets_the_session_end():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    del network.nodes[a.endpoint]
    network.run(300.0)
    assert b.downs() == ["the keys expired"]
    assert b.sessions.keypairs == {}
    assert b.sessions.next_deadline() is None
    assert [e.event for e in b.effects if isinstance(e, Report)][-1] == "session.ended"


def test_an_initiator_tries_until_the_old_keys_expire_then_reports_the_end_once():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    del network.nodes[b.endpoint]
    network.run(179.9)
    assert a.downs() == []
    assert a.send(b, b"x")
    network.run(181.0)
    assert a.downs() == ["no answer to the handshake"]
    assert not a.send(b, b"x")
    assert a.sessions.keypairs == {}
    network.run(1000.0)
    assert len(a.downs()) == 1


def test_no_keypair_is_used_past_reject_after_even_if_no_deadline_was_called():
    network, a, b = two()
    a.connect(b)
    network.run(1.0)
    assert a.sessions.sending_keypair(b.id, 179.0) is not None
    assert a.sessions.sending_keypair(b.id, 180.1) is None


def test_a_handshake_without_answer_is_repeated_with_growing_waits_and_given_up():
    network, a, b = two()
    del network.nodes[b.endpoint]
    a.connect(b)
    times = []
    while (at := a.sessions.next_deadline()) is not None:
        network.now = at
        effects = a.sessions.on_deadline(at)
        times.append((round(at), [type(effect) for effect in effects]))
    waits = [at for at, _ in times]
    assert waits[:4] == [1, 2, 3, 5]
    assert times[-1] == (20, [SessionDown])
    assert all(kinds == [SendDatagram] for _, kinds in times[:-1])
    assert a.sessions.snapshot().indexes == ((), (), ())


def test_goodbye_drops_the_keys_of_a_session_and_stops_a_handshake():
    network, a, b = two()
    a.connect(b)
    assert a.sessions.close(b.id, 0.0) == [SessionDown(b.id, "the peer said goodbye")]
    assert a.sessions.close(b.id, 0.0) == []
    a.connect(b)
    network.run(1.0)
    assert isinstance(a.sessions.close(b.id, 1.0)[0], SessionDown)
    assert a.sessions.keypairs == {}
    assert a.sessions.established_at(b.id) is None
    assert a.sessions.next_deadline() is None


def test_one_that_refuses_every_stamp_is_asked_again_at_once_but_once(monkeypatch):
    network, a, b = two()
    stamps = iter(range(1 << 40, 1 << 41, 10))

    def refused(attempt, response, **arguments):
        return StalePayload(next(stamps))

    monkeypatch.setattr(Attempt, "finish_untrusted", refused)
    at_once = [SendDatagram, StampRefused, SendDatagram, StampRefused]
    for began in (0.0, 30.0):
        a.effects.clear()
        a.connect(b)
        network.run(began + 0.9)
        assert [type(effect) for effect in a.effects] == at_once
        network.run(began + 2.0)
        assert [type(effect) for effect in a.effects[4:]] == [SendDatagram, StampRefused]
        network.run(began + 30.0)
        assert isinstance(a.effects[-1], SessionDown)

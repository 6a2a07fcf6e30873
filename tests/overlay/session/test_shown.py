"""Tests of overlay.session.shown: what sessions show is all there is to them, but no keys."""

from __future__ import annotations

from dataclasses import fields

from overlay.session.shown import PeerSnapshot, SessionsSnapshot
from overlay.session.transport import Keypair
from tests.support.session_net import two


def test_what_is_shown_follows_every_step_and_holds_no_keys():
    network, a, b = two()
    before = a.sessions.snapshot()
    a.connect(b)
    started = a.sessions.snapshot()
    network.run(1.0)
    up = a.sessions.snapshot()
    assert before != started != up != before
    [peer] = up.peers
    assert isinstance(up, SessionsSnapshot)
    assert isinstance(peer, PeerSnapshot)
    values = [getattr(peer, field.name) for field in fields(peer)]
    assert not any(isinstance(value, Keypair) for value in values)
    split = a.sessions.current(b.id).lane_split(0, 1)
    assert not any(key in repr(up).encode() for key in split)

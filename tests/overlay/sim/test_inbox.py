"""Tests of the socket buffer of a machine that does not read."""

from __future__ import annotations

from overlay.sim.inbox import Inbox
from overlay.types import Endpoint

SOMEBODY = Endpoint("198.18.0.1", 1)


def test_what_waits_comes_out_in_order_and_once():
    inbox = Inbox()
    assert inbox.push(b"one", 0, SOMEBODY)
    assert inbox.push(b"twotwo", 3, SOMEBODY)
    assert len(inbox) == 2
    assert inbox.take() == [(b"one", 0, SOMEBODY), (b"twotwo", 3, SOMEBODY)]
    assert inbox.take() == []


def test_what_has_no_room_is_lost_and_room_comes_back():
    inbox = Inbox(10)
    assert inbox.push(bytes(10), 0, SOMEBODY)
    assert not inbox.push(b"x", 0, SOMEBODY)
    inbox.take()
    assert inbox.push(b"x", 0, SOMEBODY)

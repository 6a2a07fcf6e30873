"""What is remembered of initiations is bounded, and what is remembered is found."""

from __future__ import annotations

from overlay.session.copies import SEEN, STAMPS, Copies
from overlay.types import NodeId


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_an_ephemeral_key_is_known_until_many_others_have_come():
    copies = Copies()
    for number in range(SEEN + 1):
        assert not copies.is_copy(key(number))
        copies.note(key(number))
    assert not copies.is_copy(key(0))
    assert all(copies.is_copy(key(number)) for number in range(1, SEEN + 1))


def test_the_stamp_of_a_lapsed_session_is_known_until_many_others_have_lapsed():
    copies = Copies()
    for number in range(STAMPS + 1):
        copies.lapse(NodeId(key(number)), number)
    assert copies.last_stamp(NodeId(key(0))) == -1
    assert copies.last_stamp(NodeId(key(1))) == 1
    assert copies.forget(NodeId(key(1))) == 1
    assert copies.last_stamp(NodeId(key(1))) == -1
    assert copies.forget(NodeId(key(1))) == -1

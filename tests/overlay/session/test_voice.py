"""Tests of overlay.session.voice."""

from __future__ import annotations

from overlay.session.voice import Voice
from overlay.types import NodeId

ONE, OTHER = NodeId(bytes([1]) * 32), NodeId(bytes([2]) * 32)


def test_stamps_grow_within_a_boot_and_with_it() -> None:
    voice = Voice(3)
    assert [voice.stamp(-1) for _ in range(3)] == [3 << 32, 3 << 32 | 1, 3 << 32 | 2]
    voice.raise_to(5)
    voice.raise_to(4)
    assert voice.stamp(-1) == 5 << 32


def test_a_peer_that_knows_a_greater_one_gets_one_above_it_and_others_do_not() -> None:
    voice = Voice(3)
    assert voice.stamp(9 << 32) == 9 << 32 | 1
    assert voice.stamp(-1) == 3 << 32 | 1
    assert voice.stamp(2**64 - 1) == 2**64 - 1


def test_a_quiet_node_speaks_to_its_herald_alone() -> None:
    voice = Voice(1)
    assert voice.may_start(ONE)
    voice.quiet = True
    assert not voice.may_start(ONE)
    voice.herald = ONE
    assert voice.may_start(ONE)
    assert not voice.may_start(OTHER)

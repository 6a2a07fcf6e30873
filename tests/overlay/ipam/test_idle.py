"""Tests of overlay.ipam.idle."""

from __future__ import annotations

from overlay.ipam.idle import AGAIN_SHARE, IdleBlocks
from overlay.types import BlockIndex

B1, B2 = BlockIndex(1), BlockIndex(2)


def test_nothing_is_due_where_nothing_is_idle() -> None:
    idle = IdleBlocks(100.0)
    assert (idle.next_deadline(), idle.due(1e9)) == (None, [])


def test_a_block_is_due_when_it_was_idle_for_long_enough_without_a_break() -> None:
    idle = IdleBlocks(100.0)
    idle.watch({B1}, 0.0)
    idle.watch({B1, B2}, 50.0)
    assert idle.next_deadline() == 100.0
    assert idle.due(99.0) == []
    assert idle.due(100.0) == [B1]
    assert idle.due(150.0) == [B2, B1]
    idle.watch({B2}, 60.0)  # a pod came into B1
    idle.watch({B1, B2}, 70.0)
    assert idle.due(169.0) == [B2]
    assert idle.due(170.0) == [B2, B1]


def test_what_cannot_go_is_due_again_soon() -> None:
    idle = IdleBlocks(100.0)
    idle.watch({B1}, 0.0)
    idle.postpone(B1, 100.0)
    idle.postpone(B2, 100.0)  # nobody watches it
    assert idle.next_deadline() == 100.0 + 100.0 / AGAIN_SHARE
    assert idle.due(100.0) == []

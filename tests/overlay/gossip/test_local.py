"""Tests of overlay.gossip.local."""

from __future__ import annotations

from overlay.gossip.local import LocalNode
from tests.support.gossips import node_id


def test_each_node_has_a_book_of_its_own():
    one, other = (
        LocalNode(node_id(number), 1, lambda *_: b"", lambda _: True) for number in (1, 2)
    )
    assert one.complaints is not other.complaints
    assert one.complaints.entries == {}

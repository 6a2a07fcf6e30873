"""Letters: every message of gossip is one of the wire's, and a letter is sent as usual."""

from __future__ import annotations

from typing import get_args

from overlay.gossip.letter import GossipMessage, Letter
from overlay.wire.messages import Message, Probe
from tests.support.gossips import node_id


def test_gossip_says_nothing_that_the_wire_does_not_know():
    assert set(get_args(GossipMessage)) <= set(get_args(Message))


def test_a_letter_is_no_call_unless_it_says_so():
    assert Letter(node_id(1), Probe(1)) == (node_id(1), Probe(1), False)

"""Local health: bounded, and it stretches timeouts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.gossip.awareness import HIGHEST, Awareness


@given(st.lists(st.integers(-3, 3)))
def test_the_score_stays_within_its_bounds(deltas):
    awareness = Awareness()
    for delta in deltas:
        before = awareness.score
        awareness.apply(delta)
        assert 0 <= awareness.score <= HIGHEST
        assert awareness.score in (before + delta, 0, HIGHEST)


def test_a_node_in_trouble_waits_longer():
    awareness = Awareness()
    assert awareness.scale(0.5) == 0.5
    awareness.apply(2)
    assert awareness.scale(0.5) == 1.5
    awareness.apply(100)
    assert awareness.scale(0.5) == 4.5

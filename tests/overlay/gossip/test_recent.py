"""The memory of ids: for a while, and no longer."""

from __future__ import annotations

from overlay.gossip.recent import LIFE, LIMIT, SHORT_LIFE, Recent


def test_an_id_is_remembered_for_a_while_and_then_forgotten():
    recent = Recent()
    recent.on_time(0.0)
    recent.add(b"a")
    recent.on_time(LIFE - 1)
    assert b"a" in recent
    recent.on_time(LIFE)
    assert b"a" in recent
    recent.on_time(2 * LIFE)
    assert b"a" not in recent


def test_what_was_refused_is_tried_again_soon():
    recent = Recent(SHORT_LIFE)
    recent.on_time(0.0)
    recent.add(b"a")
    recent.on_time(SHORT_LIFE)
    assert b"a" in recent
    recent.on_time(2 * SHORT_LIFE)
    assert b"a" not in recent


def test_the_memory_is_bounded():
    recent = Recent()
    for number in range(5 * LIMIT):
        recent.add(b"%d" % number)
    assert len(recent) <= 2 * LIMIT
    assert b"%d" % (5 * LIMIT - 1) in recent

"""The replay window against the obvious oracle: a set of everything accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.session.replay import FIRST, WINDOW, ReplayWindow


class SlowWindow:
    """Remembers everything. What the clever window must agree with."""

    def __init__(self) -> None:
        self.highest = -1
        self.accepted: set[int] = set()

    def check(self, counter: int) -> bool:
        return counter > self.highest - WINDOW and counter not in self.accepted

    def accept(self, counter: int) -> bool:
        if not self.check(counter):
            return False
        self.accepted.add(counter)
        self.highest = max(self.highest, counter)
        return True


# Steps relative to the highest counter: near it, around the edge of the window, and far away.
STEPS = st.one_of(
    st.integers(-5, 5),
    st.integers(-200, 200),
    st.integers(-WINDOW - 5, -WINDOW + 5),
    st.integers(WINDOW - 5, WINDOW + 5),
    st.integers(-2 * WINDOW, 2 * WINDOW),
    st.integers(0, 1 << 40),
)


@given(steps=st.lists(STEPS, max_size=60))
def test_window_agrees_with_a_set_of_everything_accepted(steps):
    window, slow = ReplayWindow(), SlowWindow()
    for step in steps:
        counter = max(0, slow.highest + step)
        expected = slow.check(counter)
        assert window.check(counter) == expected
        assert window.accept(counter) == slow.accept(counter) == expected
        assert window.highest == slow.highest
        assert not window.check(counter)


@given(counters=st.lists(st.integers(0, 3 * WINDOW), max_size=200))
def test_no_counter_is_accepted_twice(counters):
    window = ReplayWindow()
    accepted = [counter for counter in counters if window.accept(counter)]
    assert len(accepted) == len(set(accepted))


def test_checking_changes_nothing():
    window = ReplayWindow()
    window.accept(10)
    assert window.check(1 << 62)
    assert window.highest == 10
    assert window.accept(9)


def test_old_counter_is_refused_after_window_moves():
    window = ReplayWindow()
    assert window.accept(WINDOW)
    assert not window.accept(0)
    assert window.accept(1)
    assert window.accept(WINDOW + 1)
    assert not window.check(1)


@pytest.mark.parametrize("ahead", [1, 2, 3, 100, WINDOW - 1, WINDOW, WINDOW + 1])
def test_counters_that_were_skipped_are_still_accepted_once(ahead):
    window = ReplayWindow()
    for counter in range(WINDOW):
        window.accept(counter)
    highest = WINDOW - 1 + ahead
    assert window.accept(highest)
    skipped = range(max(WINDOW, highest - WINDOW + 1), highest)
    assert all(window.accept(counter) for counter in skipped)
    assert not any(window.accept(counter) for counter in range(highest + 1))


def test_a_jump_over_the_whole_window_forgets_the_old_slots():
    window = ReplayWindow()
    for counter in range(100):
        window.accept(counter)
    assert window.accept(10 * WINDOW)
    assert window.accept(10 * WINDOW - WINDOW + 1)
    assert all(window.accept(10 * WINDOW - behind) for behind in range(1, 100))


def test_the_largest_counters_are_handled():
    window = ReplayWindow()
    assert window.accept((1 << 64) - 1)
    assert not window.check(0)
    assert window.accept((1 << 64) - WINDOW)


def test_a_window_grows_with_what_it_has_seen_and_no_further():
    window = ReplayWindow()
    assert all(window.accept(counter) for counter in range(FIRST))
    assert len(window._seen) == FIRST
    assert window.accept(FIRST)
    assert len(window._seen) == 2 * FIRST
    assert window.accept(1 << 40)
    assert len(window._seen) == WINDOW

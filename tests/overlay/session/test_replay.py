"""The replay window against the obvious oracle: a set of everything accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.session.replay import FIRST, REJECT_COUNTER, WINDOW, ReplayWindow

OUT = WINDOW
"""So far behind the highest counter that it is out of the window; one less is still inside."""

END = REJECT_COUNTER
"""The first counter that may not be sent."""

HIGH = 1 << 32
"""Where a counter of 32 bits would begin anew."""

# Per table: counters in the order in which they arrive, and whether each is taken. What is looked
# at is what WireGuard's self-test of its counters looks at, with our window and our limit.
TABLES: dict[str, list[tuple[int, bool]]] = {
    "zero is a counter like any other": [(0, True), (0, False), (1, True), (0, False)],
    "nothing but zero, then far ahead": [(0, True), (OUT, True), (0, False), (1, True)],
    "late by a few": [(5, True), (3, True), (4, True), (3, False), (5, False), (4, False)],
    "the edge of the window, the highest being the first above": [
        (OUT, True),
        (OUT - 1, True),
        (OUT - 1, False),
        (2, True),
        (2, False),
        (1, True),
        (0, False),
    ],
    "the edge moves with the highest": [
        (OUT, True),
        (1, True),
        (OUT + 16, True),
        (16, False),
        (17, True),
        (17, False),
        (OUT + 16, False),
    ],
    "a jump over several windows, and all around the new edge": [
        (10, True),
        (4 * OUT, True),
        (3 * OUT + 1, True),
        (3 * OUT + 1, False),
        (3 * OUT, False),
        (3 * OUT - 1, False),
        (3 * OUT + 2, True),
        (10, False),
        (0, False),
    ],
    "a jump by exactly one window, and by one less": [
        (7, True),
        (7 + OUT, True),
        (7, False),
        (8, True),
        (8 + OUT, True),
        (8 + 2 * OUT - 1, True),
        (8 + OUT, False),
        (9 + OUT, True),
    ],
    "past 32 bits": [
        (HIGH - 1, True),
        (0, False),
        (HIGH, True),
        (HIGH, False),
        (HIGH - 1, False),
        (HIGH - 2, True),
        (HIGH + OUT - 1, True),
        (HIGH, False),
        (HIGH + 1, True),
        (2 * HIGH, True),
        (HIGH + 2, False),
        (2 * HIGH - OUT + 1, True),
        (2 * HIGH - OUT, False),
    ],
    "the last that may be sent, and what is beyond it": [
        (END, False),
        (END + 1, False),
        (0, True),
        (END - 1, True),
        (END, False),
        (END - 1, False),
        (END - 2, True),
        (END + 1, False),
        (END + OUT, False),
        ((1 << 64) - 1, False),
        (END - 2, False),
        (END - OUT, True),
        (END - OUT - 1, False),
        (0, False),
    ],
    "what is beyond the limit does not move the window": [
        (3, True),
        ((1 << 64) - 1, False),
        (END, False),
        (2, True),
        (4, True),
    ],
    "a whole window in order, then what came before it": [
        *((counter, True) for counter in range(1, OUT)),
        (0, True),
        (0, False),
    ],
    "one more than a window in order, then what came before it": [
        *((counter, True) for counter in range(2, OUT + 1)),
        (1, True),
        (0, False),
    ],
    "a whole window backwards": [
        *((counter, True) for counter in range(OUT, 0, -1)),
        *((counter, False) for counter in range(OUT, 0, -1)),
        (0, False),
    ],
    "a whole window backwards, the one above it, the one below it": [
        *((counter, True) for counter in range(OUT - 1, 0, -1)),
        (OUT, True),
        (0, False),
    ],
    "a whole window backwards down to zero, the one above it": [
        *((counter, True) for counter in range(OUT - 1, -1, -1)),
        (OUT, True),
        (0, False),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_counters_are_taken_as_the_table_says(name):
    window = ReplayWindow()
    for step, (counter, taken) in enumerate(TABLES[name]):
        assert window.check(counter) is taken, f"step {step}: {counter}"
        assert window.accept(counter) is taken, f"step {step}: {counter}"


def test_the_window_has_room_for_eight_thousand_bursts():
    assert WINDOW >= 8000


class SlowWindow:
    """Remembers everything. What the clever window must agree with."""

    def __init__(self) -> None:
        self.highest = -1
        self.accepted: set[int] = set()

    def check(self, counter: int) -> bool:
        inside = self.highest - WINDOW < counter < REJECT_COUNTER
        return inside and counter not in self.accepted

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
    st.integers(REJECT_COUNTER - 3, REJECT_COUNTER + 3),
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
    assert not window.check(1 << 63)
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
    assert window.accept(REJECT_COUNTER - 1)
    assert not window.check(0)
    assert window.accept(REJECT_COUNTER - WINDOW)


def test_a_window_grows_with_what_it_has_seen_and_no_further():
    window = ReplayWindow()
    assert all(window.accept(counter) for counter in range(FIRST))
    assert len(window._seen) == FIRST
    assert window.accept(FIRST)
    assert len(window._seen) == 2 * FIRST
    assert window.accept(1 << 40)
    assert len(window._seen) == WINDOW

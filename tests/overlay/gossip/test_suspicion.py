"""The suspicion timeout: a table of what it must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.config import Timing
from overlay.gossip.suspicion import CONFIRMATIONS, least_timeout, timeout


@pytest.mark.parametrize(
    ("confirmed", "expected", "wait"),
    [
        (0, 0, 5.0),  # nobody could confirm
        (0, 1, 10.0),
        (1, 1, 5.0),
        (0, 3, 10.0),
        (1, 3, 7.5),
        (3, 3, 5.0),
        (5, 3, 5.0),
        (3, 7, 5.0),  # three are enough
        (0, 7, 10.0),
    ],
)
def test_the_wait_follows_the_formula(confirmed, expected, wait):
    assert timeout(confirmed, expected, 5.0, 10.0) == pytest.approx(wait)


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_confirmation_never_makes_it_longer_and_the_bounds_hold(confirmed, expected):
    wait = timeout(confirmed, expected, 4.0, 9.0)
    assert 4.0 <= wait <= 9.0
    assert timeout(confirmed + 1, expected, 4.0, 9.0) <= wait


def test_the_least_grows_with_the_logarithm_of_the_cluster():
    timing = Timing()
    assert least_timeout(0, timing) == least_timeout(10, timing)
    assert least_timeout(1000, timing) == pytest.approx(3 * least_timeout(10, timing))
    assert CONFIRMATIONS == 3


def test_a_pause_of_five_seconds_is_survived_and_a_crash_noticed_within_eight():
    timing = Timing()
    noticed = 2 * timing.probe_timeout
    assert noticed + least_timeout(8, timing) > 5.0
    assert timing.probe_interval + noticed + least_timeout(8, timing) < 7.0

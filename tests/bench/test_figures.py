"""Tests of the list of figures."""

from __future__ import annotations

from bench.figures import BY_KEY, FIGURES, NOT_COMPARED
from bench.picture import PANELS
from bench.targets import TARGETS


def test_keys_are_unique_and_everybody_uses_known_ones():
    assert len(BY_KEY) == len(FIGURES)
    assert BY_KEY.keys() >= NOT_COMPARED
    assert {target.figure for target in TARGETS} <= BY_KEY.keys()
    assert {key for _, key in PANELS} <= BY_KEY.keys()


def test_times_and_costs_are_better_when_small():
    small = {figure.key for figure in FIGURES if not figure.more_is_better}
    assert {"rtt-p50", "rtt1-p99", "rtt8-p99", "cpu", "rss"} <= small
    assert not {"tcp1", "tcp8", "udp64-over", "connections"} & small


def test_values_are_shown_with_their_digits():
    assert BY_KEY["tcp1"].show(6.881) == "6.88"
    assert BY_KEY["connections"].show(12345.6) == "12,346"

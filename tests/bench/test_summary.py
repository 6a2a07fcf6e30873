"""Tests of medians, spread and ratios."""

from __future__ import annotations

import pytest

from bench.summary import Sample, Summary, spread
from tests.bench.samples import samples


def test_nothing_has_no_median():
    assert spread([]) is None
    assert spread([2.0]) == (2.0, 2.0, 2.0, 1)


def test_order_is_that_of_the_run():
    summary = Summary([*samples("veth"), *samples("wire")])
    assert summary.underlays == ("veth", "wire")
    assert summary.contestants == ("none", "vxlan", "muslin")
    assert summary.rounds == 3


def test_medians_have_their_spread():
    assert Summary(samples()).of("veth", "none", "tcp1") == (12.0, 10.0, 14.0, 3)
    assert Summary(samples()).of("wire", "none", "tcp1") is None
    assert Summary(samples()).of("veth", "none", "cpu") is None


def test_a_ratio_is_of_medians_and_its_spread_is_within_rounds():
    ratio = Summary(samples()).ratio("veth", "muslin", "vxlan", "tcp1")
    assert ratio == pytest.approx((0.5, 0.4, 6 / 9, 3))


def test_a_round_that_one_has_missed_is_left_out_of_the_spread():
    some = [
        Sample("veth", 1, "muslin", {"x": 8.0}),
        Sample("veth", 1, "vxlan", {}),
        Sample("veth", 2, "muslin", {"x": 6.0}),
        Sample("veth", 2, "vxlan", {"x": 2.0}),
    ]
    ratio = Summary(some).ratio("veth", "muslin", "vxlan", "x")
    assert ratio == (3.5, 3.0, 3.0, 1)


def test_there_is_no_ratio_to_nothing():
    some = [Sample("veth", 1, "muslin", {"x": 8.0}), Sample("veth", 1, "vxlan", {"x": 0.0})]
    assert Summary(some).ratio("veth", "muslin", "vxlan", "x") is None
    assert Summary(some).ratio("veth", "muslin", "none", "x") is None

"""Tests of the targets and of the judgement."""

from __future__ import annotations

import pytest

from bench.summary import Sample, Summary
from bench.targets import TARGETS, Bound, Outcome, judge, verdicts
from tests.bench.samples import samples


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [(0.56, Outcome.GOAL), (0.55, Outcome.GOAL), (0.38, Outcome.MET), (0.37, Outcome.MISSED)],
)
def test_more_is_better(ratio, outcome):
    assert judge(ratio, Bound(0.38, 0.55), more_is_better=True) is outcome


@pytest.mark.parametrize(("ratio", "outcome"), [(0.6, Outcome.MET), (0.61, Outcome.MISSED)])
def test_less_is_better(ratio, outcome):
    assert judge(ratio, Bound(0.6), more_is_better=False) is outcome


def test_only_those_that_took_part_are_judged():
    found = {(v.target.title, v.contestant): v for v in verdicts(Summary(samples()))}
    assert {contestant for _, contestant in found} == {"vxlan"}
    tcp = found["TCP 1 stream", "vxlan"]
    assert tcp.ratio is not None
    assert (tcp.ratio.median, tcp.outcome) == (0.5, Outcome.MET)
    assert found["TCP 8 streams", "vxlan"].outcome is Outcome.UNKNOWN


def test_a_row_of_the_wire_is_judged_by_the_wire():
    some = [
        Sample("veth", 1, "muslin", {"tcp1": 1.0}),
        Sample("veth", 1, "vxlan", {"tcp1": 10.0}),
        Sample("wire", 1, "muslin", {"tcp1": 7.0}),
        Sample("wire", 1, "vxlan", {"tcp1": 10.0}),
    ]
    outcomes = {v.target.title: v.outcome for v in verdicts(Summary(some))}
    assert outcomes["TCP 1 stream"] is Outcome.MISSED
    assert outcomes["wire underlay, TCP 1 stream"] is Outcome.GOAL


def test_every_peer_has_a_bound_in_every_row():
    for target in TARGETS:
        assert {"wireguard-go", "nebula", "tinc"} <= target.bounds.keys()

"""Rates, shares, percentiles, and the keys that programs rely on."""

from __future__ import annotations

import json

import pytest

from node.bench.figures import Datagrams, Figures, Load, Stream, Way, percentile

LOAD = Load(daemon=0.98, busiest=0.98, idle=0.01, cores=2)


def test_a_rate_is_bits_per_second_of_what_arrived() -> None:
    assert Stream("to", size=1_000_000, seconds=2.0).rate == 4_000_000
    assert Stream("to", size=0, seconds=0.0).rate == 0.0


def test_repeated_segments_are_a_share_of_those_sent() -> None:
    assert Stream("to", 1, 1.0, segments=200, again=3).repeated == 0.015
    assert Stream("to", 1, 1.0).repeated == 0.0


def test_loss_is_told_for_each_direction() -> None:
    datagrams = Datagrams(sent=100, arrived=90, rtts=[0.001] * 45)
    assert datagrams.loss == pytest.approx(0.1)
    assert datagrams.loss_back == pytest.approx(0.5)


def test_nothing_that_arrived_is_all_lost_there_and_nothing_back() -> None:
    assert (Datagrams(10, 0).loss, Datagrams(10, 0).loss_back) == (1.0, 0.0)
    assert Datagrams(0, 0).loss == 0.0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_what_so_many_did_not_exceed(share: float, expected: float) -> None:
    assert Datagrams(100, 100, [float(n) for n in range(100, 0, -1)]).percentile(share) == expected
    assert Datagrams(100, 0).percentile(share) is None


def test_percentiles_are_values_that_were_measured() -> None:
    values = list(range(100, 0, -1))
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.01) == 7.0


def test_what_arrives_twice_is_no_negative_loss() -> None:
    assert Datagrams(100, 101, [0.1] * 102).loss == 0.0
    assert Datagrams(100, 101, [0.1] * 102).loss_back == 0.0


def test_the_ratio_needs_both_ways() -> None:
    through, beside = Way("10.244.1.1"), Way("192.0.2.2")
    figures = Figures(through, beside)
    through.streams.append(Stream("to", 600, 1.0))
    assert figures.ratio("to") is None
    beside.streams.append(Stream("to", 1000, 1.0))
    assert figures.ratio("to") == pytest.approx(0.6)
    assert figures.ratio("from") is None


def test_the_keys_for_programs_are_these() -> None:
    stream = Stream("to", 10**9, 1.0, segments=9, again=1, here=LOAD)
    way = Way("10.244.1.1", [stream], Datagrams(3, 3, [0.0002] * 3))
    shown = json.loads(json.dumps(way.json()))
    assert shown == {
        "address": "10.244.1.1",
        "tcp": [
            {
                "direction": "to",
                "bytes": 10**9,
                "seconds": 1.0,
                "bits_per_second": 8 * 10**9,
                "segments": 9,
                "retransmits": 1,
                "here": {"daemon": 0.98, "busiest": 0.98, "idle": 0.01, "cores": 2},
                "there": None,
            }
        ],
        "udp": {
            "sent": 3,
            "arrived": 3,
            "returned": 3,
            "loss": 0.0,
            "loss_back": 0.0,
            "rtt_p50": 0.0002,
            "rtt_p99": 0.0002,
        },
        "faults": [],
    }
    assert Way("").json() == {"address": None, "tcp": [], "udp": None, "faults": []}

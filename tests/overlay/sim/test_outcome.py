"""Tests of judging what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.sim import World
from overlay.sim.deaths import Deaths
from overlay.sim.metrics import Second, Tracker
from overlay.sim.outcome import EventSummary, Happened, Outcome, summaries
from overlay.sim.scenario import Expectation

SECONDS = tuple(number / 10 for number in range(1, 101))


def outcome(**changes: object) -> Outcome:
    """One with an event that took 0.1 to 10 s."""
    whole = Outcome(
        events=(
            EventSummary("crash", 5.0, 1, 1, SECONDS, ()),
            EventSummary("cut", 6.0, 1, 1, (), ()),
        ),
        steady=Second(9.0, 4, 500.0, 5.0, 900.0),
        peak=Second(2.0, 4, 800.0, 8.0, 5000.0),
        deaths=Deaths(World(1)),
        refusals=0,
        checks=3,
        broken="",
        agree=True,
        nodes=4,
        now=30.0,
    )
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("expected", "met"),
    [
        (Expectation(event="crash", within=10.0), True),
        (Expectation(event="crash", within=9.9), False),
        (Expectation(event="crash", p50=5.0), True),
        (Expectation(event="crash", p50=4.9), False),
        (Expectation(event="crash", p99=9.9), True),
        (Expectation(event="crash", p99=9.8), False),
        (Expectation(event="cut", within=9.9), False),
        (Expectation(steady_bytes=500.0), True),
        (Expectation(steady_bytes=499.0), False),
        (Expectation(peak_bytes=5000.0), True),
        (Expectation(peak_bytes=4999.0), False),
        (Expectation(agree=True), True),
    ],
)
def test_each_expectation_is_met_or_said_to_be_missed(expected, met):
    failures = outcome().failures([expected])
    assert (failures == []) is met, failures


def test_what_is_missing_fails_whatever_it_took():
    event = EventSummary("crash", 5.0, 1, 1, SECONDS, ("a", "b", "c", "d"))
    (failure,) = outcome(events=(event,)).failures([Expectation(event="crash", p50=99.0)])
    assert failure == "crash: 4 nodes do not show it: a, b, c and 1 more"


def test_a_broken_invariant_fails_without_any_expectation():
    (failure,) = outcome(broken="two owners").failures([])
    assert "two owners" in failure


def test_deaths_disagreement_and_a_missing_second_fail():
    deaths = Deaths(World(1))
    deaths.subjects, deaths.false_subjects = {"a", "b"}, {"a"}
    one = outcome(deaths=deaths, agree=False, steady=None)
    for expected in (
        Expectation(false_deaths=0),
        Expectation(deaths=1),
        Expectation(agree=True),
        Expectation(steady_bytes=1e9),
    ):
        assert len(one.failures([expected])) == 1
    assert one.failures([Expectation(false_deaths=1, deaths=2)]) == []


def test_events_of_one_label_are_summed_up_together():
    first, second, other = (
        Happened(label, Tracker(label, at), targets)
        for label, at, targets in (("pod", 5.0, 2), ("pod", 3.0, 1), ("cut", 4.0, 1))
    )
    first.tracker.times, second.tracker.times = [0.5, 2.0], [1.0]
    second.tracker.expect(["late"])
    pod, cut = summaries([first, second, other])
    assert (pod.label, pod.at, pod.times, pod.targets) == ("pod", 3.0, 2, 3)
    assert (pod.seconds, pod.missing) == ((0.5, 1.0, 2.0), ("late",))
    assert pod.delays == (3, 1.0, 2.0, 2.0)
    assert cut.delays is None


def test_what_has_not_reached_all_took_until_now():
    one = Happened("pod", Tracker("pod", 5.0))
    assert one.took(9.0) == 0.0
    one.tracker.expect(["late"])
    assert one.took(9.0) == 4.0

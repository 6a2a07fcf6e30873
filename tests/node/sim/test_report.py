"""Tests of the outcome as a table and as JSON."""

from __future__ import annotations

import json

from node.sim.report import HEADERS, as_json, facts, rows
from overlay.sim import World
from overlay.sim.deaths import Deaths
from overlay.sim.metrics import Second
from overlay.sim.outcome import EventSummary, Outcome


def outcome(broken: str = "", steady: Second | None = None) -> Outcome:
    deaths = Deaths(World(1))
    deaths.subjects, deaths.false_subjects, deaths.reports = {"a", "b"}, {"a"}, 5
    return Outcome(
        events=(
            EventSummary("crash", 5.0, 2, 3, (0.5, 1.0, 2.25), ()),
            EventSummary("pods", 6.0, 1, 1, (), ("node3",)),
            EventSummary("cut", 7.0, 1, 1, (), ()),
        ),
        steady=steady,
        peak=Second(2.0, 4, 800.0, 8.0, 5000.0),
        deaths=deaths,
        refusals=2,
        checks=3,
        broken=broken,
        agree=not broken,
        nodes=4,
        now=30.0,
    )


def test_a_row_per_event_and_nothing_where_an_event_has_no_final_state():
    assert rows(outcome()) == [
        ["crash", "5.0", "2", "3", "1.00", "2.25", "2.25", ""],
        ["pods", "6.0", "1", "0", "", "", "", "1"],
        ["cut", "7.0", "1", "", "", "", "", ""],
    ]
    assert all(len(row) == len(HEADERS) for row in rows(outcome()))


def test_facts_say_what_is_broken_false_and_how_much_it_cost():
    said = dict(facts(outcome(), 1.5))
    assert said["steady"] == "no such second"
    assert said["peak"] == ("800 B/s and 8.0 messages/s per node, 5000 B/s the busiest, at 2 s")
    assert said["false deaths"] == "1 nodes: a"
    assert said["invariants"] == "checked 3 times, hold"
    assert said["time"] == "30 s virtual in 1.5 s, 4 nodes live"
    assert "BROKEN: two owners" in dict(facts(outcome("two owners"), 1.5))["invariants"]


def test_json_has_the_same_and_which_run_it_was():
    steady = Second(9.0, 4, 500.0, 5.0, 900.0)
    answer = as_json(outcome("two owners", steady), ["late"], {"seed": 7})
    assert json.loads(json.dumps(answer)) == answer
    assert (answer["seed"], answer["failures"], answer["agree"]) == (7, ["late"], False)
    assert answer["events"][0] == {
        "event": "crash",
        "at": 5.0,
        "times": 2,
        "targets": 3,
        "nodes": 3,
        "p50": 1.0,
        "p99": 2.25,
        "max": 2.25,
        "missing": [],
    }
    assert answer["events"][2]["p99"] is None
    assert answer["steady"]["bytes"] == 500.0
    assert answer["invariants"] == {"checks": 3, "broken": "two owners"}
    assert as_json(outcome(), [], {})["invariants"] == {"checks": 3, "broken": None}

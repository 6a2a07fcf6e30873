"""Tests of running many schedules: the same outcomes however many processes run them."""

from __future__ import annotations

from node.sim.schedules import STEP_NAMES, Timed, facts, run_all
from overlay.sim.schedules import Outcome

SEEDS = range(5, 8)


def test_several_processes_bring_the_same_outcomes_in_the_same_order():
    alone, shared = (
        [one.outcome for one in run_all(SEEDS, steps=None, jobs=jobs)] for jobs in (1, 2)
    )
    assert [outcome.seed for outcome in alone] == list(SEEDS)
    assert alone == shared


def test_only_what_is_named_happens():
    (one,) = run_all(range(5, 6), steps=frozenset({"add-pod"}), jobs=1)
    steps = {line.split()[1] for line in one.outcome.log}
    assert steps == {"add-pod", "all"}  # "all faults end"
    assert {"add-pod", "crash", "hostile"} <= set(STEP_NAMES)


def test_what_was_run_is_counted():
    done = [
        Timed(Outcome(1, nodes=5, events=10, virtual=20.0), 0.25),
        Timed(Outcome(2, nodes=3, events=1, virtual=2.0, failure="a, b", broken=("a", "b")), 1.0),
        Timed(Outcome(3, nodes=9, events=1, virtual=2.0, failure="a", broken=("a",)), 0.1),
        Timed(Outcome(4, nodes=4, events=1, virtual=2.0), 0.05),
    ]
    assert dict(facts(done, 1.5)) == {
        "schedules": "4, 2 failed",
        "nodes": "3 to 9, half have at most 5",
        "events": "13",
        "virtual": "26 s",
        "real": "1.5 s, 350 ms each",
        "slowest": "seed 2: 1.0 s, seed 1: 0.2 s, seed 3: 0.1 s",
        "breaches": "a 2, b 1",
    }

"""Tests of random schedules: repeatable, bounded, and honest about what went wrong."""

from __future__ import annotations

from overlay.invariants.kinds import Breach
from overlay.sim.inspector import Inspector, InvariantError
from overlay.sim.schedules import MOST_NODES, Schedule, run_schedule
from overlay.sim.steps import STEPS

QUIET = frozenset({"join", "crash", "start", "add-pod", "remove-pod"})


def test_the_same_seed_does_the_same_to_the_last_byte():
    first, second = Schedule(7), Schedule(7)
    first.run()
    second.run()
    assert first.log == second.log
    assert len(first.log) > 5
    assert first.world.trace.fingerprint() == second.world.trace.fingerprint()


def test_another_seed_does_something_else():
    assert run_schedule(7, steps=QUIET).log != run_schedule(8, steps=QUIET).log


def test_only_the_steps_that_are_allowed_are_drawn():
    log = run_schedule(3, steps=frozenset({"add-pod"})).log
    names = {line.split()[1] for line in log[:-1]}
    assert names == {"add-pod"}


def test_worlds_have_three_to_thirty_nodes_and_mostly_few():
    sizes = sorted(Schedule(seed, steps=QUIET).most for seed in range(60))
    assert sizes[0] >= 3
    assert sizes[-1] <= MOST_NODES
    assert sizes[len(sizes) // 2] <= 6


def test_a_breach_is_an_outcome_with_its_name_and_steps(monkeypatch):
    def sabotage(schedule: Schedule) -> str:
        schedule.world["node1"].engine.ledger.tun_in += 1
        return "node1"

    monkeypatch.setattr("overlay.sim.schedules.STEPS", (("sabotage", 1, sabotage),))
    outcome = run_schedule(1)
    assert outcome.broken == ("books-balance",)
    assert "seed 1" in outcome.failure
    assert "sabotage node1" in outcome.log[0]


def test_a_cluster_that_never_agrees_is_an_outcome(monkeypatch):
    monkeypatch.setattr("overlay.sim.schedules.SETTLE", 2.0)
    monkeypatch.setattr("overlay.sim.world.World.heal", lambda self: None)
    monkeypatch.setattr("overlay.sim.world.World.settled", lambda self: False)
    outcome = run_schedule(1, steps=QUIET)
    assert outcome.broken == ("settled",)
    assert "seed 1" in outcome.failure


def test_a_breach_that_only_shows_at_rest_is_an_outcome(monkeypatch):
    """What is excused while a schedule runs is looked at when it is over."""

    def at_rest(inspector: Inspector) -> None:
        raise InvariantError("at rest block 3 is claimed twice", [Breach("one-user", "block 3")])

    monkeypatch.setattr(Inspector, "look_at_rest", at_rest)
    outcome = run_schedule(1, steps=QUIET)
    assert outcome.broken == ("one-user",)
    assert "at rest" in outcome.failure
    assert "all faults end" in outcome.log[-1]


def test_every_step_has_a_name_of_its_own_and_a_weight():
    assert len({name for name, _, _ in STEPS}) == len(STEPS)
    assert all(weight > 0 for _, weight, _ in STEPS)


def test_an_engine_that_raises_is_an_outcome_that_says_where(monkeypatch):
    def stumble(schedule: Schedule) -> str:
        return {}["nothing"]

    monkeypatch.setattr("overlay.sim.schedules.STEPS", (("stumble", 1, stumble),))
    outcome = run_schedule(1)
    assert outcome.broken == ("crashed",)
    assert "KeyError: 'nothing'" in outcome.failure
    assert "stumble" in outcome.failure

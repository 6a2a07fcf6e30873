"""Tests of looking at one node: when, how much at a time, and what becomes of a breach."""

from __future__ import annotations

import pytest

from overlay.effects import Report
from overlay.invariants import Watch
from overlay.invariants.watch import LOOK_INTERVAL, SAMPLE
from tests.sim.worlds import settled


def test_a_running_node_looks_every_few_seconds_and_keeps_what_it_found():
    world = settled(1, check=False)
    engine = world["node1"].engine
    now = world.now + 2 * LOOK_INTERVAL
    assert engine.watch.tend(now) == []
    engine.ledger.datagrams_in += 1
    assert engine.watch.tend(now + LOOK_INTERVAL / 2) == []
    (report,) = engine.watch.tend(now + LOOK_INTERVAL)
    assert isinstance(report, Report)
    assert (report.event, report.fields["code"]) == ("invariant.broken", "books-balance")
    assert engine.watch.tend(now + 2 * LOOK_INTERVAL) == []  # said once
    engine.ledger.datagrams_in -= 1
    engine.watch.tend(now + 3 * LOOK_INTERVAL)
    assert "things were read" in engine.watch.found["books-balance"]  # and kept


def test_a_breach_is_a_problem_in_the_snapshot_and_an_event():
    world = settled(1, check=False)
    machine = world["node1"]
    machine.engine.ledger.tun_in += 1
    world.run(world.now + LOOK_INTERVAL + 1.0)
    (problem,) = machine.snapshot().problems
    assert problem.code == "invariant-books-balance"
    assert "were read" in problem.why
    assert len([event for event in world.trace.lines() if "invariant.broken" in event]) == 1


def test_a_glance_at_a_node_that_did_nothing_costs_only_the_books():
    world = settled(2, check=False)
    engine = world["node2"].engine
    watch = Watch(engine)
    watch.glance(world.now)
    engine.parts.catalog.titles._bodies.clear()  # damaged behind everybody's back
    assert watch.glance(world.now) == []
    found = {breach.name for breach in watch.look(world.now)}
    assert {"block-titled", "routes-derived"} <= found


def test_a_glance_sees_what_changed():
    world = settled(2, check=False)
    engine = world["node2"].engine
    watch = Watch(engine)
    watch.glance(world.now)
    engine.parts.holdings.blocks_in_use.append(0)
    assert "block-titled" in [breach.name for breach in watch.glance(world.now)]


def test_a_look_sorts_no_long_table():
    world = settled(2, check=False)
    engine = world["node2"].engine
    routes = engine.parts.routes
    routes.update([], [routes.entries()[0].prefix], world.now)
    found = [breach.name for breach in Watch(engine).look(world.now)]
    assert found == ["routes-derived"]
    assert routes._entries is None


def test_looks_one_after_the_other_cover_a_long_table():
    world = settled(1, check=False)
    watch = Watch(world["node1"].engine)
    table = list(range(3 * SAMPLE + 5))
    seen = set()
    for look in range(8):
        watch.look(world.now + look)
        part = list(watch.sample(table))
        assert len(part) == SAMPLE
        seen.update(part)
    assert seen == set(table)
    assert list(watch.sample(table[:SAMPLE])) == table[:SAMPLE]


@pytest.mark.parametrize("writing", [True, False])
def test_a_crash_undoes_what_was_being_written_and_nothing_that_was_told(writing):
    world = settled(1, check=False)
    machine = world["node1"]
    watch = Watch(machine.engine)
    watch.look(world.now)
    watch.writing = writing
    machine.add_pod("web")
    watch.look(world.now)
    machine.remove_pod("web")
    watch.look(world.now)
    assert [pod for pod, _ in watch.memory.resting.values()] == ["web"]
    assert (Watch(machine.engine, watch.memory).memory.resting == {}) is writing

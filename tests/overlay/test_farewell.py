"""Tests of overlay.farewell; what the steward does with it is in `test_steward`."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from overlay.catalog.keys import deed_key
from overlay.effects import Left, Persist
from overlay.sim import World
from tests.sim.worlds import blocks_of, settled


def owner_of(world: World, block: str, seen_by: str) -> str:
    shown = world[seen_by].snapshot().blocks
    return next(
        row.node
        for row in shown
        if str(row.prefix) == block or row.prefix.overlaps(type(row.prefix)(block))
    )


def left_but_untold() -> tuple[World, str]:
    """Three nodes, of which node3 has stored that it leaves, and crashed before it said so."""
    world = settled(3)
    (block,) = blocks_of(world, "node3")
    world.partition(["node1", "node2"], ["node3"])
    world["node3"].leave()
    world.crash("node3")
    assert world["node3"].stored.left
    assert not world["node3"].stored.told
    world.heal()
    return world, block


def test_a_crash_before_anybody_knows_loses_no_block() -> None:
    world, block = left_but_untold()
    world.run(world.now + 2.0)
    assert owner_of(world, block, "node1") == "node3"
    world.restart("node3")
    assert blocks_of(world, "node3") == []
    world.run_until(lambda: world["node3"].left, timeout=20.0)
    assert owner_of(world, block, "node1") == "node1"
    assert world["node3"].stored.told
    world.check_invariants()


def test_the_farewell_that_is_repeated_is_the_whole_one() -> None:
    world, block = left_but_untold()
    farewell = {item.key: item for item in world["node3"].stored.items}
    world.partition(["node1", "node2"], ["node3"])
    world.restart("node3")
    parts = world["node3"].engine.parts
    index = parts.plan.index_of(IPv4Network(block).network_address)
    assert index is not None
    expected = [farewell[deed_key(index)], farewell[parts.own_key]]
    assert world["node3"].engine._steward.farewell._items == expected


def test_a_node_that_has_left_and_was_heard_refuses_to_start() -> None:
    world, _ = left_but_untold()
    world.restart("node3")
    world.run_until(lambda: world["node3"].left, timeout=20.0)
    world["node3"].start()
    assert not world["node3"].live
    assert world.trace.notes("machine.refused", "node3")


def test_a_node_that_goes_on_leaving_hands_out_nothing_and_asks_for_nothing() -> None:
    world, _ = left_but_untold()
    world.partition(["node1", "node2"], ["node3"])
    world.restart("node3")
    world.run(world.now + 10.0)
    shown = world["node3"].snapshot()
    assert shown.own_prefixes == ()
    assert [problem for problem in shown.problems if problem.code == "no-block"] == []
    assert not world["node3"].left


@pytest.mark.parametrize("failures", range(1, 5))
def test_left_follows_only_when_it_is_stored_that_somebody_knows(failures: int) -> None:
    world = settled(2)
    machine = world["node2"]
    world.run(world.now + 3.0)
    seen: list[object] = []
    perform = machine.perform
    machine.perform = lambda effects: perform(seen.extend(e := list(effects)) or e)  # type: ignore[method-assign]
    machine.leave()
    machine.disk.fail(failures)
    world.run_until(lambda: machine.left, timeout=60.0)
    assert machine.stored.told
    kinds = [type(effect) for effect in seen]
    assert Persist in kinds[: kinds.index(Left)]

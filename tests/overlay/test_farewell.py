"""Tests of overlay.farewell; what the steward does with it is in `test_steward`."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from overlay.catalog.keys import deed_key
from overlay.effects import Left, Persist
from overlay.errors import RefusedError
from overlay.sim import World
from overlay.sim.machine import Machine
from overlay.types import Endpoint
from overlay.views import NodeState
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


def test_a_backup_from_before_a_leave_does_not_bring_the_node_back() -> None:
    world = settled(3)
    machine, (block,) = world["node3"], blocks_of(world, "node3")
    backup = dict(machine.disk.entries)
    world.crash("node1")
    world.run_until(lambda: state_of(world, "node1", "node3") is NodeState.DEAD, timeout=60.0)
    machine.leave()  # to node2: the authority's node is off
    world.run_until(lambda: machine.left, timeout=20.0)
    world.restore("node3", backup)
    world.restart("node3")  # the number of this start is higher than that of the leave
    world.restart("node1")
    world.run(world.now + 20.0)
    assert owner_of(world, block, "node1") == "node2"
    assert all(state_of(world, "node3", name) is NodeState.LEFT for name in ("node1", "node2"))
    assert world.trace.notes("node.departed", "node3")
    (problem,) = [one for one in machine.snapshot().problems if one.code == "left"]
    assert problem.what == "this node has left its cluster"
    for deed in (lambda: machine.add_pod("web"), machine.leave, lambda: claim(machine)):
        with pytest.raises(RefusedError) as caught:
            deed()
        assert caught.value.code == "node-left"


def claim(machine: Machine) -> None:
    machine.perform(machine.engine.claim(machine.now))


def state_of(world: World, name: str, seen_by: str) -> NodeState:
    return {node.name: node.state for node in world[seen_by].snapshot().nodes}[name]


def test_a_farewell_finds_a_member_where_it_answered_though_its_record_says_otherwise() -> None:
    world = settled(2)
    node1, node2 = world["node1"], world["node2"]
    node1.perform(node1.engine.on_endpoints((Endpoint("192.0.2.1", 1),), node1.now))
    world.run(world.now + 2.0)
    world.cut("node1", "node2", one_way=True)
    node2.leave()
    # It is heard and not answered, until node1 has forgotten it and node2 has lost its keys.
    world.run_until(lambda: state_of(world, "node2", "node1") is NodeState.LEFT, timeout=5.0)
    world.run(world.now + 200.0)
    assert not node2.left
    world.heal()
    world.run_until(lambda: node2.left, timeout=60.0)

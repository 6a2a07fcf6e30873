"""Tests of looking at every machine after everything it does."""

from __future__ import annotations

import pytest

from overlay.ipam.allocator import Allocator
from overlay.ipam.titles import Titles
from overlay.sim import InvariantError, Link, Membership, World
from overlay.types import BlockIndex, NodeId
from tests.sim.worlds import settled


def test_a_breach_is_raised_from_within_the_event_with_machine_time_and_seed():
    world = World(3)
    engine = world["node1"].engine
    engine.ledger.tun_in += 1
    with pytest.raises(InvariantError, match=r"at \d+\.\d+ s, seed 3: books-balance: node1: ") as e:
        world.run(10.0)
    assert world.now < 2.0
    assert [breach.name for breach in e.value.breaches] == ["books-balance"]


def test_a_world_that_does_not_check_looks_when_asked():
    world = World(3, check=False)
    world.add_node("node2")
    world["node2"].engine.ledger.tun_in += 1
    world.run(10.0)
    with pytest.raises(InvariantError, match="node2"):
        world.check_invariants()


def test_a_big_world_is_looked_at_as_a_whole_now_and_then(monkeypatch):
    monkeypatch.setattr("overlay.sim.inspector.EVERY_EVENT", 2)
    world = settled(4)  # nodes ask each other for blocks: what moves is not held against anybody
    world["node3"].leave()
    world.run_until(lambda: world["node3"].left, timeout=10.0)
    world.add_node("node5")
    world.run_until(world.converged, timeout=10.0)
    world["node2"].engine.ledger.tun_in += 1
    with pytest.raises(InvariantError, match="books-balance: node2"):
        world.run(world.now + 4.0)


def test_what_is_given_from_one_to_the_other_between_two_looks_is_no_breach():
    world = settled(3, check=False)
    world.check_invariants()
    world["node2"].leave()
    world.run_until(lambda: world["node2"].left, timeout=10.0)
    world["node1"].crash()
    world.check_invariants()
    world.restart("node1")
    world.add_node("node4")
    world.run_until(world.converged, timeout=20.0)
    world.check_invariants()


def test_what_was_seen_of_a_machine_outlives_a_crash():
    world = settled(2)
    old = dict(world["node2"].disk.entries)
    world.restart("node2")
    world["node2"].crash()
    world["node2"].disk.restore(old)  # behind the inspector's back
    with pytest.raises(InvariantError, match="boot-grows: node2: start 2 follows start 2"):
        world.restart("node2")


def test_a_restored_node_is_excused():
    world = settled(2)
    old = dict(world["node2"].disk.entries)
    world.restart("node2")
    world.restore("node2", old)
    world.run_until(world.converged, timeout=10.0)
    assert world["node2"].membership.identity.node in world.inspector.register.suspects


def test_a_start_that_was_never_stored_does_not_count():
    world = settled(2)
    world.crash("node2")
    world["node2"].disk.fail(1)
    world.restart("node2")
    assert not world["node2"].live
    world.restart("node2")
    assert world["node2"].live


def test_a_machine_that_nobody_admitted_may_do_as_it_likes():
    world, elsewhere = World(1), World(2)
    stranger = elsewhere.membership("stranger").identity
    machine = world.add_machine("stranger", Membership(stranger, world.cluster, bytes(32)))
    machine.engine.ledger.tun_in += 1
    world.run(3.0)


def test_two_machines_that_hand_out_from_one_block_are_found_at_once(monkeypatch):
    world = settled(3, link=Link(loss=0.05))
    stolen = world["node2"].engine.parts.holdings.blocks_in_use[0]
    parts = world["node3"].engine.parts
    owner, thief = Titles.owner, world["node3"].membership.identity.node

    def deluded(titles: Titles, block: BlockIndex) -> NodeId:
        mine = titles is parts.catalog.titles and block == stolen
        return thief if mine else owner(titles, block)

    monkeypatch.setattr(Titles, "owner", deluded)
    parts.holdings.blocks_in_use.append(stolen)
    parts.holdings.allocator = Allocator(parts.plan, 60.0)
    for block in (stolen, *parts.holdings.blocks_in_use):
        parts.holdings.allocator.add_block(block)
    with pytest.raises(InvariantError, match="is used by node2 and by node3") as caught:
        world["node3"].add_pod("web")
    assert "one-user" in {breach.name for breach in caught.value.breaches}
    assert "10.244.1.0/24" in str(caught.value)


def test_looking_changes_nothing():
    def trace(*, check: bool) -> str:
        world = World(5, link=Link.terrible(), check=check)
        world.join("node2")
        world.add_node("node3")
        world.run(10.0)
        return world.trace.fingerprint()

    assert trace(check=True) == trace(check=False)

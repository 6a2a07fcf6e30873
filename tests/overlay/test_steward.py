"""Tests of overlay.steward: what gossip brings, blocks and pods."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Network
from itertools import pairwise

import pytest

from overlay.catalog.keys import node_key
from overlay.catalog.records import sign_record
from overlay.config import Limits, Settings
from overlay.conflict import REASSERT_INTERVAL
from overlay.effects import NetworkChanged, Persist, Report, SendControl
from overlay.errors import CapacityError
from overlay.pace import COUNT_WAITS
from overlay.steward import PERSIST_DELAY
from overlay.types import Endpoint
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import BlockRequest, Delta, Refusal
from tests.sim.worlds import blocks_of, routes_to, settled
from tests.support.stewards import assert_stored_first, check

# -- what gossip brings ------------------------------------------------------------------------


def test_what_was_learned_is_stored_soon_and_many_changes_at_once() -> None:
    world = settled(3)
    world.run(world.now + 5.0)
    before = world["node3"].disk.writes
    world.run(world.now + 20.0)
    assert world["node3"].disk.writes == before  # nothing new, nothing written
    for number in range(10):
        world["node1"].add_pod(f"pod{number}")
    world.run(world.now + PERSIST_DELAY + 0.5)
    assert world["node3"].disk.writes - before <= 2
    key = node_key(world["node1"].membership.identity.node)
    on_disk = {item.key: item for item in world["node3"].stored.items}
    assert on_disk[key] == world["node1"].engine.parts.store.get(key)


def test_a_node_that_is_handed_blocks_says_that_it_has_them() -> None:
    world = settled(3, cidr=IPv4Network("10.244.0.0/22"))
    world.run(world.now + 2.0)
    freed = blocks_of(world, "node3")
    world["node3"].leave()
    world.run(world.now + 3.0)
    (free,) = {
        (record.name, record.free_blocks)
        for record in world["node2"].engine.parts.catalog.nodes.values()
        if record.free_blocks
    }
    assert free == ("node1", 2)
    assert routes_to(world, "node3", seen_by="node2") == []
    assert len(freed) == 1


# -- blocks ------------------------------------------------------------------------------------


def test_requests_at_one_instant_get_different_blocks_and_repetitions_the_same() -> None:
    world = settled(1)
    steward = world["node1"].engine._steward
    takers = [world.membership(f"node{n}").identity.node for n in range(2, 8)]
    answers = []
    for request, taker in enumerate(takers):
        effects = steward.on_block_request(taker, BlockRequest(request), world.now)
        assert_stored_first(effects)
        answers += [one for one in effects if isinstance(one, SendControl) and one.node == taker]
        assert "block.given" in {one.event for one in effects if isinstance(one, Report)}
    again = [
        steward.on_block_request(taker, BlockRequest(request), world.now)
        for request, taker in enumerate(takers)
    ]
    assert again == [[answer] for answer in answers]
    titles = world["node1"].engine.parts.catalog.titles
    blocks = [titles.blocks_of(taker) for taker in takers]
    assert all(len(held) == 1 for held in blocks)
    assert len(set(blocks)) == len(blocks)
    titles.check_invariants()


def test_a_node_with_nothing_to_give_says_so_and_changes_nothing() -> None:
    world = settled(2)
    engine = world["node2"].engine
    before = engine.snapshot(world.now)
    asker = world["node1"].membership.identity.node
    (answer,) = engine._steward.on_block_request(asker, BlockRequest(5), world.now)
    assert isinstance(answer, SendControl)
    refusal = decode_untrusted(answer.message)
    assert isinstance(refusal, Refusal)
    assert (refusal.request, refusal.code) == (5, "no-free-block")
    assert engine.snapshot(world.now) == before


def test_with_nothing_left_to_give_the_asker_hears_it() -> None:
    world = settled(4, cidr=IPv4Network("10.244.0.0/22"))
    world.run(world.now + COUNT_WAITS + 1.0)
    world.add_node("node5")
    world.run(world.now + 4.0)
    (problem,) = [p for p in world["node5"].snapshot().problems if p.code == "no-block"]
    assert "no member with free blocks is known" in problem.why


# -- pods --------------------------------------------------------------------------------------


def test_a_pod_that_makes_the_record_too_large_is_taken_back() -> None:
    world = settled(2, settings=Settings(limits=Limits(record=600)))
    machine = world["node2"]
    key = node_key(machine.membership.identity.node)
    while len(machine.engine.parts.store.get(key).body) < 540:
        machine.add_pod(f"pod-{len(machine.engine.parts.holdings.pods)}")
        world.run(world.now + 1.0)
    before = machine.snapshot(), machine.disk.writes
    with pytest.raises(CapacityError) as caught:
        machine.add_pod("one-too-many-" + "x" * 50)
    assert caught.value.limit == "record"
    assert (machine.snapshot(), machine.disk.writes) == before
    world.run(world.now + 2.0)
    assert len(world["node1"].snapshot().pods) == len(machine.snapshot().pods)
    check(world)


def test_a_block_that_comes_to_a_node_with_a_full_record_stops_nothing() -> None:
    world = settled(2, settings=Settings(limits=Limits(record=1000)), block_prefix=20)
    machine = world["node2"]
    with suppress(CapacityError):
        for number in range(100):
            machine.add_pod(f"pod-{number}")
    others = tuple(Endpoint(f"192.0.2.{number}", 1) for number in (1, 2))
    machine.perform(machine.engine.on_endpoints(others, world.now))
    world.run(world.now + 1.0)
    seen = {node.name: node for node in world["node1"].snapshot().nodes}
    assert seen["node2"].pods == len(machine.snapshot().pods)
    record = world["node1"].engine.parts.catalog.nodes[machine.membership.identity.node]
    assert record.endpoints == others


def test_a_giver_that_can_remember_no_other_deed_says_so() -> None:
    world = settled(2, settings=Settings(limits=Limits(items=4)))
    engine = world["node1"].engine  # two records, one deed; the newcomer's record is the fourth
    newcomer = world.membership("node9").identity
    engine.parts.store.put(sign_record(newcomer, version=1))
    effects = engine._steward.on_block_request(newcomer.node, BlockRequest(5), world.now)
    refusal = decode_untrusted(effects[0].message)
    assert (refusal.request, refusal.code) == (5, "store-full")
    assert engine.parts.catalog.titles.blocks_of(newcomer.node) == ()


def test_two_machines_with_one_identity_do_not_outdo_each_other_without_pause() -> None:
    world = settled(2, check=False)
    machine, sender = world["node2"], world["node1"].membership.identity.node
    engine, identity = machine.engine, machine.membership.identity
    stored_at = []
    for number in range(30):  # a second apart, the other machine says something newer
        item = sign_record(identity, version=(9 + number) << 32)
        effects = engine._on_message(sender, Delta((item,)), world.now)
        stored_at += [world.now for effect in effects if isinstance(effect, Persist)]
        machine.perform(engine._settle(effects, world.now))
        world.run(world.now + 1.0)
    assert len(stored_at) == 3
    assert all(b - a >= REASSERT_INTERVAL for a, b in pairwise(stored_at))
    assert len(world.trace.notes("record.overtaken", "node2")) == 3


def test_adding_and_removing_a_pod_changes_the_network() -> None:
    world = settled(1)
    view, effects = world["node1"].engine.add_pod("web", "/ns/web", None, world.now)
    assert (view.name, view.node, view.netns, view.local) == ("web", "node1", "/ns/web", True)
    assert NetworkChanged() in effects
    again, effects = world["node1"].engine.remove_pod("web", world.now)
    assert again == view
    assert NetworkChanged() in effects


# -- endpoints ---------------------------------------------------------------------------------


def test_the_same_endpoints_again_are_no_change() -> None:
    world = settled(1)
    machine = world["node1"]
    assert machine.engine.on_endpoints((machine.endpoint,), world.now) == []

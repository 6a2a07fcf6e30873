"""Tests of overlay.landlord: when blocks move, and when they must not."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from overlay.catalog.keys import deed_item
from overlay.config import Limits, Settings, Timing
from overlay.conflict import Standing
from overlay.errors import RefusedError
from overlay.ipam.deeds import sign_deed
from overlay.sim import Machine, World
from overlay.types import BlockIndex, NodeId
from overlay.wire.messages import Delta
from tests.sim.worlds import blocks_of, routes_to, settled
from tests.support.clusters import signing_key

SMALL = {"cidr": IPv4Network("10.244.0.0/25"), "block_prefix": 29}
"""Sixteen blocks of five pods."""

IDLE = Settings(timing=Timing(block_idle_after=120.0))


def fill(machine: Machine, count: int, prefix: str = "pod") -> None:
    for number in range(count):
        machine.add_pod(f"{prefix}{number}")


def empty(machine: Machine) -> None:
    for name in list(machine.engine.parts.holdings.pods):
        machine.remove_pod(name)


def id_of(world: World, name: str) -> NodeId:
    return world[name].membership.identity.node


def owned(world: World, name: str, seen_by: str) -> tuple[BlockIndex, ...]:
    return world[seen_by].engine.parts.catalog.titles.blocks_of(id_of(world, name))


# -- growth ------------------------------------------------------------------------------------


def test_a_node_asks_for_a_block_before_the_last_one_is_full() -> None:
    world = settled(2)
    machine = world["node2"]
    fill(machine, 222)  # 253 fit; 31 free is the mark
    world.run(world.now + 3.0)
    assert len(blocks_of(world, "node2")) == 1
    machine.add_pod("one-more")
    world.run(world.now + 3.0)
    assert len(blocks_of(world, "node2")) == 2
    fill(machine, 283, "more")
    world.run(world.now + 3.0)
    assert len(machine.snapshot().pods) == 506
    world.run_until(lambda: len(routes_to(world, "node2", "node1")) == 6, timeout=5.0)
    world.check_invariants()


def test_the_authoritys_node_uses_another_of_its_own_at_once() -> None:
    world = settled(1, **SMALL)
    fill(world["node1"], 16 * 5)
    assert len(blocks_of(world, "node1")) == 16
    world.run(world.now + 1.0)
    with pytest.raises(RefusedError) as caught:
        world["node1"].add_pod("late")
    assert caught.value.code == "no-free-address"
    assert "no member with free blocks" in str(caught.value)
    (problem,) = world["node1"].snapshot().problems
    assert problem.code == "no-free-address"


def test_one_member_does_not_get_all_blocks_without_pods_to_show() -> None:
    world = settled(2, **SMALL)
    holdings = world["node1"].engine.parts.holdings
    taker = id_of(world, "node2")
    with pytest.raises(RefusedError) as caught:
        holdings.give(taker, 99)
    assert caught.value.code == "has-room"


def test_a_node_that_was_refused_because_of_itself_is_not_asked_without_pause() -> None:
    world = settled(2, **SMALL)
    machine = world["node2"]
    fill(machine, 5)
    world.run(world.now + 3.0)
    assert len(blocks_of(world, "node2")) == 2
    empty(machine)  # everything rests
    fill(machine, 5, "second")
    empty(machine)
    with pytest.raises(RefusedError):
        machine.add_pod("late")
    world.run(world.now + 20.0)
    assert 1 <= len(world.trace.notes("block.refused", "node2")) <= 7
    world.check_invariants()


# -- handing back ------------------------------------------------------------------------------


def grown() -> World:
    """node2 has three blocks, and pods in none of them since a moment ago."""
    world = settled(2, settings=IDLE, **SMALL)
    for batch in range(3):
        fill(world["node2"], 5, f"batch{batch}-")
        world.run(world.now + 3.0)
    assert len(blocks_of(world, "node2")) == 4
    return world


def test_idle_blocks_go_back_but_the_first_and_enough_room_stay() -> None:
    world = grown()
    first = blocks_of(world, "node2")[0]
    empty(world["node2"])
    world.run(world.now + Timing().quarantine + 55.0)
    assert len(blocks_of(world, "node2")) == 4
    world.run(world.now + 30.0)
    assert blocks_of(world, "node2") == [first]
    assert len(owned(world, "node2", "node1")) == 1
    fill(world["node2"], 3)
    world.run(world.now + 300.0)
    assert blocks_of(world, "node2") == [first]
    world.check_invariants()


def test_a_block_with_pods_or_needed_room_stays() -> None:
    world = grown()
    keep = [pod.name for pod in world["node2"].snapshot().pods if "batch2" in pod.name][:1]
    for name in list(world["node2"].engine.parts.holdings.pods):
        if name not in keep and not name.startswith("batch0"):
            world["node2"].remove_pod(name)
    used = [
        prefix
        for prefix in world["node2"].snapshot().own_prefixes
        for pod in world["node2"].snapshot().pods
        if pod.name in keep and pod.address in prefix
    ]
    world.run(world.now + 400.0)
    left = blocks_of(world, "node2")
    assert str(used[0]) in left
    assert len(left) == 2
    world.check_invariants()


def test_nothing_is_handed_back_while_the_authoritys_node_is_away() -> None:
    world = grown()
    world.run(world.now + 5.0)
    world.crash("node1")
    empty(world["node2"])
    world.run(world.now + 400.0)
    assert len(blocks_of(world, "node2")) == 4
    world.restart("node1")
    world.run_until(lambda: len(blocks_of(world, "node2")) == 1, timeout=60.0)
    world.check_invariants()


def test_the_authoritys_node_just_stops_using_what_is_idle() -> None:
    world = settled(1, settings=IDLE, **SMALL)
    fill(world["node1"], 15)
    empty(world["node1"])
    world.run(world.now + 200.0)
    assert len(blocks_of(world, "node1")) == 1
    assert len(owned(world, "node1", "node1")) == 16


@pytest.mark.parametrize("trouble", ["disk", "conflict"])
def test_what_is_idle_while_nothing_may_be_signed_waits_and_keeps_nobody_busy(trouble) -> None:
    world = grown()
    empty(world["node2"])
    world.run(world.now + 5.0)
    if trouble == "disk":
        world["node2"].disk.fail(1_000)
    else:
        world["node2"].engine.conflict.standing = Standing.HOLDS
    world.run(world.now + 200.0)  # an engine that wants to be woken over and over is an error
    assert len(owned(world, "node2", "node1")) == 4
    world["node2"].disk.fail(0)
    world["node2"].engine.conflict.standing = Standing.SOLE
    world.run_until(lambda: len(blocks_of(world, "node2")) == 1, timeout=60.0)


def given_a_full_chain() -> tuple[World, BlockIndex]:
    """node2 has made the chain of its block as long as chains may be, and node3 its owner."""
    world = settled(3, settings=IDLE, check=False)
    liar, own = world["node2"].membership.identity.signing, signing_key(4711)
    (block,) = owned(world, "node2", "node2")
    chain = world["node2"].engine.parts.catalog.titles.chain(block)
    while len(chain.deeds) < Limits().deed_chain:
        giver, other = (liar, own) if chain.owner == liar.public else (own, liar)
        last = len(chain.deeds) == Limits().deed_chain - 1
        taker = id_of(world, "node3") if last else other.public
        chain = sign_deed(giver, chain, taker, cluster=world["node1"].engine.cluster.id)
    for machine in world.live():
        machine.engine.parts.gossip.on_message(
            NodeId(bytes(32)), Delta((deed_item(chain),)), machine.now
        )
        machine.engine._steward.learn(machine.now)
    return world, block


def roots(world: World) -> set[bytes]:
    return {machine.engine.parts.store.root() for machine in world.live()}


def test_a_block_whose_chain_is_full_stays_instead_of_a_deed_that_nobody_takes() -> None:
    world, block = given_a_full_chain()
    world.run(world.now + 200.0)
    assert owned(world, "node3", "node1") == owned(world, "node3", "node3")
    assert block in owned(world, "node3", "node1")
    assert len(roots(world)) == 1


def test_a_leaving_node_keeps_a_block_whose_chain_is_full_and_its_removal_brings_it_back() -> None:
    world, block = given_a_full_chain()
    world["node3"].leave()
    world.run_until(lambda: world["node3"].left, timeout=10.0)
    world.run(world.now + 5.0)
    assert owned(world, "node3", "node1") == (block,)
    assert len(roots(world)) == 1
    world["node1"].remove("node3")
    world.run(world.now + 5.0)
    assert block in owned(world, "node1", "node2")


FOUR = {"cidr": IPv4Network("10.244.0.0/27"), "block_prefix": 29}


@pytest.mark.parametrize("went", ["left", "removed"])
def test_addresses_of_a_node_that_is_gone_rest_before_others_have_them(went) -> None:
    world = settled(4, **FOUR)  # every block is in use
    founder, gone = world["node1"], world["node2"]
    was = gone.add_pod("web").address
    world.run(world.now + 2.0)
    if went == "left":
        gone.leave()
        world.run_until(lambda: gone.left, timeout=10.0)
    else:
        world.crash("node2")
        founder.remove("node2", force=True)
    world.run(world.now + 3.0)
    assert len(owned(world, "node1", "node3")) == 2
    fill(founder, 5)
    fill(world["node3"], 5)  # it asks the founder for another block
    began = world.now
    world.run(began + Timing().quarantine - 10.0)
    assert [len(blocks_of(world, name)) for name in ("node1", "node3")] == [1, 1]
    with pytest.raises(RefusedError):
        founder.add_pod("late")
    world.restart("node1")
    world.run(began + Timing().quarantine + 5.0)
    assert len(blocks_of(world, "node1")) + len(blocks_of(world, "node3")) == 2
    world.run_until(lambda: len(blocks_of(world, "node1")) == 2, timeout=Timing().quarantine)
    assert founder.add_pod("late").address == was
    world.check_invariants()


# -- the authority's word ----------------------------------------------------------------------


def test_a_block_that_comes_back_has_no_past() -> None:
    world = grown()
    empty(world["node2"])
    world.run(world.now + 200.0)
    titles = world["node2"].engine.parts.catalog.titles
    back = [chain for chain in titles.chains() if chain.owner == id_of(world, "node1")]
    assert len(back) == 3
    assert all(chain.base_sequence == 2 and not chain.deeds for chain in back)
    assert titles.given_to(id_of(world, "node2")) == 1


def test_blocks_of_a_removed_node_come_back_when_every_member_knows_of_it() -> None:
    world = settled(4, **SMALL)
    gone = owned(world, "node4", "node1")
    world.run(world.now + 2.0)
    world.crash("node4")
    world.partition(["node1", "node2", "node4"], ["node3"])
    world["node1"].remove("node4", force=True)
    world.run(world.now + 30.0)
    (problem,) = [p for p in world["node1"].snapshot().problems if p.code == "reclaim-waits"]
    assert "node3" in problem.why
    assert "node2" not in problem.why
    states = {row.state for row in world["node1"].snapshot().blocks if row.node == "node4"}
    assert states == {"removed"}
    world.heal()
    world.run_until(lambda: not set(gone) - set(owned(world, "node1", "node3")), timeout=60.0)
    assert "reclaim-waits" not in {p.code for p in world["node1"].snapshot().problems}
    world.check_invariants()


def test_a_member_that_never_comes_back_is_removed_too_and_then_nobody_is_waited_for() -> None:
    world = settled(3, **SMALL)
    world.run(world.now + 2.0)
    for name in ("node2", "node3"):
        world.crash(name)
    world["node1"].remove("node2", force=True)
    world.run(world.now + 3.0)
    assert world["node1"].engine.landlord.reclaimable() == 1
    world["node1"].remove("node3", force=True)
    assert world["node1"].engine.landlord.reclaimable() == 0
    assert len(owned(world, "node1", "node1")) == 16

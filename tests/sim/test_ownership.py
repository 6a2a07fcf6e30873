"""Proofs: blocks grow, come back and are taken back, and never have two owners."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import IPv4Network

import pytest

from overlay.catalog.keys import deed_item
from overlay.config import Settings, Timing
from overlay.errors import OverlayError
from overlay.ipam.deeds import Chain, sign_deed
from overlay.sim import Link, World
from overlay.types import BlockIndex, NodeId
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta
from tests.sim.worlds import LOSSY, blocks_of, settled

SMALL = {"cidr": IPv4Network("10.244.0.0/25"), "block_prefix": 29}
"""Sixteen blocks of five pods."""


def id_of(world: World, name: str) -> NodeId:
    return world[name].membership.identity.node


def owners(world: World, seen_by: str) -> dict[int, str]:
    """Who owns each block that has moved."""
    parts = world[seen_by].engine.parts
    chains = sorted(parts.catalog.titles.chains(), key=lambda chain: chain.block)
    return {chain.block: parts.name_of(chain.owner) for chain in chains}


def block_of(world: World, name: str) -> BlockIndex:
    return world[name].engine.parts.holdings.blocks_in_use[0]


def give(world: World, giver: str, deed: Item) -> None:
    """Let a deed that `giver` signed take effect, be stored and announced."""
    engine = world[giver].engine
    effects = engine._steward.own_changed(world.now, deed)
    world[giver].perform(engine._settle(effects, world.now))


# -- growth ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_growth_over_lossy_links_costs_each_block_once(seed: int) -> None:
    """Requests, answers and gossip are lost; nobody gets more than it asked for."""
    lossy = Link(latency=0.02, jitter=0.02, loss=0.3)
    world = settled(3, seed=seed, link=lossy, **SMALL)
    world.every(0.05, world.check_invariants)
    for number in range(24):
        for name in ("node2", "node3"):
            world.run_until(lambda name=name, n=number: added(world, name, n), timeout=90.0)
    world.run(world.now + 20.0)
    for name in ("node2", "node3"):
        # 24 pods fill four of five blocks; what is free is less than the mark, or one block is.
        assert 5 <= len(blocks_of(world, name)) <= 6
        held = world["node1"].engine.parts.catalog.titles.blocks_of(id_of(world, name))
        assert len(held) == len(blocks_of(world, name))


def added(world: World, name: str, number: int) -> bool:
    with suppress(OverlayError):
        world[name].add_pod(f"{name}-{number}")
        return True
    return False


def test_a_giver_that_crashes_behind_its_answer_gives_the_same_block_again() -> None:
    world = settled(2, link=Link(latency=0.2), **SMALL)
    for number in range(5):
        world["node2"].add_pod(f"pod{number}")
    given = len(world.trace.notes("block.given"))
    world.run_until(lambda: len(world.trace.notes("block.given")) > given, timeout=5.0)
    world.crash("node1")  # the answer is under way
    world.cut("node1", "node2")
    world.run(world.now + 1.0)
    world.heal()
    world.restart("node1")
    world.run_until(lambda: len(blocks_of(world, "node2")) == 2, timeout=20.0)
    world.run(world.now + 10.0)
    assert len(world.trace.notes("block.given")) == given + 1
    assert len(world["node1"].engine.parts.catalog.titles.blocks_of(id_of(world, "node2"))) == 2


def test_a_member_cut_off_while_it_grows_goes_on_with_what_it_has_and_then_grows() -> None:
    world = settled(4, link=LOSSY, **SMALL)
    world.every(0.05, world.check_invariants)
    world.partition(["node1", "node2"], ["node3", "node4"])
    for number in range(5):
        world["node3"].add_pod(f"pod{number}")
    with pytest.raises(OverlayError, match=r"no member|answered"):
        world["node3"].add_pod("late")
    world.run(world.now + 60.0)
    assert len(blocks_of(world, "node3")) == 1
    world.heal()
    world.run_until(lambda: added(world, "node3", 9), timeout=60.0)
    world.run_until(world.converged, timeout=30.0)


# -- removal -----------------------------------------------------------------------------------


def hidden_gift(*, used: bool) -> tuple[World, BlockIndex]:
    """node3 gives node4 a block in a part of the cluster that node1 does not see.

    Returns:
        The world, divided, and the block. node4 uses it if `used`; else it has no need of it.
    """
    world = settled(4, **SMALL)
    world.run(world.now + 3.0)
    world.partition(["node1", "node2"], ["node3", "node4"])
    giver, taker = world["node3"], world["node4"].engine
    block = block_of(world, "node3")
    holdings = giver.engine.parts.holdings
    # What growth would do: node3 has it to spare, and signs it over when it is asked.
    holdings.blocks_in_use.clear()
    item = holdings._transfer(block, id_of(world, "node4"), request=1)
    give(world, "node3", item)
    world.run(world.now + 1.0)  # and no longer: node3 has no block now, and would ask node4 for one
    assert owners(world, "node4")[block] == "node4"
    assert owners(world, "node1")[block] == "node3"
    if used:
        for number in range(6):
            world["node4"].add_pod(f"pod{number}")
        assert block in taker.parts.holdings.blocks_in_use
        world.run(world.now + 3.0)
    world.crash("node3")
    return world, block


def test_a_block_that_a_removed_node_gave_away_unseen_and_that_is_used_stays_where_it_is() -> None:
    world, block = hidden_gift(used=True)
    world.every(0.02, world.check_invariants)
    world["node1"].remove("node3", force=True)
    world.run(world.now + 60.0)
    assert owners(world, "node1")[block] == "node3"  # nobody knows better there, so it waits
    world.heal()
    world.run_until(lambda: "node3" not in owners(world, "node1").values(), timeout=60.0)
    world.run(world.now + 20.0)
    assert {owners(world, name)[block] for name in ("node1", "node2", "node4")} == {"node4"}
    assert world["node1"].snapshot().problems == ()


def test_a_block_that_a_removed_node_gave_away_unseen_and_unused_goes_to_the_authority() -> None:
    world, block = hidden_gift(used=False)
    world.every(0.02, world.check_invariants)
    world["node1"].remove("node3", force=True)
    world.heal()
    world.run_until(lambda: owners(world, "node4")[block] == "node1", timeout=60.0)
    # It is free for everybody again, for node4 as well.
    for number in range(6):
        world.run_until(lambda n=number: added(world, "node4", n), timeout=30.0)
    world.run_until(world.converged, timeout=30.0)


def test_what_a_removed_node_signs_afterwards_takes_no_block_into_use() -> None:
    """It still has its key: it signs its block over to a friend, as if it had done so before."""
    world = settled(3, **SMALL)
    world.every(0.02, world.check_invariants)
    world.run(world.now + 3.0)
    block, key = block_of(world, "node3"), world["node3"].membership.identity.signing
    old = world["node3"].engine.parts.catalog.titles.chain(block)
    world.crash("node3")
    world.cut("node1", "node2")
    world["node1"].remove("node3", force=True)
    friend = sign_deed(key, old, id_of(world, "node2"), cluster=world.cluster.id)
    world.inspector.excuse(id_of(world, "node3"))
    engine = world["node2"].engine
    engine.parts.gossip._spread.learned += engine.parts.store.merge([deed_item(friend)])
    world["node2"].perform(engine._settle(engine._steward.learn(world.now), world.now))
    world.heal()
    world.run_until(lambda: owners(world, "node2")[block] == "node1", timeout=60.0)
    world.run(world.now + 10.0)
    assert owners(world, "node2")[block] == "node1"


@pytest.mark.parametrize("seed", range(4))
def test_removals_growth_and_crashes_in_any_order_make_no_second_owner(seed: int) -> None:
    rng = random.Random(seed)
    timing = Timing(block_idle_after=20.0)
    world = settled(6, seed=seed, link=LOSSY, settings=Settings(timing=timing), **SMALL)
    world.every(0.1, world.check_invariants)
    removed: set[str] = set()
    for step in range(60):
        name = rng.choice([name for name in world.machines if name not in removed])
        with suppress(OverlayError):
            disturb(world, rng, name, step, removed)
        world.run(world.now + rng.uniform(0.0, 1.5))
    world.heal()
    for name, machine in world.machines.items():
        if name not in removed and not machine.live:
            world.restart(name)
    world.run_until(lambda: not world["node1"].engine.landlord.reclaimable(), timeout=120.0)
    world.run(world.now + 10.0)
    seen = {
        str(owners(world, machine.name)) for machine in world.live() if machine.name not in removed
    }
    assert len(seen) == 1
    assert not removed & set(owners(world, "node1").values())


def disturb(world: World, rng: random.Random, name: str, step: int, removed: set[str]) -> None:
    action = rng.randrange(8)
    machine = world[name]
    if not machine.live:
        machine.start()
    elif action < 3:
        for number in range(4):
            machine.add_pod(f"{name}-{step}-{number}")
    elif action < 5:
        for pod in list(machine.engine.parts.holdings.pods)[:6]:
            machine.remove_pod(pod)
    elif action == 5:
        others = [other for other in world.machines if other != name]
        rng.shuffle(others)
        world.partition([name, *others[:2]], others[2:])
    elif action == 6:
        world.heal()
        if name != "node1" and len(removed) < 2 and step > 10:
            world.crash(name)
            world["node1"].remove(name, force=True)
            removed.add(name)
    elif name != "node1":
        machine.crash()


# -- chains ------------------------------------------------------------------------------------


def test_a_block_moves_two_hundred_times_and_its_chain_stays_short() -> None:
    timing = Timing(block_idle_after=1.0)
    world = settled(2, settings=Settings(timing=timing), **SMALL)
    titles = world["node1"].engine.parts.catalog.titles
    block, moved = BlockIndex(9), 0
    one, two = world["node1"], world["node2"]
    while titles.chain(block).sequence < 200:
        chain = titles.chain(block)
        if chain.owner == id_of(world, "node1"):
            item = one.engine.parts.holdings._transfer(block, id_of(world, "node2"))
            give(world, "node1", item)
        moved += 1
        assert moved < 1000
        world.run_until(lambda was=chain: titles.chain(block) != was, timeout=200.0)
        assert len(titles.chain(block).deeds) <= 2
    world.run(world.now + 5.0)
    assert len(two.engine.parts.catalog.titles.chain(block).encode()) < 500
    world.check_invariants()


def test_a_hostile_former_owner_takes_no_block_back_once_it_was_in_the_authoritys_hands() -> None:
    world = settled(3, **SMALL)
    world.run(world.now + 3.0)
    block = block_of(world, "node2")
    was: Chain = world["node2"].engine.parts.catalog.titles.chain(block)
    world["node2"].leave()
    world.run_until(lambda: world["node2"].left, timeout=10.0)
    world.run(world.now + 3.0)
    thief = world["node2"].membership.identity.signing
    accomplice = world.add_node("node4")
    world.run_until(world.converged, timeout=30.0)
    before = owners(world, "node1")
    for _ in range(20):  # takers until a hash is low enough, and a long chain behind it
        taker = world.membership("puppet").identity
        longer = sign_deed(thief, was, taker.node, cluster=world.cluster.id)
        longer = sign_deed(taker.signing, longer, id_of(world, "node4"), cluster=world.cluster.id)
        delta = Delta((deed_item(longer),))
        accomplice.perform(accomplice.engine.say(id_of(world, "node1"), encode(delta), world.now))
        accomplice.perform(accomplice.engine.say(id_of(world, "node3"), encode(delta), world.now))
    world.run(world.now + 10.0)
    assert owners(world, "node1") == owners(world, "node3") == before


# -- leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.011, 0.02, 0.3, 0.6, 1.1])
def test_a_crash_at_any_point_of_a_leave_loses_no_block(moment: float) -> None:
    world = settled(3, link=Link(latency=0.01), **SMALL)
    world.every(0.01, world.check_invariants)
    world.run(world.now + 3.0)
    block = block_of(world, "node3")
    if moment >= 0.3:
        world.partition(["node1", "node2"], ["node3"])
    world["node3"].leave()
    world.run(world.now + moment)
    if world["node3"].live:
        world.crash("node3")
    world.heal()
    world.restart("node3")
    world.run_until(lambda: world["node3"].left, timeout=60.0)
    world.run_until(lambda: owners(world, "node2")[block] == "node1", timeout=10.0)

"""Tests of overlay.problems: each line says what, why, and what to do."""

from __future__ import annotations

import pytest

from overlay.catalog.keys import deed_item
from overlay.faults import FAULTS
from overlay.ipam.deeds import Chain, sign_deed
from overlay.problems import MAX_ACCUSED, MAX_NAMES, _some
from overlay.session.cookie import MacMaker
from overlay.session.ratelimit import CALM
from overlay.sim import World
from overlay.types import BlockIndex
from overlay.views import Problem
from overlay.wire.handshake import Initiation
from tests.sim.worlds import settled
from tests.support.engines import STRANGER, engine_of


def problem(world: World, name: str, code: str) -> Problem:
    (found,) = [one for one in world[name].snapshot().problems if one.code == code]
    assert found.what
    assert found.why
    assert found.fix
    return found


def test_a_well_node_has_none() -> None:
    world = settled(2)
    assert world["node1"].snapshot().problems == world["node2"].snapshot().problems == ()


def twice_given(world: World, other: str) -> BlockIndex:
    """The founder gives node2's first block to `other` as well, and whoever is better wins."""
    block = world["node2"].engine.parts.holdings.blocks_in_use[0]
    key = world["node1"].membership.identity.signing
    taker = world[other].membership.identity.node
    fork = sign_deed(key, Chain(block, key.public), taker, cluster=world.cluster.id)
    world.inspector.excuse(key.public)  # it cheats
    for machine in world.live():
        parts = machine.engine.parts
        parts.gossip._spread.learned += parts.store.merge([deed_item(fork)])
        machine.perform(machine.engine._settle(machine.engine._steward.learn(world.now), world.now))
    return block


def a_lost_block() -> tuple[World, BlockIndex]:
    """node2 has a pod in a block that a better deed gave to another node."""
    for seed in range(20):
        world = settled(4, seed=seed)
        world["node2"].add_pod("web")
        for other in ("node3", "node4"):
            block = twice_given(world, other)
            if world["node1"].engine.parts.catalog.titles.owner(block) == (
                world[other].membership.identity.node
            ):
                return world, block
    raise AssertionError("no hash was lower")


def test_a_block_that_was_given_twice_is_a_problem_that_names_the_giver_everywhere() -> None:
    world, _ = a_lost_block()
    for name in ("node1", "node2", "node3"):
        found = problem(world, name, "deed-conflict")
        assert "node1 gave 10.244." in found.what
        assert "node2" in found.why
        assert "remove" in found.fix


def test_pods_in_a_lost_block_are_a_problem_and_no_other_pod_gets_an_address_there() -> None:
    world, block = a_lost_block()
    found = problem(world, "node2", "block-lost")
    assert "web" in found.why
    world.run(world.now + 5.0)
    pod = world["node2"].add_pod("new")
    assert pod.address not in world["node2"].engine.parts.plan.prefix4(block)
    world["node2"].remove_pod("web")
    assert "block-lost" not in {one.code for one in world["node2"].snapshot().problems}


def test_of_many_names_a_few_are_said() -> None:
    assert _some(["a", "b"]) == "a, b"
    assert _some([str(n) for n in range(MAX_NAMES + 2)]) == "0, 1, 2, 3, 4 and 2 more"


def test_of_many_complaints_some_are_shown_and_the_rest_is_counted() -> None:
    world = settled(4)
    for accused in ("node3", "node4"):
        node = world[accused].membership.identity.node
        world.inspector.excuse(node)
        for name in ("node1", "node2"):
            for fault in FAULTS:
                world[name].engine.parts.complaints.note(node, fault, world.now)
    world.run(world.now + 3.0)
    shown = [one for one in world["node3"].snapshot().notices if one.code == "member-accused"]
    assert shown[0].what.startswith("node1, node2 complain of ")
    assert len(shown) <= MAX_ACCUSED + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overlay.problems.MAX_ACCUSED", 3)
        shown = [one for one in world["node3"].snapshot().notices if one.code == "member-accused"]
    assert len(shown) == 4
    assert shown[-1].what == "members complain of 5 more things"
    assert world["node3"].snapshot().problems == (), "else a liar would have all say they are ill"


def test_a_load_of_handshakes_is_a_problem_while_it_lasts_and_is_logged_at_both_ends() -> None:
    world = settled(2)
    engine = engine_of(world, "node1")
    macs = MacMaker(engine.identity.static.public)
    for number in range(300):
        made = Initiation(number, number.to_bytes(32, "big"), bytes(48), bytes(60))
        engine.on_datagrams(memoryview(macs.with_macs(made.encode(), 0.0)), 0, STRANGER, world.now)
    world.run(world.now + 1.5)
    assert "strangers" in problem(world, "node1", "under-load").why
    world.run(world.now + CALM + 2.0)
    assert "under-load" not in {one.code for one in world["node1"].snapshot().problems}
    said = [note.event for note in world.trace.notes(node="node1") if "load." in note.event]
    assert said == ["load.begun", "load.ended"]

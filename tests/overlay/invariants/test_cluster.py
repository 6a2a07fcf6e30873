"""Tests of the list for a whole cluster: each claim is broken once, in a world that looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from overlay.catalog.keys import deed_item, deed_key
from overlay.catalog.records import sign_record
from overlay.catalog.removals import Removal, sign_removal
from overlay.faults import Fault
from overlay.invariants import CLUSTER_INVARIANTS
from overlay.ipam.deeds import Chain, sign_base, sign_deed
from overlay.keys import SigningKey
from overlay.sim import InvariantError, World
from overlay.state import StoredPod
from overlay.types import BlockIndex, NodeId
from overlay.wire.items import Item
from tests.sim.worlds import settled

FREE = BlockIndex(9)
LATER = 1 << 40


@pytest.fixture
def world() -> World:
    """Three nodes; node1 has the pod `web`."""
    world = settled(3)
    world["node1"].add_pod("web")
    world.run(world.now + 1.0)
    return world


def hold(world: World, name: str, item: Item) -> None:
    """An item comes into a node's store past all checks."""
    world[name].engine.parts.store._set(item)
    world[name].perform([])


def record(world: World, name: str, version: int, **fields: object) -> Item:
    """A record that its owner signed."""
    return sign_record(world[name].membership.identity, version=version, **fields)


def deed(world: World, giver: str, taker: str, block: BlockIndex = FREE) -> Item:
    """The first deed of a block, signed by its giver."""
    identity = world[giver].membership.identity
    untouched = Chain(block, identity.node)
    node = world[taker].membership.identity.node
    return deed_item(sign_deed(identity.signing, untouched, node, cluster=world.cluster.id))


def forge_a_record(world: World) -> None:
    identity = world["node1"].membership.identity
    unseen = replace(identity, signing=SigningKey(identity.signing.seed))
    hold(world, "node2", sign_record(unseen, version=LATER))


def forge_a_deed(world: World) -> None:
    stranger = SigningKey(world["node1"].membership.identity.signing.seed)  # nobody saw it sign
    taker = NodeId(bytes(32))
    untouched = Chain(FREE, stranger.public)
    forged = sign_deed(stranger, untouched, taker, cluster=world.cluster.id)
    hold(world, "node2", deed_item(forged))


def forge_a_base(world: World) -> None:
    stranger = SigningKey(world["node1"].membership.authorities[0].seed)
    owner = world["node2"].membership.identity.node
    base = sign_base(stranger, cluster=world.cluster.id, block=FREE, sequence=3, owner=owner)
    hold(world, "node3", deed_item(base))


def forge_a_removal(world: World) -> None:
    stranger = SigningKey(world["node1"].membership.authorities[0].seed)
    removal = Removal(world["node2"].membership.identity.node, 1, "node2", 0)
    hold(world, "node3", sign_removal(stranger, removal, cluster=world.cluster.id))


def go_back(world: World) -> None:
    hold(world, "node2", record(world, "node1", 5))


def say_two_things(world: World) -> None:
    world.inspector.register.stored = lambda node: None
    hold(world, "node2", record(world, "node1", LATER))
    hold(world, "node3", record(world, "node1", LATER, software="other"))


def give_twice(world: World) -> None:
    world.inspector.register.stored = lambda node: None
    hold(world, "node2", deed(world, "node1", "node2"))
    hold(world, "node3", deed(world, "node1", "node3"))


def announce_early(world: World) -> None:
    hold(world, "node2", record(world, "node1", LATER))


def give_early(world: World) -> None:
    hold(world, "node2", deed(world, "node1", "node2"))


def keep_what_was_given(world: World) -> None:
    item = deed(world, "node1", "node2")
    parts = world["node2"].engine.parts
    parts.catalog.apply(item)
    world["node2"].perform([])


def use_what_another_uses(world: World) -> None:
    world["node2"].engine.parts.holdings.blocks_in_use.append(BlockIndex(0))
    world["node2"].perform([])


def take_the_address_of_another(world: World) -> None:
    pod = world["node1"].engine.parts.holdings.pods["web"]
    stolen = StoredPod("db", "", pod.block, pod.host, 0)
    world["node2"].engine.parts.holdings.pods["db"] = stolen
    world["node2"].perform([])


def complain_of_an_honest_node(world: World) -> None:
    parts = world["node1"].engine.parts
    parts.complaints.note(world["node2"].membership.identity.node, Fault.FORGED_DEED, world.now)
    world.run(world.now + 3.0)


BREAKS: list[tuple[str, Callable[[World], None], str]] = [
    ("owner-signed", forge_a_record, "node2 accepted a record of node1, never signed by node1"),
    ("owner-signed", forge_a_deed, "node2 accepted deed 1 of 10.244.9.0/24, never signed by node1"),
    ("owner-signed", forge_a_base, "accepted base 3 of 10.244.9.0/24, never signed by an author"),
    ("owner-signed", forge_a_removal, "node3 accepted a removal, never signed by an authority"),
    ("never-backwards", go_back, "back to 0.5 with the record of node1"),
    ("version-once", say_two_things, "there are two records of node1 with version 256.0"),
    ("deed-once", give_twice, "node1 gave 10.244.9.0/24 away twice, by two deeds 1"),
    ("stored-first", announce_early, "node2 knows version 256.0 of node1, whose disk has 1."),
    ("stored-first", give_early, "node2 has deed 1 of 10.244.9.0/24, the disk of node1 has not"),
    ("one-owner", keep_what_was_given, "10.244.9.0/24 is owned by node1 and by node2"),
    ("one-user", use_what_another_uses, "10.244.0.0/24 is used by node1 and by node2"),
    ("honest-not-named", complain_of_an_honest_node, "node1 complains of node2: forged-deed"),
    ("one-holder", take_the_address_of_another, "10.244.0.2 belongs to node1/web and to node2/db"),
]


@pytest.mark.parametrize(
    ("name", "damage", "evidence"), BREAKS, ids=[one[1].__name__ for one in BREAKS]
)
def test_a_broken_claim_is_found_at_once_and_evidence_given(world, name, damage, evidence):
    with pytest.raises(InvariantError) as caught:
        damage(world)
    found = caught.value.breaches
    assert any(breach.name == name and evidence in breach.evidence for breach in found), found


def test_every_claim_is_broken_once_here():
    assert {name for name, _, _ in BREAKS} == {one.name for one in CLUSTER_INVARIANTS}


@pytest.mark.parametrize("damage", [say_two_things, give_twice])
def test_what_a_suspect_says_twice_is_no_defect(world, damage):
    world.inspector.excuse(world["node1"].membership.identity.node)
    damage(world)


def test_a_block_that_a_suspect_gave_twice_may_have_two_users_until_the_cluster_rests(world):
    world.inspector.excuse(world["node1"].membership.identity.node)
    give_twice(world)
    register = world.inspector.register
    assert register.forked == {FREE}
    for name in ("node2", "node3"):
        parts = world[name].engine.parts
        parts.catalog.apply(parts.store.get(deed_key(FREE)))
        parts.holdings.blocks_in_use.append(FREE)
        parts.holdings.allocator.add_block(FREE)
        parts.knowledge.reroute(world.now)
        world[name].perform([])
    with pytest.raises(InvariantError, match="at rest block 9 is claimed by"):
        world.inspector.look_at_rest()

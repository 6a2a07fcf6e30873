"""Tests of overlay.refusals: who writes without end is slowed and named, and nobody for others."""

from __future__ import annotations

import pytest

from overlay.allowance import AHEAD, RATES, Kind
from overlay.catalog.records import PodEntry, sign_record
from overlay.complaints import Complaint
from overlay.faults import Fault
from overlay.refusals import JUMP, RECORDS
from overlay.sim import World
from overlay.types import BlockIndex, NodeId
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta
from overlay.wire.packing import U64
from tests.sim.worlds import settled


@pytest.fixture
def world() -> World:
    world = settled(3)
    world.inspector.distrust("node3")
    world.inspector.excuse(node_of(world, "node3"))
    world.run(world.now + 30.0)
    return world


def node_of(world: World, name: str) -> NodeId:
    return world[name].membership.identity.node


def record(world: World, version: int, **fields: object) -> Item:
    return sign_record(world["node3"].membership.identity, version=version, **fields)


def merge(world: World, teller: str, *items: Item) -> int:
    """How many of these items node1 takes over from a member, all at this moment."""
    parts = world["node1"].engine.parts
    parts.refusals.teller = node_of(world, teller), world.now
    taken = sum(bool(parts.store.merge([item])) for item in items)
    parts.refusals.teller = None
    return taken


def complaints(world: World) -> set[Complaint]:
    return set(world["node1"].engine.parts.complaints.entries)


def present(world: World) -> int:
    return world["node1"].engine.parts.catalog.nodes[node_of(world, "node3")].version


@pytest.mark.parametrize("teller", ["node2", "node3"])
def test_more_records_than_a_node_may_write_are_refused_and_who_says_its_own_is_named(
    world, teller
):
    first = present(world) + 1
    items = [record(world, first + number) for number in range(200)]
    assert merge(world, teller, *items) == int(AHEAD * RECORDS)
    flood = Complaint(node_of(world, "node3"), Fault.RECORD_FLOOD)
    assert complaints(world) == ({flood} if teller == "node3" else set())
    world.run(world.now + AHEAD + 1.0)
    first = present(world) + (1 << 32)
    later = [record(world, first + number) for number in range(200)]
    assert merge(world, teller, *later) == int(AHEAD * RECORDS)


def test_old_records_that_another_kept_are_not_held_against_their_owner(world):
    """Told to a node that knows none of them, each is newer than the one before."""
    first = present(world) + 1
    kept = [record(world, first + number) for number in range(200)]
    merge(world, "node2", *kept)
    assert merge(world, "node3", record(world, first + 200)) == 1, "its own turns are left"
    assert complaints(world) == set()


def test_its_own_flood_is_refused_without_a_look_at_the_signature(world):
    first = present(world) + 1
    merge(world, "node3", *(record(world, first + number) for number in range(100)))
    looked = []
    parts = world["node1"].engine.parts
    admit = type(parts.catalog).admit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(parts.catalog), "admit", lambda *one: looked.append(one) or admit(*one))
        merge(world, "node3", record(world, first + 5000))
        assert not looked
        merge(world, "node2", record(world, first + 5000))
        assert looked


def test_a_pace_that_pods_come_and_go_at_is_taken_over_for_ever(world):
    for number in range(300):
        world.run(world.now + 0.5)
        assert merge(world, "node2", record(world, present(world) + 1 + number)) == 1
        world["node1"].perform(world["node1"].engine._steward.learn(world.now))
    assert complaints(world) == set()


def test_who_brings_what_is_new_pays_nothing_for_it(world):
    """A node that comes back to large records hears them all from one member, in a moment."""
    names = [f"pod{number:03}".ljust(63, "x") for number in range(2, 254)]
    block = BlockIndex(200)
    pods = [PodEntry(name, block, 2 + number, 0) for number, name in enumerate(names)]
    parts, teller, size = world["node1"].engine.parts, node_of(world, "node2"), 0
    while size < 1.5 * AHEAD * RATES[Kind.ITEMS].size:
        identity = world.membership(f"large{size}").identity
        item = sign_record(identity, version=1 << 32, blocks_in_use=[block], pods=pods)
        message = encode(Delta((item,)))
        assert parts.refusals.allowances.spend(teller, message, world.now) is None, size
        assert merge(world, "node2", item) == 1
        size += len(message)
    again = 0
    while parts.refusals.allowances.spend(teller, message, world.now) is None:
        assert merge(world, "node2", item) == 0
        again += len(message)
    assert again <= 1.1 * AHEAD * RATES[Kind.ITEMS].size, "what is known is paid for"


def test_a_jump_is_taken_over_and_named(world):
    version = present(world) + ((JUMP + 1) << 32)
    assert merge(world, "node2", record(world, version)) == 1
    assert complaints(world) == {Complaint(node_of(world, "node3"), Fault.VERSION_JUMP)}


@pytest.mark.parametrize("starts", [1, 1000, JUMP])
def test_restarts_however_many_are_no_jump(world, starts):
    assert merge(world, "node2", record(world, present(world) + (starts << 32))) == 1
    assert complaints(world) == set()


def test_leaving_is_no_jump(world):
    assert merge(world, "node2", record(world, U64, left=True)) == 1
    assert complaints(world) == set()


def test_what_is_restored_from_the_own_disk_is_nobodys_fault(world):
    item = record(world, present(world) + 1)
    parts = world["node1"].engine.parts
    forged = Item(item.key, item.version, bytes(64) + item.body[64:])
    assert parts.store.merge([forged]) == []
    assert complaints(world) == set()

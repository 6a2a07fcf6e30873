"""Nodes that share a reader see what each would have read itself."""

from __future__ import annotations

import pytest

from overlay.catalog.reader import Reader
from overlay.config import Limits
from overlay.errors import AuthError, WireError
from overlay.keys import verify
from overlay.sim import World
from overlay.sim import reader as module
from overlay.sim.reader import SharedReader
from overlay.wire.claims import Claim, ClaimState, prove_alive
from overlay.wire.items import Item, item_id


@pytest.fixture
def world():
    world = World(3)
    world.add_node("node2")
    world.run_until(world.converged, timeout=30.0)
    return world


def items_of(world):
    return world["node1"].engine.parts.store.items()


def again(item):
    """The same in other bytes, as from another datagram."""
    return Item(bytes(bytearray(item.key)), item.version, bytes(bytearray(item.body)))


def test_it_reads_what_a_reader_of_ones_own_reads(world):
    shared, own = SharedReader(world.cluster, Limits()), Reader(world.cluster, Limits())
    for item in items_of(world):
        if item.key[:1] == b"n":
            assert shared.record(item) == own.record(item)
        else:
            assert shared.chain(item.body) == own.chain(item.body)
            assert all(shared.is_signed(deed) for deed in own.chain(item.body).deeds)


def test_equal_items_are_read_once_and_kept_once(world):
    shared = SharedReader(world.cluster, Limits())
    for item in items_of(world):
        assert shared.keep(item) is item
        assert shared.keep(again(item)) is item
        assert shared.id_of(item) is shared.id_of(again(item))
        assert shared.id_of(item) == item_id(item)
        if item.key[:1] == b"n":
            assert shared.record(item) is shared.record(again(item))
        else:
            assert shared.chain(item.body) is shared.chain(again(item).body)


def test_what_is_refused_is_refused_again(world):
    shared = SharedReader(world.cluster, Limits())
    record = next(item for item in items_of(world) if item.key[:1] == b"n")
    forged = record._replace(body=bytes(64) + record.body[64:])
    shared.record(record)
    for _ in range(2):
        with pytest.raises(AuthError):
            shared.record(forged)
        with pytest.raises(WireError):
            shared.chain(b"no chain")


def test_a_world_verifies_a_record_once_for_all_its_nodes(monkeypatch):
    seen = []

    def counting(public, context, message, signature):
        if context == "record":
            seen.append((public, message))
        return verify(public, context, message, signature)

    monkeypatch.setattr("overlay.catalog.records.verify", counting)
    world = World(4)
    for name in ("node2", "node3", "node4"):
        world.add_node(name)
    world.run_until(world.converged, timeout=30.0)
    assert len(seen) == len(set(seen)) > 4
    key = world["node1"].engine.parts.own_key
    held = [world[name].engine.parts.store.get(key) for name in ("node2", "node3", "node4")]
    assert held[0] is held[1] is held[2]


def test_what_holds_is_verified_once_and_what_does_not_every_time(world, monkeypatch):
    checks = []

    def counting(public, context, message, signature):
        checks.append(context)
        return verify(public, context, message, signature)

    for place in ("catalog.records", "ipam.deeds", "wire.claims"):
        monkeypatch.setattr(f"overlay.{place}.verify", counting)
    shared = SharedReader(world.cluster, Limits())
    items, identity = items_of(world), world["node2"].membership.identity
    claim = Claim(identity.node, 1, 2, ClaimState.SUSPECT, False, b"")
    claim = claim._replace(proof=prove_alive(identity.signing, world.cluster.id, 1, 2))
    for item in items:
        shared.record(item) if item.key[:1] == b"n" else shared.chain(item.body)
    read = len(checks)
    for _ in range(2):
        for item in items:
            shared.verify(again(item))
        assert shared.is_proven(claim)
        assert shared.is_proven(claim._replace(state=ClaimState.ALIVE))
    assert (checks.count("alive"), len(checks) - read >= len(items)) == (1, True)
    held, record = len(checks), next(item for item in items if item.key[:1] == b"n")
    for _ in range(2):
        assert not shared.is_proven(claim._replace(incarnation=3))
        with pytest.raises(AuthError):
            shared.verify(record._replace(body=bytes(64) + record.body[64:]))
    assert len(checks) == held + 4


def test_the_memory_is_bounded(world, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 4)
    shared = SharedReader(world.cluster, Limits())
    items = [Item(b"n", version, b"") for version in range(6)]
    kept = [shared.keep(item) for item in items]
    assert shared.keep(again(items[-1])) is kept[-1]
    first = again(items[0])
    assert shared.keep(first) is first, "the oldest was forgotten"

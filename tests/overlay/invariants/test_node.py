"""Tests of the list for one node: each claim holds in a sound node, and is broken once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from overlay.conflict import Standing
from overlay.engine import Engine
from overlay.invariants import NODE_INVARIANTS, Memory, Watch
from overlay.routing.table import Announcement
from overlay.sim import World
from overlay.state import StoredPod
from tests.sim.worlds import settled


@pytest.fixture
def world() -> World:
    """Two nodes; node2 has the pods `web` and `db`."""
    world = settled(2, check=False)
    world["node2"].add_pod("web")
    world["node2"].add_pod("db")
    world.run(world.now + 1.0)
    return world


def pod_of(engine: Engine, name: str, **changes: object) -> None:
    pods = engine.parts.holdings.pods
    pods[name] = replace(pods[name], **changes)


def freeze(engine: Engine) -> None:
    engine.conflict.standing = Standing.HOLDS


def lose_routes(engine: Engine) -> None:
    engine.parts.routes.replace([], 0.0)


def route_wrongly(engine: Engine) -> None:
    plan, routes = engine.parts.plan, engine.parts.routes
    announced = [Announcement(e.prefix, e.node, e.origin) for e in routes.entries()]
    stray = Announcement(plan.prefix4(9), engine.identity.node, "block")
    routes.replace([*announced, stray], 0.0)


def forge_item(engine: Engine) -> None:
    store = engine.parts.store
    item = store.items()[0]
    store._set(item._replace(body=item.body[:-1] + bytes([item.body[-1] ^ 1])))


def forget_a_pod(engine: Engine) -> None:
    engine.parts.holdings.allocator.free("web", 0.0)


def count_twice(engine: Engine) -> None:
    engine.ledger.datagrams_in += 1


def owe_packets(engine: Engine) -> None:
    engine.ledger.queued_packets -= 1
    engine.ledger.sent_out += 1


def fill_store(engine: Engine) -> None:
    engine.parts.limits = replace(engine.parts.limits, items=1)


def swap_pods(engine: Engine) -> None:
    pods = engine.parts.holdings.pods
    web = pods.pop("web")
    pods["other"] = replace(web, name="other")


def use_a_block_of_another(engine: Engine) -> None:
    engine.parts.holdings.blocks_in_use.append(0)


def leave_the_block(engine: Engine) -> None:
    engine.parts.holdings.blocks_in_use.clear()


def use_an_address(engine: Engine) -> None:
    pods = engine.parts.holdings.pods
    pods["late"] = replace(pods["web"], name="late", host=9)


def take_a_block(engine: Engine) -> None:
    engine.parts.holdings.blocks_in_use.append(9)


def go_back(engine: Engine) -> None:
    node = engine.identity.node
    record = engine.parts.catalog.nodes[node]
    engine.parts.catalog.nodes[node] = replace(record, version=1)


def be_booted_earlier(engine: Engine) -> None:
    engine.parts.record.versions._version = 0


BREAKS: list[tuple[str, Callable[[Engine], None], str]] = [
    ("boot-grows", be_booted_earlier, "start 1 calls itself 0"),
    ("version-grows", go_back, "its record has version 0.1, it had 1."),
    ("block-titled", use_a_block_of_another, "10.244.0.0/24 is in use here and owned by node1"),
    ("pod-in-block", leave_the_block, "pod web has 10.244.1.2, in no block in use"),
    ("pod-in-block", lambda e: pod_of(e, "db", host=1), "pod db has 10.244.1.1, which is reserved"),
    ("address-once", lambda e: pod_of(e, "db", host=2), "pods web and db have 10.244.1.2"),
    ("quarantine-kept", swap_pods, "10.244.1.2 went from pod web to pod other without a rest"),
    ("routes-derived", lose_routes, "10.244.0.0/24 is node1's, and not routed to it"),
    ("routes-derived", route_wrongly, "10.244.9.0/24 is routed to node2, which does not use it"),
    ("items-verify", forge_item, "deed: it has another rank"),
    ("books-balance", count_twice, "things were read"),
    ("books-balance", owe_packets, "-1 packets"),
    ("tables-bounded", fill_store, "3 items, where 1 are allowed"),
    ("parts-agree", forget_a_pod, "an assertion does not hold"),
]


FROZEN: list[tuple[str, Callable[[Engine], None], str]] = [
    ("frozen-idle", use_an_address, "pod late was given 10.244.1.9 while the identity is in"),
    ("frozen-idle", take_a_block, "10.244.9.0/24 was taken into use while the identity is in"),
]


@pytest.mark.parametrize(("name", "damage", "evidence"), FROZEN)
def test_a_frozen_node_that_hands_out_something_is_found(world, name, damage, evidence):
    engine = world["node2"].engine
    watch = Watch(engine)
    watch.look(world.now)
    freeze(engine)
    watch.look(world.now + 1.0)
    damage(engine)
    found = watch.look(world.now + 2.0)
    assert any(breach.name == name and evidence in breach.evidence for breach in found), found


@pytest.mark.parametrize(
    ("name", "damage", "evidence"), BREAKS, ids=[b[1].__name__ for b in BREAKS]
)
def test_a_broken_claim_is_found_and_evidence_given(world, name, damage, evidence):
    engine = world["node2"].engine
    watch = Watch(engine)
    assert watch.look(world.now, thorough=True) == []
    damage(engine)
    found = watch.look(world.now + 1.0, thorough=True)
    assert any(breach.name == name and evidence in breach.evidence for breach in found), found


def test_every_claim_is_broken_once_here():
    broken = {name for name, _, _ in (*BREAKS, *FROZEN)}
    assert broken == {one.name for one in NODE_INVARIANTS}


def test_a_start_with_an_old_number_is_found(world):
    watch = Watch(world["node2"].engine, Memory(boot=1))
    found = watch.look(world.now)
    assert [(b.name, b.evidence) for b in found] == [("boot-grows", "start 1 follows start 1")]


def test_an_address_may_be_used_again_by_its_pod_and_by_others_after_its_rest(world):
    machine = world["node2"]
    watch = Watch(machine.engine)
    watch.look(world.now)
    pods = machine.engine.parts.holdings.pods
    web = pods.pop("web")
    assert watch.look(world.now + 1.0) == []
    pods["web"] = web
    assert watch.look(world.now + 2.0) == []
    del pods["web"]
    watch.look(world.now + 3.0)
    pods["other"] = StoredPod("other", "", web.block, web.host, 0)
    assert [b.name for b in watch.look(world.now + 61.0)] == ["quarantine-kept"]
    del pods["other"]
    watch.look(world.now + 62.0)
    watch.look(world.now + 122.0)
    pods["third"] = StoredPod("third", "", web.block, web.host, 0)
    assert watch.look(world.now + 123.0) == []


def test_a_rest_between_two_looks_is_no_breach(world):
    """A quarantine may be shorter than the time between two looks: both may be over by the next."""
    engine = world["node2"].engine
    watch, pods = Watch(engine), engine.parts.holdings.pods
    watch.look(world.now)
    web = pods.pop("web")
    pods["other"] = StoredPod("other", "", web.block, web.host, 0)
    assert watch.look(world.now + engine.parts.holdings.quarantine) == []
    del pods["other"]
    pods["third"] = StoredPod("third", "", web.block, web.host, 0)
    soon = world.now + 1.5 * engine.parts.holdings.quarantine
    assert [breach.name for breach in watch.look(soon)] == ["quarantine-kept"]

"""Certificates that end, or lose their worth: stores stay equal, and nobody gains by an old one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Final

import pytest

from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import node_key
from overlay.catalog.lapses import Lapses
from overlay.catalog.records import NodeRecord, PodEntry, sign_record
from overlay.config import Settings
from overlay.distrust import Distrust
from overlay.effects import Effect
from overlay.renewal import Renewal
from overlay.sim import Machine, World
from overlay.sim.inspector import InvariantError
from overlay.sim.world import EPOCH
from overlay.types import Endpoint, NodeId
from overlay.wire.certificate import issue_certificate
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta

from .test_authorities import SOON as RENEWED_SOON
from .test_authorities import change, has_session, renewed, rotate
from .worlds import carry, routes_to, settled

LIFE: Final = 60
NETWORK: Final = ip_network("192.168.40.0/24")
NAMES: Final = ("node1", "node2", "node3")


def with_a_dead_node(**settings: object) -> World:
    """Three nodes; one more died, and its certificate, which allowed a route, has ended since."""
    world = settled(3, **settings)
    membership = world.membership("gone", lifetime=LIFE, routes=[NETWORK])
    world.add_machine("gone", membership, world["node1"].stored.items)
    world.run_until(world.converged, timeout=20.0)
    assert all(routes_to(world, "gone", seen_by=name) for name in NAMES)
    world.crash("gone")
    world.run(world.now + LIFE + 60.0)
    return world


def gone_of(world: World) -> NodeId:
    return world["gone"].membership.identity.node


def roots(world: World) -> set[bytes]:
    return {machine.engine.parts.store.root() for machine in world.live()}


def known(machine: Machine, node: NodeId) -> NodeRecord:
    return machine.engine.parts.catalog.nodes[node]


def rates(world: World, seconds: float = 60.0) -> dict[str, float]:
    """Bytes that each live node sends in a second, at rest."""
    before = {machine.name: machine.traffic.out_bytes for machine in world.live()}
    world.run(world.now + seconds)
    return {
        machine.name: (machine.traffic.out_bytes - before[machine.name]) / seconds
        for machine in world.live()
    }


def quiet() -> float:
    """What the busiest of four nodes sends that have nothing to disagree about."""
    world = settled(4)
    world.run(world.now + 120.0)
    return max(rates(world).values())


def with_a_newcomer() -> World:
    world = with_a_dead_node()
    world.add_node("newcomer", seeds=["node1"])
    world.run(world.now + 120.0)
    return world


def refuse_what_has_ended(patch: pytest.MonkeyPatch) -> None:
    admit = Catalog._admit_record

    def by_the_clock(catalog: Catalog, item: Item) -> bool:
        record = catalog._reader.record(item)
        return catalog.lapses.wall < record.certificate.not_after and admit(catalog, item)

    patch.setattr(Catalog, "_admit_record", by_the_clock)


# -- stores are equal ------------------------------------------------------------------------------


def test_a_newcomer_holds_what_all_hold_and_is_as_quiet() -> None:
    world = with_a_newcomer()
    assert len(roots(world)) == 1
    assert max(rates(world).values()) <= 1.2 * quiet()
    for machine in world.live():
        assert known(machine, gone_of(world)).name == "gone"
        assert routes_to(world, "gone", seen_by=machine.name) == []
    assert world.converged()
    world.check_invariants()


def test_that_proof_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_what_has_ended(monkeypatch)
    world = with_a_newcomer()
    assert len(roots(world)) == 2
    assert min(rates(world).values()) > 1.2 * quiet()


def test_clocks_that_differ_keep_no_stores_apart() -> None:
    world = with_a_dead_node()
    world["node2"].set_clock(step=60.0)
    world["node3"].set_clock(step=-60.0)
    ends = world.membership("short", lifetime=LIFE)
    world.add_machine("short", ends, world["node1"].stored.items)
    world.run(world.now + 5.0)
    world.crash("short")
    for _ in range(12):
        world.run(world.now + 15.0)
        assert len(roots(world)) == 1
    assert all(routes_to(world, "short", seen_by=name) == [] for name in NAMES)
    world.check_invariants()


# -- nobody gains ----------------------------------------------------------------------------------


def tell_a_new_record(world: World) -> Item:
    """Node2 passes on what the dead node's key has signed since."""
    identity = world["gone"].membership.identity
    last = known(world["node1"], identity.node)
    whole = last.whole or last
    block = whole.blocks_in_use[0]
    item = sign_record(
        identity,
        version=whole.version + 5,
        endpoints=[Endpoint("198.18.77.7", 7777)],
        blocks_in_use=whole.blocks_in_use,
        free_blocks=9,
        pods=[PodEntry("new", block, 9, int(EPOCH))],
        is_authority=True,
        routes=[NETWORK],
    )
    world.inspector.excuse(identity.node)
    liar = world["node2"]
    world.inspector.excuse(liar.membership.identity.node)
    for name in ("node1", "node3"):
        target = world[name].membership.identity.node
        liar.perform(liar.engine.say(target, encode(Delta((item,))), world.now))
    world.run(world.now + 30.0)
    return item


def gains(world: World, name: str) -> list[str]:
    """What a node lets the dead node have."""
    machine, node = world[name], gone_of(world)
    record = known(machine, node)
    found = [str(prefix) for prefix in machine.engine.parts.catalog.ranges_of(node)]
    found += routes_to(world, "gone", seen_by=name)
    found += [pod.name for pod in machine.snapshot().pods if pod.node == "gone"]
    found += map(str, (*record.endpoints, *record.routes))
    return found + ["certifies"] * record.is_authority + ["gives"] * bool(record.free_blocks)


def test_a_new_record_of_a_node_whose_certificate_has_ended_gains_nothing() -> None:
    world = with_a_dead_node()
    item = tell_a_new_record(world)
    assert len(roots(world)) == 1
    world.restart("node3")
    world.run(world.now + 30.0)
    for name in NAMES:
        assert world[name].engine.parts.store.get(item.key) == item
        assert gains(world, name) == [], name
        assert not has_session(world, name, "gone")
        assert not world[name].engine.parts.complaints.entries
    world.check_invariants()


def test_what_protects_from_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lapses, "in_effect", lambda _, record: record)
    world = with_a_dead_node()
    tell_a_new_record(world)
    everything = {"new", str(NETWORK), "198.18.77.7:7777", "certifies", "gives"}
    assert everything < set(gains(world, "node1"))


def test_who_is_certified_again_is_back_with_all_it_had() -> None:
    world = with_a_dead_node()
    machine, founder = world["gone"], world["node1"].membership
    identity = machine.membership.identity
    old = identity.certificate
    certificate = issue_certificate(
        founder.authorities[0],
        **{key: getattr(old, key) for key in ("node", "static", "name", "cluster")},
        serial=old.serial + 90,
        not_before=old.not_before,
        not_after=old.not_after + 10 * LIFE,
    )
    machine.membership = replace(
        machine.membership, identity=replace(identity, certificate=certificate)
    )
    machine.start()
    world.run_until(world.converged, timeout=60.0)
    assert all(routes_to(world, "gone", seen_by=name) for name in NAMES)
    assert len(roots(world)) == 1
    world.check_invariants()


# -- nobody is blamed ------------------------------------------------------------------------------


def unrenewed(patch: pytest.MonkeyPatch) -> World:
    """Node4 runs and talks to all while its certificate ends, by three different clocks."""

    def dumb(renewal: Renewal, now: float) -> list[Effect]:
        renewal.wait(now)
        return []

    patch.setattr(Renewal, "on_deadline", dumb)
    world = settled(3)
    world.add_node("node4", lifetime=2 * LIFE)
    world.run_until(world.converged, timeout=20.0)
    world["node2"].set_clock(step=20.0)
    world["node3"].set_clock(step=-20.0)
    world.every(0.2, lambda: [carry(world, "node4", name) for name in NAMES])
    world.run(world.now + 5.0)
    assert all(has_session(world, name, "node4") for name in NAMES)
    world.run(world.now + 3 * LIFE)
    return world


def test_who_is_not_renewed_is_cut_off_and_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = unrenewed(monkeypatch)
    for name in NAMES:
        assert not has_session(world, name, "node4")
        assert routes_to(world, "node4", seen_by=name) == []
        assert not world[name].engine.parts.complaints.entries
    problems = {one.code for one in world["node4"].snapshot().problems}
    assert "certificate-expired" in problems
    world.check_invariants()


def test_a_session_that_outlived_its_routes_would_blame_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = Distrust._end

    def spare(distrust: Distrust, node: NodeId, now: float) -> list[Effect]:
        record = distrust._catalog.nodes.get(node)
        return [] if record is not None and record.whole is not None else end(distrust, node, now)

    monkeypatch.setattr(Distrust, "_end", spare)
    with pytest.raises(InvariantError, match="complains of node4"):
        unrenewed(monkeypatch)


# -- authorities that were removed -----------------------------------------------------------------


def with_a_void_record() -> World:
    """Node3 died, node4 was removed and node5 left; then the authority that certified them was
    removed. Node2 missed that, and a newcomer came after it."""
    world = settled(5, settings=Settings(timing=RENEWED_SOON.timing))
    world.crash("node3")
    world.crash("node4")
    world["node1"].remove("node4", force=True)
    world["node5"].leave()
    world.run(world.now + 30.0)
    rotate(world)
    world.run_until(lambda: renewed(world, "node1", "node2"), timeout=400.0)
    world.crash("node2")
    change(world, "remove", world.cluster.authority, force=True)
    world.join("newcomer")
    world.run_until(lambda: "newcomer" in world.machines, timeout=30.0)
    world.restart("node2")
    return world


def test_what_a_removed_authority_certified_keeps_no_stores_apart() -> None:
    world = with_a_void_record()
    world.run(world.now + 60.0)
    gone = {name: world[name].membership.identity.node for name in ("node3", "node4", "node5")}
    names = ("node1", "node2", "newcomer")
    held = [world[name].engine.parts.store for name in names]
    assert len({store.root() for store in held}) == 1
    for node in gone.values():
        assert all(store.get(node_key(node)) is None for store in held)
    assert max(rates(world).values()) <= 1.2 * quiet()
    world.restart("node2")
    world.run(world.now + 60.0)
    assert len({world[name].engine.parts.store.root() for name in names}) == 1
    world.check_invariants()


def test_the_proof_for_removed_authorities_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distrust, "_prune", lambda _: None)
    world = with_a_void_record()
    world.run(world.now + 60.0)
    names = ("node1", "node2", "newcomer")
    assert len({world[name].engine.parts.store.root() for name in names}) > 1

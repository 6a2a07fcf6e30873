"""Tests of overlay.steward: stored before announced, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Network
from itertools import pairwise

import pytest

from overlay.admission import TokenBook
from overlay.catalog.keys import block_of_key, node_key
from overlay.catalog.records import sign_record
from overlay.config import Limits, Settings, Timing
from overlay.conflict import REASSERT_INTERVAL
from overlay.effects import (
    Effect,
    NetworkChanged,
    Persist,
    Report,
    SendControl,
    SendDatagram,
)
from overlay.errors import CapacityError, OverlayError, RefusedError
from overlay.gossip.letter import GossipMessage
from overlay.gossip.machine import Gossip
from overlay.gossip.sync import ids_in
from overlay.ipam.deeds import Chain, decode_chain_untrusted
from overlay.pace import COUNT_WAITS
from overlay.sim import Link, Machine, World
from overlay.state import NodeState
from overlay.steward import JOIN_ITEMS_SIZE, PERSIST_DELAY
from overlay.types import Endpoint, NodeId
from overlay.views import NodeState as Liveness
from overlay.wire.cluster import Cluster
from overlay.wire.control import decode_untrusted
from overlay.wire.items import item_id
from overlay.wire.messages import BlockRequest, Delta, Have, Ids, Refusal
from overlay.wire.token import MAX_ENDPOINTS, JoinToken
from tests.sim.worlds import LOSSY, blocks_of, routes_to, settled

FULL = 1_000_000
"""Writes that fail: more than any test makes."""


@lru_cache(maxsize=4096)
def chain_of(body: bytes, cluster: Cluster) -> Chain:
    return decode_chain_untrusted(body, cluster)


def stored(machine: Machine) -> NodeState:
    return machine.stored


def knows_pod(world: World, name: str, pod: str) -> bool:
    return any(view.name == pod for view in world[name].snapshot().pods)


def refused(call, *arguments: object) -> str:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value.code


def assert_stored_first(effects: list[Effect]) -> None:
    kinds = [type(effect) for effect in effects]
    assert Persist in kinds
    assert not {SendDatagram, SendControl} & set(kinds[: kinds.index(Persist)])


def announced_but_not_stored(world: World) -> Iterator[str]:
    """What some node knows of another that is not on the other's disk."""
    disks = {
        machine.membership.identity.node: {item.key: item for item in stored(machine).items}
        for machine in world.machines.values()
    }
    for machine in world.live():
        own = machine.membership.identity.node
        for item in machine.engine.parts.store.items():
            for node, disk in disks.items():
                if node == own:
                    continue
                on_disk = disk.get(item.key)
                if item.key == node_key(node) and (on_disk is None or on_disk < item):
                    yield f"record {item.version} of {node[:4].hex()} is at {machine.name}"
                if block_of_key(item.key) is None:
                    continue
                signed = chain_of(item.body, world.cluster)
                known = chain_of(on_disk.body, world.cluster) if on_disk else None
                kept = () if known is None else known.deeds
                cut = 0 if known is None else known.base_sequence  # a base stands for what was
                given = [
                    deed for deed in signed.deeds if deed.giver == node and deed.sequence > cut
                ]
                if lost := [deed for deed in given if deed not in kept]:
                    yield f"{lost} is at {machine.name}"


def check(world: World) -> None:
    world.check_invariants()
    assert list(announced_but_not_stored(world)) == []


# -- stored before it is announced -------------------------------------------------------------


def test_every_operation_is_stored_before_anything_is_sent() -> None:
    world = settled(3)
    world.run(world.now + 3.0)
    founder, other = world["node1"].engine, world["node2"].engine
    taker = world.membership("node9").identity.node
    now = world.now
    operations = [
        founder.add_pod("web", "/ns", None, now)[1],
        founder.remove_pod("web", now)[1],
        founder.mint_token(60.0, now)[1],
        founder._steward.on_block_request(taker, BlockRequest(1), now),
        founder.on_endpoints((Endpoint("192.0.2.1", 1),), now),
        other.leave(now),
        founder.stop(now),
    ]
    for effects in operations:
        assert_stored_first(effects)


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_ever_knows_what_is_not_on_the_disk_of_who_made_it(seed: int) -> None:
    """Pods come and go, nodes join, leave and crash, disks fill up, paths are cut."""
    rng = random.Random(seed)
    world = settled(4, seed=seed, link=LOSSY, cidr=IPv4Network("10.244.0.0/20"))
    world.every(0.2, lambda: check(world))
    for step in range(40):
        machine = world[rng.choice(list(world.machines))]
        action = rng.randrange(8)
        with suppress(OverlayError):
            if not machine.live:
                machine.start() if not machine.left else None
            elif action < 2:
                machine.add_pod(f"pod{step}")
            elif action == 2:
                machine.remove_pod(rng.choice(sorted(machine.engine.parts.holdings.pods) or ["x"]))
            elif action == 3:
                machine.disk.fail(rng.choice([0, 1, 3, 10]))
            elif action == 4:
                machine.crash()
                machine.start()
            elif action == 5 and len(world.machines) < 9:
                world.add_node(f"node{len(world.machines) + 1}")
            elif action == 6 and step > 20:
                machine.leave()
            elif action == 7:
                world.cut(machine.name, "node1") if step % 2 else world.heal()
        world.run(world.now + rng.uniform(0.0, 0.6))
    for machine in world.machines.values():
        machine.disk.fail(0)
    world.heal()
    world.run_until(world.converged, timeout=60.0)
    world.run(world.now + 5.0)
    for machine in world.live():
        assert stored(machine) == everything(machine)


def everything(machine: Machine) -> NodeState:
    """What a node knows that is to be on its disk."""
    parts = machine.engine.parts
    registrar = parts.registrar
    state = parts.holdings.stored(
        tokens=registrar.tokens.encode() if registrar else b"",
        names=registrar.encode() if registrar else b"",
        standing=machine.engine.conflict.standing,
        epoch=parts.wall.epoch,
    )
    return replace(state, items=tuple(parts.store.items()))


# -- a disk that does not write ----------------------------------------------------------------


def test_what_cannot_be_stored_is_not_announced_and_is_once_it_can() -> None:
    world = settled(3)
    machine = world["node2"]
    machine.disk.fail(FULL)
    machine.add_pod("web")  # taken before anyone could know that the disk is full
    world.run(world.now + 10.0)
    assert machine.engine.not_stored
    assert not knows_pod(world, "node1", "web")
    check(world)
    machine.disk.fail(0)
    world.run_until(lambda: knows_pod(world, "node1", "web"), timeout=5.0)
    assert not machine.engine.not_stored
    world.run_until(lambda: knows_pod(world, "node3", "web"), timeout=1.0)
    check(world)


def test_what_could_not_be_stored_is_part_of_what_is_stored_next() -> None:
    world = settled(3)
    machine = world["node2"]
    world.run(world.now + 5.0)
    machine.disk.fail(4)
    before = dict(machine.disk.entries)
    machine.add_pod("web")
    world["node1"].add_pod("db")
    machine.perform(machine.engine.on_endpoints((Endpoint("192.0.2.1", 1),), world.now))
    assert machine.disk.entries == before
    machine.remove_pod("web")
    world.run(world.now + 10.0)
    assert stored(machine) == everything(machine)
    differ = {key for key, value in machine.disk.entries.items() if before.get(key) != value}
    # Its record and the other's, and the address that rests; no pod.
    assert {key[:7] for key in differ} == {b"items/n", b"resting"}


def test_a_change_is_stored_as_what_differs_and_not_as_all_that_is_known() -> None:
    world = settled(5)
    world.run(world.now + 5.0)
    machine = world["node2"]
    own = b"items/" + node_key(machine.membership.identity.node)
    _, effects = machine.engine.add_pod("web", "/ns", None, world.now)
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert [key for key, _ in persist.changes] == [own, b"pods/web"]
    machine.perform(effects)
    _, effects = machine.engine.remove_pod("web", world.now)
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    # So soon after the first change, the record is made anew later.
    assert [key for key, _ in persist.changes] == [b"pods/web", b"resting/1.2"]
    assert dict(persist.changes)[b"pods/web"] is None


def test_items_that_are_not_taken_over_at_a_start_leave_the_disk() -> None:
    world = settled(2)
    stranger = World(9).membership("node9").identity
    foreign = sign_record(stranger, version=1)
    machine = world["node2"]
    world.crash("node2")
    state = stored(machine)
    machine.disk.restore(replace(state, items=(*state.items, foreign)).entries())
    machine.start()
    world.run(world.now + 5.0)
    assert foreign not in stored(machine).items
    assert stored(machine) == everything(machine)


def test_without_sync_a_loss_of_power_takes_back_what_was_announced() -> None:
    """What a disk that breaks its promise costs: the check above sees it."""
    world = settled(3, check=False)
    machine = world["node2"]
    world.run(world.now + 5.0)
    machine.add_pod("kept")
    world.run(world.now + 2.0)
    world.power_loss("node2")
    check(world)
    machine.start()
    machine.disk.fsync = False
    machine.add_pod("lost")
    world.run_until(lambda: knows_pod(world, "node1", "lost"), timeout=5.0)
    world.power_loss("node2")
    assert any("is at node1" in lost for lost in announced_but_not_stored(world))


def test_what_waited_for_a_session_is_not_sent_when_it_could_not_be_stored() -> None:
    world = settled(3)
    machine = world["node2"]
    world.restart("node2")  # no session yet: whatever is announced has to wait for one
    machine.disk.fail(FULL)
    machine.add_pod("web")
    world.run(world.now + 5.0)
    assert machine.snapshot().sessions
    assert not knows_pod(world, "node1", "web")
    check(world)


def test_a_start_that_cannot_be_stored_is_not_announced() -> None:
    world = settled(3)
    world.crash("node2")
    world["node2"].disk.fail(FULL)
    world.restart("node2")
    world.every(0.05, lambda: check(world))
    world.run(world.now + 5.0)
    assert not world["node2"].live  # as the daemon ends: the next start would be number 2, too
    world["node2"].disk.fail(0)
    world.restart("node2")
    world.run(world.now + 5.0)
    node = world["node2"].membership.identity.node
    assert world["node1"].engine.parts.catalog.nodes[node].boot == 2


def test_requests_are_refused_while_nothing_can_be_stored() -> None:
    world = settled(3)
    for name in ("node1", "node2"):
        world[name].disk.fail(FULL)
        world[name].add_pod("first")
    assert refused(world["node1"].mint_token) == "not-stored"
    assert refused(world["node2"].add_pod, "second") == "not-stored"
    assert refused(world["node2"].leave) == "not-stored"
    assert "second" not in world["node2"].engine.parts.holdings.pods


def test_the_failure_is_reported_once_and_the_disk_is_tried_again() -> None:
    world = settled(1)
    world["node1"].disk.fail(5, "read-only file system")
    world["node1"].add_pod("web")
    world.run(world.now + 2.5)
    (report,) = world.trace.notes("state.not-stored", "node1")
    assert report.fields["why"] == "read-only file system"
    world.run(world.now + 5.0)
    assert [pod.name for pod in stored(world["node1"]).pods] == ["web"]
    assert world["node1"].snapshot().problems == ()


def test_a_block_request_is_refused_without_saying_what_is_wrong_here() -> None:
    world = settled(1)
    world["node1"].disk.fail(FULL, "/secret/path is full")
    world["node1"].add_pod("web")
    world.add_node("node2")
    world.run(world.now + 3.0)
    (problem, *_) = world["node2"].snapshot().problems
    assert problem.code == "no-block"
    assert "cannot store" in problem.why
    assert "secret" not in problem.why
    assert len(world["node1"].engine.parts.holdings.owned()) == 256


def test_a_joiner_is_refused_while_nothing_can_be_stored_and_its_token_stays_good() -> None:
    world = settled(1)
    token = world["node1"].mint_token()
    world["node1"].disk.fail(FULL)
    world["node1"].add_pod("web")
    early = world.join("node2", token)
    world.run(world.now + 3.0)
    assert early.failure is not None
    assert early.failure.code == "not-stored"
    world["node1"].disk.fail(0)
    world.run(world.now + 2.0)
    late = world.join("node3", token)
    world.run(world.now + 3.0)
    assert late.failure is None
    assert "node3" in world.machines


def test_a_grant_that_could_not_be_stored_is_not_given_to_who_asks_again() -> None:
    world = settled(1)
    token = world["node1"].mint_token()
    world["node1"].disk.fail(FULL)
    applicant = world.join("node2", token)
    world.run(world.now + 3.0)
    assert applicant.failure is not None
    assert applicant.failure.code == "not-stored"
    assert "node2" not in world.machines


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
    on_disk = {item.key: item for item in stored(world["node3"]).items}
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


# -- tokens and joining ------------------------------------------------------------------------


def test_only_the_authoritys_node_makes_tokens() -> None:
    world = settled(2)
    assert refused(world["node2"].mint_token) == "not-authority"


def test_a_token_needs_an_address_and_has_no_more_than_it_can_carry() -> None:
    world = settled(1)
    machine = world["node1"]
    machine.perform(machine.engine.on_endpoints((), world.now))
    assert refused(machine.mint_token) == "no-endpoint"
    many = tuple(Endpoint(f"192.0.2.{n}", 1) for n in range(1, 41))
    machine.perform(machine.engine.on_endpoints(many, world.now))
    assert JoinToken.parse(machine.mint_token()).endpoints == many[:MAX_ENDPOINTS]


def test_a_token_is_on_the_disk_before_it_is_shown() -> None:
    world = settled(1)
    token = JoinToken.parse(world["node1"].mint_token())
    assert TokenBook.decode(stored(world["node1"]).tokens).get(token.id) is not None


def test_a_join_is_stored_and_survives_a_crash_of_the_authoritys_node() -> None:
    world = settled(1)
    token = world["node1"].mint_token()
    world.join("node2", token)
    world.run_until(world.converged, timeout=5.0)
    assert world.trace.notes("node.admitted", "node1")
    world.crash("node1")
    world.restart("node1")
    again = world.join("node3", token)
    world.run(world.now + 5.0)
    assert again.failure is not None
    assert again.failure.code == "token-used"


def test_a_name_is_free_after_its_node_left_and_taken_while_its_next_bearer_lives() -> None:
    world = settled(1)
    registrar, steward = world["node1"].engine.parts.registrar, world["node1"].engine._steward
    assert registrar is not None
    world.join("twin")
    world.run_until(world.converged, timeout=5.0)
    first = registrar.holder("twin")
    assert first == world["twin"].membership.identity.node
    assert steward._gone_names(registrar) == frozenset()
    world["twin"].leave()
    world.run_until(lambda: world["twin"].left, timeout=5.0)
    world.run(world.now + 2.0)
    assert steward._gone_names(registrar) == {"twin"}
    # Another machine is given the name; the tombstone of the first is still there.
    registrar._names["twin"] = world.membership("twin").identity.node
    assert steward._gone_names(registrar) == frozenset()


def test_a_joiner_gets_records_to_start_with_but_no_more_than_fit() -> None:
    world = settled(12)
    items = world["node1"].engine._steward._items_for_joiner()
    assert items[0].key == node_key(world["node1"].membership.identity.node)
    assert len(items) == 12
    assert len({item.key for item in items}) == 12
    for name in ("big1", "big2", "big3", "big4"):
        identity = world.membership(name).identity
        large = sign_record(identity, version=1, software="x" * 9_000)
        world["node1"].engine.parts.store.put(large)
    items = world["node1"].engine._steward._items_for_joiner()
    assert 4 <= len(items) < 16
    assert sum(len(item.body) for item in items) <= JOIN_ITEMS_SIZE


# -- leaving -----------------------------------------------------------------------------------


def test_leaving_is_confirmed_by_every_member_that_is_there() -> None:
    world = settled(4)
    world.run(world.now + 3.0)
    began = world.now
    world["node4"].leave()
    world.run_until(lambda: world["node4"].left, timeout=5.0)
    (left,) = world.trace.notes("node.left", "node4")
    assert left.fields["confirmed"] == 3
    assert left.at - began < Timing().leave_after
    assert all(routes_to(world, "node4", seen_by=f"node{n}") == [] for n in (1, 2, 3))


def test_leaving_does_not_wait_for_the_dead() -> None:
    world = settled(3)
    world.crash("node2")
    began = world.now
    world["node3"].leave()
    world.run_until(lambda: world["node3"].left, timeout=10.0)
    assert Timing().leave_after <= world.now - began <= Timing().leave_after + 1.5
    assert world.trace.notes("node.left", "node3")[0].fields["confirmed"] == 1
    check(world)


def test_leaving_over_a_bad_path_is_confirmed_all_the_same() -> None:
    world = settled(4, link=Link(latency=0.02, loss=0.2))
    world.run(world.now + 3.0)
    # Only members that are ready are told; with such losses one may be suspect for a moment.
    ready = {Liveness.READY}
    world.run_until(
        lambda: {node.state for node in world["node4"].snapshot().nodes} == ready, timeout=20.0
    )
    world["node4"].leave()
    world.run_until(lambda: world["node4"].left, timeout=10.0)
    assert world.trace.notes("node.left", "node4")[0].fields["confirmed"] == 3


def test_a_leaving_node_keeps_no_pods_and_no_blocks_and_is_stored_as_gone() -> None:
    world = settled(2)
    world["node2"].add_pod("web")
    world["node2"].leave()
    shown = world["node2"].snapshot()
    assert [pod for pod in shown.pods if pod.local] == []
    assert (shown.own_prefixes, shown.address) == ((), None)
    world.run_until(lambda: world["node2"].left, timeout=5.0)
    state = stored(world["node2"])
    assert (state.left, state.pods, state.blocks_in_use) == (True, (), ())


def test_the_authoritys_node_does_not_leave() -> None:
    world = settled(2)
    before = world["node1"].snapshot()
    assert refused(world["node1"].leave) == "authority"
    assert world["node1"].snapshot() == before


def test_a_node_that_reaches_nobody_does_not_leave() -> None:
    world = settled(2)
    world.crash("node1")
    world.run(world.now + 10.0)
    before = world["node2"].snapshot()
    assert refused(world["node2"].leave) == "no-member"
    assert world["node2"].snapshot() == before
    assert blocks_of(world, "node2")


def test_a_leave_is_over_only_when_it_is_stored_and_was_told() -> None:
    world = settled(3)
    machine = world["node3"]
    machine.disk.fail(FULL)
    machine.leave()
    world.run(world.now + 10.0)  # much longer than `leave_after`
    assert not machine.left
    assert routes_to(world, "node3", seen_by="node1")
    check(world)
    machine.disk.fail(0)
    world.run_until(lambda: machine.left, timeout=5.0)
    assert world.trace.notes("node.left", "node3")[0].fields["confirmed"] == 2
    assert stored(machine).left
    assert routes_to(world, "node3", seen_by="node1") == []


def test_a_leave_that_cannot_be_stored_is_mentioned_to_nobody(monkeypatch) -> None:
    world = settled(3)
    machine = world["node3"]
    leaver, heard = machine.membership.identity.node, []
    understand = Gossip.on_message

    def listen(gossip: Gossip, node: NodeId, message: GossipMessage, now: float) -> list[Effect]:
        heard.extend([message] if node == leaver else [])
        return understand(gossip, node, message, now)

    monkeypatch.setattr(Gossip, "on_message", listen)
    machine.disk.fail(FULL)
    machine.leave()
    world.run(world.now + 8.0)
    own = {item.key for item in machine.engine._steward.farewell._items}
    assert len(own) == 2  # the deed and the tombstone
    assert heard
    ids = {item_id(item) for item in machine.engine._steward.farewell._items}
    for message in heard:
        if isinstance(message, (Have, Ids)):
            assert not ids & set(ids_in(message.ids))
        if isinstance(message, Delta):
            assert not own & {item.key for item in message.items}


def test_the_same_endpoints_again_are_no_change() -> None:
    world = settled(1)
    machine = world["node1"]
    assert machine.engine.on_endpoints((machine.endpoint,), world.now) == []

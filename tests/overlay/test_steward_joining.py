"""Tests of overlay.steward: nodes that join, and that leave."""

from __future__ import annotations

import pytest

from overlay.catalog.keys import node_key
from overlay.catalog.records import sign_record
from overlay.config import Timing
from overlay.conflict import DOUBT
from overlay.effects import Effect
from overlay.gossip.letter import GossipMessage
from overlay.gossip.machine import Gossip
from overlay.gossip.sync import ids_in
from overlay.sim import Link
from overlay.steward import JOIN_ITEMS_SIZE
from overlay.types import NodeId
from overlay.views import NodeState as Liveness
from overlay.wire.authority import AUTHORITIES_KEY, LINKS_MAX, LIST_MAX
from overlay.wire.certificate import CERTIFICATE_MAX
from overlay.wire.cluster import CLUSTER_MAX
from overlay.wire.control import encode
from overlay.wire.items import BODY_LIMIT, Item, item_id
from overlay.wire.messages import Delta, Have, Ids, JoinGrant
from tests.sim.worlds import blocks_of, routes_to, settled
from tests.support.stewards import FULL, check, refused

# -- tokens and joining ------------------------------------------------------------------------


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


def test_nobody_is_admitted_while_the_authoritys_own_state_may_be_old() -> None:
    world = settled(1)
    founder = world["node1"]
    tokens = [founder.mint_token(), founder.mint_token()]
    stranger = NodeId(bytes(32))
    founder.perform(founder.engine.conflict.on_stamp_refused(stranger, founder.now))
    early = world.join("early", tokens[0])
    world.run(world.now + DOUBT / 2)
    assert early.failure is not None
    assert early.failure.code == "identity-conflict"
    world.run(world.now + DOUBT)
    del world.applicants["early"]
    world.join("late", tokens[1])
    world.run_until(world.converged, timeout=5.0)


def test_a_name_is_free_after_its_node_left_and_taken_while_its_next_bearer_lives() -> None:
    world = settled(1)
    registrar, steward = world["node1"].engine.parts.registrar, world["node1"].engine._steward
    assert registrar is not None
    world.join("twin")
    world.run_until(world.converged, timeout=5.0)
    first = registrar.holder("twin")
    assert first == world["twin"].membership.identity.node
    assert steward.gone_names(registrar) == frozenset()
    world["twin"].leave()
    world.run_until(lambda: world["twin"].left, timeout=5.0)
    world.run(world.now + 2.0)
    assert steward.gone_names(registrar) == {"twin"}
    # Another machine is given the name; the tombstone of the first is still there.
    registrar._names["twin"] = world.membership("twin").identity.node
    assert steward.gone_names(registrar) == frozenset()


def test_a_joiner_gets_records_to_start_with_but_no_more_than_fit() -> None:
    world = settled(12)
    items = world["node1"].engine._steward.items_for_joiner()
    assert items[0].key == node_key(world["node1"].membership.identity.node)
    assert len(items) == 12
    assert len({item.key for item in items}) == 12
    for name in ("big1", "big2", "big3", "big4"):
        identity = world.membership(name).identity
        large = sign_record(identity, version=1, software="x" * 9_000)
        world["node1"].engine.parts.store.put(large)
    items = world["node1"].engine._steward.items_for_joiner()
    assert 4 <= len(items) < 16
    assert sum(len(item.body) for item in items) <= JOIN_ITEMS_SIZE


@pytest.mark.parametrize("own", [48_000, BODY_LIMIT - LIST_MAX - 50])
def test_beside_the_longest_list_a_joiner_gets_a_record_and_the_grant_fits(own) -> None:
    world = settled(3)
    engine = world["node1"].engine
    store, authorities = engine.parts.store, Item(AUTHORITIES_KEY, LINKS_MAX, bytes(LIST_MAX))
    store.put(authorities)
    store.put(Item(engine.parts.own_key, 1 << 40, bytes(own)))
    items = engine._steward.items_for_joiner()
    records = [item for item in items if item.key[:1] == b"n"]
    assert items[0] == authorities
    assert records
    assert encode(JoinGrant(1, bytes(CERTIFICATE_MAX), bytes(CLUSTER_MAX), bytes(32), items))


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
    state = world["node2"].stored
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
    assert machine.stored.left
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

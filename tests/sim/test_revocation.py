"""Proofs: who was removed has no session with anybody who can know, whatever it does about that."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.revocation import APART, REMOVED, TARGET, deafen, is_rid_of, ping, revoke
from overlay.catalog.keys import deed_item
from overlay.catalog.records import sign_record
from overlay.effects import Effect
from overlay.engine import Engine
from overlay.forwarding.inbound import Arrival, Control
from overlay.ipam.deeds import sign_deed
from overlay.keys import StaticKey
from overlay.knowledge import Knowledge
from overlay.parts import Parts
from overlay.sim import Link, Machine, World
from overlay.sim.world import EPOCH
from overlay.types import Endpoint, NodeId
from overlay.wire.certificate import NAME_MAX, Certificate, Identity, issue_certificate
from overlay.wire.control import encode
from overlay.wire.items import ID_SIZE
from overlay.wire.messages import BlockRequest, Buckets, Delta, Have, Ids, Summary
from tests.sim.worlds import routes_to, settled

SEEDS = 8


def with_a_removed_node(nodes: int = 4, **settings: Any) -> World:
    """The founder has removed node2, which takes no notice and goes on talking to everybody."""
    world = settled(nodes, **settings)
    deafen(world[REMOVED])
    world.every(0.5, lambda: ping(world, REMOVED))
    world.run(world.now + 2.0)
    world["node1"].remove(REMOVED, force=True)
    return world


def removed_of(world: World) -> NodeId:
    return world[REMOVED].membership.identity.node


def rid(world: World, *names: str) -> bool:
    return all(is_rid_of(world[name], removed_of(world)) for name in names)


# -- how long it takes -----------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False], ids=["with it", "without it"])
@pytest.mark.parametrize("loss", [0.0, 0.05, 0.2])
def test_sessions_end_within_10_s_on_each_side_of_a_partition(loss: float, together: bool) -> None:
    for seed in range(SEEDS):
        times = revoke(seed, 5, loss, together=together)
        assert times.here <= TARGET, seed
        assert times.there <= TARGET, seed


def test_on_a_perfect_network_everybody_ends_it_in_less_than_two_looks() -> None:
    world = with_a_removed_node(8)
    others = [name for name in world.machines if name != REMOVED]
    assert world.run_until(lambda: rid(world, *others), timeout=TARGET) <= 2.0
    world.run(world.now + 30.0)
    assert rid(world, *others)
    assert all(routes_to(world, REMOVED, seen_by=name) == [] for name in others)
    assert all(world[name].snapshot().ledger.drops["bad_certificate"] > 0 for name in others)


def test_a_node_removed_without_hearing_of_it_learns_it_by_the_answer_to_its_call() -> None:
    world = settled(3)
    world.partition([REMOVED], ["node1", "node3"])
    world["node1"].remove(REMOVED, force=True)
    world.run(world.now + 30.0)
    assert removed_of(world) not in world[REMOVED].engine.parts.catalog.removed
    world.heal()
    world.run_until(
        lambda: removed_of(world) in world[REMOVED].engine.parts.catalog.removed, timeout=TARGET
    )


def test_the_proof_of_a_removal_fits_the_answer_with_the_longest_name_there_is() -> None:
    world, name = settled(2), "n" * NAME_MAX
    world.add_node(name)
    world.run(world.now + 5.0)
    world.crash(name)
    world["node1"].remove(name, force=True)
    world.run(world.now + 5.0)
    world.restart(name)
    world.run_until(lambda: knows_removal(world[name]), timeout=TARGET)


# -- what it may try -------------------------------------------------------------------------------


def test_a_handshake_that_is_half_done_when_the_removal_comes_gives_no_session() -> None:
    world = between_response_and_first_burst()
    world["node1"].remove(REMOVED, force=True)
    world.run(world.now + 1.0)
    assert rid(world, "node1", "node3")
    world.check_invariants()


def between_response_and_first_burst() -> World:
    """Node1 has answered an initiation of the removed node, which has not heard the answer yet."""
    world = settled(3, link=Link(latency=0.05))
    deafen(world[REMOVED])
    founder, removed = world["node1"], world[REMOVED]
    for near, far in ((founder, removed), (removed, founder)):
        near.engine.parts.peering.forget(far.membership.identity.node, world.now)
    hello = encode(Have(b""))
    removed.perform(removed.engine.say(founder.membership.identity.node, hello, world.now))
    sessions = founder.engine.parts.sessions
    world.run_until(lambda: sessions.held(removed_of(world)) != [], timeout=1.0)
    assert sessions.current(removed_of(world)) is None
    return world


def certified_anew(world: World, change: str) -> Identity:
    """The removed node's identity under a certificate that it did not have."""
    old = world[REMOVED].membership.identity
    authority = world["node1"].membership.authorities[0]
    assert authority is not None
    static = StaticKey(bytes(range(32))) if "static" in change else old.static
    certificate = issue_certificate(
        authority,
        node=old.node,
        static=static.public,
        name="another" if "name" in change else old.name,
        cluster=world.cluster.id,
        serial=77,
        not_before=int(EPOCH),
        not_after=int(EPOCH) + 86_400,
    )
    return Identity(old.signing, static, certificate)


CHANGES = ["serial", "name", "static key", "name and static key"]


@pytest.mark.parametrize("change", CHANGES)
def test_another_certificate_for_the_same_identity_is_worth_nothing(change: str) -> None:
    world = comes_back(change)
    assert rid(world, "node1", "node3", "node4")
    for name in ("node1", "node3", "node4"):
        assert "another" not in {node.name for node in world[name].snapshot().nodes}


def comes_back(change: str) -> World:
    """The removed node starts again, with all it ever knew and a new certificate."""
    world = with_a_removed_node()
    items = world[REMOVED].stored.items
    world.run_until(lambda: rid(world, "node1", "node3", "node4"), timeout=TARGET)
    world.crash(REMOVED)
    world.inspector.distrust("again")
    membership = replace(world[REMOVED].membership, identity=certified_anew(world, change))
    again = world.add_machine("again", membership, items)
    again.perform(again.engine.parts.sessions.connect(*somebody(again), now=world.now))
    world.run(world.now + 10.0)
    return world


def somebody(machine: Machine) -> tuple[NodeId, Endpoint]:
    node, record = next(
        (node, record)
        for node, record in machine.engine.parts.catalog.nodes.items()
        if record.name == "node1"
    )
    machine.engine.parts.peering.path_to(node)
    return node, record.endpoints[0]


def test_what_others_pass_on_for_it_has_no_effect() -> None:
    """An accomplice brings its newer records, and a deed of its; they change nothing but stores."""
    world = with_a_removed_node(check=False)  # what a liar signs, its disk has not stored
    world.run_until(lambda: rid(world, "node1", "node3", "node4"), timeout=TARGET)
    identity, accomplice = world[REMOVED].membership.identity, world["node4"]
    (block,) = world[REMOVED].engine.parts.holdings.owned()
    present = world[REMOVED].own_record()
    assert present is not None
    newer = sign_record(
        identity, version=present.version + 9, blocks_in_use=[block], software="removed"
    )
    chain = world["node1"].engine.parts.catalog.titles.chain(block)
    taker = accomplice.membership.identity.node
    deed = deed_item(sign_deed(identity.signing, chain, taker, cluster=world.cluster.id))
    for name in ("node1", "node3"):
        node = world[name].membership.identity.node
        told = accomplice.engine.say(node, encode(Delta((newer, deed))), world.now)
        accomplice.perform(told)
    world.run(world.now + 5.0)
    assert rid(world, "node1", "node3")
    for name in ("node1", "node3", "node4"):
        parts = world[name].engine.parts
        departed = parts.catalog.departed[identity.node]
        assert departed is not None
        assert departed.software == "removed", "it did arrive"
        assert identity.node not in parts.catalog.nodes
        assert routes_to(world, REMOVED, seen_by=name) == []
        assert block not in parts.holdings.blocks_in_use
        parts.catalog.check_invariants()


# -- who hears of it only through the removed node -------------------------------------------------


def distractions(world: World, target: Machine) -> list[bytes]:
    """Everything that keeps a node busy with comparing stores, and asking for what never comes."""
    rng = random.Random(world.now)
    return [
        encode(Summary(rng.randbytes(8), 1000, rng.randbytes(8))),
        encode(Buckets(rng.randbytes(8 * 256))),
        encode(Ids(b"", rng.randbytes(100 * ID_SIZE))),
        encode(Have(target_ids(world) + rng.randbytes(100 * ID_SIZE))),
    ]


def target_ids(world: World) -> bytes:
    """The id of its removal: it offers the very thing, and does not send it."""
    store = world["node1"].engine.parts.store
    return store.id_of(b"a" + removed_of(world)) or b""


@pytest.mark.parametrize("seed", range(4))
def test_it_cannot_keep_a_node_from_comparing_with_others(seed: int) -> None:
    """Node3 was alone with it; from the moment on at which it meets others, it is kept busy."""
    world = settled(4, seed=seed)
    deafen(world[REMOVED])
    world.partition([REMOVED, APART], ["node1", "node4"])
    world["node1"].remove(REMOVED, force=True)
    world.run(world.now + 20.0)
    target, removed = world[APART], world[REMOVED]
    node = target.membership.identity.node

    def distract() -> None:
        for message in distractions(world, target):
            removed.perform(removed.engine.say(node, message, world.now))

    world.every(0.1, distract)
    world.run(world.now + 3.0)
    assert not rid(world, APART)
    world.heal()
    world.run_until(lambda: rid(world, APART), timeout=TARGET)


def test_a_node_that_knows_only_the_removed_one_is_rid_of_it_soon_after_it_meets_others() -> None:
    world = with_a_removed_node(3)
    world.run_until(lambda: rid(world, "node1", APART), timeout=TARGET)
    world.add_node("late", seeds=[REMOVED])
    world.run_until(lambda: rid(world, "late") and knows_removal(world["late"]), timeout=TARGET)


def knows_removal(machine: Machine) -> bool:
    return bool(machine.engine.parts.catalog.removed)


def test_nothing_that_it_says_counts_in_the_last_second_of_its_session() -> None:
    world = last_second()
    assert asked_for_a_block(world) == 0


def last_second() -> World:
    world = settled(3)
    deafen(world[REMOVED])
    world["node1"].remove(REMOVED, force=True)
    return world


def asked_for_a_block(world: World) -> int:
    """How often the founder answers the removed node, in a session that is still there."""
    founder, removed = world["node1"], world[REMOVED]
    assert founder.engine.parts.sessions.current(removed_of(world)) is not None
    path = founder.engine.parts.paths[removed_of(world)]
    world.run(world.now + 0.03)  # its last word has left
    before = path.tx_bytes
    ask = removed.engine.say(founder.membership.identity.node, encode(BlockRequest(9)), world.now)
    removed.perform(ask)
    world.run(world.now + 0.03)
    return path.tx_bytes - before


# -- the checks are alive --------------------------------------------------------------------------


def test_without_the_look_at_removals_the_removed_node_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(parts: Parts, data: bytes) -> Certificate:
        return parts.reader.certificate(data)

    monkeypatch.setattr(Parts, "_read_certificate", read)
    assert not rid(comes_back("static key"), "node1")


def test_without_letting_go_of_half_done_handshakes_one_comes_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = between_response_and_first_burst()
    monkeypatch.setattr("overlay.peering.Peering.forget", lambda *_: [])
    world["node1"].remove(REMOVED, force=True)
    world.run(world.now + 1.0)
    assert not rid(world, "node1")


def test_without_ending_sessions_they_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Knowledge, "forget_gone", lambda *_: [])
    world = with_a_removed_node()
    world.run(world.now + TARGET)
    assert not rid(world, "node1")


def test_without_the_look_at_who_speaks_its_last_words_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_arrival: Callable[..., list[Effect]] = Engine._on_arrival

    def lenient(engine: Engine, arrival: Arrival, source: Endpoint, now: float) -> list[Effect]:
        if isinstance(arrival, Control):
            return engine._on_control(arrival, source, now)
        return on_arrival(engine, arrival, source, now)

    monkeypatch.setattr(Engine, "_on_arrival", lenient)
    assert asked_for_a_block(last_second()) > 0

"""Tests of overlay.knowledge: what is learned takes effect everywhere it matters."""

from __future__ import annotations

import random

from overlay.catalog.keys import deed_item
from overlay.catalog.records import sign_record
from overlay.catalog.removals import Removal, sign_removal
from overlay.config import Settings
from overlay.effects import Effect, NetworkChanged, Report, SendControl
from overlay.ipam.deeds import Chain, sign_deed
from overlay.keys import StaticKey
from overlay.knowledge import FAREWELL, GREETED
from overlay.parts import Parts
from overlay.state import NodeState
from overlay.types import BlockIndex, Endpoint, NodeId
from overlay.wire.certificate import Identity, issue_certificate
from overlay.wire.control import decode_untrusted, encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta, Probe
from tests.support.clusters import AUTHORITY, WALL, YEAR, make_cluster, make_identity

CLUSTER = make_cluster()
GIVER = make_identity(0, CLUSTER)
OTHER = make_identity(1, CLUSTER)
THERE = Endpoint("192.0.2.1", 6875)
ELSEWHERE = Endpoint("198.51.100.1", 6875)


def parts(number: int = 7) -> Parts:
    rng = random.Random(number)
    made = Parts(
        identity=make_identity(number, CLUSTER),
        cluster=CLUSTER,
        psk=bytes(32),
        state=NodeState(boot=1),
        settings=Settings(),
        entropy=rng.randbytes,
        rng=rng,
        epoch=WALL,
        deliver=lambda _packet: True,
        transmit=lambda _endpoint, _datagrams, _size: True,
        authorities=(),
        version="",
    )
    made.tell_time(1.0)
    return made


def record(identity: Identity = OTHER, version: int = 1, **fields: object) -> Item:
    fields.setdefault("endpoints", (THERE,))
    return sign_record(identity, version=version, **fields)


def deed(block: int = 5, taker: NodeId = OTHER.node) -> Item:
    """The founder gives a block away."""
    index = BlockIndex(block)
    return deed_item(sign_deed(GIVER.signing, Chain(index, GIVER.node), taker, cluster=CLUSTER.id))


def learn(node: Parts, *items: Item, now: float = 1.0) -> list[Effect]:
    """A peer sends `items`."""
    node.gossip.on_message(GIVER.node, Delta(items), now)
    effects = node.knowledge.take_learned(now)
    node.routes.check_invariants()
    node.catalog.check_invariants()
    return effects


def events(effects: list[Effect]) -> list[str]:
    return [effect.event for effect in effects if isinstance(effect, Report)]


def routed(node: Parts) -> list[str]:
    return [str(entry.prefix) for entry in node.routes.entries()]


def test_a_record_makes_a_peer_and_a_member() -> None:
    node = parts()
    assert events(learn(node, record())) == ["member.known"]
    assert not node.paths, "nobody talks to it yet"
    assert node.peering.path_to(OTHER.node).endpoint == THERE
    assert node.gossip.state(OTHER.node, 1.0) is not None
    assert node.peering.connect(OTHER.node, 1.0)


def test_a_block_is_routed_when_both_record_and_deed_are_there_whichever_comes_first() -> None:
    items = [record(blocks_in_use=[BlockIndex(5)]), deed(5)]
    for order in (items, items[::-1]):
        node = parts()
        first, second = (learn(node, item) for item in order)
        assert NetworkChanged() not in first
        assert NetworkChanged() in second
        assert routed(node) == ["10.244.5.0/24", "fd4d:75:736c:5::/64"]


def test_what_changes_no_route_is_no_news_for_the_kernel() -> None:
    node = parts()
    learn(node, record(blocks_in_use=[BlockIndex(5)]), deed(5))
    assert learn(node, record(version=2, blocks_in_use=[BlockIndex(5)], free_blocks=1)) == []
    assert learn(node) == []


def test_a_route_that_ends_leaves_the_table() -> None:
    node = parts()
    learn(node, record(blocks_in_use=[BlockIndex(5)]), deed(5))
    assert NetworkChanged() in learn(node, record(version=2))
    assert routed(node) == []


def test_a_new_address_is_used_only_while_no_session_is_up() -> None:
    node = parts()
    learn(node, record())
    node.peering.path_to(OTHER.node)
    learn(node, record(version=2, endpoints=(ELSEWHERE,)))
    assert node.paths[OTHER.node].endpoint == ELSEWHERE


def test_a_member_that_left_is_probed_no_more_and_forgotten_after_its_farewell() -> None:
    node = parts()
    learn(node, record(blocks_in_use=[BlockIndex(5)]), deed(5))
    node.peering.path_to(OTHER.node)
    effects = learn(node, record(version=2, left=True), now=10.0)
    assert events(effects) == ["member.left"]
    assert NetworkChanged() in effects
    assert node.gossip.state(OTHER.node, 10.0) is None
    node.knowledge.forget_gone(10.0 + FAREWELL - 0.1)
    assert OTHER.node in node.paths  # it may still ask whether we know
    node.knowledge.forget_gone(10.0 + FAREWELL)
    assert OTHER.node not in node.paths


def test_a_node_that_comes_back_before_it_is_forgotten_stays() -> None:
    node = parts()
    learn(node, record())
    node.peering.path_to(OTHER.node)
    learn(node, record(version=2, left=True), now=10.0)
    assert events(learn(node, record(version=3), now=11.0)) == ["member.known"]
    node.knowledge.forget_gone(10.0 + FAREWELL)
    assert OTHER.node in node.paths


def test_in_a_large_cluster_only_neighbours_are_greeted() -> None:
    node = parts(7)
    assert node.knowledge.to_greet() == []
    learn(
        node,
        record(make_identity(7, CLUSTER)),
        *(record(make_identity(n, CLUSTER)) for n in (1, 2)),
    )
    assert set(node.knowledge.to_greet()) == {make_identity(n, CLUSTER).node for n in (1, 2)}
    learn(node, *(record(make_identity(n, CLUSTER)) for n in range(20, 20 + GREETED)))
    greeted = node.knowledge.to_greet()
    assert set(greeted) == set(node.gossip.neighbours())
    assert 0 < len(greeted) < GREETED


def removal() -> Item:
    word = Removal(OTHER.node, OTHER.certificate.serial, OTHER.name, WALL)
    return sign_removal(AUTHORITY, word, cluster=CLUSTER.id)


def test_a_removed_member_loses_routes_membership_and_path_at_once() -> None:
    node = parts()
    learn(node, record(blocks_in_use=[BlockIndex(5)]), deed(5))
    effects = learn(node, removal(), now=10.0)
    assert events(effects) == ["member.removed"]  # and nothing to send where no session is up
    assert NetworkChanged() in effects
    assert not node.routes.entries()
    assert node.gossip.state(OTHER.node, 10.0) is None
    assert OTHER.node not in node.paths
    assert learn(node, record(version=9), now=20.0) == []
    assert OTHER.node not in node.paths


def test_a_removed_member_with_a_session_is_told_why() -> None:
    node = parts()
    learn(node, record())
    path = node.peering.path_to(OTHER.node)
    assert path is not None
    path.keypair = object()
    (word,) = [one for one in learn(node, removal(), now=10.0) if isinstance(one, SendControl)]
    assert (word.node, decode_untrusted(word.message)) == (OTHER.node, Delta((removal(),)))
    assert OTHER.node in node.paths  # until that is sealed
    path.keypair = None
    node.knowledge.forget_gone(10.0)
    assert OTHER.node not in node.paths


def test_a_node_that_left_before_it_was_known_is_no_member() -> None:
    node = parts()
    assert learn(node, record(left=True)) == []
    assert OTHER.node not in node.paths


def test_the_nodes_own_record_makes_no_peer_of_itself() -> None:
    node = parts(7)
    learn(node, record(make_identity(7, CLUSTER)))
    assert node.paths == {}
    assert node.gossip.snapshot(1.0) == {}


def test_a_member_with_a_key_that_nobody_can_use_stops_nobody() -> None:
    signing = OTHER.signing
    certificate = issue_certificate(
        AUTHORITY,
        node=signing.public,
        static=bytes(32),
        name="zero",
        cluster=CLUSTER.id,
        serial=9,
        not_before=WALL,
        not_after=WALL + YEAR,
    )
    zero = object.__new__(Identity)  # an honest one checks its keys
    for name, value in (
        ("signing", signing),
        ("static", StaticKey(bytes(32))),
        ("certificate", certificate),
    ):
        object.__setattr__(zero, name, value)
    node = parts()
    learn(node, record(zero), record(GIVER))
    assert node.catalog.by_name("zero") is not None
    assert node.peering.connect(OTHER.node, 1.0) == []
    assert node.peering.send(OTHER.node, encode(Probe(1)), 1.0) == []
    assert OTHER.node not in node.paths
    assert node.peering.connect(GIVER.node, 1.0)


def test_restoring_leaves_out_what_does_not_verify_any_more() -> None:
    good, forged = record(), deed(5)._replace(body=deed(5).body[:-1] + b"\0")
    node = parts()
    node.knowledge.restore([good, forged, record(GIVER, blocks_in_use=[BlockIndex(0)])], 0.0)
    assert set(node.catalog.nodes) == {OTHER.node, GIVER.node}
    assert routed(node) == ["10.244.0.0/24", "fd4d:75:736c::/64"]
    assert node.catalog.titles.chain(BlockIndex(5)).deeds == ()
    assert len(node.store) == 2

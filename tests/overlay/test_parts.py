"""Tests of overlay.parts: that the machines of a node are joined, and to each other."""

from __future__ import annotations

import random

import pytest

from overlay.catalog.records import sign_record
from overlay.config import Settings
from overlay.errors import WireError
from overlay.parts import Parts
from overlay.state import NodeState, StoredPod
from overlay.types import BlockIndex, Endpoint
from overlay.wire.messages import Delta
from tests.support.clusters import AUTHORITY, WALL, YEAR, make_cluster, make_identity

CLUSTER = make_cluster()
OTHER = make_identity(1, CLUSTER)


def parts(state: NodeState | None = None, *, authority: bool = False) -> Parts:
    rng = random.Random(1)
    return Parts(
        identity=make_identity(0, CLUSTER),
        cluster=CLUSTER,
        psk=bytes(32),
        state=state or NodeState(boot=1),
        settings=Settings(),
        entropy=rng.randbytes,
        rng=rng,
        epoch=WALL,
        deliver=lambda _packet: True,
        transmit=lambda _endpoint, _datagrams, _size: True,
        authorities=[AUTHORITY] if authority else [],
        version="9.9",
    )


def test_the_packet_path_and_the_peering_see_the_same_paths_and_keypairs() -> None:
    node = parts()
    assert node.peering.paths is node.paths
    assert node.peering.sessions is node.sessions
    node.peering.introduce(OTHER.node, OTHER.static.public, (Endpoint("192.0.2.1", 1),))
    assert list(node.paths) == [OTHER.node]
    node.outbound.check_invariants()
    node.inbound.check_invariants()


def test_certificates_are_judged_by_the_wall_clock_that_was_told_last() -> None:
    node = parts()
    node.tell_time(YEAR)
    for version, ended in ((1, True), (2, False)):
        item = sign_record(OTHER, version=version)
        node.gossip.on_message(OTHER.node, Delta((item,)), 1.0)
        assert node.gossip.take_learned() == [item], "whatever the time"
        node.catalog.apply(item)
        assert (node.catalog.nodes[OTHER.node].whole is not None) is ended
        node.wall.epoch -= 1


def test_a_node_is_named_by_its_record_and_by_its_id_before_that() -> None:
    node = parts()
    assert node.name_of(OTHER.node) == OTHER.node[:4].hex()
    node.catalog.apply(sign_record(OTHER, version=1))
    assert node.name_of(OTHER.node) == "node1"


def test_only_the_authoritys_node_can_admit_others() -> None:
    assert parts().registrar is None
    assert parts(authority=True).registrar is not None


def test_what_was_stored_is_taken_up() -> None:
    pod = StoredPod("web", "/run/netns/web", BlockIndex(3), 9, WALL)
    node = parts(NodeState(boot=4, pods=(pod,), blocks_in_use=(BlockIndex(3),)))
    assert node.holdings.pods == {"web": pod}
    assert node.record.make().version == (4 << 32) + 1


def test_a_damaged_token_book_is_refused_with_a_wire_error() -> None:
    with pytest.raises(WireError):
        parts(NodeState(boot=1, tokens=b"\xc1"), authority=True)

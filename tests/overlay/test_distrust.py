"""Tests of overlay.distrust."""

from __future__ import annotations

import pytest

from overlay.catalog.keys import node_key
from overlay.catalog.records import sign_record
from overlay.catalog.trust import Trust
from overlay.drops import DropReason
from overlay.effects import Effect, SendControl
from overlay.errors import AuthError
from overlay.keys import SigningKey
from overlay.parts import Parts
from overlay.types import BlockIndex
from overlay.wire.authority import Act, sign_link
from overlay.wire.certificate import Identity, issue_certificate
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta
from tests.support.clusters import AUTHORITY, WALL, YEAR, make_identity

from .test_knowledge import CLUSTER, GIVER, OTHER, deed, events, learn, parts, record, routed

SECOND = SigningKey(b"second".ljust(32))


def certified(number: int, *, by: SigningKey = SECOND, until: int = YEAR) -> Identity:
    """A node with a certificate by another authority."""
    old = make_identity(number, CLUSTER)
    certificate = issue_certificate(
        by,
        node=old.node,
        static=old.static.public,
        name=old.name,
        cluster=CLUSTER.id,
        serial=90 + number,
        not_before=WALL,
        not_after=WALL + until,
    )
    return Identity(old.signing, old.static, certificate)


def rotated() -> Trust:
    trust = Trust.founded(CLUSTER)
    for signer, act, key in (
        (AUTHORITY, Act.INSTALL, SECOND),
        (AUTHORITY, Act.USE, SECOND),
        (SECOND, Act.REMOVE, AUTHORITY),
    ):
        link = sign_link(signer, CLUSTER, trust.links, act, key.public, time=WALL)
        trust = trust.extended(link)
    return trust


USED = Trust.founded(CLUSTER)
for _act in (Act.INSTALL, Act.USE):
    USED = USED.extended(sign_link(AUTHORITY, CLUSTER, USED.links, _act, SECOND.public, time=WALL))
LIST = rotated().item()


def renewed_parts() -> Parts:
    """A node that has renewed its own certificate, and knows two others."""
    node = parts()
    node.distrust._identity = certified(7)
    learn(node, USED.item(), record(GIVER), record(blocks_in_use=[BlockIndex(5)]), deed(5))
    return node


def test_who_has_no_certificate_by_a_trusted_authority_is_out_until_it_has() -> None:
    node = renewed_parts()
    node.peering.path_to(OTHER.node)
    assert routed(node)
    assert sorted(events(learn(node, LIST))) == ["member.void", "member.void"]
    assert routed(node) == []
    assert node.gossip.state(OTHER.node, 1.0) is None
    assert node.name_of(OTHER.node) == OTHER.name, "still its own"
    assert node.store.get(node_key(OTHER.node)) is None
    node.store.check_invariants()
    node.knowledge.tend(2.0)
    assert OTHER.node not in node.paths
    assert node.peering.path_to(OTHER.node) is None
    back = sign_record(certified(1), version=2, blocks_in_use=[BlockIndex(5)])
    learn(node, back)
    assert routed(node)
    assert node.gossip.state(OTHER.node, 1.0) is not None
    assert node.peering.path_to(OTHER.node) is not None


def test_who_has_renewed_keeps_its_session() -> None:
    node = renewed_parts()
    learn(node, sign_record(certified(1), version=2, blocks_in_use=[BlockIndex(5)]))
    path = node.peering.path_to(OTHER.node)
    learn(node, LIST)
    node.knowledge.tend(2.0)
    assert node.paths[OTHER.node] is path
    assert routed(node)


def test_who_renews_while_its_session_ends_keeps_it() -> None:
    node = renewed_parts()
    path = node.peering.path_to(OTHER.node)
    path.keypair = Up(OTHER)  # type: ignore[assignment]
    learn(node, LIST)
    learn(node, sign_record(certified(1), version=2))
    node.knowledge.tend(2.0)
    assert node.paths[OTHER.node] is path


def test_a_good_record_that_came_with_the_list_is_kept() -> None:
    node = renewed_parts()
    fresh = sign_record(certified(3), version=1)
    learn(node, LIST, fresh)
    assert node.store.get(fresh.key) == fresh


def test_a_record_that_came_before_the_list_in_one_message_is_dropped() -> None:
    node = renewed_parts()
    late = sign_record(make_identity(3, CLUSTER), version=1)
    learn(node, late, LIST)
    assert node.store.get(late.key) is None
    assert node.store.get(node_key(make_identity(3).node)) is None


def test_a_peer_of_whom_nothing_is_known_has_to_prove_itself_again() -> None:
    node = renewed_parts()
    unknown = make_identity(4, CLUSTER)
    node.peering.introduce(unknown.node, unknown.static.public, ())
    learn(node, LIST)
    assert unknown.node not in node.paths


class Up:
    """Stands for a keypair: the session is up."""

    def __init__(self, identity: Identity) -> None:
        self.node = identity.node


def test_the_list_is_said_in_the_sessions_that_end() -> None:
    node = renewed_parts()
    node.peering.path_to(OTHER.node).keypair = Up(OTHER)  # type: ignore[assignment]
    assert told(learn(node, LIST), LIST)


def told(effects: list[Effect], item: Item) -> bool:
    return SendControl(OTHER.node, encode(Delta((item,)))) in effects


def test_a_node_whose_own_certificate_is_void_ends_all_its_sessions() -> None:
    node = parts()
    learn(node, USED.item(), sign_record(certified(1), version=1))
    assert node.peering.path_to(OTHER.node) is not None
    assert not node.distrust.is_void
    learn(node, LIST)
    assert node.distrust.is_void
    node.knowledge.tend(2.0)
    assert not node.paths
    node.peering.path_to(OTHER.node)
    node.knowledge.tend(5.0)
    node.knowledge.tend(6.0)
    assert not node.paths, "nor are there new ones"


def test_no_handshake_begins_with_a_certificate_by_an_authority_that_is_not_trusted() -> None:
    node = renewed_parts()
    read = node._read_certificate
    assert read(OTHER.certificate.encode()) == OTHER.certificate
    learn(node, LIST)
    assert read(certified(1).certificate.encode()).issuer == SECOND.public
    with pytest.raises(AuthError) as refused:
        read(OTHER.certificate.encode())
    assert refused.value.reason is DropReason.BAD_CERTIFICATE


def test_stored_items_are_judged_by_the_stored_list() -> None:
    node = parts()
    stored = [sign_record(certified(1), version=1), record(GIVER), LIST]
    node.knowledge.restore(stored, 1.0)
    assert set(node.catalog.nodes) == {OTHER.node}
    assert {item.key for item in stored if node.store.get(item.key)} == {
        node_key(OTHER.node),
        LIST.key,
    }
    node.catalog.check_invariants()


def test_with_a_certificate_end_its_routes_and_its_session() -> None:
    node = renewed_parts()
    path = node.peering.path_to(OTHER.node)
    path.keypair = Up(OTHER)  # type: ignore[assignment]
    node.wall.epoch = OTHER.certificate.not_after - 2.0
    node.knowledge.tend(1.0)
    assert routed(node)
    assert node.paths[OTHER.node] is path
    path.keypair = None
    assert sorted(events(node.knowledge.tend(2.0))) == ["member.expired"] * 2
    assert routed(node) == []
    assert OTHER.node not in node.paths
    assert node.store.get(node_key(OTHER.node)) is not None
    assert "member.expired" not in events(node.knowledge.tend(3.0))
    learn(node, sign_record(certified(1, until=9 * YEAR), version=2, blocks_in_use=[BlockIndex(5)]))
    assert routed(node)

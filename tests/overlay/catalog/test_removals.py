"""Tests of overlay.catalog.removals."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.catalog.removals import (
    NO_REMOVALS,
    Removal,
    acknowledgement,
    is_removed,
    open_removal_untrusted,
    removal_content,
    removal_key,
    removed_of_key,
    sign_removal,
)
from overlay.errors import AuthError, WireError
from overlay.keys import SigningKey
from overlay.types import NodeId
from overlay.wire.authority import Act, list_item, sign_link
from tests.support.reencode import malleated, reencoded

from .world import AUTHORITY, CLUSTER, WALL, identity, node

BOB = Removal(node("bob"), 7, "bob", WALL, AUTHORITY.public)
SECOND = SigningKey(b"second".ljust(32))
ITEM = sign_removal(AUTHORITY, BOB, cluster=CLUSTER.id)


def test_a_removal_has_the_documented_bytes_and_reads_back() -> None:
    content = msgpack.packb(
        [1, CLUSTER.id, BOB.node, 7, "bob", WALL, AUTHORITY.public], use_bin_type=True
    )
    assert (ITEM.key, ITEM.version) == (b"a" + BOB.node, 1)
    assert ITEM.body == AUTHORITY.sign("removal", content) + content
    assert open_removal_untrusted(ITEM, CLUSTER) == BOB


def signed(*fields: object) -> object:
    content = msgpack.packb(list(fields), use_bin_type=True)
    return ITEM._replace(body=AUTHORITY.sign("removal", content) + content)


@pytest.mark.parametrize(
    "item",
    [
        ITEM._replace(version=2),
        ITEM._replace(key=removal_key(node("carol"))),
        ITEM._replace(body=ITEM.body + bytes(300)),
        ITEM._replace(body=ITEM.body[:40]),
        signed(2, CLUSTER.id, BOB.node, 7, "bob", WALL, bytes(32)),
        signed(1, bytes(8), BOB.node, 7, "bob", WALL, AUTHORITY.public),
        signed(1, CLUSTER.id, BOB.node, 7, "bob", WALL),
        signed(1, CLUSTER.id, BOB.node, 7, "bob", WALL, bytes(31)),
        signed(1, CLUSTER.id, BOB.node, 7, "b" * 64, WALL, AUTHORITY.public),
        signed(1, CLUSTER.id, BOB.node, -1, "bob", WALL, AUTHORITY.public),
    ],
)
def test_what_is_no_removal_is_refused(item: object) -> None:
    with pytest.raises(WireError):
        open_removal_untrusted(item, CLUSTER)  # type: ignore[arg-type]
    assert not is_removed([item], CLUSTER, BOB.node)  # type: ignore[list-item]


def test_a_removal_is_signed_by_whom_it_names() -> None:
    content = removal_content(ITEM)
    forged = ITEM._replace(body=identity("node1").signing.sign("removal", content) + content)
    with pytest.raises(AuthError):
        open_removal_untrusted(forged, CLUSTER)
    assert not is_removed([forged], CLUSTER, BOB.node)


def test_no_other_form_of_a_removal_can_take_its_place() -> None:
    """Of two the greater body wins, so one that could be altered would never come to rest."""
    signature, content = ITEM.body[:64], ITEM.body[64:]
    others = [other + content for other in malleated(signature)]
    others += [signature + other for other in reencoded(content)]
    assert len(others) > 30
    for body in others:
        assert msgpack.unpackb(body[64:]) == msgpack.unpackb(content)
        with pytest.raises(AuthError):
            open_removal_untrusted(ITEM._replace(body=body), CLUSTER)


def test_nobody_but_an_authority_removes_a_node() -> None:
    other = sign_removal(SECOND, BOB, cluster=CLUSTER.id)
    assert open_removal_untrusted(other, CLUSTER).signer == SECOND.public
    assert not is_removed([other], CLUSTER, BOB.node)
    link = sign_link(AUTHORITY, CLUSTER, [], Act.INSTALL, SECOND.public, time=WALL)
    assert is_removed([other, list_item([link])], CLUSTER, BOB.node)


def test_a_node_finds_its_own_removal_among_items() -> None:
    other = sign_removal(AUTHORITY, BOB, cluster=CLUSTER.id)
    assert is_removed([other, ITEM], CLUSTER, BOB.node)
    assert not is_removed([ITEM], CLUSTER, node("carol"))


def test_keys_of_other_kinds_are_nobodys_removal() -> None:
    assert [removed_of_key(key) for key in (b"", b"a", b"n" + bytes(32), b"a" + bytes(31))] == [
        None
    ] * 4


NODES = st.sets(st.binary(min_size=32, max_size=32).map(NodeId), max_size=6)


@given(NODES, NODES)
def test_acknowledgements_are_equal_for_equal_sets_alone(
    one: set[NodeId], two: set[NodeId]
) -> None:
    assert (acknowledgement(one) == acknowledgement(sorted(two))) == (one == two)
    assert (acknowledgement(one) == NO_REMOVALS) == (not one)

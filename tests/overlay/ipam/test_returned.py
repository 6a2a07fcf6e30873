"""Tests of overlay.ipam.returned."""

from __future__ import annotations

from overlay.config import Limits
from overlay.ipam.deeds import Chain, sign_base, sign_deed
from overlay.ipam.returned import ReturnedBlocks
from overlay.ipam.titles import Titles
from overlay.types import BlockIndex
from tests.support.clusters import AUTHORITY, make_cluster, signing_key

CLUSTER = make_cluster("10.1.0.0/24", None, block_prefix=29)
GENESIS, OTHER = signing_key(0), signing_key(1)
B3 = BlockIndex(3)


def given(request: int) -> tuple[Titles, Chain]:
    """The founder has given block 3 to node 1, by a deed that answers this request."""
    titles = Titles(CLUSTER, Limits())
    chain = sign_deed(GENESIS, titles.chain(B3), OTHER.public, cluster=CLUSTER.id, request=request)
    titles.admit(chain.encode())
    return titles, chain


def test_what_was_asked_for_does_not_rest() -> None:
    titles, _ = given(request=7)
    blocks = ReturnedBlocks(titles, OTHER.public, 60.0)
    assert blocks.watch((), (), 0.0) == set()
    assert blocks.next_deadline() is None


def test_what_was_handed_over_unasked_rests_once_for_a_quarantine() -> None:
    titles, _ = given(request=0)
    blocks = ReturnedBlocks(titles, OTHER.public, 60.0)
    assert blocks.watch((), (), 5.0) == {B3}
    assert blocks.next_deadline() == 65.0
    assert blocks.watch((), (), 64.0) == {B3}
    assert blocks.watch((), (), 65.0) == set()
    assert blocks.next_deadline() is None
    assert blocks.watch((), (), 66.0) == set()


def test_what_is_in_use_does_not_rest() -> None:
    titles, _ = given(request=0)
    assert ReturnedBlocks(titles, OTHER.public, 60.0).watch({B3}, (), 0.0) == set()


def test_what_went_and_came_again_rests_again() -> None:
    titles, chain = given(request=0)
    blocks = ReturnedBlocks(titles, OTHER.public, 60.0)
    blocks.watch((), (), 0.0)
    chain = sign_deed(OTHER, chain, GENESIS.public, cluster=CLUSTER.id)
    titles.admit(chain.encode())
    assert blocks.watch((), (), 10.0) == set()
    base = sign_base(AUTHORITY, cluster=CLUSTER.id, block=B3, sequence=3, owner=OTHER.public)
    titles.admit(base.encode())
    assert blocks.watch((), (), 20.0) == {B3}
    assert blocks.next_deadline() == 80.0


def test_what_the_authority_takes_rests_from_then_on_and_once() -> None:
    titles, _ = given(request=7)
    blocks = ReturnedBlocks(titles, GENESIS.public, 60.0)
    assert blocks.watch((), (B3,), 0.0) == {B3}
    base = sign_base(AUTHORITY, cluster=CLUSTER.id, block=B3, sequence=2, owner=GENESIS.public)
    titles.admit(base.encode())
    assert blocks.watch((), (), 1.0) == {B3}
    assert blocks.next_deadline() == 60.0
    assert blocks.watch((), (), 60.0) == set()


def test_without_a_quarantine_nothing_rests() -> None:
    titles, _ = given(request=0)
    assert ReturnedBlocks(titles, OTHER.public, 0.0).watch((), (), 0.0) == set()

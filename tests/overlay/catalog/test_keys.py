"""Tests of item keys: each kind is recognised by its own reader and by no other."""

from __future__ import annotations

import pytest

from overlay.catalog.keys import (
    block_of_deed,
    block_of_key,
    deed_item,
    deed_key,
    node_key,
    node_of_key,
)
from overlay.ipam.deeds import Chain, decode_chain_untrusted, sign_deed
from overlay.types import BlockIndex, NodeId
from tests.support.clusters import make_cluster, make_identity

NODE = NodeId(bytes(range(32)))


@pytest.mark.parametrize("block", [0, 1, 255, 65_535])
def test_a_block_is_known_by_its_key_and_by_no_other(block: int) -> None:
    assert block_of_key(deed_key(BlockIndex(block))) == block
    assert node_of_key(deed_key(BlockIndex(block))) is None


def test_a_node_is_known_by_its_key_and_by_no_other() -> None:
    assert node_of_key(node_key(NODE)) == NODE
    assert block_of_key(node_key(NODE)) is None


@pytest.mark.parametrize("key", [b"", b"n", b"b", b"n" + bytes(31), b"b" + bytes(5), b"x" + NODE])
def test_other_keys_are_nobodys(key: bytes) -> None:
    assert node_of_key(key) is None
    assert block_of_key(key) is None


def test_a_title_is_kept_under_its_blocks_key() -> None:
    cluster, founder = make_cluster(), make_identity(0)
    untouched = Chain(BlockIndex(7), founder.node)
    chain = sign_deed(founder.signing, untouched, NODE, cluster=cluster.id)
    item = deed_item(chain)
    assert (item.key, item.version) == (deed_key(BlockIndex(7)), 0)
    assert block_of_deed(item) == 7
    assert decode_chain_untrusted(item.body, cluster) == chain

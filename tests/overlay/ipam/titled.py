"""Chains of a small cluster, for the tests of deeds and titles."""

from __future__ import annotations

from dataclasses import replace

from overlay.ipam.deeds import Chain, sign_base, sign_deed
from overlay.types import BlockIndex
from tests.support.clusters import AUTHORITY, make_cluster, signing_key

CLUSTER = make_cluster("10.244.0.0/22", block_prefix=24)
"""Four blocks."""

NODES = [signing_key(number) for number in range(4)]
BLOCK = BlockIndex(2)


def base_of(sequence: int, owner: int = 0, block: int = BLOCK) -> Chain:
    """The authority's word that after `sequence` transfers `block` is node `owner`'s."""
    return sign_base(
        AUTHORITY,
        cluster=CLUSTER.id,
        block=BlockIndex(block),
        sequence=sequence,
        owner=NODES[owner].public,
    )


def chain_of(
    *nodes: int, block: int = BLOCK, base: Chain | None = None, cluster: bytes = CLUSTER.id
) -> Chain:
    """The chain that starts at node 0, or with `base`, and goes through `nodes`."""
    chain = base or Chain(BlockIndex(block), CLUSTER.genesis)
    for taker in nodes:
        giver = next(key for key in NODES if key.public == chain.owner)
        chain = sign_deed(giver, chain, NODES[taker].public, cluster=cluster)
    return chain


def altered(chain: Chain, place: int, **changes: object) -> Chain:
    """`chain` with a changed deed."""
    deeds = list(chain.deeds)
    deeds[place] = replace(deeds[place], **changes)
    return replace(chain, deeds=tuple(deeds))

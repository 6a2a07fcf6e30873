"""Tests of overlay.ipam.deeds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from unittest.mock import patch

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.errors import AuthError, CapacityError, StateError, WireError
from overlay.ipam import deeds
from overlay.ipam.deeds import (
    Chain,
    Titles,
    decode_chain_untrusted,
    encode_chain,
    sign_deed,
    verify_chain,
)
from overlay.types import BlockIndex, NodeId
from tests.support.clusters import make_cluster, signing_key

CLUSTER = make_cluster("10.244.0.0/22", block_prefix=24)
NODES = [signing_key(number) for number in range(4)]
BLOCK = BlockIndex(2)


def chain_of(*nodes: int, block: int = BLOCK, cluster: bytes = CLUSTER.id) -> Chain:
    """The chain that starts at node 0 and goes through `nodes`."""
    return tuple(
        sign_deed(
            NODES[giver],
            cluster=cluster,
            block=BlockIndex(block),
            sequence=sequence,
            taker=NODES[taker].public,
        )
        for sequence, (giver, taker) in enumerate(itertools.pairwise((0, *nodes)), 1)
    )


def titles_of(*chains: Chain) -> Titles:
    titles = Titles(CLUSTER, Limits())
    for chain in chains:
        titles.admit(encode_chain(chain))
    titles.check_invariants()
    return titles


def state_of(titles: Titles) -> dict[int, bytes]:
    return {chain[0].block: encode_chain(chain) for chain in titles.chains()}


# -- bytes -------------------------------------------------------------------------------------


def test_encoding_is_the_documented_array_and_signature() -> None:
    chain = chain_of(1, 2)
    first, second = chain
    assert encode_chain(chain) == (
        b"\x93\x01\x02\x92"
        + (b"\x92\xc4\x20" + NODES[1].public + b"\xc4\x40" + first.signature)
        + (b"\x92\xc4\x20" + NODES[2].public + b"\xc4\x40" + second.signature)
    )
    signed = b"\x96\x01\xc4\x08" + CLUSTER.id + b"\x02\x02"
    signed += b"\xc4\x20" + NODES[1].public + b"\xc4\x20" + NODES[2].public
    assert second.signature == NODES[1].sign("deed", signed)
    assert first.signature.hex()[:32] == "e0d6a70d44fb3a7dca807f6de34705ab"


def test_decoding_gives_back_what_was_encoded() -> None:
    for chain in (chain_of(1), chain_of(1, 2, 3, 0, 1)):
        decoded = decode_chain_untrusted(encode_chain(chain), CLUSTER)
        assert decoded == chain
        verify_chain(decoded, CLUSTER)


@pytest.mark.parametrize(
    "values",
    [
        [2, 0, [[bytes(32), bytes(64)]]],
        [1, 0, []],
        [1, 0],
        [1, -1, [[bytes(32), bytes(64)]]],
        [1, 0, [[bytes(31), bytes(64)]]],
        [1, 0, [[bytes(32), bytes(65)]]],
        [1, 0, [[bytes(32)]]],
        [1, 0, [bytes(96)]],
        [1, 0, [[bytes(32), bytes(64)], [bytes(32), bytes(64)]]],
        [1, 0, [[CLUSTER.genesis, bytes(64)]]],
        [1, 0, [[bytes(32), bytes(64)]], "more"],
        [1, 0, [[bytes(32), bytes(64), "more"]]],
    ],
)
def test_what_is_no_chain_is_refused(values: object) -> None:
    with pytest.raises(WireError):
        decode_chain_untrusted(msgpack.packb(values), CLUSTER)


def test_other_encodings_of_the_same_chain_are_refused() -> None:
    data = encode_chain(chain_of(1))
    with pytest.raises(WireError, match="canonical"):
        decode_chain_untrusted(data.replace(b"\x93\x01\x02\x91", b"\x93\x01\xcc\x02\x91"), CLUSTER)


@given(st.binary(max_size=200))
def test_random_bytes_raise_wire_error_only(data: bytes) -> None:
    with pytest.raises(WireError):
        Titles(CLUSTER, Limits()).admit(data)


# -- validity ----------------------------------------------------------------------------------


def test_a_deed_to_oneself_cannot_be_signed() -> None:
    with pytest.raises(StateError):
        sign_deed(NODES[1], cluster=bytes(8), block=BLOCK, sequence=1, taker=NODES[1].public)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("change", [{"signature": bytes(64)}, {"taker": NODES[0].public}])
def test_a_chain_with_any_altered_deed_is_refused(place: int, change: dict[str, bytes]) -> None:
    chain = list(chain_of(1, 2, 3))
    chain[place] = replace(chain[place], **change)
    with pytest.raises((AuthError, WireError)):
        verify_chain(tuple(chain), CLUSTER)


@pytest.mark.parametrize(
    "chain",
    [
        chain_of(1, block=4),
        chain_of(1, 2)[1:],
        (chain_of(1)[0], chain_of(1, 2, block=3)[1]),
        (chain_of(1)[0], chain_of(1)[0]),
        (chain_of(1)[0], chain_of(2, 3)[1]),
    ],
    ids=["no such block", "cut in front", "another block", "same deed twice", "not the owner"],
)
def test_deeds_that_do_not_follow_each_other_are_refused(chain: Chain) -> None:
    with pytest.raises(WireError):
        verify_chain(chain, CLUSTER)


def test_deeds_of_another_cluster_prove_nothing_here() -> None:
    with pytest.raises(AuthError):
        titles_of(chain_of(1, cluster=bytes(8)))


def test_a_stranger_cannot_take_a_block() -> None:
    stolen = sign_deed(NODES[3], cluster=CLUSTER.id, block=BLOCK, sequence=1, taker=NODES[2].public)
    with pytest.raises(AuthError):
        titles_of((replace(stolen, giver=NODES[0].public),))


def test_a_former_owner_cannot_take_a_block_back() -> None:
    titles = titles_of(chain_of(1, 2))
    again = sign_deed(NODES[1], cluster=CLUSTER.id, block=BLOCK, sequence=3, taker=NODES[3].public)
    with pytest.raises(AuthError):
        titles.admit(encode_chain((*chain_of(1, 2), replace(again, giver=NODES[2].public))))
    assert titles.owner(BLOCK) == NODES[2].public


# -- the ledger --------------------------------------------------------------------------------


def test_the_founder_owns_what_never_moved() -> None:
    titles = titles_of()
    assert titles.blocks_of(CLUSTER.genesis) == (0, 1, 2, 3)
    assert titles.owner(BLOCK) == CLUSTER.genesis
    assert titles.chain(BLOCK) == ()
    assert titles.blocks_of(NODES[1].public) == ()


def test_a_block_belongs_to_the_last_taker() -> None:
    titles = titles_of(chain_of(1, 2), chain_of(1, block=0), chain_of(3, 0, block=3))
    assert [titles.owner(BlockIndex(block)) for block in range(4)] == [
        NODES[node].public for node in (1, 0, 2, 0)
    ]
    assert titles.blocks_of(NODES[0].public) == (1, 3)
    assert titles.blocks_of(NODES[1].public) == (0,)
    assert titles.blocks_of(NODES[2].public) == (2,)
    assert [titles.count_of(NODES[node].public) for node in range(4)] == [2, 1, 1, 0]
    assert list(titles.unmoved()) == [1]
    assert titles.moved_to(NODES[0].public) == {3}


def test_a_longer_chain_replaces_and_a_shorter_one_does_not() -> None:
    titles = titles_of(chain_of(1))
    assert titles.admit(encode_chain(chain_of(1, 2)))
    assert not titles.admit(encode_chain(chain_of(1)))
    assert not titles.admit(encode_chain(chain_of(1, 2)))
    assert titles.chain(BLOCK) == chain_of(1, 2)


def test_an_error_changes_nothing() -> None:
    titles = titles_of(chain_of(1), chain_of(2, block=0))
    before = state_of(titles)
    bad = (*chain_of(1, 2), replace(chain_of(1, 2, 3)[2], signature=bytes(64)))
    with pytest.raises(AuthError):
        titles.admit(encode_chain(bad))
    titles.check_invariants()
    assert state_of(titles) == before


def test_a_chain_over_the_limit_is_refused() -> None:
    titles = Titles(CLUSTER, replace(Limits(), deed_chain=2))
    titles.admit(encode_chain(chain_of(1, 2)))
    assert titles.room(BLOCK) == 0
    assert titles.room(BlockIndex(0)) == 2
    with pytest.raises(CapacityError) as caught:
        titles.admit(encode_chain(chain_of(1, 2, 3)))
    assert caught.value.limit == "deed_chain"
    assert titles.chain(BLOCK) == chain_of(1, 2)


def test_the_longest_chain_fits_a_gossip_item() -> None:
    chain = chain_of(*([1, 0] * (Limits().deed_chain // 2)))
    assert titles_of(chain).room(BLOCK) == 0


def test_a_chain_that_grows_costs_one_signature_check_per_new_deed() -> None:
    titles = titles_of(chain_of(1, 2, 3, 0))
    with patch.object(deeds, "verify", wraps=deeds.verify) as checks:
        assert titles.admit(encode_chain(chain_of(1, 2, 3, 0, 1)))
        assert checks.call_count == 1
        assert not titles.admit(encode_chain(chain_of(1, 2, 3)))
        assert checks.call_count == 1
        assert titles.admit(encode_chain(chain_of(1, 2, 1, 3, 1, 2)))
        assert checks.call_count == 1 + 4


# -- merge laws --------------------------------------------------------------------------------

PATHS = st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(
    lambda nodes: all(a != b for a, b in itertools.pairwise([0, *nodes]))
)
CHAINS = st.lists(PATHS.map(lambda nodes: chain_of(*nodes)), min_size=1, max_size=4)


@settings(max_examples=30)
@given(CHAINS, st.randoms(use_true_random=False))
def test_order_and_repetition_of_chains_do_not_matter(chains: list[Chain], random: object) -> None:
    """Commutative, associative and idempotent: forks, too, settle on one owner."""
    shuffled = chains + chains
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert state_of(titles_of(*shuffled)) == state_of(titles_of(*chains))


@settings(max_examples=30)
@given(CHAINS, CHAINS)
def test_merging_two_ledgers_gives_the_same_from_both_sides(
    left: list[Chain], right: list[Chain]
) -> None:
    one, other = titles_of(*left), titles_of(*right)
    for chain in tuple(other.chains()):
        one.admit(encode_chain(chain))
    for chain in titles_of(*left).chains():
        other.admit(encode_chain(chain))
    assert state_of(one) == state_of(other) == state_of(titles_of(*left, *right))


@settings(max_examples=30)
@given(CHAINS)
def test_the_winner_is_the_greatest_of_length_and_bytes(chains: list[Chain]) -> None:
    best = max((len(chain), encode_chain(chain)) for chain in chains)
    assert state_of(titles_of(*chains)) == {BLOCK: best[1]}


def test_a_giver_that_signs_one_deed_to_ever_new_takers_fills_no_memory() -> None:
    titles = titles_of(chain_of(1))
    for number in range(100):
        taker = NodeId(number.to_bytes(32, "big"))
        again = sign_deed(NODES[1], cluster=CLUSTER.id, block=BLOCK, sequence=2, taker=taker)
        assert titles.admit(encode_chain((*chain_of(1), again)))
        titles.check_invariants()  # nobody is remembered who owns nothing


def test_blocks_that_a_node_passed_on_still_count_as_given_to_it() -> None:
    titles = titles_of(chain_of(1), chain_of(1, 2, block=3), chain_of(2, block=0))
    assert [titles.given_to(NODES[node].public) for node in range(4)] == [0, 2, 2, 0]

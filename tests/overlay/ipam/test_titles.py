"""Tests of overlay.ipam.titles."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Limits
from overlay.errors import AuthError, CapacityError
from overlay.ipam import deeds
from overlay.ipam.deeds import Base, Chain, sign_base, sign_deed
from overlay.ipam.titles import ASKERS, CONFLICTS_EACH, MAX_CONFLICTS, Titles
from overlay.keys import SigningKey
from overlay.types import BlockIndex, NodeId

from .titled import BLOCK, CLUSTER, NODES, altered, base_of, chain_of

OTHER = SigningKey(b"other".ljust(32))


def titles_of(*chains: Chain) -> Titles:
    titles = Titles(CLUSTER, Limits())
    for chain in chains:
        titles.admit(chain.encode())
    titles.check_invariants()
    return titles


def state_of(titles: Titles) -> dict[int, bytes]:
    return {chain.block: chain.encode() for chain in titles.chains()}


# -- the ledger --------------------------------------------------------------------------------


def test_the_founder_owns_what_never_moved() -> None:
    titles = titles_of()
    assert titles.blocks_of(CLUSTER.genesis) == (0, 1, 2, 3)
    assert titles.owner(BLOCK) == CLUSTER.genesis
    assert not titles.chain(BLOCK).moved
    assert titles.blocks_of(NODES[1].public) == ()


def test_a_block_belongs_to_the_last_taker() -> None:
    titles = titles_of(chain_of(1, 2), chain_of(1, block=0), chain_of(3, 0, block=3))
    assert [titles.owner(BlockIndex(block)) for block in range(4)] == [
        NODES[node].public for node in (1, 0, 2, 0)
    ]
    assert titles.blocks_of(NODES[0].public) == (1, 3)
    assert titles.moved_to(NODES[0].public) == {3}
    assert titles.blocks_of(NODES[1].public) == (0,)
    assert titles.blocks_of(NODES[2].public) == (2,)


def test_a_chain_that_goes_on_replaces_the_one_it_continues() -> None:
    titles = titles_of(chain_of(1))
    assert titles.admit(chain_of(1, 2).encode())
    assert not titles.admit(chain_of(1).encode())
    assert not titles.admit(chain_of(1, 2).encode())
    assert titles.chain(BLOCK) == chain_of(1, 2)
    assert titles.conflicts == []


def test_titles_are_the_bytes_that_came_and_say_how_often_a_block_moved() -> None:
    titles = titles_of(chain_of(1, 2), base_of(2, owner=3, block=0))
    assert titles.holds(BLOCK, chain_of(1, 2).encode())
    assert not titles.holds(BLOCK, chain_of(1).encode())
    assert not titles.holds(BlockIndex(3), chain_of(1, block=3).encode())
    assert set(titles.moved()) == {BLOCK, 0}
    assert [titles.moves(BlockIndex(block)) for block in (BLOCK, 0, 3)] == [(0, 2), (2, 0), (0, 0)]


def test_a_higher_base_wins_over_any_number_of_deeds_and_lower_bases() -> None:
    titles = titles_of(chain_of(1, 2, 3, 1, 2, 3, 1))
    assert titles.admit(base_of(2, owner=3).encode())
    assert not titles.admit(chain_of(1, 2, 3, 1, 2, 3, 1, 0, 1).encode())
    assert not titles.admit(chain_of(0, 1, 2, 3, base=base_of(1, owner=2)).encode())
    assert titles.admit(chain_of(1, base=base_of(2, owner=3)).encode())
    assert titles.owner(BLOCK) == NODES[1].public
    assert titles.room(BLOCK) == Limits().deed_chain - 1


def test_a_former_owner_does_not_win_by_length() -> None:
    """Either its second deed is the better one at once, or nothing behind it helps."""
    for honest, second in ((2, 3), (3, 2)):
        fair, foul = chain_of(1, honest), chain_of(1, second)
        longer = chain_of(1, second, 0, 3, 0, 2, 0, 3, 0)
        decided = titles_of(fair, foul).chain(BLOCK)
        assert decided in (fair, foul)
        assert titles_of(fair, longer).chain(BLOCK) == (longer if decided == foul else fair)


def test_an_error_changes_nothing() -> None:
    titles = titles_of(chain_of(1), chain_of(2, block=0))
    before = state_of(titles)
    with pytest.raises(AuthError):
        titles.admit(altered(chain_of(1, 2, 3), 2, signature=bytes(64)).encode())
    titles.check_invariants()
    assert state_of(titles) == before


def test_a_chain_over_the_limit_is_refused_and_a_base_makes_room() -> None:
    titles = Titles(CLUSTER, replace(Limits(), deed_chain=2))
    titles.admit(chain_of(1, 2).encode())
    assert titles.room(BLOCK) == 0
    assert titles.room(BlockIndex(0)) == 2
    with pytest.raises(CapacityError) as caught:
        titles.admit(chain_of(1, 2, 3).encode())
    assert caught.value.limit == "deed_chain"
    assert titles.chain(BLOCK) == chain_of(1, 2)
    titles.admit(base_of(2, owner=2).encode())
    assert titles.room(BLOCK) == 2


def test_a_chain_that_grows_costs_one_signature_check_per_new_deed() -> None:
    titles = titles_of(chain_of(1, 2, 3, 0, base=base_of(1)))
    with patch.object(deeds, "verify", wraps=deeds.verify) as checks:
        assert titles.admit(chain_of(1, 2, 3, 0, 1, base=base_of(1)).encode())
        assert checks.call_count == 1
        assert not titles.admit(chain_of(1, 2, 3, base=base_of(1)).encode())
        assert checks.call_count == 1
        assert titles.admit(chain_of(1, 2, base=base_of(5)).encode())
        assert checks.call_count == 1 + 3


def test_blocks_that_a_node_passed_on_still_count_as_given_to_it() -> None:
    titles = titles_of(chain_of(1), chain_of(1, 2, block=3), chain_of(2, block=0))
    assert [titles.given_to(NODES[node].public) for node in range(4)] == [0, 2, 2, 0]
    owner = titles.owner(BlockIndex(0))
    assert titles.given_to(NODES[1].public, back_at=owner) < 2, "where it is now it does not count"
    titles.admit(base_of(2, block=3).encode())
    assert titles.given_to(NODES[1].public) == 1


def test_what_a_node_owns_or_gave_away_is_told_until_a_base_ends_it() -> None:
    gone = {NODES[1].public}
    titles = titles_of(
        chain_of(1), chain_of(1, 2, block=3), chain_of(2, block=0), chain_of(2, 1, 3, 2, block=1)
    )
    assert titles.passed_by(gone) == (1, 2, 3)
    assert titles.passed_by(set()) == ()
    assert [titles.is_of(BlockIndex(block), gone) for block in range(4)] == [False, *[True] * 3]
    titles.admit(base_of(2, block=3).encode())
    assert titles.passed_by(gone) == (1, 2)


# -- proofs of cheating ------------------------------------------------------------------------


def test_two_deeds_with_one_number_are_kept_as_proof_against_their_giver() -> None:
    fair, foul = sorted([chain_of(1, 2), chain_of(1, 3)], key=Chain.encode)
    titles = titles_of(fair, foul)
    (proof,) = titles.conflicts
    assert (proof.block, proof.giver) == (BLOCK, NODES[1].public)
    assert (proof.won, proof.lost) == (foul.deeds[1], fair.deeds[1])
    assert proof.won.is_signed(CLUSTER)
    assert proof.lost.is_signed(CLUSTER)


def other_base(sequence: int) -> Chain:
    return sign_base(
        OTHER, cluster=CLUSTER.id, block=BLOCK, sequence=sequence, owner=NODES[1].public
    )


def only_by(*signers: bytes) -> Callable[[Base], None]:
    def check(base: Base) -> None:
        if base.signer not in signers:
            raise AuthError("not by one of them")

    return check


def test_a_base_counts_only_if_its_signer_does() -> None:
    titles = titles_of(chain_of(1))
    with pytest.raises(AuthError, match="not by the cluster's authority"):
        titles.admit(other_base(9).encode())
    assert titles.owner(BLOCK) == NODES[1].public
    assert list(titles.bases()) == []
    believing = Titles(CLUSTER, Limits(), check_base=only_by(OTHER.public))
    assert believing.admit(other_base(9).encode())
    assert list(believing.bases()) == [other_base(9).base]
    with pytest.raises(AuthError):
        believing.admit(base_of(10).encode())


def test_a_base_in_force_stays_so_when_its_signer_does_not_count_any_more() -> None:
    trusted = [True]

    def check(_base: Base) -> None:
        if not trusted[0]:
            raise AuthError("not any more")

    titles = Titles(CLUSTER, Limits(), check_base=check)
    titles.admit(other_base(9).encode())
    trusted[0] = False
    longer = sign_deed(NODES[1], other_base(9), NODES[2].public, cluster=CLUSTER.id)
    assert titles.admit(longer.encode())
    with pytest.raises(AuthError):
        titles.admit(other_base(10).encode())


def test_a_base_is_no_proof_against_anybody() -> None:
    titles = titles_of(chain_of(1, 2), base_of(2), chain_of(3, base=base_of(2)))
    assert titles.conflicts == []


def test_a_giver_that_signs_one_deed_to_ever_new_takers_fills_no_memory() -> None:
    titles = titles_of(chain_of(1))
    for number in range(100):
        taker = NodeId(number.to_bytes(32, "big"))
        titles.admit(sign_deed(NODES[1], chain_of(1), taker, cluster=CLUSTER.id).encode())
        titles.check_invariants()  # nobody is remembered who owns nothing
    assert len(titles.conflicts) == 1


def test_one_giver_leaves_room_for_proofs_against_others() -> None:
    titles = titles_of()
    for block in range(3):
        base = replace(chain_of(), block=BlockIndex(block))
        for number in range(20):
            taker = NodeId(number.to_bytes(32, "big"))
            titles.admit(sign_deed(NODES[0], base, taker, cluster=CLUSTER.id).encode())
    assert len(titles.conflicts) == CONFLICTS_EACH
    titles = titles_of(chain_of(1))
    for number in range(20):
        taker = NodeId(number.to_bytes(32, "big"))
        titles.admit(sign_deed(NODES[1], chain_of(1), taker, cluster=CLUSTER.id).encode())
    assert {one.giver for one in titles.conflicts} == {NODES[1].public}


def test_who_asks_again_makes_nobody_walk_all_chains(monkeypatch) -> None:
    titles = titles_of(chain_of(1, 2))
    given = [titles.given_to(NODES[node].public) for node in range(4)]
    walked: list[object] = []
    chain = Titles.chain
    monkeypatch.setattr(Titles, "chain", lambda *one: walked.append(one) or chain(*one))
    assert [titles.given_to(NODES[node].public) for node in range(4)] == given
    assert not walked
    for number in range(2 * ASKERS):
        titles.given_to(NodeId(number.to_bytes(32, "big")))
    assert len(titles._given) <= ASKERS
    titles.admit(chain_of(1, 2, 3).encode())
    assert titles.given_to(NODES[3].public) == 1


def test_proofs_are_kept_up_to_a_number() -> None:
    titles = titles_of()
    base, taken = chain_of(), 0
    for number in itertools.count():
        taker = NodeId(number.to_bytes(32, "big"))
        taken += titles.admit(sign_deed(NODES[0], base, taker, cluster=CLUSTER.id).encode())
        titles.conflicts[:] = [
            proof._replace(block=BlockIndex(9 + place))
            for place, proof in enumerate(titles.conflicts)
        ]
        if len(titles.conflicts) == MAX_CONFLICTS or number > 1000:
            break
        base = replace(base, block=BlockIndex(number % 4))
    titles.check_invariants()
    assert len(titles.conflicts) <= MAX_CONFLICTS


# -- merge laws --------------------------------------------------------------------------------

PATHS = st.lists(st.integers(0, 3), max_size=4)
BASES = st.none() | st.tuples(st.integers(1, 3), st.integers(0, 3))


def chain_from(path: list[int], base: tuple[int, int] | None) -> Chain:
    start = None if base is None else base_of(base[0], owner=base[1])
    owner = 0 if base is None else base[1]
    nodes = [b for a, b in itertools.pairwise([owner, *path]) if a != b]
    # A base alone is a chain; without one there has to be a deed.
    return chain_of(*(nodes or ([] if start else [1])), base=start)


CHAINS = st.lists(st.builds(chain_from, PATHS, BASES), min_size=1, max_size=5)
"""Honest ones, forks by any former owner at any place, and bases, also two of one sequence."""


def order_of(chain: Chain) -> tuple[object, ...]:
    """The rule in words: base sequence; then the lower hash where they differ; then length."""
    records = ([chain.base] if chain.base else []) + list(chain.deeds)
    hashes = [bytes(255 - byte for byte in record.rank) for record in records]
    return chain.base_sequence, tuple(bytes(255 - byte for byte in one) for one in hashes)


@settings(max_examples=60)
@given(CHAINS, st.randoms(use_true_random=False))
def test_order_and_repetition_of_chains_do_not_matter(chains: list[Chain], random: object) -> None:
    """Commutative, associative and idempotent: forks, too, settle on one owner."""
    shuffled = chains + chains
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert state_of(titles_of(*shuffled)) == state_of(titles_of(*chains))


@settings(max_examples=40)
@given(CHAINS, CHAINS)
def test_merging_two_ledgers_gives_the_same_from_both_sides(
    left: list[Chain], right: list[Chain]
) -> None:
    one, other = titles_of(*left), titles_of(*right)
    for chain in tuple(other.chains()):
        one.admit(chain.encode())
    for chain in titles_of(*left).chains():
        other.admit(chain.encode())
    assert state_of(one) == state_of(other) == state_of(titles_of(*left, *right))


@settings(max_examples=60)
@given(CHAINS)
def test_the_winner_is_the_greatest_in_words_and_in_bytes(chains: list[Chain]) -> None:
    best = max(chains, key=order_of)
    assert best.encode() == max(chain.encode() for chain in chains)
    assert state_of(titles_of(*chains)) == {BLOCK: best.encode()}


@settings(max_examples=40)
@given(CHAINS)
def test_a_store_that_knows_only_bytes_keeps_the_same_chain(chains: list[Chain]) -> None:
    """`overlay.gossip.store` compares (version, body), and the version is the base's sequence."""
    kept = max((chain.base_sequence, chain.encode()) for chain in chains)
    assert state_of(titles_of(*chains)) == {BLOCK: kept[1]}
